# SPDX-License-Identifier: Apache-2.0
"""The files of sources.toml: what each is made of, and its context."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from seqmark_tools.publishing import rows
from seqmark_tools.results import PUBLISHED, SCHEMA_VERSION

_ROWS: dict[str, Callable[[rows.Lines, str], list[rows.Json]]] = {
    "fig1": rows.of_fig1,
    "fig3": rows.of_fig3,
    "memory": rows.of_memory,
    "energy": rows.of_energy,
    "generation": rows.of_generation,
    "breakdown": rows.of_breakdown,
}


@dataclass(frozen=True)
class Source:
    """A file of ours."""

    name: str
    tables: tuple[str, ...]  # of the artifact, by the names of their files
    context: rows.Json
    machine: str
    kind: str

    def make(self, lines: rows.Lines) -> list[rows.Json]:
        """The tables' lines as rows; KeyError or ValueError where they are other tables."""
        return sorted(_ROWS[self.kind](lines, self.machine), key=lambda row: str(row["name"]))


def sources(command: str) -> list[Source]:
    """All files, as made by `command`."""
    text = resources.files(__package__).joinpath("sources.toml").read_text(encoding="utf-8")
    known = tomllib.loads(text)
    return [
        Source(
            file["name"],
            tuple(file["csv"]),
            {
                "seqmark_schema": SCHEMA_VERSION,
                "kind": PUBLISHED,
                "source": known["source"],
                "figures": file["figures"],
                "csv": ", ".join(file["csv"]),
                **known["machines"][file["machine"]],
                "dtype": "f16 with mamba_ssm and GPT-Neo, else bf16",
                "batch": "1",
                "method": file["method"],
                "faults": [known["faults"][key] for key in file["faults"]],
                "command_line": command,
            },
            file["machine"],
            file["rows"],
        )
        for file in known["file"]
    ]
