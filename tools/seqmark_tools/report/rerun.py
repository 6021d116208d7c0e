# SPDX-License-Identifier: Apache-2.0
"""The command that measures a row again, as it was measured."""

from __future__ import annotations

import re
import shlex

from seqmark_tools.report.data import Item

# Flags of a run that change what its rows measure, not which rows they are.
_KEPT_FLAGS = (
    "cache",
    "checkpoint",
    "config",
    "logits",
    "memory_limit",
    "model_providers",
    "prefill_chunk",
    "seed",
    "threads",
)


def rerun_command(item: Item) -> str:
    """`tools/bench`, or `tools/peers` for a peer's row, with a filter for this row alone."""
    words = _split(str(item.file.context.get("command_line", "")))
    name = item.name
    escaped = re.sub(r"([.+])", r"\\\1", str(name))
    pattern = f"^{escaped}/"
    if any(word.rstrip("/").endswith(("tools/peers", "peers/__main__.py")) for word in words):
        kept = [f"--device={name.device}", *_kept(words, ("threads",))]
        return shlex.join(["python3", "tools/peers", f"--filter={pattern}", *kept])
    sweep = [f"--dtypes={name.dtype}", f"--batches={name.batch}"]
    if item.seqlen:
        sweep.append(f"--seqlens={item.seqlen}")
    return shlex.join(
        ["tools/bench", f"--benchmark_filter={pattern}", *sweep, *_kept(words, _KEPT_FLAGS)]
    )


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _kept(words: list[str], flags: tuple[str, ...]) -> list[str]:
    """The flags among `words`, written --flag=value or --flag value, one or two dashes."""
    kept = []
    for index, word in enumerate(words):
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name.replace("-", "_") not in flags:
            continue
        if not equals:
            value = words[index + 1] if index + 1 < len(words) else ""
        kept.append(f"--{name}={value}")
    return kept
