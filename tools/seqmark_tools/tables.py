# SPDX-License-Identifier: Apache-2.0
"""Headings, lines of text and tables, drawn on a terminal, as Markdown or as a page."""

from __future__ import annotations

import html
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

Tone = Literal["", "bad", "good", "doubtful"]
_STYLES = {"bad": "bold red", "good": "green", "doubtful": "yellow", "": ""}


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Table:
    """Titles, of which the first `labels` are of text columns, the rest of numbers."""

    columns: tuple[str, ...]
    labels: int
    lines: Sequence[Sequence[str]]
    tones: Sequence[Tone] = ()  # one a line


Block = Heading | Text | Code | Table


def to_terminal(blocks: Sequence[Block], *, is_terminal: bool) -> str:
    """Coloured and folded for a terminal, plain and wide for a file."""
    width = shutil.get_terminal_size().columns if is_terminal else 1000
    console = Console(
        file=io.StringIO(), force_terminal=is_terminal, width=width, highlight=False, emoji=False
    )
    with console.capture() as capture:
        for block in blocks:
            if isinstance(block, Heading):
                console.print(f"\n[bold]{escape(block.text)}[/bold]")
            elif isinstance(block, Text | Code):
                console.print(escape(block.text))
            else:
                console.print(_rich(block))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n") + "\n"


def _rich(table: Table) -> RichTable:
    result = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(table.columns):
        is_label = number < table.labels
        result.add_column(
            escape(title),
            justify="left" if is_label else "right",
            overflow="fold",
            no_wrap=not is_label,
        )
    for number, line in enumerate(table.lines):
        tone: Tone = table.tones[number] if table.tones else ""
        result.add_row(*map(escape, line), style=_STYLES[tone])
    return result


def to_markdown(blocks: Sequence[Block]) -> str:
    """GitHub's Markdown."""

    def clean(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    parts: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {clean(block.text)}")
        elif isinstance(block, Text):
            parts.append(clean(block.text))
        elif isinstance(block, Code):
            parts.append(f"```sh\n{block.text}\n```")
        else:
            rule = ["---"] * block.labels + ["---:"] * (len(block.columns) - block.labels)
            rows = [line([clean(cell) for cell in cells]) for cells in block.lines]
            parts.append("\n".join([line(block.columns), line(rule), *rows]))
    return "\n\n".join(parts) + "\n"


def to_html(blocks: Sequence[Block], title: str) -> str:
    """A page that needs nothing else."""
    style = resources.files(__package__).joinpath("tables.css").read_text(encoding="utf-8")
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>",
    ]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{html.escape(block.text)}</h{block.level}>")
        elif isinstance(block, Text):
            parts.append(f"<p>{html.escape(block.text)}</p>")
        elif isinstance(block, Code):
            parts.append(f"<pre>{html.escape(block.text)}</pre>")
        else:
            parts += _html_table(block)
    return "\n".join([*parts, "</body></html>", ""])


def _html_table(table: Table) -> list[str]:
    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{'' if n < table.labels else ' class=n'}>{html.escape(text)}</{tag}>"
            for n, text in enumerate(texts)
        )

    tones: Sequence[Tone] = table.tones or [""] * len(table.lines)
    rows = [
        f"<tr{f' class={tone}' if tone else ''}>{cells('td', line)}</tr>"
        for tone, line in zip(tones, table.lines, strict=True)
    ]
    head = f"<table><thead><tr>{cells('th', table.columns)}</tr></thead><tbody>"
    return [head, *rows, "</tbody></table>"]
