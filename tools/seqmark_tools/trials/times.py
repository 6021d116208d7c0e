# SPDX-License-Identifier: Apache-2.0
"""A row's time against CUPTI's and NVBench's of the same kernels.

The folder holds ours.json, a result file; traced.json and kernels.json, the rows once more and what
CUPTI saw of them (trials/kernels.py); nvbench.json, NVBench's own file (tests/trials/
nvbench_rows.cu). The latter three may be missing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqmark_tools import results
from seqmark_tools.results import ResultError
from seqmark_tools.tables import Block, Table, Text
from seqmark_tools.trials import outcome
from seqmark_tools.trials.outcome import Outcome, micro, signed

LONG = 20e-6  # from here on shares count, below it seconds
MOST_SHARE = 0.02
MOST_SECONDS = 0.5e-6
# What is set against what: in words, and the fields of both.
_PAIRS = {
    "cupti": ("ours and CUPTI", "ours", "cupti"),
    "traced_cupti": ("traced and CUPTI", "traced", "cupti"),
    "nvbench": ("ours and NVBench", "ours", "nvbench"),
}
_NVBENCH_TIMES = ("nv/cold/time/gpu/median", "nv/cold/time/gpu/mean")


@dataclass(frozen=True)
class Times:
    """Of one row, in seconds; NaN where there is none."""

    name: str
    ours: float
    host: float
    traced: float = math.nan  # ours, while CUPTI watched
    kernels: int = 0
    cupti: float = math.nan
    nvbench: float = math.nan


def agrees(ours: float, other: float) -> bool:
    """Whether two times of the same call are as near as METHOD.md demands."""
    if max(ours, other) >= LONG:
        return abs(ours - other) <= MOST_SHARE * other
    return abs(ours - other) <= MOST_SECONDS


def read(folder: Path) -> list[Times]:
    """Rows by their time."""
    ours = results.read(folder / "ours.json").measured
    traced: dict[str, float] = {}
    cupti: dict[str, Any] = {}
    if (folder / "kernels.json").exists():
        file = results.read(folder / "traced.json")
        traced = {str(row.name): row.seconds or math.nan for row in file.measured}
        cupti = results.read_json(folder / "kernels.json")
    theirs = nvbench(folder / "nvbench.json") if (folder / "nvbench.json").exists() else {}
    rows = []
    for row in ours:
        name = str(row.name)
        seen = cupti.get(name, {})
        rows.append(
            Times(
                name,
                row.seconds or math.nan,
                row.counter("host_time") or math.nan,
                traced.get(name, math.nan),
                int(seen.get("kernels", 0)),
                float(seen.get("seconds", math.nan)),
                theirs.get(name, math.nan),
            )
        )
    return sorted(rows, key=lambda row: row.ours)


def nvbench(path: Path) -> dict[str, float]:
    """Seconds by row: the median where this NVBench has one, else the mean."""
    document = results.read_json(path)
    times = {}
    try:
        for benchmark in document["benchmarks"]:
            for state in benchmark["states"]:
                values = {summary["tag"]: summary for summary in state.get("summaries") or []}
                axes = {axis["name"]: axis["value"] for axis in state["axis_values"]}
                for tag in _NVBENCH_TIMES:
                    if tag in values:
                        data = {entry["name"]: entry["value"] for entry in values[tag]["data"]}
                        times[axes["row"]] = float(data["value"])
                        break
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{path}: is not NVBench's file: {error!r}") from error
    return times


def make(folder: Path) -> Outcome:
    rows = read(folder)
    known = outcome.facts([results.read(folder / "ours.json")])
    counts = {}
    for kind, (_, of, against) in _PAIRS.items():
        pairs = [(getattr(row, of), getattr(row, against)) for row in rows]
        counts[kind] = [agrees(x, y) for x, y in pairs if math.isfinite(x + y)]
    return Outcome(
        "times",
        "A row's time, and what others say of the same kernels",
        list(_blocks(rows, counts, known)),
        {
            "context": known,
            "agree": {kind: [sum(found), len(found)] for kind, found in counts.items()},
            "rows": [
                {
                    key: value
                    for key, value in vars(row).items()
                    if not (isinstance(value, float) and math.isnan(value))
                }
                for row in rows
            ],
        },
        all(counts["cupti"]) and all(counts["nvbench"]),
    )


def _difference(ours: float, other: float) -> str:
    """In microseconds, or as a share of longer times."""
    if not math.isfinite(ours + other):
        return "–"
    if max(ours, other) >= LONG:
        return signed((ours - other) / other)
    return f"{(ours - other) * 1e6:+.2f} us"


def _number(seconds: float) -> str:
    return micro(seconds) if math.isfinite(seconds) else "–"


def _blocks(
    rows: Sequence[Times], counts: dict[str, list[bool]], known: dict[str, str]
) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Text(
        "Times in microseconds. `ours` is real_time, between events around the launch. CUPTI: from "
        "the start of a call's first kernel to the end of its last one, the median over the "
        "samples that `traced` is of and those that warm up before: a run of the same rows while "
        "CUPTI watched. NVBench: its cold measurement of the same launch in a process of its own; "
        "it empties the L2 by writing to it, and waits between samples. `host` is host_time, what "
        "the host takes to enqueue a call. A difference is ours less the other's: in us below "
        f"{LONG * 1e6:.0f} us, else a share of it."
    )
    yield Table(
        ("", "wanted", "rows", "agree"),
        2,
        [
            (
                _PAIRS[kind][0],
                f"within {MOST_SHARE:.0%} from {LONG * 1e6:.0f} us on, "
                f"{MOST_SECONDS * 1e6:g} us below",
                str(len(found)),
                str(sum(found)),
            )
            for kind, found in counts.items()
        ],
    )
    yield from _offset(rows)
    yield Table(
        (
            *("row", "ours", "traced", "CUPTI", "ours less CUPTI", "traced less CUPTI", "kernels"),
            *("NVBench", "ours less NVBench", "host"),
        ),
        1,
        [
            (
                outcome.short(row.name),
                _number(row.ours),
                _number(row.traced),
                _number(row.cupti),
                _difference(row.ours, row.cupti),
                _difference(row.traced, row.cupti),
                str(row.kernels or "–"),
                _number(row.nvbench),
                _difference(row.ours, row.nvbench),
                _number(row.host),
            )
            for row in rows
        ],
    )


def _offset(rows: Sequence[Times]) -> Iterator[Block]:
    """How much events hold beyond the kernel, and how far from the same that is."""
    beyond = sorted(row.ours - row.cupti for row in rows if row.kernels == 1 and row.ours < LONG)
    if len(beyond) < 4:
        return
    median = statistics.median(beyond)
    within = sum(abs(value - median) <= MOST_SECONDS for value in beyond)
    nearer = [agrees(row.ours - median, row.cupti) for row in rows if row.kernels]
    yield Text(
        f"Of calls of one kernel below {LONG * 1e6:.0f} us, events hold {micro(median)} us more "
        f"than the kernel itself (median of {len(beyond)} rows; {micro(beyond[0])} to "
        f"{micro(beyond[-1])} us; {within} within {MOST_SECONDS * 1e6:g} us of the median). Were "
        f"it taken off, {sum(nearer)} of {len(nearer)} rows of ours would agree with CUPTI."
    )
