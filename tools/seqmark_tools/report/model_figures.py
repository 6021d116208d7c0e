# SPDX-License-Identifier: Apache-2.0
"""Figures of whole models: time to first token, time per token, memory, shares of time, energy."""

from __future__ import annotations

import math
from collections.abc import Iterable

from seqmark_tools.report import labels
from seqmark_tools.report.data import Collection, Item, Series, make_series, name_series
from seqmark_tools.report.figure import (
    Figure,
    Json,
    Panel,
    View,
    bar,
    guide,
    length_axis,
    line,
    linear_axis,
    si_axis,
)

# Memories that people have, bytes: an edge device, a gaming card, an A100 or H100, an H200.
LIMITS = {"8 GB": 8e9, "24 GB": 24e9, "80 GB": 80e9, "141 GB": 141e9}
PHASES = {"prefill": "prompt of", "decode": "one token after"}
# Lines that can still be told apart in one plot.
MANY = 9


def model_lines(
    rows: Collection,
    series: list[Series],
    counter: str,
    unit: str,
    title: str,
    among: list[Series],
) -> Panel:
    """One counter of models against length; `among` are the lines of the panels beside it."""
    variants = sorted({(one.provider, one.machine, one.dtype, one.batch) for one in among})
    builds = sorted({one.build for one in among}, key=lambda build: -_lines_of(build, among))
    ranks = sorted(rows.styles, key=labels.size_key)
    traces = []
    for one, name in zip(series, name_series(series, among), strict=True):
        colour, symbol = rows.styles[one.model]
        variant = variants.index((one.provider, one.machine, one.dtype, one.batch))
        if any(other.what == one.what and other.build != one.build for other in among):
            variant += builds.index(one.build)
        dash = labels.DASHES[variant % len(labels.DASHES)]
        if points := one.points(counter):
            mark = symbol if variant == 0 else f"{symbol}-open"
            trace = line(name, points, colour, unit, mark, dash)
            traces.append(trace | {"legendrank": ranks.index(one.model)})
    values = [y for trace in traces for y in trace["y"]]
    layout = {
        "xaxis": length_axis(x for trace in traces for x in trace["x"]),
        "yaxis": si_axis(title.partition(" of ")[0], unit, values),
    }
    return Panel(title, traces, layout, "tokens", f"{title} [{unit}]")


def _lines_of(build: str, series: list[Series]) -> int:
    return sum(one.build == build for one in series)


# Models of about one size, billions of parameters by their names.
SIZES = (
    ("below 0.4B", 0.0, 0.4),
    ("0.4B to 1B", 0.4, 1.0),
    ("1B to 2B", 1.0, 2.0),
    ("above 2B", 2.0, math.inf),
)


def by_size(series: list[Series]) -> list[tuple[str, list[Series]]]:
    """Everything together; where that is many lines, models of one size, of one family too."""
    if len(series) <= MANY:
        return [("all models", series)]
    views = []
    for label, low, high in SIZES:
        members = [one for one in series if low <= labels.size_key(one.model)[1] < high]
        views.append((f"{label} parameters", members))
    for family in labels.FAMILIES:
        members = [one for one in series if labels.family_of(one.model) == family]
        views.append((f"{family} models", members))
    # What says most first: the size of which most families were measured.
    views.sort(key=lambda view: -len({labels.family_of(one.model) for one in view[1]}))
    return [*(view for view in views if view[1]), ("all models", series)]


def latency(rows: Collection) -> Figure:
    """Time to first token and time per token against length."""
    views = _views(
        rows,
        (
            ("prefill", "seconds", "s", "time to first token (TTFT)"),
            ("decode", "seconds", "s", "time per token (TPOT)"),
        ),
    )
    return Figure(
        "latency",
        "Time to first token, time per token",
        "Left, a prompt of that many tokens until its last logits; right, one more token after a "
        "context of that many. Device time, so without a host that is slower than the device.",
        views,
        "models",
    )


def _views(rows: Collection, quantities: Iterable[tuple[str, str, str, str]]) -> list[View]:
    """Views by size of panels, each an (operator, counter, unit, title)."""
    wanted = list(quantities)
    lines = {op: rows.lines(op) for op, *_ in wanted}
    views = []
    for label, members in by_size(max(lines.values(), key=len)):
        models = {one.model for one in members}
        shown_lines = {op: [s for s in found if s.model in models] for op, found in lines.items()}
        among = [one for found in shown_lines.values() for one in found]
        panels = [
            model_lines(rows, shown_lines[op], counter, unit, title, among)
            for op, counter, unit, title in wanted
        ]
        if shown := [panel for panel in panels if panel.traces]:
            views.append(View(label, shown))
    return views


def peak_memory(rows: Collection) -> Figure:
    """Peak memory of prompts against length, with the limits of devices."""
    views = _views(rows, [("prefill", "peak_memory", "B", "peak memory of a prompt")])
    for panel in (panel for view in views for panel in view.panels):
        values = [y for trace in panel.traces for y in trace["y"]]
        lengths = [x for trace in panel.traces for x in trace["x"]]
        for name, limit in limits_near(max(values), min(values)):
            panel.traces.append(guide(name, [min(lengths), max(lengths)], [limit, limit]))
    return Figure(
        "memory",
        "Memory against length",
        "Most bytes allocated at once while a prompt runs, weights and state included; logits of "
        "the last position only, unless the run asked for all. Dotted: what devices hold.",
        views,
        "models",
    )


