# SPDX-License-Identifier: Apache-2.0
"""Tables of the page: every row, providers, failures, the machines' facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seqmark_tools.report.data import Collection, Item, ceilings
from seqmark_tools.report.figure import Json
from seqmark_tools.report.findings import ProviderScore
from seqmark_tools.report.rerun import rerun_command
from seqmark_tools.results import ResultFile, Row
from seqmark_tools.units import DASH, si, unit_of

# Facts of the context worth a line at the top, where they are there.
FACTS = {
    "gpu_name": "GPU",
    "gpu_driver_version": "driver",
    "cuda_runtime": "CUDA",
    "gpu_memory_bytes": "GPU memory",
    "gpu_max_clock_hz": "highest clock",
    "gpu_power_limit_watts": "power limit",
    "cpu_model": "processor",
    "cpu_threads": "threads",
    "compiler": "compiler",
    "os": "system",
    "cuda_cache": "GPU caches before a call",
    "cpu_cache": "CPU caches before a call",
    "cuda_energy": "GPU energy",
    "cpu_energy": "CPU energy",
    "cuda_unavailable": "no CUDA",
    "cpu_unavailable": "no CPU",
    "torch": "PyTorch",
}


_FACT_UNITS = {"_bytes": "B", "_hz": "Hz", "_watts": "W"}


@dataclass(frozen=True)
class Column:
    """A column of the table of rows; `counter` is what its numbers are, empty for text."""

    key: str
    title: str
    counter: str = ""
    percent: bool = False


COLUMNS = (
    Column("name", "row"),
    Column("op", "operator"),
    Column("provider", "provider"),
    Column("machine", "machine"),
    Column("device", "device"),
    Column("batch", "batch", "batch"),
    Column("seqlen", "tokens", "seqlen"),
    Column("status", "status"),
    Column("time", "time", "seconds"),
    Column("noise", "noise", "noise", percent=True),
    Column("bytes_per_second", "bytes/s", "bytes_per_second"),
    Column("flops_per_second", "FLOP/s", "flops_per_second"),
    Column("sol", "sol", "sol"),
    Column("peak_memory", "memory", "peak_memory"),
    Column("energy", "energy", "energy"),
    Column("tokens_per_second", "tokens/s", "tokens_per_second"),
    Column("file", "file"),
)
FILTERS = ("op", "provider", "machine", "status", "file")


def reason(row: Row) -> str:
    """Why a row has no time; empty for a measured one."""
    return row.error or row.skip or ""


def status(row: Row) -> str:
    if row.error is not None:
        return "error"
    return "skipped" if row.skip is not None else "measured"


def _value(item: Item, column: Column) -> str | float | None:
    if column.counter in ("batch", "seqlen"):
        return (item.name.batch if column.counter == "batch" else item.seqlen) or None
    if column.counter:
        value = item.value(column.counter)
        return None if value is None or not math.isfinite(value) else value
    texts = {
        "name": str(item.name),
        "op": "" if item.name.is_foreign else item.name.op,
        "provider": item.name.provider,
        "machine": item.machine,
        "device": item.name.device,
        "status": status(item.row),
        "file": item.file.path.name,
    }
    return texts[column.key]


def _text(value: str | float | None, column: Column) -> str | None:
    """How a cell reads where that is not the value itself."""
    if value is None or isinstance(value, str) or column.counter == "batch":
        return None
    if column.counter == "seqlen":
        return f"{value:,.0f}"
    if column.percent:
        return f"{value:.1%}"
    if column.key == "sol":
        return f"{value:.3f}"
    return si(value, "" if column.key == "tokens_per_second" else unit_of(column.counter)).strip()


def rows_table(rows: Collection) -> Json:
    """Every row of every file, for the page's script: values to sort by and their texts."""
    present = [
        column
        for column in COLUMNS
        if not column.counter or any(_value(item, column) is not None for item in rows.items)
    ]
    lines = []
    for item in rows.items:
        values = [_value(item, column) for column in present]
        texts = [_text(value, column) for value, column in zip(values, present, strict=True)]
        why = reason(item.row)
        command = rerun_command(item)
        lines.append({"values": values, "texts": texts, "reason": why, "command": command})
    columns = [
        {"key": c.key, "title": c.title, "number": bool(c.counter), "filter": c.key in FILTERS}
        for c in present
    ]
    return {"columns": columns, "rows": lines}


