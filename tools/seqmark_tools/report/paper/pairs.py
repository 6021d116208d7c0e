# SPDX-License-Identifier: Apache-2.0
"""Lines of ours beside published ones, and the command of the rows that are missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seqmark_tools.report import labels
from seqmark_tools.report.data import Collection, Item
from seqmark_tools.report.figure import Json, Panel, length_axis, line, si_axis

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Ours:
    """Our rows of whole models: bf16, the providers that seqmark picks."""

    rows: Collection

    def items(self, op: str, model: str, batch: int = 1) -> list[Item]:
        """A model's rows along the length, of one build on one machine: that with most lengths."""
        found = [
            one
            for one in self.rows.lines(op)
            if (one.model, one.batch, one.dtype, one.provider) == (model, batch, "bf16", "auto")
        ]
        return max(found, key=lambda one: len(one.items)).items if found else []

    def curve(self, op: str, model: str, counter: str, batch: int = 1) -> Curve:
        """(length, value) of a model."""
        found = ((item.seqlen, item.value(counter)) for item in self.items(op, model, batch))
        return [(x, y) for x, y in found if y is not None]

    @property
    def machine(self) -> str:
        """What the rows were measured on, in words."""
        names = {item.machine for op in ("prefill", "decode") for item in self.rows.of(op)}
        return ", ".join(sorted(names)) or "no machine yet"


def both(
    title: str,
    quantity: str,
    unit: str,
    models: Iterable[str],
    published: dict[str, Curve],
    ours: dict[str, Curve],
    where: tuple[str, str],
) -> Panel:
    """One quantity against length: published lines dashed and hollow, ours solid."""
    chosen = list(models)
    styles = labels.model_styles(chosen)
    traces: list[Json] = []
    for model in chosen:
        colour, symbol = styles[model]
        name = labels.display_model(model)
        for curve, place, dash in ((published, where[0], "dash"), (ours, where[1], "solid")):
            if points := [(x, y) for x, y in curve.get(model, []) if y > 0]:
                mark = symbol if dash == "solid" else f"{symbol}-open"
                traces.append(line(f"{name} · {place}", points, colour, unit, mark, dash))
    values = [y for trace in traces for y in trace["y"]]
    layout = {
        "xaxis": length_axis(x for trace in traces for x in trace["x"]),
        "yaxis": si_axis(quantity, unit, values),
    }
    return Panel(title, traces, layout, "tokens", f"{quantity} [{unit}]")


def command(
    ops: Iterable[str], models: Iterable[str], lengths: Iterable[int], more: str = ""
) -> str:
    """The command that makes rows of models."""
    chosen = sorted(set(models), key=labels.size_key)
    names = "|".join(model.replace(".", r"\.") for model in chosen)
    operators = "|".join(ops)
    sweep = ",".join(str(length) for length in sorted(set(lengths)))
    return (
        f"tools/bench --benchmark_filter='^({operators})/auto/({names})/.*' --dtypes=bf16 "
        f"--seqlens={sweep} {more}"
    ).strip()


def missing(
    ours: Ours, ops: Iterable[str], models: Iterable[str], lengths: Iterable[int]
) -> tuple[tuple[str, str], ...]:
    """How many rows are not there, with the command that makes them; none where all are."""
    wanted = list(lengths)
    absent = [
        (op, model, length)
        for op in ops
        for model in models
        for length in wanted
        if length not in {item.seqlen for item in ours.items(op, model)}
    ]
    if not absent:
        return ()
    made = command(
        dict.fromkeys(op for op, _, _ in absent),
        {model for _, model, _ in absent},
        {length for _, _, length in absent},
    )
    return ((f"{len(absent)} of our rows are missing. This makes them:", made),)
