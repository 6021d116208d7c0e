# SPDX-License-Identifier: Apache-2.0
"""The published values, as results/published/ keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seqmark_tools import results
from seqmark_tools.results import PUBLISHED, ResultError, ResultFile, Row

FOLDER = Path(__file__).parents[4] / "results" / "published"
DESKTOP, EDGE = "RTX 4090", "Jetson Orin Nano"
Shares = dict[str, float]
"""Fractions of time by class of operator."""

# Bytes of 16-bit logits a position: the vocabulary, padded as the checkpoint's is, of as many
# copies as the published forward held at its peak (Falcon-H1 scales its logits into a second one).
LOGIT_BYTES = {
    "qwen2.5-0.5b": 2 * 151936,
    "qwen2.5-1.5b": 2 * 151936,
    "llama-3.2-1b": 2 * 128256,
    "phi-3-mini": 2 * 32064,
    "mamba-790m": 2 * 50280,
    "mamba-1.4b": 2 * 50280,
    "mamba2-780m": 2 * 50288,
    "falcon-h1-0.5b": 2 * 2 * 32784,
    "zamba2-1.2b": 2 * 32000,
}


@dataclass(frozen=True)
class Published:
    """Rows of the papers, by figure: the files' own word of which figures they are."""

    files: list[ResultFile]

    def _rows(self, figure: str, op: str, model: str) -> list[Row]:
        found = [
            row
            for file in self.files
            if figure in str(file.context.get("figures", "")).split(", ")
            for row in file.rows
            if (row.name.op, row.name.shape) == (op, model)
        ]
        return sorted(found, key=lambda row: row.name.seqlen)

    def on(self, device: str) -> Published:
        """The files of a device alone."""
        return Published([f for f in self.files if device in str(f.context.get("gpu_name", ""))])

    def curve(self, figure: str, op: str, model: str, quantity: str) -> list[tuple[float, float]]:
        """(length, value) of `seconds`, a counter, or `memory_logits`, which is computed."""
        points = []
        for row in self._rows(figure, op, model):
            value = row.seconds if quantity == "seconds" else row.counter(quantity)
            if quantity == "memory_logits" and model in LOGIT_BYTES:
                value = float(LOGIT_BYTES[model] * row.name.seqlen)
            if value is not None:
                points.append((float(row.name.seqlen), value))
        return points

    def accuracies(self, model: str) -> dict[str, float]:
        """Accuracies in percent by task: constants of Fig. 3."""
        return {
            key.removeprefix("accuracy_"): 100 * value
            for row in self._rows("3", "prefill", model)
            for key, value in (row.counters or {}).items()
            if key.startswith("accuracy_")
        }

    def profiled(self, figure: str, model: str) -> list[int]:
        """The lengths whose operators were profiled."""
        rows = self._rows(figure, "prefill", model)
        return [row.name.seqlen for row in rows if row.counter("share_gemm") is not None]

    def shares(self, figure: str, model: str, length: int, prefix: str) -> Shares:
        """Shares of `prefix`, share_ (GPU time) or published_share_ (host and GPU time)."""
        return {
            key.removeprefix(prefix): value
            for row in self._rows(figure, "prefill", model)
            if row.name.seqlen == length
            for key, value in (row.counters or {}).items()
            if key.startswith(prefix)
        }

    def faults(self, figure: str) -> tuple[str, ...]:
        """What is known to be wrong with a figure's values, each said once."""
        said = [
            str(fault)
            for file in self.files
            if figure in str(file.context.get("figures", "")).split(", ")
            for fault in file.context.get("faults", [])
        ]
        return tuple(dict.fromkeys(said))


def load(folder: Path = FOLDER) -> Published:
    """Every file of `folder`."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ResultError(
            f"{folder}: holds no published values; `tools/seqmark published` makes them"
        )
    files = results.read_all(paths)
    return Published([file for file in files if file.context.get("kind") == PUBLISHED])
