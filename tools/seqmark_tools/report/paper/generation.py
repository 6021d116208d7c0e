# SPDX-License-Identifier: Apache-2.0
"""Paper 2's generation speed-up of the 8B hybrid over the 8B Transformer."""

from __future__ import annotations

from seqmark_tools.report import labels
from seqmark_tools.report.figure import Figure, Json, Panel, View, guide, length_axis, line
from seqmark_tools.report.paper.pairs import Curve, Ours, command

HYBRID, TRANSFORMER = "mamba2-hybrid-8b", "transformer-8b"
BATCHES = (1, 8, 32)
LENGTHS = (4096, 32768, 131072)
# "up to 8x faster", the abstract of arXiv 2406.07887; a prediction, at no stated length or batch.
CLAIM = 8.0
# 16-bit bytes: the weights of each model, keys and values a token, and the hybrid's state of a
# sequence, read and written. From the configurations: 32 layers of 32 heads of 128 against 4
# layers of 8 heads, 24 Mamba-2 layers of 128 heads of 64 x 128 f32 states and convolutions.
TRANSFORMER_WEIGHTS = 2 * 8.540e9
HYBRID_WEIGHTS = 2 * 8.655e9
TRANSFORMER_KV = 2 * 32 * 32 * 128 * 2
GQA_KV = 2 * 32 * 8 * 128 * 2
HYBRID_KV = 2 * 4 * 8 * 128 * 2
HYBRID_STATE = 24 * (128 * 64 * 128 * 4 + 3 * (8192 + 2 * 8 * 128) * 2)


def predicted(batch: int, length: float, transformer_kv: int = TRANSFORMER_KV) -> float:
    """Bytes that a step of the Transformer must move over those of the hybrid."""
    transformer = TRANSFORMER_WEIGHTS + batch * length * transformer_kv
    hybrid = HYBRID_WEIGHTS + batch * (length * HYBRID_KV + 2 * HYBRID_STATE)
    return transformer / hybrid


def speed_up(ours: Ours, batch: int, counter: str = "seconds") -> Curve:
    """The Transformer's time per token over the hybrid's, at lengths of both."""
    hybrid = dict(ours.curve("decode", HYBRID, counter, batch))
    transformer = ours.curve("decode", TRANSFORMER, counter, batch)
    return [(x, y / hybrid[x]) for x, y in transformer if x in hybrid]


def generation(ours: Ours) -> Figure:
    traces: list[Json] = []
    lengths = [float(1 << n) for n in range(10, 18)]
    for number, batch in enumerate(BATCHES):
        colour, symbol = labels.CATEGORIES[number], labels.SYMBOLS[number]
        if measured := speed_up(ours, batch):
            traces.append(line(f"measured, batch {batch}", measured, colour, "x", symbol))
        points = [(x, predicted(batch, x)) for x in lengths]
        trace = line(f"bytes predict, batch {batch}", points, colour, "x", f"{symbol}-open", "dash")
        traces.append(trace)
    points = [(x, predicted(32, x, GQA_KV)) for x in lengths]
    grouped = "bytes predict, batch 32, Transformer with 8 heads of keys"
    traces.append(line(grouped, points, labels.CATEGORIES[9], "x", "x", "dot"))
    traces.append(guide("published: up to 8x", [lengths[0], lengths[-1]], [CLAIM, CLAIM]))
    layout: Json = {
        "xaxis": length_axis(lengths, "context, tokens"),
        "yaxis": {"title": {"text": "times faster"}, "type": "log", "tickmode": "array"},
    }
    ticks = [1, 2, 4, 8, 16, 32]
    layout["yaxis"] |= {"tickvals": ticks, "ticktext": [f"{tick}x" for tick in ticks]}
    panel = Panel("8B hybrid over 8B Transformer", traces, layout, "tokens", "speed-up")
    notes = (
        "The paper's abstract predicts “up to 8x”; its script's Transformer has 32 heads of keys "
        "and values, for which bytes predict up to 25x at batch 32, and with 8 heads, as many as "
        "the hybrid's, the limit is 32 / 4 layers of attention: 8x. The claim fits equal heads.",
    )
    absent_rows: tuple[tuple[str, str], ...] = ()
    absent = [
        (batch, length)
        for batch in BATCHES
        for length in LENGTHS
        if length not in dict(speed_up(ours, batch))
    ]
    if absent:
        batches = ",".join(str(batch) for batch in sorted({batch for batch, _ in absent}))
        made = command(
            ["decode"],
            [HYBRID, TRANSFORMER],
            {length for _, length in absent},
            f"--batches={batches}",
        )
        absent_rows = ((f"{len(absent)} of our points are missing. This makes them:", made),)
    return Figure(
        "generation",
        "Paper 2: generation speed-up of the hybrid",
        f"Time per token of the 8B Transformer over the 8B Mamba-2 hybrid's on {ours.machine}; "
        "dashed, the ratio of the bytes that a step must move.",
        [View("8B models", [panel])],
        notes=notes,
        missing=absent_rows,
    )
