# SPDX-License-Identifier: Apache-2.0
"""The report as GitHub's Markdown: words and tables, without figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from seqmark_tools.report import findings, tables
from seqmark_tools.report.data import Collection, Item
from seqmark_tools.report.tables import Table
from seqmark_tools.units import DASH, si

PROBLEM_COLUMNS = ("shape", "dtype", "device", "batch", "seqlen", "provider")
OPERATOR_COLUMNS = (
    *PROBLEM_COLUMNS,
    "time",
    "to the best",
    "noise",
    "bytes/s",
    "FLOP/s",
    "sol",
    "peak memory",
)


def operator_table(op: str, items: Iterable[Item]) -> Table:
    """Every measured row of an operator; competitors of one problem together, the best bold."""
    lines = []
    for _, group in groupby(items, key=lambda item: (item.machine, item.name.problem)):
        competitors = sorted(group, key=lambda item: item.seconds)
        for item in competitors:
            lines.append(_line(item, competitors))
    return Table(op, OPERATOR_COLUMNS, len(PROBLEM_COLUMNS), lines)


def _line(item: Item, competitors: list[Item]) -> list[str]:
    name, several = item.name, len(competitors) > 1
    noise, sol = item.value("noise"), item.value("sol")
    time = si(item.seconds, "s")
    return [
        _clean(name.shape),
        name.dtype,
        name.device,
        str(name.batch),
        str(name.seqlen) if name.seqlen else si(float(name.limit), "B"),
        name.provider,
        f"**{time}**" if several and item is competitors[0] else time,
        f"{item.seconds / competitors[0].seconds:.2f}×" if several else DASH,
        DASH if noise is None else f"{noise:.1%}",
        si(item.value("bytes_per_second"), "B/s"),
        si(item.value("flops_per_second"), "FLOP/s"),
        DASH if sol is None else f"{sol:.3f}",
        si(item.value("peak_memory"), "B"),
    ]


def _foreign_table(items: Iterable[Item]) -> Table:
    lines = [[_clean(str(item.name)), si(item.seconds, "s")] for item in items]
    return Table("Rows of other programs", ("row", "time"), 1, lines)


def _tables(rows: Collection) -> Iterator[Table]:
    yield _cleaned(tables.failures(rows, "error"))
    yield tables.provider_table(findings.provider_scores(rows))
    ours = sorted(
        (item for item in rows.newest if not item.name.is_foreign),
        key=lambda item: (item.name.op, item.machine, item.name.problem),
    )
    for op, items in groupby(ours, key=lambda item: item.name.op):
        yield operator_table(op, items)
    yield _foreign_table(item for item in rows.newest if item.name.is_foreign)
    yield _cleaned(tables.failures(rows, "skipped"))


def _cleaned(table: Table) -> Table:
    lines = [list(map(_clean, line)) for line in table.lines]
    return Table(table.title, table.columns, table.labels, lines)


def _clean(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_markdown(rows: Collection) -> str:
    """The whole report."""
    parts = ["# seqmark results", "", f"{tables.counts(rows.items)}.", ""]
    parts += [f"- {_clean(text)}" for text in findings.findings(rows)]
    for file in rows.files:
        parts += ["", f"## {file.path.name}", ""]
        known = tables.facts(file.context) + tables.origin(file)
        parts += [f"- {key}: {_clean(value)}" for key, value in known]
    for table in _tables(rows):
        if not table.lines:
            continue
        rule = ["---"] * table.labels + ["---:"] * (len(table.columns) - table.labels)
        parts += ["", f"## {table.title}", "", _row(table.columns), _row(rule)]
        parts += map(_row, table.lines)
    return "\n".join([*parts, ""])
