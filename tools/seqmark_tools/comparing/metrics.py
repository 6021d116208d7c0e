# SPDX-License-Identifier: Apache-2.0
"""What can be compared, and which direction is better."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from seqmark_tools.results import ResultError, Row
from seqmark_tools.units import unit_of

Direction = Literal["lower", "higher", "neither"]
# "time": the row's noise is this quantity's too. "measured": it varies, nobody knows how much.
# "counted": the same in every run of the same program.
Kind = Literal["time", "measured", "counted"]

TIME = "real_time"


@dataclass(frozen=True)
class Metric:
    """A quantity of rows: real_time, or a counter."""

    name: str
    better: Direction
    kind: Kind

    @property
    def unit(self) -> str:
        return unit_of(self.name)

    def value(self, row: Row) -> float | None:
        """The row's value in SI units, None where it has none."""
        return row.seconds if self.name == TIME else row.counter(self.name)


# The first pattern that fits the whole name holds. A name that none fits has no direction.
_TABLE: tuple[tuple[str, Direction, Kind], ...] = (
    (r"real_time|time_p10|time_p90", "lower", "time"),
    (r"sol|tokens_per_second|bytes_per_second|flops_per_second", "higher", "time"),
    (r"items_per_second", "higher", "measured"),  # other programs'
    (r"peak_memory|memory_\w+", "lower", "counted"),
    (r"driver_memory|driver_memory_difference|allocations", "neither", "counted"),
    (r"max_seqlen", "higher", "counted"),
    (r"energy|energy_per_token", "lower", "measured"),
    (r"graph_time|kernel_time|host_time|event_time|cpu_time|plan_seconds", "lower", "measured"),
    (r"bytes_moved|flops", "neither", "counted"),  # a change is one of the definition
    (r"power|clock|share_\w+", "neither", "measured"),
)
_DIRECTIONS = {"lower", "higher", "neither"}


def known(name: str) -> Metric | None:
    """The metric of that name, None where its direction is not known."""
    for pattern, better, kind in _TABLE:
        if re.fullmatch(pattern, name):
            return Metric(name, better, kind)
    return None


def parse(text: str) -> Metric:
    """The metric called `text`: NAME, or NAME:lower, NAME:higher for one of another program."""
    name, colon, direction = text.partition(":")
    metric = known(name)
    if colon:
        if direction not in _DIRECTIONS or not name:
            raise ResultError(f"--metric {text}: the direction is lower, higher or neither")
        kind: Kind = metric.kind if metric else "measured"
        return Metric(name, direction, kind)  # type: ignore[arg-type]
    if metric is None:
        raise ResultError(
            f"--metric {text}: is lower or higher better? --metric {text}:lower says so"
        )
    return metric
