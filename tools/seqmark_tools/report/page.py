# SPDX-License-Identifier: Apache-2.0
"""Puts figures, words and tables into one HTML page that needs nothing else."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources

from seqmark_tools.report.figure import Figure, Json
from seqmark_tools.report.tables import Table

escape = html.escape
RIGHT = ' class="n"'


@dataclass
class Section:
    """A part of the page: its name in the navigation, its heading, ready HTML before and after."""

    key: str
    name: str
    title: str = ""
    before: str = ""
    figures: list[Figure] = field(default_factory=list)
    after: str = ""


@dataclass
class Page:
    """All that a page holds; `table` is the table of rows, where there is one."""

    title: str
    sections: list[Section]
    footer: str
    table: Json | None = None


def render(page: Page) -> str:
    """The page as HTML."""
    data: Json = {
        "figures": {f.key: asdict(f) for s in page.sections for f in s.figures if f.views},
        "table": page.table,
    }
    parts = {
        "title": escape(page.title),
        "heading": escape(page.title),
        "nav": "".join(f'<a href="#{s.key}">{escape(s.name)}</a>' for s in page.sections),
        "body": "\n".join(map(_section, page.sections)),
        "footer": escape(page.footer),
        "css": static("page.css"),
        "data": in_script(json.dumps(_short(data), separators=(",", ":"), allow_nan=False)),
        "plotly": plotly_script(),
        "js": static("figures.js") + static("table.js"),
    }
    text = static("page.html")
    pieces = []
    for piece in text.split("{{"):  # one pass: what is put in is not searched again
        name, closing, rest = piece.partition("}}")
        pieces.append(parts[name] + rest if closing else piece)
    return "".join(pieces)


def _short(value: object) -> object:
    """The same with numbers of seven digits, more than any of them is sure of.

    What a quotient made infinite, or no number, is nothing: JSON has neither.
    """
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list | tuple) else value


def in_script(text: str) -> str:
    """JSON that cannot end the script element that it stands in."""
    return text.replace("<", "\\u003c")


@cache
def static(name: str) -> str:
    """A file of this package's static folder."""
    folder = resources.files("seqmark_tools.report") / "static"
    return (folder / name).read_text(encoding="utf-8")


@cache
def plotly_script() -> str:
    """plotly.js, the one bundle that plotly's wheel ships."""
    file = resources.files("plotly") / "package_data" / "plotly.min.js"
    return file.read_text(encoding="utf-8")


def _section(section: Section) -> str:
    title = section.title or section.name
    figures = "\n".join(_figure(figure, section) for figure in section.figures)
    return (
        f'<section id="{section.key}" aria-labelledby="{section.key}-title">'
        f'<h2 id="{section.key}-title">{escape(title)}</h2>\n'
        f"{section.before}{figures}{section.after}</section>"
    )


def _figure(figure: Figure, section: Section) -> str:
    head, label = (
        f'<h3 id="{figure.key}-figure">{escape(figure.title)}</h3>',
        f"{figure.key}-figure",
    )
    if figure.title == section.title:  # said once
        head, label = "", f"{section.key}-title"
    notes = f'<div class="notes">{bullets(figure.notes)}</div>' if figure.notes else ""
    for words, made_by in figure.missing:
        notes += f'<p class="notes missing">{escape(words)}</p>{command(made_by)}'
    if not figure.views:
        return f"{head}{notes}"
    picker = ""
    if len(figure.views) > 1:
        options = "".join(f"<option>{escape(view.label)}</option>" for view in figure.views)
        picker = f"<label>{escape(figure.picker)} <select>{options}</select></label>"
    return (
        f'{head}<figure data-figure="{figure.key}" aria-labelledby="{label}">'
        f'<div class="controls">{picker}<button type="button" class="csv push" '
        f'aria-label="Save the data of {escape(figure.title)} as CSV">CSV</button></div>'
        '<div class="panels"></div>'
        '<div class="legend" role="group" aria-label="Lines shown"></div>'
        f'<p class="view-text"></p><figcaption>{escape(figure.caption)}</figcaption>'
        '<details class="data"><summary>Data</summary><div class="scroll tall"></div></details>'
        f"</figure>{notes}"
    )


def command(text: str) -> str:
    """A command of the shell, as it is typed."""
    return f'<code class="command">{escape(text)}</code>'


def bullets(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in sentences) + "</ul>"


def table_html(table: Table) -> str:
    """A small table; empty where it has no lines."""
    if not table.lines:
        return ""

    scope = ' scope="col"'

    def cells(tag: str, line: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{scope if tag == 'th' else ''}"
            f"{RIGHT if number >= table.labels else ''}>{escape(text)}</{tag}>"
            for number, text in enumerate(line)
        )

    lines = "".join(f"<tr>{cells('td', line)}</tr>" for line in table.lines)
    return (
        f"<h3>{escape(table.title)}</h3>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table><thead><tr>{cells('th', table.columns)}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def rows_html(table: Json) -> str:
    """The frame of the table of rows, which the page's script fills."""
    selects, heads = [], []
    for number, column in enumerate(table["columns"]):
        title = escape(column["title"])
        heads.append(
            f'<th scope="col" data-column="{number}" aria-sort="none"'
            f"{RIGHT if column['number'] else ''}>"
            f'<button type="button">{title}</button></th>'
        )
        values = sorted({str(row["values"][number] or "") for row in table["rows"]} - {""})
        if column["filter"] and len(values) > 1:
            options = "".join(f"<option>{escape(value)}</option>" for value in values)
            selects.append(
                f'<label>{title} <select data-column="{number}">'
                f'<option value="">all</option>{options}</select></label>'
            )
    return (
        '<div class="rows"><div class="controls">'
        '<label>filter <input type="search" placeholder="words, -without" '
        'aria-describedby="rows-help"></label>'
        f"{''.join(selects)}"
        '<span class="count" role="status"></span>'
        '<button type="button" class="csv push" aria-label="Save these rows as CSV">CSV</button>'
        '</div><p id="rows-help" class="notes">Every word must be in the row; one with a minus '
        "must not. A heading sorts. “copy” takes the command that measures the row again.</p>"
        '<p class="notes" role="status"><code class="copied"></code></p>'
        '<div class="scroll tall" tabindex="0" role="region" aria-label="Every row">'
        f"<table><thead><tr>{''.join(heads)}"
        '<th scope="col" class="again">again</th></tr></thead><tbody></tbody></table></div>'
        '<button type="button" class="more" hidden></button></div>'
    )
