# SPDX-License-Identifier: Apache-2.0
"""Draws a result file as one self-contained page, HTML or Markdown.

    python tools/report.py results/local/NAME.json             # writes NAME.html beside it
    python tools/report.py results/local/NAME.json -o NAME.md

Each operator is a table: rows of one problem stand together, the fastest provider's time is bold.
"""

from __future__ import annotations

import argparse
import html
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from seqmark_tools.results import ResultError, ResultFile, Row, read
from seqmark_tools.units import DASH, si

# Facts of the context worth a line at the top, where they are there.
FACTS = (
    "date",
    "gpu_name",
    "cuda_driver",
    "cpu_model",
    "cpu_threads",
    "commit",
    "dirty",
    "compiler",
    "cuda_cache",
    "cpu_cache",
    "cuda_unavailable",
    "cpu_unavailable",
    "command_line",
)


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell; `share`, 0 to 1, draws a bar behind it."""

    text: str
    best: bool = False
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """A heading, the columns' titles (the first `labels` of them are text) and lines."""

    title: str
    columns: tuple[str, ...]
    labels: int
    lines: list[list[Cell]]


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


def operator_table(op: str, rows: Iterable[Row]) -> Table:
    """Every measured row of an operator, competitors of one problem together."""
    lines = []
    for _, group in groupby(rows, key=lambda row: row.name.problem):
        competitors = sorted(group, key=lambda row: row.seconds or 0)
        best = competitors[0].seconds or 0
        for row in competitors:
            name, seconds = row.name, row.seconds or 0
            noise, sol = row.counter("noise"), row.counter("sol")
            lines.append(
                [
                    *map(
                        Cell,
                        (name.shape, name.dtype, name.device, str(name.batch), str(name.seqlen)),
                    ),
                    Cell(name.provider),
                    Cell(si(seconds, "s"), best=row is competitors[0] and len(competitors) > 1),
                    Cell(f"{seconds / best:.2f}×" if len(competitors) > 1 else DASH),
                    Cell(DASH if noise is None else f"{noise:.1%}"),
                    Cell(si(row.counter("bytes_per_second"), "B/s")),
                    Cell(si(row.counter("flops_per_second"), "FLOP/s")),
                    Cell(DASH if sol is None else f"{sol:.3f}", share=sol),
                    Cell(si(row.counter("peak_memory"), "B")),
                ]
            )
    return Table(op, OPERATOR_COLUMNS, len(PROBLEM_COLUMNS), lines)


def provider_table(rows: list[Row]) -> Table:
    """How providers of an operator compare over the problems that they share."""
    times: dict[tuple[str, str, str], list[float]] = {}
    for problem, group in groupby(rows, key=lambda row: row.name.problem):
        competitors = list(group)
        if len(competitors) < 2:
            continue
        best = min(row.seconds or 0 for row in competitors)
        for row in competitors:
            key = (problem[0], row.name.device, row.name.provider)
            times.setdefault(key, []).append((row.seconds or 0) / best)
    lines = []
    for (op, device, provider), ratios in sorted(times.items()):
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        wins = sum(ratio == 1 for ratio in ratios)
        lines.append(
            [
                *map(Cell, (op, device, provider)),
                Cell(str(len(ratios))),
                Cell(str(wins)),
                Cell(f"{mean:.2f}×", best=mean < 1.005),
            ]
        )
    columns = ("operator", "device", "provider", "problems shared", "fastest", "time to the best")
    return Table("Providers compared (geometric mean)", columns, 3, lines)


