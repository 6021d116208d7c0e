# SPDX-License-Identifier: Apache-2.0
"""What is set against what: files of two programs, or two parts of the same files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from seqmark_tools.results import ResultError, ResultFile, Row, RowName, read_all

# Facts of the context that make numbers differ, or say what is compared.
_FACTS = (
    "cpu_model",
    "cpu_threads",
    "cpu_isa",
    "cpu_cache",
    "gpu_name",
    "gpu_memory_bytes",
    "gpu_ecc",
    "gpu_power_limit",
    "cuda_cache",
    "cuda_driver",
    "cuda_runtime",
    "cudnn",
    "compiler",
    "onednn_version",
    "noise_target",
    "seed",
    "os",
    "kind",
    "source",
    "commit",
    "dirty",
    "planted",
)


@dataclass(frozen=True)
class Side:
    """One side of a comparison: of each row what every process says, None where it has no such."""

    label: str
    files: tuple[ResultFile, ...]
    rows: dict[str, list[Row | None]]


def expand(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as the result files in them."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise ResultError(f"{path}: holds no result file, *.json")
        files += inside
    return files


def of_files(paths: Sequence[Path], label: str = "") -> Side:
    """A side of one file for each process."""
    files = read_all(expand(paths), foreign=True)
    names = dict.fromkeys(row.name for file in files for row in file.rows)
    tables = [{row.name: row for row in file.rows} for file in files]
    rows = {str(name): [table.get(name) for table in tables] for name in names}
    return Side(label or ", ".join(map(str, paths)), tuple(files), rows)


def by_provider(paths: Sequence[Path], base: str | None) -> list[tuple[Side, Side]]:
    """Each two providers of the files that share a problem; with `base` it against the others."""
    return _by(
        paths,
        base,
        part="provider",
        value=lambda name: name.provider,
        key=lambda name: str(replace(name, provider="*")),
    )


def by_device(paths: Sequence[Path], base: str | None) -> list[tuple[Side, Side]]:
    """CPU against CUDA, each by its fastest provider."""
    return _by(
        paths,
        base,
        part="device",
        value=lambda name: name.device,
        key=lambda name: str(replace(name, provider="*", device="*")),
    )


def _by(
    paths: Sequence[Path],
    base: str | None,
    *,
    part: str,
    value: Callable[[RowName], str],
    key: Callable[[RowName], str],
) -> list[tuple[Side, Side]]:
    files = tuple(read_all(expand(paths), foreign=True))
    found: dict[str, dict[str, dict[str, list[Row | None]]]] = {}  # value, key, provider
    for number, file in enumerate(files):
        for row in file.rows:
            if row.name.is_foreign:
                continue
            providers = found.setdefault(value(row.name), {}).setdefault(key(row.name), {})
            providers.setdefault(row.name.provider, [None] * len(files))[number] = row
    if base is not None and base not in found:
        raise ResultError(
            f"--by {part}={base}: the files have {', '.join(sorted(found)) or 'none'}"
        )
    sides = {
        label: Side(label, files, {k: _fastest(choice) for k, choice in rows.items()})
        for label, rows in found.items()
    }
    order = sorted(sides, key=lambda label: (label != base, label))
    wanted = [
        (sides[a], sides[b])
        for a, b in combinations(order, 2)
        if (base is None or a == base) and sides[a].rows.keys() & sides[b].rows.keys()
    ]
    if not wanted:
        raise ResultError(f"--by {part}: no two {part}s of the files have a problem in common")
    return [_shared(a, b) for a, b in wanted]


def _fastest(providers: dict[str, list[Row | None]]) -> list[Row | None]:
    """The rows of the provider with the least mean time, of any where none has one."""

    def seconds(rows: list[Row | None]) -> float:
        times = [row.seconds for row in rows if row is not None and row.seconds is not None]
        return sum(times) / len(times) if times else math.inf

    return min(providers.values(), key=seconds)


def _shared(a: Side, b: Side) -> tuple[Side, Side]:
    """Both with the problems alone that both have: what one never did is no gap."""
    keys = a.rows.keys() & b.rows.keys()
    return (
        replace(a, rows={key: rows for key, rows in a.rows.items() if key in keys}),
        replace(b, rows={key: rows for key, rows in b.rows.items() if key in keys}),
    )


def different_facts(base: Side, new: Side) -> list[tuple[str, str, str]]:
    """Facts of the contexts that are not the same on both sides: name, base's, new's."""

    def facts(side: Side, key: str) -> str:
        values: dict[Any, None] = dict.fromkeys(
            str(file.context[key]) for file in side.files if key in file.context
        )
        return ", ".join(values) or "not said"

    different = [(key, facts(base, key), facts(new, key)) for key in _FACTS]
    return [(key, a, b) for key, a, b in different if a != b]
