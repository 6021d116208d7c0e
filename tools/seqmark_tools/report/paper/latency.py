# SPDX-License-Identifier: Apache-2.0
"""Paper 1's figures of time and energy: 1, 3, 6a and 6b."""

from __future__ import annotations

from seqmark_tools.report import labels
from seqmark_tools.report.figure import Figure, Json, Panel, View, si_axis
from seqmark_tools.report.paper.pairs import Curve, Ours, both, missing
from seqmark_tools.report.paper.values import DESKTOP, Published

FIG1_MODELS = ("qwen2.5-0.5b", "mamba2-780m")
FIG3_MODELS = ("qwen2.5-1.5b", "mamba2-1.3b", "falcon-h1-1.5b")
FIG6_MODELS = ("qwen2.5-0.5b", "mamba2-780m", "falcon-h1-0.5b")
FIG6_LENGTHS = (1024, 2048, 4096, 8192, 16384, 24576, 32768)
ENERGY_LENGTHS = (*FIG6_LENGTHS, 40960, 49152, 57344)
NEW_TOKENS = 256  # that paper 1 generates after each prompt
TASKS = {
    "mmlu": "MMLU",
    "hellaswag": "HellaSwag",
    "winogrande": "Winogrande",
    "arc_challenge": "ARC-Challenge",
    "truthfulqa": "TruthfulQA",
}

DEVICE_TIME = "Ours is the device's time, and a decode step is one CUDA graph: no host is in it."


def fig1(published: Published, ours: Ours) -> Figure:
    where = (DESKTOP, ours.machine)
    panels = [
        both(
            title,
            "time",
            "s",
            FIG1_MODELS,
            {model: published.curve("1", op, model, "seconds") for model in FIG1_MODELS},
            {model: ours.curve(op, model, "seconds") for model in FIG1_MODELS},
            where,
        )
        for op, title in (("prefill", "time to first token"), ("decode", "time per token"))
    ]
    return Figure(
        "fig1",
        "Paper 1, Fig. 1: TTFT and TPOT of a Transformer and an SSM",
        f"Dashed, published: {DESKTOP}. Solid, ours: {ours.machine}. Batch 1, 16-bit.",
        [View("Fig. 1", panels)],
        notes=(
            *published.faults("1"),
            DEVICE_TIME,
        ),
        missing=missing(ours, ("prefill", "decode"), FIG1_MODELS, (1024, 32768)),
    )


def fig3(published: Published, ours: Ours) -> Figure:
    """Accuracy over TTFT at 57,344 tokens; the accuracies are the paper's constants."""
    views = []
    for task, words in (("", "mean of five tasks"), *TASKS.items()):
        traces: list[Json] = []
        styles = labels.model_styles(list(FIG3_MODELS))
        for model in FIG3_MODELS:
            scores = published.accuracies(model)
            score = scores.get(task) if task else sum(scores.values()) / max(len(scores), 1)
            if not scores or score is None:
                continue
            for place, curve in (
                (DESKTOP, published.curve("3", "prefill", model, "seconds")),
                (ours.machine, ours.curve("prefill", model, "seconds")),
            ):
                times = [y for x, y in curve if x == 57344]
                if times:
                    colour, symbol = styles[model]
                    mark = symbol if place != DESKTOP else f"{symbol}-open"
                    traces.append(
                        _dot(
                            f"{labels.display_model(model)} · {place}",
                            times[0],
                            score,
                            colour,
                            mark,
                        )
                    )
        layout = {
            "xaxis": si_axis(
                "time to first token, 57,344 tokens", "s", [t["x"][0] for t in traces]
            ),
            "yaxis": {"title": {"text": "accuracy, % (published)"}, "range": [30, 75]},
        }
        panel = Panel(words, traces, layout, "ttft [s]", "accuracy [%], published constant")
        views.append(View(words, [panel]))
    return Figure(
        "fig3",
        "Paper 1, Fig. 3: accuracy against TTFT",
        "Accuracies are the published constants, in both halves: neither the paper's repository "
        f"nor seqmark measures them. Hollow: TTFT on {DESKTOP}, published. Full: ours on "
        f"{ours.machine}.",
        views,
        "task",
        notes=(
            *published.faults("3"),
            DEVICE_TIME,
        ),
        missing=missing(ours, ("prefill",), FIG3_MODELS, (57344,)),
    )


def _dot(name: str, x: float, y: float, colour: str, symbol: str) -> Json:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": name,
        "legendgroup": name,
        "text": [name.partition(" · ")[0]],
        "textposition": "top center",
        "x": [x],
        "y": [y],
        "marker": {"color": colour, "symbol": symbol, "size": 13, "line": {"width": 2}},
        "hovertemplate": "%{x:.3s}s, %{y:.1f} %<extra>" + name + "</extra>",
    }


def fig6a(published: Published, ours: Ours) -> Figure:
    where = (DESKTOP, ours.machine)
    curves = {model: published.curve("6a", "prefill", model, "energy") for model in FIG6_MODELS}
    mine = {model: ours.curve("prefill", model, "energy") for model in FIG6_MODELS}
    panels = [
        both("energy of a prompt", "energy", "J", FIG6_MODELS, curves, mine, where),
        both(
            "energy of a prompt's token",
            "energy a token",
            "J",
            FIG6_MODELS,
            {model: _per_token(curve) for model, curve in curves.items()},
            {model: _per_token(curve) for model, curve in mine.items()},
            where,
        ),
    ]
    return Figure(
        "fig6a",
        "Paper 1, Fig. 6a: energy of a prompt",
        f"Dashed, published: {DESKTOP}. Solid, ours: {ours.machine}.",
        [View("Fig. 6a", panels)],
        notes=(
            *published.faults("6a"),
            "Ours is the board's own energy counter over calls back to back, idle power included.",
        ),
        missing=missing(ours, ("prefill",), FIG6_MODELS, ENERGY_LENGTHS),
    )


def _per_token(curve: Curve) -> Curve:
    return [(x, y / x) for x, y in curve]


def throughput(prefill: Curve, decode: Curve) -> Curve:
    """Tokens in and out a second, of a prompt and NEW_TOKENS after it, at lengths of both.

    The context grows by 256 tokens meanwhile; the time per token at its start stands for all.
    """
    steps = dict(decode)
    return [
        (length, (length + NEW_TOKENS) / (ttft + NEW_TOKENS * steps[length]))
        for length, ttft in prefill
        if length in steps
    ]


def fig6b(published: Published, ours: Ours) -> Figure:
    panel = both(
        "tokens in and out a second",
        "throughput",
        "tok/s",
        FIG6_MODELS,
        {
            model: throughput(
                published.curve("6b", "prefill", model, "seconds"),
                published.curve("6b", "decode", model, "seconds"),
            )
            for model in FIG6_MODELS
        },
        {
            model: throughput(
                ours.curve("prefill", model, "seconds"), ours.curve("decode", model, "seconds")
            )
            for model in FIG6_MODELS
        },
        (DESKTOP, ours.machine),
    )
    return Figure(
        "fig6b",
        "Paper 1, Fig. 6b: overall throughput",
        f"(prompt + {NEW_TOKENS}) tokens over the time of the prompt and of {NEW_TOKENS} new "
        f"tokens. Dashed, published: {DESKTOP}. Solid, ours: {ours.machine}.",
        [View("Fig. 6b", [panel])],
        notes=(
            *published.faults("6b"),
            DEVICE_TIME,
        ),
        missing=missing(ours, ("prefill", "decode"), FIG6_MODELS, FIG6_LENGTHS),
    )
