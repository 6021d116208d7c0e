# SPDX-License-Identifier: Apache-2.0
"""Reads result files: Google Benchmark's JSON with seqmark's names and counters.

Needs nothing but Python, so that tools/peers can use it anywhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

# <op>/<provider>/<shape>/dtype:<d>/device:<d>/batch:<B>/seqlen:<L>, and what Google Benchmark adds.
# Rows whose length is a result have the memory that they may use instead, limit:<n>GiB.
NAME = re.compile(
    r"(?P<op>[a-z0-9_]+)/(?P<provider>[a-z0-9_-]+)/(?P<shape>[A-Za-z0-9._-]+)"
    r"/dtype:(?P<dtype>bf16|f16|f32)/device:(?P<device>cpu|cuda)"
    r"/batch:(?P<batch>[1-9][0-9]{0,17})"
    r"/(seqlen:(?P<seqlen>[1-9][0-9]{0,17})|limit:(?P<limit>[1-9][0-9]{0,8})GiB)"
    r"(?P<suffix>(/(iterations|repeats):[0-9]+|/manual_time)*)"
)
FORM = "<op>/<provider>/<shape>/dtype:<d>/device:<d>/batch:<B>/seqlen:<L> (or limit:<n>GiB)"
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
SCHEMA_VERSION = "1"
_MOST_DIGITS = 308  # of an integer: more, and no double holds it
PUBLISHED = "published"  # context.kind of what papers say; rows may have counters and no time
_GIB = 1 << 30


class ResultError(Exception):
    """Input that cannot be used; says which and why."""


@dataclass(frozen=True, order=True)
class RowName:
    """The parts of a row's name. Another program's row has its whole name as `op`, and no more."""

    op: str
    shape: str
    dtype: str
    device: str
    batch: int
    seqlen: int  # 0 where there is a limit instead
    limit: int = field(default=0, kw_only=True)  # bytes; 0 where there is a seqlen
    provider: str

    @property
    def problem(self) -> tuple[str, str, str, str, int, int, int]:
        """What providers compete on: the name without the provider."""
        return (
            self.op,
            self.shape,
            self.dtype,
            self.device,
            self.batch,
            self.seqlen,
            self.limit,
        )

    @property
    def is_foreign(self) -> bool:
        """Whether the row is another program's."""
        return not self.shape

    @staticmethod
    def parse(text: str) -> RowName | None:
        """The parts of `text`, or None if it is not a row's name."""
        match = NAME.fullmatch(text)
        if match is None:
            return None
        part = match.groupdict()
        return RowName(
            op=part["op"],
            shape=part["shape"],
            dtype=part["dtype"],
            device=part["device"],
            batch=int(part["batch"]),
            seqlen=int(part["seqlen"] or 0),
            limit=int(part["limit"] or 0) * _GIB,
            provider=part["provider"],
        )

    @staticmethod
    def foreign(text: str) -> RowName:
        """The name of another program's row."""
        return RowName(op=text, shape="", dtype="", device="", batch=0, seqlen=0, provider="")

    def __str__(self) -> str:
        if self.is_foreign:
            return self.op
        length = f"limit:{self.limit // _GIB}GiB" if self.limit else f"seqlen:{self.seqlen}"
        return (
            f"{self.op}/{self.provider}/{self.shape}/dtype:{self.dtype}"
            f"/device:{self.device}/batch:{self.batch}/{length}"
        )


@dataclass(frozen=True)
class Row:
    """One row: measured (seconds and counters), skipped or failed (with the reason).

    One that a paper published may have counters alone.
    """

    name: RowName
    seconds: float | None = None
    counters: dict[str, float] | None = None
    error: str | None = None
    skip: str | None = None
    times: tuple[float, ...] = ()  # seconds of each repetition in the file, in its order
    label: str = ""  # what numbers cannot say

    def counter(self, name: str) -> float | None:
        """The counter, or None where it could not be had."""
        return (self.counters or {}).get(name)


@dataclass(frozen=True)
class ResultFile:
    """A whole file: where it was made and its rows, one for each name, sorted."""

    path: Path
    context: dict[str, Any]
    rows: list[Row]

    @property
    def measured(self) -> list[Row]:
        """The rows that have a time."""
        return [row for row in self.rows if row.seconds is not None]


def read_json(path: Path) -> Any:
    """Parses strict JSON: NaN and infinities, which Python would accept, are errors.

    So are numbers that no double holds.
    """
    value, constants = _parse(path)
    if constants:
        raise ResultError(f"{path}: holds {constants[0]}, which is not JSON or too large")
    return value


