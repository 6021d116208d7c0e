# SPDX-License-Identifier: Apache-2.0
"""Figures of operators: scaling over the length, and the roofline."""

from __future__ import annotations

import math
from collections.abc import Iterable

from seqmark_tools.report import labels
from seqmark_tools.report.data import Collection, Item, Series, ceilings, name_series
from seqmark_tools.report.figure import Figure, Json, Panel, View, length_axis, line, si_axis
from seqmark_tools.units import si

MODEL_OPS = ("prefill", "decode", "max_context")
# Lines of one view; an operator with more is split by model.
MOST_LINES = 10


def operator_items(rows: Collection) -> list[Item]:
    """The newest rows of operators: not whole models, not another program's."""
    return [i for i in rows.newest if i.name.op not in MODEL_OPS and not i.name.is_foreign]


def _split(series: list[Series]) -> list[tuple[str, list[Series]]]:
    """Views of an operator: all of it, or a model, a dtype, a batch each where that is many."""
    groups = [("", series)]
    for key in ("model", "machine", "dtype", "batch"):
        smaller = []
        for label, members in groups:
            values = list(dict.fromkeys(getattr(one, key) for one in members))
            if len(members) <= MOST_LINES or len(values) == 1:
                smaller.append((label, members))
                continue
            for value in values:
                words = {"model": labels.display_model(str(value)), "batch": f"batch {value}"}
                part = words.get(key, str(value))
                chosen = [one for one in members if getattr(one, key) == value]
                smaller.append((" · ".join(filter(None, (label, part))), chosen))
        groups = smaller
    return groups


def _panels(rows: Collection, series: list[Series]) -> list[Panel]:
    names = name_series(series)
    single_model = len({one.model for one in series}) == 1
    providers = sorted({one.provider for one in series})
    panels = []
    for title, counter, unit, words in (
        ("time", "seconds", "s", "time of a call"),
        ("bytes per second", "bytes_per_second", "B/s", "least bytes over time"),
        ("sol", "sol", "", "part of the limit (sol)"),
    ):
        traces = []
        for number, (one, name) in enumerate(zip(series, names, strict=True)):
            colour, symbol = rows.styles[one.model]
            if single_model:  # tell roles apart instead
                colour = labels.CATEGORIES[number % len(labels.CATEGORIES)]
                symbol = labels.SYMBOLS[number % len(labels.SYMBOLS)]
            dash = labels.DASHES[providers.index(one.provider) % len(labels.DASHES)]
            if points := one.points(counter):
                traces.append(line(name, points, colour, unit, symbol, dash))
        lengths = [x for trace in traces for x in trace["x"]]
        values = [y for trace in traces for y in trace["y"]]
        axis = si_axis(words, unit, values)
        if counter == "sol":
            axis = {"title": {"text": words}, "range": [0, 1.05]}
        layout = {"xaxis": length_axis(lengths), "yaxis": axis}
        if traces:
            y_name = " ".join(filter(None, (title, f"[{unit}]" if unit else "")))
            panels.append(Panel(title, traces, layout, "tokens", y_name))
    return panels


def scaling(rows: Collection) -> Figure:
    """Time, bytes per second and sol of every operator against length."""
    views = []
    for op in sorted({item.name.op for item in operator_items(rows)}):
        for label, members in _split(rows.lines(op)):
            panels = _panels(rows, members)
            if panels:
                views.append(View(" · ".join(filter(None, (op, label))), panels))
    return Figure(
        "scaling",
        "Operators against length",
        "Time of one call; the least bytes that the call must move over that time; and sol, the "
        "least time on this machine's measured ceilings over the time taken: 1 is the limit.",
        views,
        "operator",
    )


