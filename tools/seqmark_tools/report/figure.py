# SPDX-License-Identifier: Apache-2.0
"""Figures as data: a figure has views to pick from, a view has panels side by side.

A panel is one plot of plotly.js: traces and a layout without colours of the page, which the page
adds for the light and the dark theme. Everything that is written out (the page, PNG, CSV) comes
from these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from seqmark_tools.report import labels
from seqmark_tools.units import si

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One plot. `x_name` and `y_name` are the columns of its CSV, units included."""

    title: str
    traces: list[Json]
    layout: Json
    x_name: str
    y_name: str
    note: str = ""

    def table(self) -> tuple[list[str], list[list[object]]]:
        """The data drawn: a header and lines, straight from the traces."""
        header = ["series", self.x_name, self.y_name]
        lines: list[list[object]] = []
        for trace in self.traces:
            if trace.get("meta") != "guide":
                points = zip(trace["x"], trace["y"], strict=True)
                lines += [[trace.get("name", ""), x, y] for x, y in points]
        return header, lines


@dataclass(frozen=True)
class View:
    """What a picker chooses: panels under one label, and words about them."""

    label: str
    panels: list[Panel]
    text: str = ""


@dataclass(frozen=True)
class Figure:
    """A heading, what to see in it, and views to pick from.

    `notes` are said under the figure; `missing` are rows that it lacks, each in words with the
    command that makes them.
    """

    key: str
    title: str
    caption: str
    views: list[View]
    picker: str = "show"
    notes: tuple[str, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()

    def files(self) -> Iterator[tuple[str, str, Panel]]:
        """Every panel with the stem of its files and a title of its own."""
        for view in self.views:
            for panel in view.panels:
                parts = [self.key]
                if len(self.views) > 1:
                    parts.append(slug(view.label))
                if len(view.panels) > 1:
                    parts.append(slug(panel.title))
                title = self.title
                if len(view.panels) > 1:
                    title = panel.title[:1].upper() + panel.title[1:]
                if len(self.views) > 1 or len(view.panels) == 1:
                    title = f"{title}, {view.label.removesuffix(': models')}"
                yield "--".join(parts), title, panel


def slug(text: str) -> str:
    """Text as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def length_axis(lengths: Iterable[float], title: str = "tokens") -> Json:
    """A log axis of lengths with ticks where the data are, thinned to what fits."""
    present = sorted(set(lengths))
    if len(present) > 6:
        low, high = present[0], present[-1]
        powers = [float(1 << n) for n in range(31) if low <= 1 << n <= high]
        step = max(1, -(-len(powers) // 6))
        present = powers[::-1][::step][::-1] or present[:: len(present) // 6]
    return {
        "type": "log",
        "title": {"text": title},
        "tickmode": "array",
        "tickvals": present,
        "ticktext": [labels.tokens(value) for value in present],
    }


def si_axis(title: str, unit: str, values: Iterable[float]) -> Json:
    """A log axis for `values`, ticks written with SI prefixes and the unit."""
    low, high = _range(values)
    digits = (1, 2, 5) if high / low < 50 else (1,)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    step = max(1, len(exponents) // 7)
    ticks = [digit * 10.0**n for n in exponents if n % step == 0 for digit in digits]
    return {
        "type": "log",
        "title": {"text": title},
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [si_tick(tick, unit) for tick in ticks],
    }


def _range(values: Iterable[float]) -> tuple[float, float]:
    # Beyond these a tick next to a value is no double.
    positive = [value for value in values if 1e-300 < value < 1e300]
    return (min(positive), max(positive)) if positive else (1.0, 1.0)


def si_tick(value: float, unit: str) -> str:
    """A round number as a tick: 500 us, 1 GB."""
    number, _, prefixed = si(value, unit).partition(" ")
    return f"{float(number):g} {prefixed}".strip()


def linear_axis(title: str, unit: str, values: Iterable[float]) -> Json:
    """A linear axis from zero for `values`, ticks written with SI prefixes and the unit."""
    high = max(values, default=0.0) or 1.0
    power = 10.0 ** math.floor(math.log10(high / 5))
    step = next(power * n for n in (1, 2, 5, 10) if high / (power * n) <= 6)
    ticks = [n * step for n in range(int(high / step * 1.2) + 2)]
    return {
        "type": "linear",
        "title": {"text": title},
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [si_tick(tick, unit) if tick else "0" for tick in ticks],
    }


def line(
    name: str,
    points: Iterable[tuple[float, float]],
    colour: str,
    unit: str,
    symbol: str = "circle",
    dash: str = "solid",
) -> Json:
    """A line with markers through points sorted by x; `unit` is of y, shown on hovering."""
    ordered = sorted(points)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "x": [x for x, _ in ordered],
        "y": [y for _, y in ordered],
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"color": colour, "symbol": symbol, "size": 7},
        "hovertemplate": f"%{{x:,}} tokens: %{{y:.3s}}{unit}<extra>{name}</extra>",
    }


def bar(name: str, xs: list[str], ys: list[float], colour: str, hover: str) -> Json:
    """One colour of stacked bars; `hover` is d3's format of y with its unit."""
    return {
        "type": "bar",
        "name": name,
        "legendgroup": name,
        "x": xs,
        "y": ys,
        "marker": {"color": colour},
        "hovertemplate": f"%{{x}}: {hover}<extra>{name}</extra>",
    }


def guide(name: str, xs: list[float | str], ys: list[float], *, dash: str = "dot") -> Json:
    """A reference line, labelled at its end, in the page's own colour and not in the legend."""
    return {
        "type": "scatter",
        "mode": "lines+text",
        "name": name,
        "meta": "guide",
        "showlegend": False,
        "x": xs,
        "y": ys,
        "text": [""] * (len(xs) - 1) + [name],
        "textposition": "top left",
        "line": {"dash": dash, "width": 1.2},
        "hoverinfo": "skip",
    }