def read(path: Path, *, foreign: bool = False) -> ResultFile:
    """Reads the file at `path`; ResultError when it is not one of ours.

    With `foreign`, files of other Google Benchmark programs are taken too: rows keep their whole
    names, and numbers that are NaN or infinite, which those programs may write, are left out.
    """
    document, constants = _parse(path)
    wrong = f"{path}: is not a seqmark result file:"
    if not isinstance(document, dict):
        raise ResultError(f"{wrong} the top is not an object")
    context, entries = document.get("context"), document.get("benchmarks")
    if not isinstance(context, dict) or not isinstance(entries, list):
        raise ResultError(f"{wrong} it needs an object 'context' and a list 'benchmarks'")
    if constants and (not foreign or "seqmark_schema" in context):
        raise ResultError(f"{path}: holds {constants[0]}, which is not JSON or too large")
    version = context.get("seqmark_schema", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ResultError(
            f"{path}: has schema version {version!r}; this program reads {SCHEMA_VERSION!r}"
        )
    if not entries:
        raise ResultError(f"{path}: holds no rows")
    runs: dict[RowName, list[dict[str, Any]]] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ResultError(f"{wrong} benchmarks[{number}] is not an object")
        text = entry.get("run_name", entry.get("name"))
        name = RowName.parse(text) if isinstance(text, str) else None
        if name is None and foreign and isinstance(text, str) and text:
            name = RowName.foreign(text)
        if name is None:
            raise ResultError(f"{wrong} benchmarks[{number}] is named {text!r}, not {FORM}")
        if str(entry.get("aggregate_name")) not in _FITS:
            runs.setdefault(name, []).append(entry)
    published = context.get("kind") == PUBLISHED
    rows = [_make_row(name, entries, published) for name, entries in sorted(runs.items())]
    return ResultFile(path, context, rows)


def read_all(paths: Iterable[Path], *, foreign: bool = False) -> list[ResultFile]:
    """Reads every file, in order; ResultError names the first that cannot be used."""
    return [read(path, foreign=foreign) for path in paths]


def _parse(path: Path) -> tuple[Any, list[str]]:
    """The JSON at `path`, and what it holds of NaN, Infinity and numbers that no double holds."""
    constants: list[str] = []

    def take(constant: str) -> float:
        constants.append(constant)
        return math.nan

    def integer(digits: str) -> int | float:
        return int(digits) if len(digits) <= _MOST_DIGITS else take(f"{digits[:20]}...")

    def number(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else take(digits[:20])

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{path}: cannot be read: {error}") from error
    try:
        value = json.loads(text, parse_constant=take, parse_int=integer, parse_float=number)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ResultError(f"{path}: is not whole JSON: {error}") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ResultError(f"{path}: holds half a character: {error.reason}") from error
    return value, constants


def seconds_of(entry: dict[str, Any]) -> float | None:
    """An entry's real time; None where it has none."""
    time, unit = entry.get("real_time"), SECONDS.get(str(entry.get("time_unit", "ns")))
    if unit is None or not _is_number(time) or time * unit <= 0:  # 5e-324 ns are 0 s
        return None
    return time * unit


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _make_row(name: RowName, entries: list[dict[str, Any]], published: bool) -> Row:
    """One row of a name's repetitions and aggregates: any failure, else the median."""
    for entry in entries:
        if entry.get("error_occurred"):
            return Row(name, error=str(entry.get("error_message") or "no message"))
    for entry in entries:
        if entry.get("skipped"):
            return Row(name, skip=str(entry.get("skip_message") or "no reason"))
    medians = [entry for entry in entries if entry.get("aggregate_name") == "median"]
    plain = [entry for entry in entries if entry.get("run_type") != "aggregate"]
    timed = sorted(
        (seconds, index)
        for index, entry in enumerate(medians or plain)
        if (seconds := seconds_of(entry)) is not None
    )
    if not timed:
        counters = _counters(plain[0]) if published and plain else {}
        return Row(name, counters=counters) if counters else Row(name, error="the row has no time")
    times = tuple(seconds for entry in plain if (seconds := seconds_of(entry)) is not None)
    seconds, index = timed[(len(timed) - 1) // 2]
    entry = (medians or plain)[index]
    return Row(
        name,
        seconds=seconds,
        counters=_counters(entry),
        times=times,
        label=str(entry.get("label", "")),
    )


def _counters(entry: dict[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in entry.items()
        if key not in _NOT_COUNTERS and _is_number(value)
    }


# Aggregates of a family, not of a row: curves fitted over its arguments.
_FITS = {"BigO", "RMS"}
_NOT_COUNTERS = {
    "family_index",
    "per_family_instance_index",
    "repetitions",
    "repetition_index",
    "threads",
    "iterations",
    "real_time",
    "cpu_time",
}
