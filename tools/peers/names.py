# SPDX-License-Identifier: Apache-2.0
"""Row names, and the layer shapes that they stand for.

The names' grammar is that of fixtures/row.h; the shapes are read from
ops/shapes.h, the one table.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable

SHAPES_H = pathlib.Path(__file__).resolve().parents[2] / "ops" / "shapes.h"
SUFFIX = "/iterations:1/manual_time"  # Google Benchmark appends it

_NAME = re.compile(
    r"(?P<op>[^/]+)/(?P<provider>[^/]+)/(?P<shape>[^/]+)"
    r"/dtype:(?P<dtype>bf16|f16|f32)/device:(?P<device>cpu|cuda)"
    r"/batch:(?P<batch>[1-9][0-9]*)/seqlen:(?P<seqlen>[1-9][0-9]*)(?:/.*)?"
)


@dataclasses.dataclass(frozen=True)
class RowName:
    """The parts of a row's name, in its order."""

    op: str
    provider: str
    shape: str
    dtype: str
    device: str
    batch: int
    seqlen: int

    def __str__(self) -> str:
        return (
            f"{self.op}/{self.provider}/{self.shape}/dtype:{self.dtype}"
            f"/device:{self.device}/batch:{self.batch}/seqlen:{self.seqlen}"
        )

    @staticmethod
    def parse(text: str) -> RowName:
        """ValueError, with the form, where `text` has another."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise ValueError(
                f"row name '{text}' is not <op>/<provider>/<shape>/"
                "dtype:<bf16|f16|f32>/device:<cpu|cuda>/batch:<B>/seqlen:<L>"
            )
        part = match.groupdict()
        return RowName(
            part["op"],
            part["provider"],
            part["shape"],
            part["dtype"],
            part["device"],
            int(part["batch"]),
            int(part["seqlen"]),
        )

    def with_provider(self, provider: str) -> RowName:
        """The same row of another provider."""
        return dataclasses.replace(self, provider=provider)

    def model_and_role(self) -> tuple[str, str]:
        """Of "qwen2.5-0.5b.mlp_down", the model and what follows its dot."""
        model, dot, role = self.shape.rpartition(".")
        if dot and role[:1].isalpha() and "-" not in role:
            return model, role
        return self.shape, ""


Layer = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Shapes:
    """ops/shapes.h: each table as model -> axis -> size."""

    attention: dict[str, Layer]
    mamba: dict[str, Layer]
    mamba2: dict[str, Layer]
    extents: list[tuple[int, int]]  # kLongExtents: (batch, seqlen)

    @staticmethod
    def read(path: pathlib.Path = SHAPES_H) -> Shapes:
        """ValueError where the file no longer looks as it did."""
        text = path.read_text()
        extents = re.search(r"kLongExtents\s*=.*?\(\{(.*?)\}\);", text, re.S)
        if extents is None:
            raise ValueError(f"{path} has no kLongExtents")
        pairs = re.findall(r"\{\s*(\d+),\s*(\d+)\s*\}", extents.group(1))
        mamba2 = _table(text, path, "Mamba2Layer")
        for layer in mamba2.values():  # the struct's member functions
            layer["d_inner"] = layer["heads"] * layer["head_dim"]
            layer["conv_channels"] = layer["d_inner"] + 2 * layer["groups"] * layer["d_state"]
        return Shapes(
            _table(text, path, "AttentionLayer"),
            _table(text, path, "MambaLayer"),
            mamba2,
            [(int(batch), int(seqlen)) for batch, seqlen in pairs],
        )


def _table(text: str, path: pathlib.Path, struct: str) -> dict[str, Layer]:
    declared = re.search(rf"struct {struct} {{(.*?)\n}};", text, re.S)
    rows = re.search(rf"{struct} k\w+\[\] = {{(.*?)\n}};", text, re.S)
    if declared is None or rows is None:
        raise ValueError(f"{path} has no struct {struct} or no table of it")
    axes = re.findall(r"int64_t (\w+);", declared.group(1))
    table: dict[str, Layer] = {}
    for model, values in re.findall(r'{"([^"]+)",([^}]*)}', rows.group(1)):
        sizes = [int(v) for v in values.split(",")]
        if len(sizes) != len(axes):
            raise ValueError(f"{path}: {model} has {len(sizes)} sizes for {axes}")
        table[model] = dict(zip(axes, sizes, strict=True))
    return table


def read_rows(text: str) -> list[RowName]:
    """Names listed by --benchmark_list_tests, one a line, or a result file.

    Without the rows that have no seqlen, but find it: no peer runs them.
    """
    names: Iterable[str]
    if text.lstrip().startswith("{"):
        names = (row["name"] for row in json.loads(text)["benchmarks"])
    else:
        names = (line.strip() for line in text.splitlines())
    return [RowName.parse(name) for name in names if name and not name.startswith("max_context/")]
