# SPDX-License-Identifier: Apache-2.0
"""What the hardware counted as DRAM traffic beside what operators' READMEs claim: --verify_bytes.

ops/<operator>/README.md has a table that begins with the cell "DRAM traffic claimed": a regular
expression of rows' names, how much of the least (`bytes_moved`) such a call moves, and why. A row's
claim is that of the first one that its name has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqmark_tools import validation
from seqmark_tools.results import ResultError, ResultFile, Row
from seqmark_tools.tables import Block, Table, Text
from seqmark_tools.trials import groups, outcome
from seqmark_tools.trials.outcome import Outcome

OPERATORS = validation.RESULTS.parent / "ops"
PROVIDER = "native"
MOST_OFF = 0.1
LEAST_CACHES = 2.0  # a call that moves less than so many L2s is too small to be judged
_BEGIN = "| DRAM traffic claimed |"
_CLAIM = re.compile(r"\| `([^`]+)` \| ([0-9.]+) \| (.+) \|")


@dataclass(frozen=True)
class Claim:
    pattern: str
    factor: float  # of bytes_moved
    why: str


@dataclass(frozen=True)
class Traffic:
    """Of one row, in bytes."""

    row: Row
    least: float
    counted: float
    cache: float
    claim: Claim | None

    @property
    def judged(self) -> bool:
        return self.least >= LEAST_CACHES * self.cache

    @property
    def off(self) -> float | None:
        """What was counted over what is claimed, less one."""
        if self.claim is None:
            return None
        return self.counted / (self.claim.factor * self.least) - 1

    @property
    def met(self) -> bool:
        return self.off is not None and abs(self.off) <= MOST_OFF


def claims_of(operator: str, operators: Path) -> list[Claim]:
    """Those of an operator's README; none where it has no table of them."""
    readme = operators / operator / "README.md"
    claims: list[Claim] = []
    inside = False
    for line in readme.read_text(encoding="utf-8").splitlines() if readme.exists() else []:
        if line.startswith(_BEGIN):
            inside = True
        elif inside and not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            found = _CLAIM.fullmatch(line)
            try:
                if found is None:
                    raise ValueError("is not | `rows` | factor | why |")
                claims.append(Claim(re.compile(found[1]).pattern, float(found[2]), found[3]))
            except (ValueError, re.error) as error:
                raise ResultError(f"{readme}: the claim {line!r}: {error}") from error
    return claims


def claiming(operators: Path) -> Mapping[str, list[Claim]]:
    """By operator, of all that claim anything."""
    names = sorted(folder.name for folder in operators.iterdir())
    return {name: claims for name in names if (claims := claims_of(name, operators))}


def make(paths: Sequence[Path], operators: Path = OPERATORS) -> Outcome:
    files, rows = groups.read(paths)
    claims = claiming(operators)
    found = [traffic for file in files for traffic in _of_file(file, claims)]
    if not found:
        named = ", ".join(map(str, paths))
        raise ResultError(f"{named}: no row of {PROVIDER} has `dram_bytes`, of --verify_bytes")
    judged = [traffic for traffic in found if traffic.judged]
    missing = sorted(set(claims) - {traffic.row.name.op for traffic in judged})
    errors = [row for row in rows if row.error is not None]
    known = outcome.facts(files)
    return Outcome(
        "bytes",
        "DRAM traffic: what the hardware counted and what operators claim",
        list(_blocks(found, missing, errors, known)),
        {
            "context": known,
            "files": [str(file.path) for file in files],
            "judged": len(judged),
            "met": sum(traffic.met for traffic in judged),
            "operators_without": missing,
            "errors": {str(row.name): row.error for row in errors},
            "rows": [
                {
                    "name": str(traffic.row.name),
                    "least": traffic.least,
                    "counted": traffic.counted,
                    "claimed": traffic.claim.factor if traffic.claim else None,
                    "judged": traffic.judged,
                }
                for traffic in found
            ],
        },
        all(traffic.met for traffic in judged) and not missing and not errors,
    )


def _of_file(file: ResultFile, claims: Mapping[str, list[Claim]]) -> Iterator[Traffic]:
    for row in file.measured:
        least, counted = row.counter("bytes_moved"), row.counter("dram_bytes")
        if row.name.device != "cuda" or row.name.provider != PROVIDER or not least or not counted:
            continue
        try:
            cache = float(file.context["gpu_l2_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise ResultError(f"{file.path}: its context has no gpu_l2_bytes") from error
        name = str(row.name)
        mine = (claim for claim in claims.get(row.name.op, ()) if re.search(claim.pattern, name))
        yield Traffic(row, least, counted, cache, next(mine, None))


def _blocks(
    found: Sequence[Traffic],
    missing: Sequence[str],
    errors: Sequence[Row],
    known: dict[str, str],
) -> Iterator[Block]:
    yield outcome.facts_table(known)
    yield Text(
        f"Rows of `{PROVIDER}` that were counted, in MB. Least: `bytes_moved`, each input and "
        "output once. Claimed: in the operator's README, of the least, and why. Off: what was "
        f"counted over what is claimed, less one; wanted are {MOST_OFF:.0%} at most for every "
        f"operator that claims anything. Rows of less than {LEAST_CACHES:g} L2s are too small to "
        "be judged: other traffic is counted with them."
    )
    if missing:
        yield Text(f"Operators without a row that is large enough: {', '.join(missing)}.")
    yield Table(
        ("row", "least", "counted", "of the least", "claimed", "off", "why"),
        1,
        [
            (
                outcome.short(str(traffic.row.name)),
                *(f"{value * 1e-6:,.1f}" for value in (traffic.least, traffic.counted)),
                f"{traffic.counted / traffic.least:.3f}",
                f"{traffic.claim.factor:.2f}" if traffic.claim else "nothing",
                _verdict(traffic),
                traffic.claim.why if traffic.claim else "–",
            )
            for traffic in found
        ],
    )
    failed = [(row.name, row.error) for row in errors if row.error is not None]
    yield from groups.reasons("Errors", failed)


def _verdict(traffic: Traffic) -> str:
    if not traffic.judged:
        return "too small"
    return outcome.signed(traffic.off) if traffic.off is not None else "–"
