# SPDX-License-Identifier: Apache-2.0
"""Checks result files against results/schema.json and what a schema cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from seqmark_tools import results

RESULTS = Path(__file__).resolve().parents[2] / "results"
SCHEMA = RESULTS / "schema.json"
# Doubles are printed with 16 digits or more; what is derived of them is exact to this.
RELATIVE_ERROR = 1e-6
RATES = {"bytes_per_second": "bytes_moved", "flops_per_second": "flops"}


def committed_files() -> list[Path]:
    """The result files that the repository keeps; trials/ hold tables of other forms."""
    files = RESULTS.rglob("*.json")
    return sorted(
        file
        for file in files
        if file != SCHEMA
        and file.relative_to(RESULTS).parts[0] != "local"
        and file.parent.name != "trials"
    )


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(results.read_json(SCHEMA))


def problems(path: Path) -> Iterator[str]:
    """Each thing that is wrong with the file at `path`."""
    try:
        document = results.read_json(path)
    except results.ResultError as unreadable:
        yield str(unreadable)
        return
    errors = sorted(_validator().iter_errors(document), key=lambda error: list(error.absolute_path))
    for error in errors:
        yield f"{path}: {_where(document, list(error.absolute_path))}: {_what(error)}"
    if errors:
        return
    if "planted" in document["context"]:
        yield f"{path}: is of a build with a slowdown planted: {document['context']['planted']}"
    seen: set[tuple[str, int]] = set()
    for entry in document["benchmarks"]:
        key = (entry["name"], entry.get("repetition_index", 0))
        if key in seen:
            yield f"{path}: {entry['name']}: appears twice"
        seen.add(key)
        if entry["run_type"] == "iteration" and "samples" in entry:
            for problem in _contradictions(entry):
                yield f"{path}: {entry['name']}: {problem}"


def _where(document: Any, parts: list[str | int]) -> str:
    """The place of an error as a person would say it: a row by its name."""
    if len(parts) >= 2 and parts[0] == "benchmarks":
        entry = document["benchmarks"][parts[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        return ".".join([str(name or f"benchmarks[{parts[1]}]"), *map(str, parts[2:])])
    return ".".join(map(str, parts)) or "the top"


def _what(error: jsonschema.ValidationError) -> str:
    text = error.message
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"


def _contradictions(entry: dict[str, Any]) -> Iterator[str]:
    seconds = results.seconds_of(entry) or 0.0
    slack = 1 + RELATIVE_ERROR
    low, high = entry.get("time_p10", seconds), entry.get("time_p90", seconds)
    if not low <= seconds * slack or not seconds <= high * slack:
        yield f"the time, {seconds} s, is not between time_p10 and time_p90"
    for rate, quantity in RATES.items():
        both = rate in entry and quantity in entry
        if both and not _close(entry[rate] * seconds, entry[quantity]):
            yield f"{rate} is not {quantity} over the time"
    if "energy_per_token" in entry and "tokens_per_second" in entry:
        tokens = entry["tokens_per_second"] * seconds
        if not _close(entry["energy_per_token"] * tokens, entry["energy"]):
            yield "energy_per_token is not energy over the tokens"
    if "memory_weights" in entry:  # a model names every part of its memory
        total = sum(value for key, value in entry.items() if key.startswith("memory_"))
        if not _close(total, entry.get("peak_memory", 0)):
            yield f"memory_* sum to {total:.0f}, peak_memory is {entry.get('peak_memory')}"
    shares = [value for key, value in entry.items() if key.startswith("share_")]
    if shares and abs(sum(shares) - 1) > 0.01:
        yield f"share_* sum to {sum(shares):.3f}, not 1"


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= RELATIVE_ERROR * max(abs(a), abs(b))
