# SPDX-License-Identifier: Apache-2.0
"""Draws a series for a terminal: one braille dot a night, marks below."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from seqmark_tools.history.series import ChangePoint, Series
from seqmark_tools.units import si

_HEIGHT = 12  # lines
_LABEL = 10  # columns
# Bits of a braille character by column (2) and line (4) of its dots.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_SLOWER, _FASTER, _EXPLAINED = "bold red", "bold green", "yellow"


def draw(series: Series, width: int) -> Iterator[Text]:
    """The drawing and what it shows in words, line by line; `width` columns."""
    yield Text(f"{series.row} on {series.machine}", style="bold")
    if series.seconds:
        yield from _plot(series, max(width - _LABEL - 1, 20))
    yield Text(f"nights with a time: {len(series.nights)}")
    if series.failure:
        yield Text(f"the last night: {series.failure}", style="red")
    for point in series.change_points:
        yield Text(_words(point), style=_style(point))
    for event in series.events:
        yield Text(f"┊ {event.date[:10]}  {event}", style="dim")


def _plot(series: Series, columns: int) -> Iterator[Text]:
    seconds = series.seconds
    low, high = min(seconds), max(seconds)
    margin = (high - low) * 0.05 or high * 0.01
    low, high = low - margin, high + margin
    # At most two nights a column; fewer nights are spread no wider than one a column.
    columns = min(columns, len(seconds))
    cells = [[0] * columns for _ in range(_HEIGHT)]
    for night, time in enumerate(seconds):
        x = _place(night, len(seconds), 2 * columns)
        y = min(int((high - time) / (high - low) * 4 * _HEIGHT), 4 * _HEIGHT - 1)
        cells[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
    styles: dict[int, str] = {}
    marks = [" "] * columns
    for event in series.events:
        column = _place(event.night, len(seconds), 2 * columns) // 2
        marks[column], styles[column] = "┊", "dim"
    for point in series.change_points:
        column = _place(point.night, len(seconds), 2 * columns) // 2
        marks[column], styles[column] = "▲" if point.effect > 0 else "▼", _style(point)
    for line, cell in enumerate(cells):
        middle = high - (high - low) * (line + 0.5) / _HEIGHT
        label = si(middle, "s") if line % 3 == 1 else ""
        text = Text(f"{label:>{_LABEL}}│")
        for column, bits in enumerate(cell):
            text.append(chr(0x2800 + bits) if bits else " ", style=styles.get(column, ""))
        yield text
    text = Text(" " * _LABEL + "└")
    for column, mark in enumerate(marks):
        text.append(mark if mark != " " else "─", style=styles.get(column, ""))
    yield text
    first, last = series.nights[0][:10], series.nights[-1][:10]
    yield Text(f"{'':{_LABEL}} {first}{last:>{max(columns - len(first), len(last) + 1)}}")


def _place(night: int, nights: int, dots: int) -> int:
    """The dot of a night on a line of so many dots."""
    return min(night * dots // max(nights, 1), dots - 1)


def _style(point: ChangePoint) -> str:
    return _EXPLAINED if point.events else _SLOWER if point.effect > 0 else _FASTER


def _words(point: ChangePoint) -> str:
    mark = "▲" if point.effect > 0 else "▼"
    said = f"with {'; '.join(map(str, point.events))}" if point.events else point.verdict or ""
    return (
        f"{mark} {point.date[:10]}  {point.effect:+.1%}  {si(point.before, 's')} → "
        f"{si(point.after, 's')}  p {point.pvalue:.0e}  {said}"
    ).rstrip()
