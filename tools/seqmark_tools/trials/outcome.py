# SPDX-License-Identifier: Apache-2.0
"""A trial's outcome: blocks for people, a document for programs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqmark_tools.results import ResultFile
from seqmark_tools.tables import Block, Table

# What says on which machine, by what, and how it was.
_FACTS = (
    "gpu_name",
    "cpu_model",
    "gpu_driver_version",
    "cuda_driver",
    "gpu_power_limit_watts",
    "commit",
    "dirty",
    "command_line",
    "date",
)


@dataclass(frozen=True)
class Outcome:
    """Of one kind of trial: whether what METHOD.md demands was met, and the numbers."""

    kind: str
    title: str
    blocks: Sequence[Block]
    document: dict[str, Any]
    passed: bool


_LONGEST = 1000  # characters: a filter may name every row
_MOST = 4  # values of which each is said
_OUTPUT = re.compile(r" --benchmark_out(_format)?=\S+")  # what tells processes' commands apart


def facts(files: Sequence[ResultFile]) -> dict[str, str]:
    """Where and how the files were made: all that they say, but what is long is cut."""
    known = {}
    for key in _FACTS:
        said: dict[str, str] = {}
        for file in files:
            if key in file.context:
                text = str(file.context[key])
                said.setdefault(_OUTPUT.sub("", text), text)
        values = [_cut(text) for text in said.values()]
        if key == "date" and len(values) > 1:
            values = [f"{min(values)} to {max(values)}"]
        if len(values) > _MOST:
            values[_MOST:] = [f"and {len(values) - _MOST} more"]
        if values:
            known[key] = "; ".join(values)
    return known


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def facts_table(known: dict[str, str]) -> Table:
    return Table(("", ""), 2, list(known.items()))


def percent(share: float, digits: int = 1) -> str:
    """0.0123 as 1.2 %; a dash where there is none."""
    return f"{100 * share:.{digits}f} %" if math.isfinite(share) else "–"


def signed(share: float, digits: int = 1) -> str:
    """0.0123 as +1.2 %."""
    return f"{100 * share:+.{digits}f} %" if math.isfinite(share) else "–"


def micro(seconds: float, digits: int = 2) -> str:
    """Seconds as microseconds, without the unit."""
    return f"{seconds * 1e6:.{digits}f}"


def short(name: str) -> str:
    """A row's name without what all rows of a GPU's trial have in common."""
    return name.replace("/dtype:bf16/device:cuda", "").replace("/batch:1/", "/")
