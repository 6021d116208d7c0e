# SPDX-License-Identifier: Apache-2.0
"""What models, lengths and classes are called, and which colour each has in every figure."""

from __future__ import annotations

import colorsys
import re

TRANSFORMER, MAMBA, MAMBA2, HYBRID = "Transformer", "Mamba", "Mamba-2", "hybrid"
FAMILIES = (TRANSFORMER, MAMBA, MAMBA2, HYBRID)

# The first pattern that matches names the family; what no pattern knows is a Transformer.
_FAMILY_PATTERNS = (
    (re.compile(r"hybrid|falcon-h1|zamba|hymba|jamba|nemotron-h|granite-4"), HYBRID),
    (re.compile(r"^mamba-?2(?![.0-9])"), MAMBA2),
    (re.compile(r"^mamba"), MAMBA),
)
# (hue, saturation) of each family: far apart, also for the colour-blind.
_FAMILY_HUES = {
    TRANSFORMER: (0.585, 0.75),
    MAMBA: (0.085, 0.90),
    MAMBA2: (0.945, 0.72),
    HYBRID: (0.42, 0.70),
}
# Lightness that reads on white and on near-black.
_DARKEST, _LIGHTEST = 0.38, 0.66
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot")
# Twelve colours that keep apart on both backgrounds (Tableau 10 and two more).
CATEGORIES = (
    "#4e79a7",
    "#f28e2b",
    "#e15759",
    "#76b7b2",
    "#59a14f",
    "#d4b02a",
    "#b07aa1",
    "#ff9da7",
    "#9c755f",
    "#8c8c8c",
    "#2b9eb3",
    "#a5b84c",
)
# The parts of peak_memory, from the bottom of the stack to its top.
MEMORY_PARTS = {
    "weights": CATEGORIES[0],
    "state": CATEGORIES[1],  # of files that have its kinds in one
    "kv_state": CATEGORIES[3],
    "ssm_state": CATEGORIES[1],
    "activations": CATEGORIES[4],
    "workspace": CATEGORIES[9],
    "logits": CATEGORIES[2],
}
# The classes of share_<class>, from the bottom of the stack to its top.
SHARE_CLASSES = {
    "gemm": CATEGORIES[0],
    "attention": CATEGORIES[2],
    "ssm_scan": CATEGORIES[1],
    "conv": CATEGORIES[5],
    "norm": CATEGORIES[4],
    "elementwise": CATEGORIES[3],
    "embedding": CATEGORIES[6],
    "lm_head": CATEGORIES[10],
    "other": CATEGORIES[9],
}
CLASS_NAMES = {
    "ssm_scan": "scan",
    "lm_head": "logits (lm_head)",
    "gemm": "GEMM",
    "kv_state": "keys and values",
    "ssm_state": "SSM and convolution states",
}

# Of models whose names do not say it.
_SIZES = {"phi-3-mini": "3.8b"}
_WORDS = {
    "qwen": "Qwen",
    "llama": "Llama",
    "tinyllama": "TinyLlama",
    "mamba": "Mamba",
    "mamba2": "Mamba2",
    "falcon": "Falcon",
    "h1": "H1",
    "zamba2": "Zamba2",
    "hymba": "Hymba",
    "phi": "Phi",
    "gpt": "GPT",
    "neo": "Neo",
    "transformer": "Transformer",
    "hybrid": "Hybrid",
    "deep": "Deep",
}


def model_of(shape: str) -> str:
    """The model of a row's shape: `qwen2.5-1.5b.mlp_up` is of `qwen2.5-1.5b`."""
    return re.sub(r"\.[a-z][a-z0-9_]*$", "", shape)


def role_of(shape: str) -> str:
    """What the shape is in its model: `mlp_up`; empty where it has no role."""
    return shape[len(model_of(shape)) + 1 :]


def display_model(model: str) -> str:
    """The model as its authors write it: Qwen2.5-0.5B, Mamba2-780m."""

    def word(text: str) -> str:
        known = _WORDS.get(text)
        if known is not None:
            return known
        if text.startswith("qwen"):
            return f"Qwen{text[4:]}"
        return re.sub(r"^([0-9.]+)b$", r"\1B", text)

    return "-".join(word(text) for text in model.split("-"))


def display_shape(shape: str) -> str:
    """The model and, in words, the role."""
    role = role_of(shape)
    name = display_model(model_of(shape))
    return f"{name} {role}" if role else name


def family_of(model: str) -> str:
    """The family of a model by its name; one of FAMILIES."""
    for pattern, family in _FAMILY_PATTERNS:
        if pattern.search(model):
            return family
    return TRANSFORMER


def size_key(model: str) -> tuple[int, float, str]:
    """Sorts models by family, then by the size in the name."""
    sizes = re.findall(r"([0-9.]+)([bm])(?=$|-)", _SIZES.get(model, model))
    number, unit = sizes[-1] if sizes else ("0", "b")
    billions = float(number) * (1.0 if unit == "b" else 1e-3)
    return FAMILIES.index(family_of(model)), billions, model


def model_styles(models: list[str]) -> dict[str, tuple[str, str]]:
    """Each model's (colour, marker): the family's hue, darker for the smaller models."""
    styles = {}
    for family in FAMILIES:
        members = sorted({m for m in models if family_of(m) == family}, key=size_key)
        hue, saturation = _FAMILY_HUES[family]
        for index, model in enumerate(members):
            place = index / (len(members) - 1) if len(members) > 1 else 0.5
            lightness = _DARKEST + place * (_LIGHTEST - _DARKEST)
            # A slow turn of the hue keeps neighbours of a large family apart.
            turned = (hue + (place - 0.5) * 0.07 * (len(members) > 2)) % 1
            rgb = colorsys.hls_to_rgb(turned, lightness, saturation)
            colour = "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
            styles[model] = (colour, SYMBOLS[index % len(SYMBOLS)])
    return styles


def tokens(length: float) -> str:
    """A length as read on an axis: 256, 1K (1,024), 128K; others with separators."""
    if length >= 1024 and length % 1024 == 0 and (int(length) & (int(length) - 1)) == 0:
        return f"{int(length) // 1024}K" if length < 1 << 20 else f"{int(length) >> 20}M"
    return f"{round(length):,}"


def about(length: float) -> str:
    """An interpolated length, two digits of thousands: 9.3K, 24K, 870."""
    if length < 1000:
        return f"{float(f'{length:.2g}'):.0f}"
    thousands = float(f"{length / 1000:.2g}")
    return f"{thousands:.1f}K" if thousands < 10 else f"{thousands:.0f}K"


def class_name(name: str) -> str:
    """A class of operators in words."""
    return CLASS_NAMES.get(name, name)
