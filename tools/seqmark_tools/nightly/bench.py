# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark program: the rows of a night, and rows of it again."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqmark_tools import results
from seqmark_tools.results import ResultError, ResultFile

ROOT = Path(__file__).resolve().parents[3]
# One argument of a program may be 128 KiB on Linux; names are grouped well below.
_LONGEST_FILTER = 50_000
_STDERR = 2  # the descriptor


@dataclass(frozen=True)
class Bench:
    """The program and the flags that choose its rows."""

    program: Path  # tools/bench or a binary
    flags: Sequence[str]

    def run(self, out: Path, extra: Sequence[str] = ()) -> ResultFile:
        """Runs it into the file `out` and reads that; ResultError where there is no such file.

        A non-zero exit status alone is none: rows that failed say so in the file.
        """
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [str(self.program), *self.flags, *extra, f"--benchmark_out={out}"]
        print(f"nightly: {shlex.join(command)[:500]}", file=sys.stderr)
        try:
            # The program's table is for people; our own output is the verdict.
            status = subprocess.run(command, stdout=_STDERR, check=False).returncode
        except OSError as error:
            raise ResultError(f"{self.program}: cannot be run: {error}") from error
        if not out.is_file():
            raise ResultError(f"{self.program}: left no results (exit status {status})")
        if status < 0 or status == 130:
            raise ResultError(f"{self.program}: was ended by a signal (exit status {status})")
        return results.read(out)

    def again(self, rows: Sequence[str], times: int) -> dict[str, list[float]]:
        """Runs rows again, each time by new processes: seconds of each, without those that failed.

        A row that a run does not know is not in the answer.
        """
        found: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory(prefix="seqmark-") as folder:
            for number in range(times):
                for part, chosen in enumerate(filters(rows)):
                    out = Path(folder) / f"{number}-{part}.json"
                    file = self.run(out, [f"--benchmark_filter={chosen}"])
                    for row in file.rows:
                        seconds = found.setdefault(str(row.name), [])
                        if row.seconds is not None:
                            seconds.append(row.seconds)
        return found


def filters(rows: Sequence[str]) -> Iterator[str]:
    """POSIX extended regular expressions that match just these rows, none too long to pass."""
    part: list[str] = []
    for row in rows:
        # A name's letters, digits, '/', ':', '_', '-' and '.': only the last means anything else.
        part.append(re.sub(r"[.]", r"[.]", row))
        if sum(map(len, part)) > _LONGEST_FILTER:
            yield _whole(part)
            part = []
    if part:
        yield _whole(part)


def _whole(names: Sequence[str]) -> str:
    return f"^({'|'.join(names)})(/iterations:|$)"
