# SPDX-License-Identifier: Apache-2.0
"""How rows' outputs were compared with the reference, of a run with --verify."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from seqmark_tools.results import ResultError, ResultFile, Row
from seqmark_tools.tables import Block, Table, Text
from seqmark_tools.trials import groups, outcome
from seqmark_tools.trials.outcome import Outcome

How = Literal["whole", "parts", "first tokens", "finite", "not"]
HOWS: tuple[How, ...] = ("whole", "parts", "first tokens", "finite", "not")

# bench/verify.cc and the fixtures say it so, in a row's label.
_LABELS: tuple[tuple[str, How], ...] = (
    (r"verified: whole", "whole"),
    (r"verified: [0-9]+ parts?(,.*)?", "parts"),
    (r"verified: first [0-9]+ tokens( of [0-9]+ parts)?(,.*)?", "first tokens"),
    (r"verified: logits are finite, .*", "finite"),
)


def how(row: Row) -> How:
    """How a measured row was verified."""
    for part in row.label.split("; "):
        for pattern, said in _LABELS:
            if re.fullmatch(pattern, part):
                return said
    return "not"


def make(paths: Sequence[Path]) -> Outcome:
    files, rows = groups.read(paths)
    measured = [row for row in rows if row.seconds is not None]
    if not any(how(row) != "not" for row in measured):
        raise ResultError(f"{', '.join(map(str, paths))}: no row was run with --verify")
    errors = [row for row in rows if row.error is not None]
    unverified = [row for row in measured if how(row) == "not"]
    known = outcome.facts(files)
    return Outcome(
        "verify",
        "Outputs: how rows were compared with the reference",
        list(_blocks(rows, files, known)),
        {
            "context": known,
            "files": [str(file.path) for file in files],
            "errors": {str(row.name): row.error for row in errors},
            **{said.replace(" ", "_"): _count(measured, said) for said in HOWS},
            "rows": [
                {"name": str(row.name), "how": how(row), "fraction": row.counter("verified") or 0}
                for row in measured
            ],
        },
        not errors and not unverified,
    )


def _count(rows: Sequence[Row], wanted: How) -> int:
    return sum(row.seconds is not None and how(row) == wanted for row in rows)


def _blocks(
    rows: Sequence[Row], files: Sequence[ResultFile], known: dict[str, str]
) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Text(
        f"{len(files)} files. Before each row is timed, the launch that will be timed is run on "
        "outputs full of NaN, and they are compared with the reference in double precision: whole, "
        "in parts where that would take too long, or its first tokens; a wrong row is an error. A "
        "whole model has no reference of its size: its logits are finite and differ. Fraction: of "
        "the outputs' elements, compared."
    )
    yield Table(
        (
            *("rows of", "measured", "whole", "parts", "first tokens", "finite logits"),
            *("not verified", "skipped", "errors", "fraction, least"),
        ),
        1,
        [_line(name, members) for name, members in groups.of_rows(rows)],
    )
    failed = [(row.name, row.error) for row in rows if row.error is not None]
    yield from groups.reasons("Errors", failed)
    unverified = [row for row in rows if row.seconds is not None and how(row) == "not"]
    yield from groups.reasons(
        "Not verified", [(row.name, row.label or "no label") for row in unverified]
    )


def _line(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    fractions = [value for row in rows if (value := row.counter("verified")) is not None]
    counts = (
        sum(row.seconds is not None for row in rows),
        *(_count(rows, said) for said in HOWS),
        sum(row.skip is not None for row in rows),
        sum(row.error is not None for row in rows),
    )
    return (name, *map(str, counts), f"{min(fractions):.2g}" if fractions else "–")
