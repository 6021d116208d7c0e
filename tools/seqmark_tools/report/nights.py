# SPDX-License-Identifier: Apache-2.0
"""The figure of a history: rows night by night, with their change points."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from seqmark_tools import history
from seqmark_tools.history.store import History
from seqmark_tools.report import labels
from seqmark_tools.report.figure import Figure, Json, Panel, View, si_axis
from seqmark_tools.units import si

# Rows drawn at most: those that changed first, the latest change leading.
MOST_ROWS = 60


def read(db: Path, machine: str | None) -> list[history.Series]:
    """Every row's series of a machine, or of all that the history at `db` knows."""
    with History(db) as store:
        machines = [machine] if machine is not None else store.machines()
    return [series for name in machines for series in history.all_series(db, name)]


def figure(every: list[history.Series]) -> Figure | None:
    """A row a view, rows that changed first; None where no row has a time."""
    timed = [series for series in every if series.seconds]
    changed = sorted(
        (series for series in timed if series.change_points),
        key=lambda series: series.change_points[-1].date,
        reverse=True,
    )
    steady = [series for series in timed if not series.change_points]
    shown = [*changed, *steady][:MOST_ROWS]
    if not shown:
        return None
    several = len({series.machine for series in timed}) > 1
    views = [_view(series, several) for series in shown]
    text = f"{len(timed)} rows, {len(changed)} of them with a change point."
    if len(shown) < len(timed):
        text += f" The {len(shown)} drawn are those that changed last, then steady ones."
    return Figure("history", "Time night by night", text, views, "row")


def _view(series: history.Series, several: bool) -> View:
    colour = labels.CATEGORIES[0]
    traces: list[Json] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "median of the night",
            "legendgroup": "median of the night",
            "x": list(series.nights),
            "y": list(series.seconds),
            "marker": {"color": colour, "size": 5, "symbol": "circle"},
            "hovertemplate": "%{x|%Y-%m-%d}: %{y:.4s}s<extra></extra>",
        },
        _levels(series),
    ]
    words = []
    for point in series.change_points:
        said = "; ".join(map(str, point.events)) or point.verdict or ""
        direction = "slower" if point.effect > 0 else "faster"
        words.append(
            f"{point.date[:10]}: {abs(point.effect):.1%} {direction}, {si(point.before, 's')} to "
            f"{si(point.after, 's')}{f' ({said})' if said else ''}"
        )
    for slower, name, symbol in ((True, "slower", "triangle-up"), (False, "faster", "x")):
        points = [point for point in series.change_points if (point.effect > 0) == slower]
        if points:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "legendgroup": name,
                    "x": [point.date for point in points],
                    "y": [point.after for point in points],
                    "marker": {
                        "color": labels.CATEGORIES[2 if slower else 4],
                        "size": 12,
                        "symbol": symbol,
                    },
                    "hovertemplate": "%{x|%Y-%m-%d}: now %{y:.4s}s<extra>" + name + "</extra>",
                }
            )
    if series.failure:
        words.append(f"the last night: {series.failure}")
    label = f"{series.machine}: {series.row}" if several else series.row
    axis = si_axis("time of a call", "s", series.seconds)
    spread = max(series.seconds) / min(series.seconds)
    if spread < 10:  # a narrow range needs ticks of its own
        axis = {"title": {"text": "time of a call"}, "ticksuffix": "s", "exponentformat": "SI"}
    layout = {"xaxis": {"type": "date", "title": {"text": "night"}}, "yaxis": axis}
    text = "; ".join(words) + "." if words else "No change point."
    return View(label, [Panel(series.row, traces, layout, "night", "time of a call [s]")], text)


def _levels(series: history.Series) -> Json:
    """The mean level between change points, as steps."""
    bounds = [0, *(point.night for point in series.change_points), len(series.nights)]
    xs: list[str] = []
    ys: list[float] = []
    for low, high in pairwise(bounds):
        values = series.seconds[low:high]
        if values:
            xs += [series.nights[low], series.nights[high - 1]]
            ys += [sum(values) / len(values)] * 2
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "level",
        "legendgroup": "level",
        "x": xs,
        "y": ys,
        "line": {"color": labels.CATEGORIES[1], "width": 2, "dash": "solid"},
        "hoverinfo": "skip",
    }
