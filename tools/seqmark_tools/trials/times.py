# SPDX-License-Identifier: Apache-2.0
"""A row's time against CUPTI's and NVBench's of the same kernels.

The folder holds ours.json, a result file; traced.json and kernels.json, the rows once more and what
CUPTI saw of them (trials/kernels.py); dirty.json, the rows with --cache=dirty, and nvbench.json,
NVBench's own file (tests/trials/nvbench_rows.cu). The latter four may be missing.

NVBench times a kernel of known length too, once before each row, and how long that ran by itself
is in its file. What its samples hold besides kernels is learnt from it as the suite learns what its
own do (fixtures/timer_overhead_cuda.h), with the same kernel's edges, which are in the ceilings:

    held = its time - by itself - edges;  NVBench's kernel time = NVBench's time - held
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqmark_tools import results
from seqmark_tools.report.data import ceilings
from seqmark_tools.results import ResultError, Row
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
    "nvbench_kernel": (
        "kernel_time with dirty caches and NVBench's, each less what its samples hold",
        "dirty_kernel",
        "nvbench_kernel",
    ),
    "nvbench": ("real_time with dirty caches and NVBench", "dirty", "nvbench"),
    "clean_nvbench": ("real_time and NVBench", "ours", "nvbench"),
}
DEMANDED = ("cupti", "nvbench_kernel")
_NVBENCH_TIMES = ("nv/cold/time/gpu/median", "nv/cold/time/gpu/mean")
_NVBENCH_CLOCK = "nv/cold/sm_clock_rate/mean"
_BY_ITSELF = "seqmark/by_itself"  # of a kernel of known length


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
    dirty_kernel: float = math.nan
    dirty_clock: float = math.nan  # in Hz
    nvbench: float = math.nan
    nvbench_kernel: float = math.nan  # less what its samples hold
    nvbench_clock: float = math.nan


@dataclass(frozen=True)
class NVBench:
    """Its file, by row; in seconds and Hz."""

    times: dict[str, float] = field(default_factory=dict)
    clocks: dict[str, float] = field(default_factory=dict)
    # Of the kernels of known length, in their order: the time less how long one ran by itself.
    beyond: list[float] = field(default_factory=list)


def agrees(ours: float, other: float) -> bool:
    """Whether two times of the same call are as near as METHOD.md demands."""
    if max(ours, other) >= LONG:
        return abs(ours - other) <= MOST_SHARE * other
    return abs(ours - other) <= MOST_SECONDS


@dataclass(frozen=True)
class Folder:
    """Rows by their time, and what NVBench's samples hold besides kernels."""

    rows: list[Times]
    held: list[float] = field(default_factory=list)  # seconds; one for each kernel of known length


def read(folder: Path) -> Folder:
    ours = results.read(folder / "ours.json").measured
    traced: dict[str, Row] = {}
    cupti: dict[str, Any] = {}
    if (folder / "kernels.json").exists():
        traced = _by_name(folder / "traced.json")
        cupti = results.read_json(folder / "kernels.json")
    dirty = _by_name(folder / "dirty.json") if (folder / "dirty.json").exists() else {}
    theirs = nvbench(folder / "nvbench.json") if (folder / "nvbench.json").exists() else NVBench()
    edges = _edges(folder / "dirty.json") if dirty else math.nan
    held = [beyond - edges for beyond in theirs.beyond if math.isfinite(edges)]
    rows = []
    for row in ours:
        name = str(row.name)
        seen = cupti.get(name, {})
        time = theirs.times.get(name, math.nan)
        rows.append(
            Times(
                name=name,
                ours=_real(row),
                host=_counter(row, "host_time"),
                kernel=_counter(row, "kernel_time"),
                traced=_real(traced.get(name)),
                traced_kernel=_counter(traced.get(name), "kernel_time"),
                kernels=int(seen.get("kernels", 0)),
                cupti=float(seen.get("seconds", math.nan)),
                dirty=_real(dirty.get(name)),
                dirty_kernel=_counter(dirty.get(name), "kernel_time"),
                dirty_clock=_counter(dirty.get(name), "clock"),
                nvbench=time,
                nvbench_kernel=time - statistics.median(held) if held else math.nan,
                nvbench_clock=theirs.clocks.get(name, math.nan),
            )
        )
    return Folder(sorted(rows, key=lambda row: row.ours), held)


def _by_name(path: Path) -> dict[str, Row]:
    return {str(row.name): row for row in results.read(path).measured}


def _real(row: Row | None) -> float:
    return (row.seconds if row else None) or math.nan


def _counter(row: Row | None, name: str) -> float:
    return (row.counter(name) if row else None) or math.nan


def _edges(path: Path) -> float:
    """What CUPTI's time of the kernel of known length has beyond its own; NaN if not known."""
    seconds = ceilings(results.read(path).context, "cuda").get("kernel_edges_seconds")
    return float(seconds) if isinstance(seconds, int | float) and seconds > 0 else math.nan


def nvbench(path: Path) -> NVBench:
    """Times are medians where this NVBench has them, else means."""
    document = results.read_json(path)
    found = NVBench()
    try:
        for benchmark in document["benchmarks"]:
            for state in benchmark["states"]:
                axes = {axis["name"]: axis["value"] for axis in state["axis_values"]}
                values = {
                    summary["tag"]: float(entry["value"])
                    for summary in state.get("summaries") or []
                    if summary["tag"] in (*_NVBENCH_TIMES, _NVBENCH_CLOCK, _BY_ITSELF)
                    for entry in summary["data"]
                    if entry["name"] == "value"
                }
                time = next((values[tag] for tag in _NVBENCH_TIMES if tag in values), None)
                if time is None:
                    continue
                if _BY_ITSELF in values:
                    found.beyond.append(time - values[_BY_ITSELF])
                    continue
                found.times[axes["row"]] = time
                if _NVBENCH_CLOCK in values:
                    found.clocks[axes["row"]] = values[_NVBENCH_CLOCK]
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{path}: is not NVBench's file: {error!r}") from error
    return found


