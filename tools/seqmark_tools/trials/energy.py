# SPDX-License-Identifier: Apache-2.0
"""A row's energy from process to process, and against power that is sampled.

The folder holds process-*.json, result files of the same rows, warm-up-*.json, of the processes
before them, and power.json, of tests/trials/power_rows.cc.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqmark_tools import results
from seqmark_tools.results import ResultError, ResultFile
from seqmark_tools.tables import Block, Table, Text
from seqmark_tools.trials import outcome
from seqmark_tools.trials.outcome import Outcome, micro, percent, signed

MOST = 0.03
_WINDOW = (
    "cuda_energy",
    "cuda_energy_window_seconds",
    "cuda_energy_window_error",
    "cuda_energy_lead_in_seconds",
    "cuda_energy_update_seconds",
    "cuda_idle_power_watts",
)


@dataclass(frozen=True)
class Energy:
    """Of one row."""

    name: str
    seconds: float  # back to back, where a row has that, else as the row is timed
    joules: list[float]  # a call, by process
    watts: list[float]
    claimed: list[float]  # energy_noise, by process
    missing: int  # processes whose row has no energy: it was refused, or could not be had
    sampled: dict[str, Any]

    @property
    def stretch(self) -> float:
        """How long a call took in the window, over its time: more than 1 where the load paused."""
        if not self.watts:
            return math.nan
        calls = [j / w / self.seconds for j, w in zip(self.joules, self.watts, strict=False)]
        return statistics.median(calls)

    @property
    def sampled_stretch(self) -> float:
        """The same of the window beside sampled power."""
        if not self.sampled.get("power"):
            return math.nan
        return float(self.sampled["energy"] / self.sampled["power"] / self.seconds)

    @property
    def farthest(self) -> float:
        """The farthest process from their median, relative."""
        middle = statistics.median(self.joules)
        return max(abs(value - middle) for value in self.joules) / middle

    @property
    def spread(self) -> float:
        """Standard deviation from process to process, relative."""
        return statistics.stdev(self.joules) / statistics.mean(self.joules)

    @property
    def against_sampled(self) -> float:
        """The counter's power over the sampled one's, in the same window; less one."""
        power, sampled = self.sampled.get("power"), self.sampled.get("sampled_power")
        return float(power) / float(sampled) - 1 if power and sampled else math.nan


def read(folder: Path) -> tuple[list[Energy], list[ResultFile], dict[str, Any]]:
    files = results.read_all(sorted(folder.glob("process-*.json")))
    if len(files) < 2:
        raise ResultError(f"{folder}: needs two files process-*.json at least, has {len(files)}")
    power = results.read_json(folder / "power.json") if (folder / "power.json").exists() else {}
    sampled = {entry["row"]: entry for entry in power.get("rows", [])}
    rows = []
    for first in files[0].measured:
        same = [row for file in files for row in file.measured if row.name == first.name]
        joules = [value for row in same if (value := row.counter("energy")) is not None]
        if len(joules) < 2:
            continue
        watts = [value for row in same if (value := row.counter("power")) is not None]
        claimed = [value for row in same if (value := row.counter("energy_noise")) is not None]
        times = [row.counter("graph_time") or row.seconds for row in same]
        seconds = statistics.median(time for time in times if time is not None)
        name = str(first.name)
        missing = len(same) - len(joules)
        rows.append(Energy(name, seconds, joules, watts, claimed, missing, sampled.get(name, {})))
    if not rows:
        raise ResultError(f"{folder}: no row has `energy` in two processes")
    return rows, files, power.get("context", {})


def make(folder: Path) -> Outcome:
    rows, files, context = read(folder)
    repeats = [row.farthest <= MOST for row in rows]
    compared = [row for row in rows if math.isfinite(row.against_sampled)]
    agree = [abs(row.against_sampled) <= MOST for row in compared]
    known = outcome.facts(files)
    warm_ups = len(list(folder.glob("warm-up-*.json")))
    return Outcome(
        "energy",
        "Energy: from process to process, and against sampled power",
        list(_blocks(rows, files, context, known, warm_ups)),
        {
            "context": known,
            "processes": len(files),
            "warm_up_processes": warm_ups,
            "window": [{key: file.context.get(key) for key in _WINDOW} for file in files],
            "sampling": context,
            "repeats": [sum(repeats), len(repeats)],
            "agree": [sum(agree), len(agree)],
            "rows": [
                {
                    "name": row.name,
                    "seconds": row.seconds,
                    "joules": row.joules,
                    "watts": row.watts,
                    "farthest": row.farthest,
                    "between_processes": row.spread,
                    "missing": row.missing,
                    **({"claimed": statistics.median(row.claimed)} if row.claimed else {}),
                    **({"stretch": row.stretch} if math.isfinite(row.stretch) else {}),
                    "sampled": row.sampled,
                }
                for row in rows
            ],
        },
        all(repeats) and all(agree),
    )


def _blocks(
    rows: Sequence[Energy],
    files: Sequence[ResultFile],
    context: dict[str, Any],
    known: dict[str, str],
    warm_ups: int,
) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Table(
        ("of each process", "values"),
        2,
        [
            (key, ", ".join(str(file.context.get(key, "–")) for file in files))
            for key in _WINDOW[1:]
        ],
    )
    repeats = sum(row.farthest <= MOST for row in rows)
    missing = sum(row.missing for row in rows)
    energies = missing + sum(len(row.joules) for row in rows)
    yield Text(
        f"{len(files)} processes, each with a window of its own for each row. "
        f"Run before them, to warm the device, and discarded: {warm_ups}. The farthest process "
        f"of a row is within {percent(MOST, 0)} of the row's median in {repeats} of {len(rows)} "
        f"rows; {missing} of {energies} energies were refused or could not be had. Claimed: the "
        "95 % interval's half-width that the rows themselves state (`energy_noise`), their median. "
        "Joules are of a call; idle power is in them. Stretch: how long a call took in the window "
        "(joules over watts), over its own time (`graph_time` where the row has it); where it is "
        "far above 1, the load was not back to back all the time."
    )
    if context:
        idle = context.get("sampled_idle_power_watts", math.nan)
        update = context.get("energy_update_seconds", math.nan)
        counted = context.get("idle_power_watts", math.nan)
        yield Text(
            "Sampled: NVML's power of the moment, read every 4 ms by a thread while the counter "
            "was watched, and averaged over the window's updates, in a process of its own; "
            f"the counter is updated every {update:.3f} s. Idle, before the first row: "
            f"{counted:.1f} W counted, {idle:.1f} W sampled."
        )
    yield Table(
        (
            *("row", "time, us", "mJ a call", "W", "stretch", "claimed"),
            *("between processes", "farthest"),
            *("window, s", "W counted", "stretch", "W sampled", "difference"),
        ),
        1,
        [_line(row) for row in sorted(rows, key=lambda row: row.name)],
    )


def _line(row: Energy) -> tuple[str, ...]:
    def number(key: str, digits: int) -> str:
        value = row.sampled.get(key)
        return f"{value:.{digits}f}" if value is not None else "–"

    return (
        outcome.short(row.name),
        micro(row.seconds),
        f"{statistics.median(row.joules) * 1e3:.3f}",
        f"{statistics.median(row.watts):.0f}",
        f"{row.stretch:.2f}",
        percent(statistics.median(row.claimed), 2) if row.claimed else "–",
        percent(row.spread, 2),
        percent(row.farthest, 2),
        number("window_seconds", 2),
        number("power", 1),
        f"{row.sampled_stretch:.2f}" if math.isfinite(row.sampled_stretch) else "–",
        number("sampled_power", 1),
        signed(row.against_sampled, 2),
    )
