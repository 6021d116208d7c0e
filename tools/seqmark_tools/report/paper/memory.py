# SPDX-License-Identifier: Apache-2.0
"""Paper 1's figures of memory: 5a (24 GB) and 5b (8 GB)."""

from __future__ import annotations

from seqmark_tools.report import labels
from seqmark_tools.report.figure import Figure, Panel, View, bar, guide, length_axis
from seqmark_tools.report.paper.pairs import Curve, Ours, both, missing
from seqmark_tools.report.paper.values import DESKTOP, EDGE, Published

FIG5_MODELS = (
    "qwen2.5-0.5b",
    "llama-3.2-1b",
    "phi-3-mini",
    "mamba-790m",
    "mamba2-780m",
    "falcon-h1-0.5b",
    "zamba2-1.2b",
)
LENGTHS = (1024, 4096, 8192, 16384, 32768, 57344, 131072)
GIB = 1 << 30


def fig5(published: Published, ours: Ours, *, edge: bool) -> Figure:
    """Memory against length, with and without logits, and the longest prompt that fits."""
    figure, device, limit = ("5b", EDGE, 8) if edge else ("5a", DESKTOP, 24)
    models = [
        m for m in FIG5_MODELS if published.curve(figure, "prefill", m, "peak_memory")
    ] or FIG5_MODELS
    total = {m: published.curve(figure, "prefill", m, "peak_memory") for m in models}
    logits = {m: published.curve(figure, "prefill", m, "memory_logits") for m in models}
    mine = {m: ours.curve("prefill", m, "peak_memory") for m in models}
    mine_logits = {m: ours.curve("prefill", m, "memory_logits") for m in models}
    where = (device, ours.machine)
    panels = [
        both("as published: with logits", "peak memory", "B", models, total, mine, where),
        both(
            "without logits",
            "peak memory",
            "B",
            models,
            {m: _less(total[m], logits[m]) for m in models},
            {m: _less(mine[m], mine_logits[m]) for m in models},
            where,
        ),
    ]
    for panel in panels:
        lengths = [x for trace in panel.traces for x in trace["x"]]
        if lengths:
            ends: list[float | str] = [min(lengths), max(lengths)]
            panel.traces.append(guide(f"{limit} GiB", ends, [limit * GIB] * 2))
    frontier = _frontier(total, ours, models, limit, device)
    return Figure(
        f"fig{figure}",
        f"Paper 1, Fig. {figure}: memory of a prompt, {limit} GB",
        f"Dashed, published: {device}. Solid, ours: {ours.machine}.",
        [View("against length", panels), View("longest prompt", [frontier])],
        notes=(
            *published.faults(figure),
            "Ours are peaks planned before anything is allocated, logits of the last position "
            "only (--logits=all makes all), so that both panels show about the same; without "
            "logits the published peaks of Qwen2.5-0.5B and Mamba2-780m are within 2 % of each "
            "other at 49,152 tokens.",
        ),
        missing=(
            *missing(ours, ("prefill",), models, LENGTHS),
            *_missing_frontier(ours, limit),
        ),
    )


def _less(total: Curve, part: Curve) -> Curve:
    """The total without a part, where both are known."""
    parts = dict(part)
    return [(x, y - parts[x]) for x, y in total if x in parts]


def _limits(ours: Ours, limit: int) -> dict[str, float]:
    """Our longest prompt of each model in `limit` GiB."""
    return {
        item.model: item.value("max_seqlen") or 0.0
        for item in ours.rows.of("max_context")
        if item.name.limit == limit * GIB and item.name.batch == 1 and item.value("max_seqlen")
    }


def _missing_frontier(ours: Ours, limit: int) -> tuple[tuple[str, str], ...]:
    if _limits(ours, limit):
        return ()
    made = f"tools/bench --benchmark_filter='^max_context/.*batch:1/limit:{limit}GiB' --dtypes=bf16"
    return (("Our longest prompts are missing. This makes them:", made),)


def _frontier(
    total: dict[str, Curve],
    ours: Ours,
    models: tuple[str, ...] | list[str],
    limit: int,
    device: str,
) -> Panel:
    found = _limits(ours, limit)
    names = [labels.display_model(model) for model in models]
    last = [max((x for x, _ in total[model]), default=0.0) for model in models]
    traces = [
        bar(f"published: last that ran, {device}", names, last, labels.CATEGORIES[9], "%{y:,}")
    ]
    if found:
        mine = [found.get(model, 0.0) for model in models]
        traces.append(bar(f"ours, {limit} GiB", names, mine, labels.CATEGORIES[0], "%{y:,}"))
    layout = {
        "barmode": "group",
        "xaxis": {"type": "category"},
        "yaxis": length_axis([1024.0 * 4**n for n in range(6)], "longest prompt, tokens"),
    }
    return Panel("longest prompt that fits", traces, layout, "model", "tokens")
