# SPDX-License-Identifier: Apache-2.0
"""Runs two binaries by turns, process by process, until their difference is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqmark_tools.comparing import processes
from seqmark_tools.comparing.lines import Comparison, Rules, compare
from seqmark_tools.comparing.metrics import Metric
from seqmark_tools.comparing.sides import Side, of_files

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Two binaries, the flags that both get, and where their files go."""

    base: Path
    new: Path
    flags: tuple[str, ...]
    folder: Path
    most_rounds: int = 20


def run(plan: Plan, metrics: Sequence[Metric], rules: Rules, say: Say) -> list[Comparison]:
    """Rounds of a process of each, in turn first (ABBA), until every row is decided."""
    files: tuple[list[Path], list[Path]] = ([], [])
    comparisons: list[Comparison] = []
    for number in range(1, plan.most_rounds + 1):
        for side in (0, 1) if number % 2 else (1, 0):
            files[side].append(_run(plan, side, number))
        if number == 1:
            say(f"round {number} done")
            continue
        sides = (_side(plan.base, files[0]), _side(plan.new, files[1]))
        comparisons = compare([sides], metrics, rules, design="rounds")
        lines = [line for comparison in comparisons for line in comparison.lines]
        decided = sum(line.verdict != "undecided" for line in lines)
        say(f"round {number} done: {decided} of {len(lines)} decided")
        if decided == len(lines):
            break
    return comparisons


def _side(binary: Path, files: Sequence[Path]) -> Side:
    return of_files(files, label=f"{binary} ({len(files)} processes)")


def _run(plan: Plan, side: int, number: int) -> Path:
    binary = (plan.base, plan.new)[side]
    out = plan.folder / f"{'base' if side == 0 else 'new'}-{number}.json"
    return processes.run(binary, plan.flags, out)
