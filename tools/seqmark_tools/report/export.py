# SPDX-License-Identifier: Apache-2.0
"""Writes every figure as PNG and its data as CSV."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from seqmark_tools import files
from seqmark_tools.report.figure import Figure, Json, Panel
from seqmark_tools.results import ResultError

WIDTH, HEIGHT, SCALE = 900, 520, 1.25
_INK, _GRID = "#1b1f24", "#e4e8ec"


Panels = list[tuple[str, str, Panel]]
"""Stems of files, titles and what is drawn."""


def choose(figures: Iterable[Figure], only: Sequence[str]) -> Panels:
    """The panels whose files' stems fit one of the patterns `only`, as a shell has them."""
    every = [found for figure in figures for found in figure.files()]
    chosen = [found for found in every if any(fnmatch(found[0], one) for one in only)]
    if not chosen:
        stems = ", ".join(stem for stem, *_ in every[:5])
        raise ResultError(f"no figure fits {' or '.join(only)}; there are {stems or 'none'}, ...")
    return chosen


def write_csv(folder: Path, panels: Panels) -> None:
    """One file a panel."""
    for stem, _, panel in panels:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        header, lines = panel.table()
        writer.writerow(header)
        writer.writerows(lines)
        files.write(folder / f"{stem}.csv", stream.getvalue())


def write_png(folder: Path, panels: Panels) -> None:
    """One picture a panel, drawn by Chromium."""
    # Imported here: a page without pictures needs no browser.
    import kaleido
    from choreographer.errors import ChromeNotFoundError

    with tempfile.TemporaryDirectory() as scratch:
        wanted = [
            {
                "fig": picture(title, panel),
                "path": str(Path(scratch) / f"{stem}.png"),
                "opts": {"format": "png", "width": WIDTH, "height": height(panel), "scale": SCALE},
            }
            for stem, title, panel in panels
        ]
        try:
            # MathJax would be fetched from the network, and no figure has any.
            problems = kaleido.write_fig_from_object_sync(wanted, kopts={"mathjax": False})
        except ChromeNotFoundError as error:
            raise ResultError(
                "--png: needs Chromium to draw with (apt-get install chromium)"
            ) from error
        if problems:
            raise ResultError(f"--png: {problems[0]}")
        for stem, _, _ in panels:
            files.write(folder / f"{stem}.png", (Path(scratch) / f"{stem}.png").read_bytes())


def height(panel: Panel) -> int:
    """Pixels, so many that the legend has room for all of its entries: it cannot scroll."""
    entries = {
        trace.get("legendgroup") or trace["name"]
        for trace in panel.traces
        if trace.get("showlegend", True)
    }
    return max(HEIGHT, 120 + 20 * len(entries))


def picture(title: str, panel: Panel) -> Json:
    """A panel as a figure of plotly that stands by itself: with its title and its legend."""
    several = {trace["name"] for trace in panel.traces if trace.get("legendgroup")}
    axis = {"gridcolor": _GRID, "linecolor": _INK, "zerolinecolor": _GRID, "automargin": True}
    layout: Json = {
        "title": {"text": title, "x": 0.02, "font": {"size": 17}},
        "template": "none",
        "font": {"family": "DejaVu Sans, sans-serif", "size": 13, "color": _INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60},
        "showlegend": len(several) > 1,
        "legend": {"font": {"size": 11 if len(several) < 20 else 9}, "tracegroupgap": 0},
        **panel.layout,
        "xaxis": {**axis, **panel.layout.get("xaxis", {})},
        "yaxis": {**axis, **panel.layout.get("yaxis", {})},
    }
    traces = [
        {**trace, "line": {**trace["line"], "color": "#57606a"}}
        if trace.get("meta") == "guide"
        else trace
        for trace in panel.traces
    ]
    return {"data": traces, "layout": layout}
