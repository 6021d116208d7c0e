# SPDX-License-Identifier: Apache-2.0
"""Tables with a line for each provider of each operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from seqmark_tools import results
from seqmark_tools.comparing import sides
from seqmark_tools.results import ResultFile, Row, RowName
from seqmark_tools.tables import Block, Heading, Table

T = TypeVar("T")


def name_of(name: RowName) -> str:
    """Operator and provider."""
    return f"{name.op}/{name.provider}"


def of(items: Sequence[T], group: Callable[[T], str]) -> list[tuple[str, list[T]]]:
    """All of them, then those of each group, in the groups' order."""
    names = sorted({group(item) for item in items})
    return [
        ("all", list(items)),
        *((name, [item for item in items if group(item) == name]) for name in names),
    ]


def read(paths: Sequence[Path]) -> tuple[list[ResultFile], list[Row]]:
    """The files, folders for those in them, and every row of each."""
    files = results.read_all(sides.expand(paths))
    return files, [row for file in files for row in file.rows]


def of_rows(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """As `of`, of rows."""
    return of(rows, lambda row: name_of(row.name))


def reasons(title: str, rows: Sequence[tuple[RowName, str]]) -> Iterator[Block]:
    """Each row's reason, where there is a row."""
    if rows:
        yield Heading(title)
        yield Table(("row", "reason"), 2, [(str(name), reason) for name, reason in rows])