def reason_table(title: str, reasons: Iterable[tuple[Row, str]]) -> Table:
    """Rows without a time, those of one operator, provider and reason together."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row, reason in reasons:
        groups.setdefault((row.name.op, row.name.provider, reason), []).append(row)
    lines = [
        [*map(Cell, (op, provider, str(len(rows)), str(rows[0].name), reason))]
        for (op, provider, reason), rows in groups.items()
    ]
    return Table(title, ("operator", "provider", "rows", "the first", "reason"), 5, lines)


def tables(results: ResultFile) -> Iterator[Table]:
    """All tables of the report that have lines, errors first."""
    errors = [(row, row.error) for row in results.rows if row.error is not None]
    skips = [(row, row.skip) for row in results.rows if row.skip is not None]
    measured = results.measured
    every = [
        reason_table("Errors", errors),
        provider_table(measured),
        *(operator_table(op, rows) for op, rows in groupby(measured, key=lambda r: r.name.op)),
        reason_table("Skipped", skips),
    ]
    yield from (table for table in every if table.lines)


def summary(results: ResultFile) -> str:
    """How many rows came out how."""
    errors = sum(row.error is not None for row in results.rows)
    skips = sum(row.skip is not None for row in results.rows)
    return f"{len(results.measured)} rows measured, {skips} skipped, {errors} errors"


def facts(results: ResultFile) -> list[tuple[str, str]]:
    """What the file says of the machine and the program."""
    known = [(key, str(results.context[key])) for key in FACTS if key in results.context]
    roofs = [
        (f"{device} ceilings", text)
        for device in ("cuda", "cpu")
        if (text := ceilings(results.context.get(f"{device}_ceilings")))
    ]
    return [("file", results.path.name), *known, *roofs]


def ceilings(document: object) -> str:
    """The rates among a device's measured ceilings, JSON inside a string; empty without any."""
    try:
        fields = json.loads(str(document))
    except json.JSONDecodeError:
        return ""
    rates = []
    for key, value in fields.items() if isinstance(fields, dict) else ():
        what, _, unit = key.replace("_per_second", "").rpartition("_")
        if not key.endswith("_per_second"):
            continue
        unit = {"bytes": "B/s", "flops": "FLOP/s"}.get(unit, f"{unit}/s")
        each = value if isinstance(value, dict) else {"": value}
        for name, rate in each.items():
            if isinstance(rate, int | float) and rate > 0:
                rates.append(" ".join(filter(None, (what, name, si(rate, unit)))))
    return ", ".join(rates)


def to_markdown(results: ResultFile) -> str:
    """The report as GitHub's Markdown."""

    def clean(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    parts = ["# seqmark results", "", f"{summary(results)}.", ""]
    parts += [f"- {key}: {clean(value)}" for key, value in facts(results)]
    for table in tables(results):
        rule = ["---"] * table.labels + ["---:"] * (len(table.columns) - table.labels)
        parts += ["", f"## {table.title}", "", line(table.columns), line(rule)]
        parts += [
            line(f"**{cell.text}**" if cell.best else clean(cell.text) for cell in cells)
            for cells in table.lines
        ]
    return "\n".join([*parts, ""])


STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #4a90d955; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15em .6em; border-bottom: 1px solid var(--line); text-align: left; }
.n { text-align: right; white-space: nowrap; }
thead th { position: sticky; top: 0; background: Canvas; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1em; }
dd { margin: 0; overflow-wrap: anywhere; }
.bar { background: linear-gradient(to right, var(--bar) var(--to), transparent var(--to)); }
"""


RIGHT = ' class="n"'


def to_html(results: ResultFile) -> str:
    """The report as a page that needs nothing else."""
    escape = html.escape

    def cell(number: int, item: Cell, labels: int) -> str:
        classes = ["n"] if number >= labels else []
        style = ""
        if item.share is not None:
            classes.append("bar")
            style = f' style="--to: {100 * min(max(item.share, 0), 1):.1f}%"'
        text = f"<b>{escape(item.text)}</b>" if item.best else escape(item.text)
        attribute = f' class="{" ".join(classes)}"' if classes else ""
        return f"<td{attribute}{style}>{text}</td>"

    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f"<title>seqmark: {escape(results.path.name)}</title><style>{STYLE}</style></head><body>",
        f"<h1>seqmark results</h1><p>{summary(results)}.</p><dl>",
        *(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts(results)),
        "</dl>",
    ]
    for table in tables(results):
        heads = (
            f"<th{RIGHT if number >= table.labels else ''}>{escape(title)}</th>"
            for number, title in enumerate(table.columns)
        )
        parts.append(f"<h2>{escape(table.title)}</h2><table><thead><tr>{''.join(heads)}</tr>")
        parts.append("</thead><tbody>")
        for line in table.lines:
            cells = (cell(number, item, table.labels) for number, item in enumerate(line))
            parts.append(f"<tr>{''.join(cells)}</tr>")
        parts.append("</tbody></table>")
    return "\n".join([*parts, "</body></html>", ""])


def main(argv: list[str] | None = None) -> int:
    """Writes the report of the file on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="a result file")
    parser.add_argument(
        "-o", "--output", type=Path, help="NAME.html or NAME.md; default: FILE with .html"
    )
    arguments = parser.parse_args(argv)
    output: Path = arguments.output or arguments.file.with_suffix(".html")
    draw = {".html": to_html, ".md": to_markdown}.get(output.suffix)
    if draw is None:
        parser.error(f"--output {output}: the name must end in .html or .md")
    try:
        output.write_text(draw(read(arguments.file)), encoding="utf-8")
    except (ResultError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
