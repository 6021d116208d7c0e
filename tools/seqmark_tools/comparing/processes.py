# SPDX-License-Identifier: Apache-2.0
"""Runs a benchmark program once, a process of its own, for its result file."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from seqmark_tools.results import ResultError


def run(
    binary: Path, flags: Sequence[str], out: Path, environment: Mapping[str, str] | None = None
) -> Path:
    """The process's result file. A row that fails makes a process fail, not the file."""
    out.unlink(missing_ok=True)
    command = [str(binary), *flags, f"--benchmark_out={out}", "--benchmark_out_format=json"]
    outcome = run_program(command, environment=environment)
    if not out.exists() or out.stat().st_size == 0:
        last = "\n".join((outcome.stderr or outcome.stdout).strip().splitlines()[-5:])
        raise ResultError(
            f"{shlex.join(command)}: no results, exit status {outcome.returncode}: {last}"
        )
    return out


def run_program(
    command: Sequence[str], *, given: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The program's outcome, whatever it is; `given` is its standard input."""
    try:
        return subprocess.run(
            list(command),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except OSError as error:
        raise ResultError(f"{command[0]}: cannot be run: {error}") from error
