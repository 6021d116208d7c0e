# SPDX-License-Identifier: Apache-2.0
"""Rows of several files as one collection: each knows its machine and its build."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from seqmark_tools.report import labels
from seqmark_tools.results import ResultFile, Row, RowName

# What a series may differ in besides the model, in the order it is said.
VARYING = ("provider", "dtype", "batch", "machine")


@dataclass(frozen=True)
class Item:
    """A row with where it comes from."""

    row: Row
    file: ResultFile
    machine: str

    @property
    def name(self) -> RowName:
        return self.row.name

    @property
    def seqlen(self) -> int:
        """Tokens; 0 for a row that has no length."""
        return self.row.name.seqlen or 0

    @property
    def seconds(self) -> float:
        """Seconds of a measured row."""
        if self.row.seconds is None:
            raise ValueError(f"{self.row.name} was not measured")
        return self.row.seconds

    @property
    def model(self) -> str:
        return labels.model_of(self.row.name.shape)

    @property
    def build(self) -> str:
        """The commit that the row was built from, short; its file where that is not known."""
        commit = str(self.file.context.get("commit", "unknown"))
        return commit[:7] if commit != "unknown" else self.file.path.name

    def value(self, counter: str) -> float | None:
        """A counter, or `seconds`; None where it was not had or is not finite."""
        if counter == "seconds":
            return self.row.seconds
        value = self.row.counter(counter)
        return value if value is not None and math.isfinite(value) else None

    @property
    def state_bytes(self) -> float | None:
        """Of a model's state: its kinds, or all at once as files before them have it."""
        kinds = (self.value(f"memory_{kind}") for kind in ("state", "kv_state", "ssm_state"))
        known = [value for value in kinds if value is not None]
        return sum(known) if known else None

    def prefixed(self, prefix: str) -> dict[str, float]:
        """Counters that begin with `prefix`, without it."""
        counters = self.row.counters or {}
        return {k.removeprefix(prefix): v for k, v in counters.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Collection:
    """Everything that the files hold."""

    files: list[ResultFile]
    items: list[Item]

    @cached_property
    def newest(self) -> list[Item]:
        """The newest measurement of each name on each machine, sorted by name."""
        return _newest(self.items, by_build=False)

    @cached_property
    def built(self) -> list[Item]:
        """The newest measurement of each name of each build on each machine, sorted by name."""
        return _newest(self.items, by_build=True)

    @cached_property
    def repeated(self) -> int:
        """How many measurements an other, newer one stands for."""
        return sum(item.row.seconds is not None for item in self.items) - len(self.newest)

    @cached_property
    def machines(self) -> list[str]:
        """The machines of all rows, in the order of the files."""
        return list(dict.fromkeys(item.machine for item in self.items))

    @cached_property
    def styles(self) -> dict[str, tuple[str, str]]:
        """Each model's (colour, marker), the same in every figure."""
        return labels.model_styles(sorted({item.model for item in self.newest if item.model}))

    def of(self, op: str) -> list[Item]:
        """The newest rows of an operator."""
        return [item for item in self.newest if item.name.op == op]

    def lines(self, op: str) -> list[Series]:
        """The rows of an operator as lines over the length."""
        return make_series(item for item in self.built if item.name.op == op)


def _newest(items: Iterable[Item], *, by_build: bool) -> list[Item]:
    newest: dict[tuple[str, str, RowName], Item] = {}
    for item in items:
        if item.row.seconds is None:
            continue
        key = (item.machine, item.build if by_build else "", item.row.name)
        other = newest.get(key)
        if other is None or date_of(item.file) >= date_of(other.file):
            newest[key] = item
    return sorted(newest.values(), key=lambda item: (str(item.row.name), item.machine, item.build))


def date_of(file: ResultFile) -> str:
    """ISO date of a file; empty where it has none."""
    return str(file.context.get("date", ""))


def collect(files: list[ResultFile]) -> Collection:
    """Puts the files together."""
    known: dict[tuple[str, str], str] = {}
    for file in files:
        if "cpu_model" in file.context:
            known[_host(file.context)] = short_processor(str(file.context["cpu_model"]))
    items = []
    for file in files:
        for row in file.rows:
            items.append(Item(row, file, _machine(file.context, row.name.device, known)))
    return Collection(files, items)


def _host(context: Mapping[str, Any]) -> tuple[str, str]:
    return str(context.get("host_name", "")), str(context.get("num_cpus", ""))


def _machine(context: Mapping[str, Any], device: str, known: Mapping[tuple[str, str], str]) -> str:
    """What a row ran on. A file without the processor's name (a peer's) has its host's."""
    if device == "cuda":
        return str(context.get("gpu_name", "")) or "CUDA device"
    if "cpu_model" in context:
        return short_processor(str(context["cpu_model"]))
    host, cpus = _host(context)
    return known.get((host, cpus)) or " ".join(filter(None, (host, f"{cpus} CPUs")))


def short_processor(model: str) -> str:
    """A processor's name without what every such name holds."""
    short = re.sub(r"\((R|TM)\)|CPU|Processor|@.*|[0-9]+-Core", "", model, flags=re.IGNORECASE)
    return " ".join(short.split()) or model


def ceilings(context: Mapping[str, Any], device: str) -> dict[str, Any]:
    """A device's measured ceilings, JSON inside a string of the context; empty without any."""
    try:
        fields = json.loads(str(context.get(f"{device}_ceilings", "")))
    except json.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


@dataclass(frozen=True)
class Series:
    """Rows that make one line: of one build, equal in everything but the length."""

    shape: str
    provider: str
    dtype: str
    batch: int
    machine: str
    build: str
    items: list[Item]

    @property
    def model(self) -> str:
        return labels.model_of(self.shape)

    @property
    def what(self) -> tuple[str, str, str, int, str]:
        """What is measured: everything but the build."""
        return (self.shape, self.provider, self.dtype, self.batch, self.machine)

    def points(self, counter: str) -> list[tuple[float, float]]:
        """(length, value) where the value is there and can be drawn on a log axis."""
        found = ((item.seqlen, item.value(counter)) for item in self.items)
        return [(x, y) for x, y in found if y is not None and y > 0 and x > 0]


def make_series(items: Iterable[Item]) -> list[Series]:
    """Groups rows of one operator into lines, sorted by model, provider and the rest.

    Rows of two builds never make one line, which would show the builds as a bend. Of two builds'
    lines of one thing the older goes where the newer has all its lengths.
    """
    groups: dict[tuple[str, str, str, int, str, str], list[Item]] = {}
    for item in items:
        name = item.name
        key = (name.shape, name.provider, name.dtype, name.batch, item.machine, item.build)
        groups.setdefault(key, []).append(item)
    every = [
        Series(*key, sorted(group, key=lambda item: item.seqlen)) for key, group in groups.items()
    ]
    every.sort(key=lambda s: max(date_of(item.file) for item in s.items), reverse=True)
    kept: list[Series] = []
    for one in every:
        lengths = {item.seqlen for item in one.items}
        newer = [other for other in kept if other.what == one.what]
        if not any(lengths <= {item.seqlen for item in other.items} for other in newer):
            kept.append(one)
    return sorted(kept, key=lambda s: (labels.size_key(s.model), *s.what))


def name_series(series: list[Series], among: Iterable[Series] = ()) -> list[str]:
    """Each line's label: the shape, and whatever differs between the lines, or those `among` it.

    A build is said where the same thing is there of two.
    """
    every = [*series, *among]
    builds: dict[tuple[str, str, str, int, str], set[str]] = {}
    for one in every:
        builds.setdefault(one.what, set()).add(one.build)
    texts = []
    for one in series:
        parts = [labels.display_shape(one.shape)]
        for key in VARYING:
            if len({getattr(other, key) for other in every}) > 1:
                value = getattr(one, key)
                parts.append(f"batch {value}" if key == "batch" else str(value))
        if len(builds[one.what]) > 1:
            parts.append(one.build)
        texts.append(" · ".join(parts))
    return texts