@dataclass(frozen=True)
class Table:
    """A small table in HTML or Markdown: the first `labels` columns are text."""

    title: str
    columns: tuple[str, ...]
    labels: int
    lines: list[list[str]]


def provider_table(scores: Iterable[ProviderScore]) -> Table:
    """How providers of an operator compare over the problems that they share."""
    lines = [
        [s.op, s.machine, s.provider, str(s.problems), str(s.fastest), f"{s.to_best:.2f}×"]
        for s in scores
    ]
    columns = ("operator", "machine", "provider", "problems shared", "fastest", "time to the best")
    return Table("Providers compared (geometric mean)", columns, 3, lines)


def failures(rows: Collection, wanted: str) -> Table:
    """Rows with an error, or skipped ones: those of one operator, provider and reason together."""
    groups: dict[tuple[str, str, str], list[Item]] = {}
    for item in rows.items:
        if status(item.row) == wanted:
            key = (item.name.op, item.name.provider, reason(item.row))
            groups.setdefault(key, []).append(item)
    lines = [
        [op, provider, str(len(items)), str(items[0].name), why]
        for (op, provider, why), items in groups.items()
    ]
    title = "Errors" if wanted == "error" else "Skipped"
    return Table(title, ("operator", "provider", "rows", "the first", "reason"), 5, lines)


def facts(context: Mapping[str, object]) -> list[tuple[str, str]]:
    """What a file says of the machine."""
    known = [(title, _fact(key, context[key])) for key, title in FACTS.items() if key in context]
    roofs = [
        (f"{device.upper()} ceilings", text)
        for device in ("cuda", "cpu")
        if (text := rates(ceilings(context, device)))
    ]
    return [*known, *roofs]


def origin(file: ResultFile) -> list[tuple[str, str]]:
    """When, from which commit and by which command a file was made."""
    keys = ("date", "commit", "dirty", "command_line")
    return [(key, str(file.context[key])) for key in keys if key in file.context]


def files_table(rows: Collection) -> Table:
    """Where the rows are from."""
    lines = []
    for file in rows.files:
        context = file.context
        dirty = " and changes" if context.get("dirty") == "true" else ""
        lines.append(
            [
                file.path.name,
                str(context.get("date", DASH))[:16].replace("T", " "),
                counts(item for item in rows.items if item.file is file),
                f"{str(context.get('commit', DASH))[:7]}{dirty}",
                str(context.get("command_line", DASH)),
            ]
        )
    return Table("Files", ("file", "date", "rows", "commit", "command"), 5, lines)


def ordered(titles: Iterable[str]) -> list[str]:
    """Titles of facts in the order of FACTS, others after them."""
    order = list(FACTS.values())
    return sorted(titles, key=lambda title: order.index(title) if title in order else len(order))


def _fact(key: str, value: object) -> str:
    """A fact as people read it: numbers with their unit."""
    unit = next((u for end, u in _FACT_UNITS.items() if key.endswith(end)), "")
    try:
        return si(float(str(value)), unit) if unit else str(value)
    except ValueError:
        return str(value)


def rates(found: Json) -> str:
    """The rates among a device's measured ceilings; empty without any."""
    texts = []
    for key, value in found.items():
        what, _, unit = key.replace("_per_second", "").rpartition("_")
        if not key.endswith("_per_second"):
            continue
        unit = {"bytes": "B/s", "flops": "FLOP/s"}.get(unit, f"{unit}/s")
        each = value if isinstance(value, dict) else {"": value}
        for name, rate in each.items():
            if isinstance(rate, int | float) and rate > 0:
                texts.append(" ".join(filter(None, (what, name, si(rate, unit)))))
    return ", ".join(texts)


def counts(items: Iterable[Item]) -> str:
    """How many rows there are of each status."""
    every = [status(item.row) for item in items]
    return (
        f"{every.count('measured')} rows measured, {every.count('skipped')} skipped, "
        f"{every.count('error')} errors"
    )