def _roofs(found: Json, dtypes: Iterable[str], low: float, high: float) -> list[Json]:
    """The machine's ceilings as lines: a slope for each memory, a level for each arithmetic."""

    def number(value: object) -> float:
        return float(value) if isinstance(value, int | float) else 0.0

    matrix = found.get("matrix_flops_per_second")
    levels = {
        f"products {dtype}": number(matrix.get(dtype)) if isinstance(matrix, dict) else 0.0
        for dtype in sorted(set(dtypes))
    }
    levels["vector arithmetic"] = number(found.get("vector_flops_per_second"))
    slopes = {
        "memory": number(found.get("dram_bytes_per_second")),
        "last-level cache": number(found.get("cache_bytes_per_second")),
    }
    top = max(levels.values(), default=0.0)
    traces = []
    for number_, (name, rate) in enumerate(slopes.items()):
        if rate <= 0 or top <= 0:
            continue
        knee = min(top / rate, high)
        ys = [low * rate, knee * rate]
        traces.append(_roof(f"{name} {si(rate, 'B/s')}", [low, knee], ys, number_))
    for number_, (name, rate) in enumerate(levels.items()):
        if rate > 0:
            start = max(low, rate / max(slopes["memory"], slopes["last-level cache"], 1.0))
            text = f"{name} {si(rate, 'FLOP/s')}"
            traces.append(_roof(text, [start, high], [rate, rate], number_))
    return traces


def _roof(name: str, xs: list[float], ys: list[float], number: int) -> Json:
    """A ceiling, named in the legend."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "legendgroup": name,
        "meta": "guide",
        "x": xs,
        "y": ys,
        "line": {"dash": labels.DASHES[number % len(labels.DASHES)], "width": 1.4},
        "hoverinfo": "skip",
    }


def roofline(rows: Collection) -> Figure:
    """Arithmetic a byte against arithmetic a second, under the measured ceilings."""
    views = []
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in rows.newest:
        if item.value("flops") and item.value("bytes_moved"):
            groups.setdefault((item.machine, item.name.device), []).append(item)
    for (machine, device), items in groups.items():
        newest = max(
            (item.file for item in items if ceilings(item.file.context, device)),
            key=lambda file: str(file.context.get("date", "")),
            default=None,
        )
        traces, low, high = [], math.inf, 0.0
        for number, op in enumerate(sorted({item.name.op for item in items})):
            here = [item for item in items if item.name.op == op]
            xs = [(i.value("flops") or 0) / (i.value("bytes_moved") or 1) for i in here]
            low, high = min(low, *xs), max(high, *xs)
            colour = labels.CATEGORIES[number % len(labels.CATEGORIES)]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": op,
                    "legendgroup": op,
                    "x": xs,
                    "y": [(i.value("flops") or 0) / i.seconds for i in here],
                    "text": [str(item.name) for item in here],
                    "marker": {
                        "color": colour,
                        "symbol": labels.SYMBOLS[number % len(labels.SYMBOLS)],
                        "size": 6,
                        "opacity": 0.8,
                    },
                    "hovertemplate": "%{text}<br>%{y:.3s}FLOP/s at %{x:.3s} FLOP a byte"
                    f"<extra>{op}</extra>",
                }
            )
        if newest is not None:
            dtypes = {item.name.dtype for item in items}
            roofs = _roofs(ceilings(newest.context, device), dtypes, low / 1.5, high * 2)
            traces = [*roofs, *traces]
        rates = [(i.value("flops") or 0) / i.seconds for i in items]
        layout = {
            "xaxis": si_axis("arithmetic a byte", "FLOP/B", [low, high]),
            "yaxis": si_axis("arithmetic a second", "FLOP/s", rates),
        }
        title = machine if device != "cuda" else f"{machine} (CUDA)"
        panel = Panel(title, traces, layout, "FLOP per byte", "FLOP per second")
        views.append(View(title, [panel]))
    return Figure(
        "roofline",
        "Roofline",
        "Each row by what it must compute for each byte that it must move. Lines are ceilings "
        "measured on the machine, not a data sheet's; small rows stay in a cache and may lie above "
        "the memory's line.",
        views,
        "machine",
    )
