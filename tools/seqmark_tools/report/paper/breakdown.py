# SPDX-License-Identifier: Apache-2.0
"""Paper 1's figures of operators' shares of time: 7, 8, 9a and 9b."""

from __future__ import annotations

from collections.abc import Iterable

from seqmark_tools.report import labels
from seqmark_tools.report.figure import Figure, Json, Panel, View, bar
from seqmark_tools.report.paper.pairs import Ours, missing
from seqmark_tools.report.paper.values import DESKTOP, EDGE, Published, Shares

FIG9B_MODELS = (
    "gpt-neo-125m",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "llama-3.2-1b",
    "tinyllama-1.1b",
    "mamba-130m",
    "mamba2-130m",
    "zamba2-1.2b",
    "hymba-1.5b",
)
LENGTHS = tuple(1 << n for n in range(8, 18))
# Classes of the published profiles, in our colours; `bundled` is the scan of a fused call.
COLOURS = {
    **labels.SHARE_CLASSES,
    "bundled": "#f9bf80",
    "softmax": labels.CATEGORIES[7],
    "activation": labels.CATEGORIES[11],
    "arithmetic": labels.SHARE_CLASSES["elementwise"],
    "memory": labels.CATEGORIES[8],
}
NAMES = {
    "bundled": "scan, with convolution and projections",
    "memory": "moving (views, copies)",
    **labels.CLASS_NAMES,
}
APART = (
    "First panel: the shares as published, of host time and GPU time added together. Second: GPU "
    "time alone, from the published profiles, with attention apart from the products."
)
UNBUNDLED = (
    "The published scan of Mamba and Mamba-2 holds convolution and projections, and cannot be "
    "taken apart in the published data; in ours the scan, the convolution, the norms and the "
    "products are apart, and so are the logits, of one position."
)


def _panel(title: str, bars: list[tuple[str, Shares]], x_name: str) -> Panel:
    """Stacked shares that sum to 1, one bar a length or a model."""
    present = [key for key in COLOURS if any(shares.get(key, 0) > 0 for _, shares in bars)]
    traces: list[Json] = [
        bar(
            NAMES.get(key, key),
            [label for label, _ in bars],
            [shares.get(key, 0.0) for _, shares in bars],
            COLOURS[key],
            "%{y:.1%}",
        )
        for key in present
    ]
    layout: Json = {
        "barmode": "stack",
        "xaxis": {"type": "category", "title": {"text": x_name}},
        "yaxis": {"title": {"text": "share of time"}, "tickformat": ".0%", "range": [0, 1]},
    }
    return Panel(title, traces, layout, x_name, "fraction")


def _ours(ours: Ours, model: str) -> list[tuple[str, Shares]]:
    items = [item for item in ours.items("prefill", model) if item.prefixed("share_")]
    return [(labels.tokens(item.seqlen), item.prefixed("share_")) for item in items]


def _published(published: Published, figure: str, model: str, length: int, prefix: str) -> Shares:
    """Shares with the scan of Mamba's and Mamba-2's fused call named for what it is."""
    shares = published.shares(figure, model, length, prefix)
    if labels.family_of(model) != labels.HYBRID and shares.get("ssm_scan"):
        shares["bundled"] = shares.pop("ssm_scan")
    return shares


def _along(published: Published, ours: Ours, model: str, figure: str, device: str) -> View:
    """A model along the length: published, published GPU time alone, ours."""
    panels = []
    for title, prefix in (
        (f"as published: host + GPU, {device}", "published_share_"),
        (f"GPU time alone, {device}", "share_"),
    ):
        bars = [
            (labels.tokens(length), _published(published, figure, model, length, prefix))
            for length in published.profiled(figure, model)
        ]
        panels.append(_panel(title, bars, "tokens"))
    panels.append(_panel(f"ours, {ours.machine}", _ours(ours, model), "tokens"))
    shown = [panel for panel in panels if panel.traces]
    return View(labels.display_model(model), shown, _comparison(published, ours, model, figure))