def limits_near(highest: float, lowest: float = 0.0) -> list[tuple[str, float]]:
    """The limits that matter to values up to `highest`: those below it and the next above."""
    chosen = []
    for name, limit in LIMITS.items():
        if limit > lowest:
            chosen.append((name, limit))
        if limit > highest:
            break
    return chosen


def _stacks(
    groups: list[tuple[str, Item]], prefix: str, colours: dict[str, str], hover: str
) -> list[Json]:
    """Stacked bars: one a group, a colour a part; parts that are nowhere are left out."""
    traces = []
    found = {part for _, item in groups for part in item.prefixed(prefix)}
    for part in [*colours, *sorted(found - set(colours))]:
        heights = [item.prefixed(prefix).get(part, 0.0) for _, item in groups]
        if any(heights):
            xs = [label for label, _ in groups]
            colour = colours.get(part, labels.CATEGORIES[7])
            traces.append(bar(labels.class_name(part), xs, heights, colour, hover))
    return traces


def _stacked_view(label: str, groups: list[tuple[str, Item]], prefix: str, x_name: str) -> View:
    share = prefix == "share_"
    hover = "%{y:.1%}" if share else "%{y:.3s}B"
    colours = labels.SHARE_CLASSES if share else labels.MEMORY_PARTS
    traces = _stacks(groups, prefix, colours, hover)
    top = max(sum(item.prefixed(prefix).values()) for _, item in groups)
    axis: Json = {"title": {"text": "share of device time"}, "tickformat": ".0%", "range": [0, 1]}
    if not share:
        near = [(name, limit) for name, limit in limits_near(top) if limit < 1.5 * top]
        highest = max([top, *(limit for _, limit in near)])
        axis = linear_axis("memory", "B", [highest]) | {"range": [0, 1.1 * highest]}
        ends: list[float | str] = [groups[0][0], groups[-1][0]]
        traces += [guide(name, ends, [limit, limit]) for name, limit in near]
    layout: Json = {
        "barmode": "stack",
        "xaxis": {"type": "category", "title": {"text": x_name}},
        "yaxis": axis,
    }
    unit = "fraction of device time" if share else "bytes"
    return View(label, [Panel(label, traces, layout, x_name, unit)])


def stacked(rows: Collection, prefix: str, key: str, title: str, caption: str) -> Figure:
    """Parts of a whole: per length along the models, the longest first; per model along lengths."""
    across, along = [], []
    for op, words in PHASES.items():
        newest = [item for item in rows.of(op) if item.prefixed(prefix)]
        for length in sorted({item.seqlen for item in newest}, reverse=True):
            series = make_series(item for item in newest if item.seqlen == length)
            items = [one.items[0] for one in series]
            groups = list(zip(name_series(series), items, strict=True))
            if len(groups) > 1:
                label = f"{words} {labels.tokens(length)} tokens: models"
                across.append(_stacked_view(label, groups, prefix, "model"))
        lines = [one for one in rows.lines(op) if any(item.prefixed(prefix) for item in one.items)]
        for name, one in zip(name_series(lines), lines, strict=True):
            groups = [
                (labels.tokens(item.seqlen), item) for item in one.items if item.prefixed(prefix)
            ]
            along.append(_stacked_view(f"{words} n tokens: {name}", groups, prefix, "tokens"))
    return Figure(key, title, caption, [*across, *along], "what")


def memory_parts(rows: Collection) -> Figure:
    return stacked(
        rows,
        "memory_",
        "memory-parts",
        "Memory by part",
        "What the peak is made of: weights; states (keys and values; SSMs' and convolutions'; in "
        "one in older files); activations; workspace of kernels; logits.",
    )


def time_shares(rows: Collection) -> Figure:
    return stacked(
        rows,
        "share_",
        "shares",
        "Share of time by class",
        "Each call timed by itself within the model. The scan does not contain the projections "
        "around it. A fused kernel is of one class: a scan has its gate, and a decode step's GEMM "
        "may have the norm before it and the convolution after it.",
    )


def energy(rows: Collection) -> Figure:
    """Energy a prompt, and a token of prompts and of decode."""
    views = _views(
        rows,
        (
            ("prefill", "energy", "J", "energy of a prompt"),
            ("prefill", "energy_per_token", "J", "energy of a prompt's token"),
            ("decode", "energy_per_token", "J", "energy of a new token"),
        ),
    )
    return Figure(
        "energy",
        "Energy",
        "The device's own count over calls back to back, idle power included.",
        views,
        "models",
    )


def longest_prompt(rows: Collection) -> Figure:
    """The longest prompt in each memory: bars of the max_context rows."""
    items = [item for item in rows.of("max_context") if item.value("max_seqlen")]
    limits = sorted({item.name.limit for item in items})
    ordered = sorted(items, key=lambda item: labels.size_key(item.model))
    traces = []
    for number, limit in enumerate(limits):
        here = [item for item in ordered if item.name.limit == limit]
        traces.append(
            bar(
                f"{limit >> 30} GiB",
                [labels.display_shape(item.name.shape) for item in here],
                [item.value("max_seqlen") or 0 for item in here],
                labels.CATEGORIES[number % len(labels.CATEGORIES)],
                "%{y:,} tokens",
            )
        )
    lengths = [float(y) for trace in traces for y in trace["y"]]
    layout = {"barmode": "group", "xaxis": {"type": "category"}}
    layout["yaxis"] = length_axis([1024.0 * 4**n for n in range(6)])
    panel = Panel("longest prompt", traces, layout, "model", "longest prompt [tokens]")
    return Figure(
        "max-context",
        "The longest prompt that fits",
        "Found from plans of memory alone; 1M stands for no end in sight.",
        [View("all models", [panel])] if lengths else [],
    )
