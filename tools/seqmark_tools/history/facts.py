# SPDX-License-Identifier: Apache-2.0
"""What a night ran on, and what of it changed from one night to the next.

A row that moves with the machine, the driver or the build did not get slower by itself: such a
change is an event, and a change point beside it is shown as that event's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Keys of a result file's context: the group that an event of theirs is of, and the device whose
# rows they bear on (None: all).
FACTS: dict[str, tuple[str, str | None]] = {
    "host_name": ("machine", None),
    "num_cpus": ("machine", "cpu"),
    "cpu_model": ("machine", "cpu"),
    "cpu_threads": ("machine", "cpu"),
    "gpu_name": ("machine", "cuda"),
    "gpu_memory_bytes": ("machine", "cuda"),
    "gpu_ecc": ("machine", "cuda"),
    "gpu_power_limit_watts": ("machine", "cuda"),
    "os": ("driver", None),
    "cuda_driver": ("driver", "cuda"),
    "gpu_driver_version": ("driver", "cuda"),
    "compiler": ("build", None),
    "onednn_version": ("build", "cpu"),
    "cuda_runtime": ("build", "cuda"),
    "cublaslt_version": ("build", "cuda"),
    "cudnn_version": ("build", "cuda"),
    "cpu_cache": ("build", "cpu"),
    "cuda_cache": ("build", "cuda"),
    "seed": ("build", None),
    "commit": ("commit", None),
}
GROUPS = ("machine", "driver", "build", "commit")
# Groups whose events explain a change. A new commit is noted, and is what nightlies look for.
EXCUSES = ("machine", "driver", "build")
_DEVICE = re.compile(r"/device:(cpu|cuda)(/|$)")


@dataclass(frozen=True)
class Event:
    """A fact that was another one the night before."""

    night: int  # the first night with the new one, as an index of the series it is told with
    date: str
    group: str  # one of GROUPS
    fact: str  # one of FACTS
    before: str
    after: str

    def __str__(self) -> str:
        short = 12 if self.group == "commit" else 60
        return f"{self.group}: {self.fact} {self.before[:short]} → {self.after[:short]}"


def facts_of(context: Mapping[str, Any]) -> dict[str, str]:
    """The facts that a result file's context states."""
    facts = {fact: str(context[fact]) for fact in FACTS if fact in context}
    if context.get("dirty") == "true" and "commit" in facts:
        facts["commit"] += " with changes"
    return facts


def encode(facts: Mapping[str, str]) -> str:
    """Facts as text, the same text for the same facts."""
    return json.dumps(dict(sorted(facts.items())))


def machine_of(context: Mapping[str, Any]) -> str:
    """A machine's name by default: its GPU's, else its CPU's, else its own; as tools/bench's."""
    for fact in ("gpu_name", "cpu_model", "host_name"):
        if name := str(context.get(fact, "")):
            name = re.sub(r"\((r|tm)\)", "", name.lower())
            return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "unknown"
    return "unknown"


def events(nights: Iterable[tuple[str, Mapping[str, str]]], row: str | None = None) -> list[Event]:
    """What changed over nights, each a date and its facts; with `row`, what bears on that row.

    A fact that a night does not state is taken to be what it was.
    """
    match = _DEVICE.search(row) if row else None
    return list(_events(nights, match.group(1) if match else None))


def _events(nights: Iterable[tuple[str, Mapping[str, str]]], device: str | None) -> Iterator[Event]:
    known: dict[str, str] = {}
    last: Mapping[str, str] | None = None
    for night, (date, facts) in enumerate(nights):
        if facts is last:
            continue
        for fact, after in facts.items():
            if fact not in FACTS:
                continue
            before = known.get(fact)
            known[fact] = after
            group, bears_on = FACTS[fact]
            if before in (None, after) or (device and bears_on not in (None, device)):
                continue
            yield Event(night, date, group, fact, str(before), after)
        last = facts
