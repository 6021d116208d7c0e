# SPDX-License-Identifier: Apache-2.0
"""A row's time against CUPTI's and NVBench's of the same kernels.

The folder holds ours.json, a result file; traced.json and kernels.json, the rows once more and what
CUPTI saw of them (trials/kernels.py); dirty.json, the rows with --cache=dirty, and nvbench.json,
NVBench's own file (tests/trials/nvbench_rows.cu). The latter four may be missing.
"""

from __future__ import annotations

import math
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
    "cupti": ("kernel_time and CUPTI, of the same calls", "traced_kernel", "cupti"),
    "unwatched_cupti": ("kernel_time and CUPTI, not of the same calls", "kernel", "cupti"),
    "nvbench": ("real_time with dirty caches and NVBench", "dirty", "nvbench"),
    "clean_nvbench": ("real_time and NVBench", "ours", "nvbench"),
}
DEMANDED = ("cupti", "nvbench")
_NEITHER = (math.nan, math.nan)
_NVBENCH_TIMES = ("nv/cold/time/gpu/median", "nv/cold/time/gpu/mean")


@dataclass(frozen=True)
class Times:
    """Of one row, in seconds; NaN where there is none."""

    name: str
    ours: float
    host: float
    kernel: float = math.nan  # kernel_time
    traced: float = math.nan  # ours, while CUPTI watched
    traced_kernel: float = math.nan
    kernels: int = 0
    cupti: float = math.nan
    dirty: float = math.nan  # ours with --cache=dirty
    nvbench: float = math.nan


def agrees(ours: float, other: float) -> bool:
    """Whether two times of the same call are as near as METHOD.md demands."""
    if max(ours, other) >= LONG:
        return abs(ours - other) <= MOST_SHARE * other
    return abs(ours - other) <= MOST_SECONDS


def read(folder: Path) -> list[Times]:
    """Rows by their time."""
    ours = results.read(folder / "ours.json").measured
    traced: dict[str, tuple[float, float]] = {}
    cupti: dict[str, Any] = {}
    if (folder / "kernels.json").exists():
        traced = _seconds(folder / "traced.json")
        cupti = results.read_json(folder / "kernels.json")
    dirty = _seconds(folder / "dirty.json") if (folder / "dirty.json").exists() else {}
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
                row.counter("kernel_time") or math.nan,
                *traced.get(name, _NEITHER),
                int(seen.get("kernels", 0)),
                float(seen.get("seconds", math.nan)),
                dirty.get(name, _NEITHER)[0],
                theirs.get(name, math.nan),
            )
        )
    return sorted(rows, key=lambda row: row.ours)


def _seconds(path: Path) -> dict[str, tuple[float, float]]:
    """real_time and kernel_time by row."""
    return {
        str(row.name): (row.seconds or math.nan, row.counter("kernel_time") or math.nan)
        for row in results.read(path).measured
    }


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
        all(all(counts[kind]) for kind in DEMANDED),
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
        "Times in microseconds. `real` is real_time, between events around the launch; `kernel` is "
        "kernel_time, that less what a sample holds besides its kernels. CUPTI: from the start of "
        "a call's first kernel to the end of its last one, the median over the samples that "
        "`kernel, watched` is of and those that warm up before: a run of the same rows while CUPTI "
        "watched. It has the GPU note times between a call's kernels: where there are several, "
        "they start later than when nobody watches. `dirty` "
        "is real_time with --cache=dirty, as NVBench has it: its cold measurement, of the same "
        "launch in a process of its own, empties the L2 by writing to it. `host` is host_time, "
        "what the host takes to enqueue a call. Products are by the first kernel that cuBLASLt "
        "ranks (SEQMARK_CUBLASLT=heuristic), the same in all processes. A difference is ours less "
        f"the other's: in us below {LONG * 1e6:.0f} us, else a share of it."
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
    yield Table(
        (
            *("row", "real", "kernel", "kernel, watched", "CUPTI", "watched less CUPTI"),
            *("kernel less CUPTI", "kernels", "dirty", "NVBench", "dirty less NVBench"),
            *("real less NVBench", "host"),
        ),
        1,
        [
            (
                outcome.short(row.name),
                *(_number(x) for x in (row.ours, row.kernel, row.traced_kernel, row.cupti)),
                _difference(row.traced_kernel, row.cupti),
                _difference(row.kernel, row.cupti),
                str(row.kernels or "–"),
                *(_number(x) for x in (row.dirty, row.nvbench)),
                _difference(row.dirty, row.nvbench),
                _difference(row.ours, row.nvbench),
                _number(row.host),
            )
            for row in rows
        ],
    )
