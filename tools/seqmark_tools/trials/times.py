# SPDX-License-Identifier: Apache-2.0
"""A row's time against CUPTI's and NVBench's of the same kernels.

The folder holds ours.json, a result file; traced.json and kernels.json, the rows once more and what
CUPTI saw of them (trials/kernels.py); and of each round nvbench-001.json, NVBench's own file
(tests/trials/nvbench_rows.cu), and dirty-001.json, the rows with --cache=dirty. All but the first
may be missing. Older folders have one round, nvbench.json and dirty.json.

What is of rounds is their median: a row's time changes with where its process's memory comes to
lie, so that one process of each would compare two draws.

NVBench times a kernel of known length too, once before each row, and how long that ran by itself
is in its file. What its samples hold besides kernels is learnt from it as the suite learns what its
own do (fixtures/timer_overhead_cuda.h), round by round, with the same kernel's edges, which are in
the ceilings of the round's dirty-001.json:

    held = its time - by itself - edges;  NVBench's kernel time = NVBench's time - held
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
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
DEMANDED = ("cupti", "nvbench_kernel", "nvbench")
_NVBENCH_TIMES = ("nv/cold/time/gpu/median", "nv/cold/time/gpu/mean")
_NVBENCH_CLOCK = "nv/cold/sm_clock_rate/mean"
_BY_ITSELF = "seqmark/by_itself"  # of a kernel of known length
_OF_ROUND = re.compile(r"(nvbench|dirty)(?:-(\d+))?\.json")


@dataclass(frozen=True, kw_only=True)
class ByTurns:
    """Of one row, what NVBench and --cache=dirty say, in seconds and Hz; NaN where there is none.

    Of one round, or medians over several.
    """

    dirty: float = math.nan  # ours with --cache=dirty
    dirty_kernel: float = math.nan
    dirty_clock: float = math.nan
    nvbench: float = math.nan
    nvbench_kernel: float = math.nan  # less what its samples hold
    nvbench_clock: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Times(ByTurns):
    """Of one row, in seconds; NaN where there is none."""

    name: str
    ours: float
    host: float
    kernel: float = math.nan  # kernel_time
    traced: float = math.nan  # ours, while CUPTI watched
    traced_kernel: float = math.nan
    kernels: int = 0
    cupti: float = math.nan
    rounds: list[ByTurns] = field(default_factory=list)


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
class Round:
    """A process of NVBench's and one of ours with --cache=dirty."""

    dirty: dict[str, Row]
    nvbench: NVBench
    # What NVBench's samples hold besides kernels, by each kernel of known length; empty if that is
    # not known.
    held: list[float]

    def of(self, name: str) -> ByTurns:
        row, time = self.dirty.get(name), self.nvbench.times.get(name, math.nan)
        return ByTurns(
            dirty=_real(row),
            dirty_kernel=_counter(row, "kernel_time"),
            dirty_clock=_counter(row, "clock"),
            nvbench=time,
            nvbench_kernel=time - _median(self.held),
            nvbench_clock=self.nvbench.clocks.get(name, math.nan),
        )


@dataclass(frozen=True)
class Folder:
    """Rows by their time, and the rounds."""

    rows: list[Times]
    rounds: list[Round]
    alone: list[str]  # files of rounds that lack the other one, left out


def read(folder: Path) -> Folder:
    ours = results.read(folder / "ours.json").measured
    traced: dict[str, Row] = {}
    cupti: dict[str, Any] = {}
    if (folder / "kernels.json").exists():
        traced = _by_name(folder / "traced.json")
        cupti = results.read_json(folder / "kernels.json")
    rounds, alone = _rounds(folder)
    rows = []
    for row in ours:
        name = str(row.name)
        seen = cupti.get(name, {})
        by_turns = [one.of(name) for one in rounds]
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
                rounds=by_turns,
                **{
                    known.name: _median(getattr(one, known.name) for one in by_turns)
                    for known in fields(ByTurns)
                },
            )
        )
    return Folder(sorted(rows, key=lambda row: row.ours), rounds, alone)