def _comparison(published: Published, ours: Ours, model: str, figure: str) -> str:
    """Where host time changes the shares most, and ours at the longest length."""
    parts = []
    gaps = []
    for length in published.profiled(figure, model):
        mixed = _published(published, figure, model, length, "published_share_")
        alone = _published(published, figure, model, length, "share_")
        gaps += [
            (abs(alone[key] - mixed[key]), length, key, mixed[key], alone[key])
            for key in alone
            if key in mixed
        ]
    if gaps:
        _, length, key, with_host, alone_ = max(gaps)
        parts.append(
            f"Host time changes most at {labels.tokens(length)} tokens: {NAMES.get(key, key)}, "
            f"published {with_host:.1%}, is {alone_:.1%} of GPU time."
        )
    for item in ours.items("prefill", model)[-1:]:
        shares = item.prefixed("share_")
        words = ", ".join(
            f"{NAMES.get(key, key)} {value:.1%}"
            for key, value in sorted(shares.items(), key=lambda pair: -pair[1])[:4]
        )
        parts.append(f"Ours at {labels.tokens(item.seqlen)}: {words}.")
    return " ".join(parts)


def _figure(
    key: str,
    title: str,
    published: Published,
    ours: Ours,
    models: Iterable[str],
    device: str,
    lengths: tuple[int, ...],
    notes: tuple[str, ...],
) -> Figure:
    chosen = list(models)
    views = [_along(published, ours, model, key[3:], device) for model in chosen]
    return Figure(
        key,
        f"Paper 1, Fig. {key[3:]}: {title}",
        "Shares of a prompt's time by class of operator.",
        [view for view in views if view.panels],
        "model",
        notes=(
            APART,
            *published.faults(key[3:]),
            *notes,
        ),
        missing=missing(ours, ("prefill",), chosen, lengths),
    )


def fig7(published: Published, ours: Ours) -> Figure:
    models = ("mamba-130m", "mamba2-130m")
    return _figure(
        "fig7",
        "operators of Mamba and Mamba-2",
        published,
        ours,
        models,
        DESKTOP,
        LENGTHS,
        (UNBUNDLED,),
    )


def fig8(published: Published, ours: Ours) -> Figure:
    return _figure(
        "fig8",
        "operators of Hymba and Zamba2",
        published,
        ours,
        ("hymba-1.5b", "zamba2-1.2b"),
        DESKTOP,
        LENGTHS[:8],
        (),
    )


def fig9a(published: Published, ours: Ours) -> Figure:
    return _figure(
        "fig9a",
        "operators of Mamba and Mamba-2 on an edge device",
        published,
        ours,
        ("mamba-130m", "mamba2-130m"),
        EDGE,
        LENGTHS[:8],
        (
            UNBUNDLED,
            "“More than 55 % in SSM kernels” is of that bundle, of host and GPU time together.",
            f"Ours are of {ours.machine}, not of an edge device.",
        ),
    )


def fig9b(published: Published, ours: Ours) -> Figure:
    """Nine models at 1,024 tokens, on each device."""
    views = []
    published_on = {device: published.on(device) for device in (DESKTOP, EDGE)}
    for device in (DESKTOP, EDGE):
        panels = []
        for title, prefix in (
            ("as published: host + GPU", "published_share_"),
            ("GPU time alone", "share_"),
        ):
            bars = [
                (labels.display_model(m), _published(published_on[device], "9b", m, 1024, prefix))
                for m in FIG9B_MODELS
            ]
            panels.append(_panel(f"{title}, {device}", [b for b in bars if b[1]], "model"))
        views.append(View(device, [panel for panel in panels if panel.traces]))
    mine = [
        (labels.display_model(model), item.prefixed("share_"))
        for model in FIG9B_MODELS
        for item in ours.items("prefill", model)
        if item.seqlen == 1024 and item.prefixed("share_")
    ]
    if mine:
        views.append(View(f"ours, {ours.machine}", [_panel(ours.machine, mine, "model")]))
    return Figure(
        "fig9b",
        "Paper 1, Fig. 9b: operators of nine models at 1,024 tokens",
        "Shares of a prompt's time by class of operator.",
        [view for view in views if view.panels],
        "device",
        notes=(
            APART,
            *published.faults("9b"),
            UNBUNDLED,
        ),
        missing=missing(ours, ("prefill",), FIG9B_MODELS, (1024,)),
    )