def make(folder: Path) -> Outcome:
    raw = read(folder)
    rows = raw.rows
    known = outcome.facts([results.read(folder / "ours.json")])
    counts = {}
    for kind, (_, of, against) in _PAIRS.items():
        pairs = [(getattr(row, of), getattr(row, against)) for row in rows]
        counts[kind] = [agrees(x, y) for x, y in pairs if math.isfinite(x + y)]
    return Outcome(
        "times",
        "A row's time, and what others say of the same kernels",
        list(_blocks(raw, counts, known)),
        {
            "context": known,
            "agree": {kind: [sum(found), len(found)] for kind, found in counts.items()},
            "nvbench_holds": raw.held,
            "rows": [
                {
                    key: value
                    for key, value in vars(row).items()
                    if not (isinstance(value, float) and math.isnan(value))
                }
                for row in rows
            ],
        },
        # NVBench's times without what its samples hold prove nothing.
        all(all(counts[kind]) for kind in DEMANDED)
        and not (counts["nvbench"] and not counts["nvbench_kernel"]),
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


def _clock(hertz: float) -> str:
    return f"{hertz * 1e-9:.2f}" if math.isfinite(hertz) else "–"


def _held(raw: Folder) -> str:
    """What NVBench's samples hold, or why it is not known."""
    if not any(math.isfinite(row.nvbench) for row in raw.rows):
        return "There are no times by NVBench here."
    if not raw.held:
        return (
            "What NVBench's samples hold is not known: nvbench.json has no kernel of known length "
            "(it was made before there was one), or dirty.json no edges of it (CUPTI was not there "
            "when the ceilings were measured: --recalibrate). What is wanted is not shown then."
        )
    ours = [row.dirty - row.dirty_kernel for row in raw.rows]
    ours = [seconds for seconds in ours if math.isfinite(seconds)]
    return (
        f"NVBench's samples hold {_range(raw.held)} us besides a kernel, by {len(raw.held)} times "
        "of the kernel of known length, one before each row"
        + (f"; ours behind dirty caches {_range(ours)} us, by row." if ours else ".")
    )


def _range(seconds: Sequence[float]) -> str:
    return f"{micro(statistics.median(seconds))} ({micro(min(seconds))} to {micro(max(seconds))})"


def _blocks(raw: Folder, counts: dict[str, list[bool]], known: dict[str, str]) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Text(
        "Times in microseconds. `real` is real_time, between events around the launch; `kernel` is "
        "kernel_time, that less what a sample holds besides its kernels. CUPTI: from the start of "
        "a call's first kernel to the end of its last one, the median over the samples that "
        "`kernel, watched` is of and those that warm up before: a run of the same rows while CUPTI "
        "watched. It has the GPU note times between a call's kernels: where there are several, "
        "they start later than when nobody watches. `dirty` and `dirty kernel` "
        "are real_time and kernel_time with --cache=dirty, as NVBench has caches: its cold "
        "measurement, of the same launch in a process of its own, empties the L2 by writing to it. "
        "`NVBench kernel` is its time less what its samples hold besides kernels, the median by "
        "the same kernel of known length as ours. Clocks are in GHz, over samples alone: ours with "
        "--cache=dirty, and NVBench's. `host` is host_time, "
        "what the host takes to enqueue a call. Products are by the first kernel that cuBLASLt "
        "ranks (SEQMARK_CUBLASLT=heuristic), the same in all processes. A difference is ours less "
        f"the other's: in us below {LONG * 1e6:.0f} us, else a share of it."
    )
    yield Text(_held(raw))
    yield Table(
        ("", "wanted", "rows", "agree"),
        2,
        [
            (
                _PAIRS[kind][0],
                f"within {MOST_SHARE:.0%} from {LONG * 1e6:.0f} us on, "
                f"{MOST_SECONDS * 1e6:g} us below" + ("" if kind in DEMANDED else ", not demanded"),
                str(len(found)),
                str(sum(found)),
            )
            for kind, found in counts.items()
        ],
    )
    yield Table(
        (
            *("row", "real", "kernel", "kernel, watched", "CUPTI", "watched less CUPTI"),
            *("kernel less CUPTI", "kernels", "dirty kernel", "NVBench kernel"),
            *("dirty kernel less NVBench kernel", "clock, dirty", "clock, NVBench"),
            *("dirty", "NVBench", "dirty less NVBench", "real less NVBench", "host"),
        ),
        1,
        [
            (
                outcome.short(row.name),
                *(_number(x) for x in (row.ours, row.kernel, row.traced_kernel, row.cupti)),
                _difference(row.traced_kernel, row.cupti),
                _difference(row.kernel, row.cupti),
                str(row.kernels or "–"),
                *(_number(x) for x in (row.dirty_kernel, row.nvbench_kernel)),
                _difference(row.dirty_kernel, row.nvbench_kernel),
                *(_clock(x) for x in (row.dirty_clock, row.nvbench_clock)),
                *(_number(x) for x in (row.dirty, row.nvbench)),
                _difference(row.dirty, row.nvbench),
                _difference(row.ours, row.nvbench),
                _number(row.host),
            )
            for row in raw.rows
        ],
    )