def _rounds(folder: Path) -> tuple[list[Round], list[str]]:
    """The rounds, and the files of those that were not finished or lost one."""
    found: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _OF_ROUND.fullmatch(path.name):
            found.setdefault(int(match[2] or 0), {})[match[1]] = path
    whole = [found[number] for number in sorted(found) if len(found[number]) == 2]
    alone = [path.name for pair in found.values() if len(pair) == 1 for path in pair.values()]
    return [_round(pair["nvbench"], pair["dirty"]) for pair in whole], sorted(alone)


def _round(theirs: Path, ours: Path) -> Round:
    known, edges = nvbench(theirs), _edges(ours)
    held = [beyond - edges for beyond in known.beyond if math.isfinite(edges)]
    return Round(_by_name(ours), known, held)


def _median(values: Iterable[float]) -> float:
    """Of those that are there."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan


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
            "rounds": len(raw.rounds),
            "left_out": raw.alone,
            "nvbench_holds": [one.held for one in raw.rounds],
            "rows": [
                _known(vars(row) | {"rounds": [_known(vars(one)) for one in row.rounds]})
                for row in rows
            ],
        },
        # NVBench's times without what its samples hold prove nothing, nor does half a round.
        all(all(counts[kind]) for kind in DEMANDED)
        and not (counts["nvbench"] and not counts["nvbench_kernel"])
        and not (raw.alone and not raw.rounds),
    )


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if not (isinstance(v, float) and math.isnan(v))}


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


def _by_turns(raw: Folder) -> str:
    """How many rounds there are and what for, and what is left out."""
    said = []
    if raw.rounds:
        count = len(raw.rounds)
        said.append(
            "What NVBench and --cache=dirty say is "
            + ("of 1 round" if count == 1 else f"the median over {count} rounds")
            + ", in each a process of NVBench's and then one of ours: a row's time changes with "
            "where its process's memory comes to lie, so that one process of each compares two "
            "draws."
        )
    else:
        said.append("There are no times by NVBench here.")
    if raw.alone:
        said.append(
            f"Left out, as the other file of that round is missing: {', '.join(raw.alone)}."
        )
    lacking = sum(
        any(math.isfinite(x) for x in (row.dirty, row.nvbench))
        and any(math.isnan(one.dirty + one.nvbench) for one in row.rounds)
        for row in raw.rows
    )
    if lacking and len(raw.rounds) > 1:
        said.append(f"Rows without a time in some round, whose median is over the rest: {lacking}.")
    return " ".join(said)


def _held(raw: Folder) -> str:
    """What NVBench's samples hold, or why it is not known."""
    known = [one.held for one in raw.rounds if one.held]
    if not known:
        return (
            "What NVBench's samples hold is not known: its file has no kernel of known length (it "
            "was made before there was one), or ours with --cache=dirty no edges of it (CUPTI was "
            "not there when the ceilings were measured: --recalibrate). What is wanted is not "
            "shown then."
        )
    held = [seconds for one in known for seconds in one]
    ours = [one.dirty - one.dirty_kernel for row in raw.rows for one in row.rounds]
    ours = [seconds for seconds in ours if math.isfinite(seconds)]
    return (
        f"NVBench's samples hold {_range(held)} us besides a kernel, by {len(held)} times of the "
        "kernel of known length, one before each row"
        + (f", in {len(known)} of {len(raw.rounds)} rounds" if len(known) < len(raw.rounds) else "")
        + (f"; ours behind dirty caches {_range(ours)} us, by row and round." if ours else ".")
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
        "`NVBench kernel` is its time less what its samples of the same round hold besides "
        "kernels, the median by the same kernel of known length as ours. Clocks are in GHz, over "
        "samples alone: ours with --cache=dirty, and NVBench's. `host` is host_time, "
        "what the host takes to enqueue a call. Products are by the first kernel that cuBLASLt "
        "ranks (SEQMARK_CUBLASLT=heuristic), the same in all processes. A difference is ours less "
        f"the other's: in us below {LONG * 1e6:.0f} us, else a share of it."
    )
    yield Text(_by_turns(raw))
    if raw.rounds:
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
