# SPDX-License-Identifier: Apache-2.0
"""Runs the programs of a trial; what they write is kept in a folder, and read from there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from seqmark_tools import files
from seqmark_tools.comparing import processes
from seqmark_tools.results import ResultError
from seqmark_tools.trials import kernels

Say = Callable[[str], None]

# NVBench's flags: so many samples of each row, none dropped, none of calls back to back.
_NVBENCH = ("--stopping-criterion", "sample-count", "--target-samples", "300", "--min-samples")
_NVBENCH_REST = ("300", "--no-batch", "--timeout", "3")
# Products by the first kernel that cuBLASLt ranks: the fastest of several may be another one in
# each process.
_SAME_KERNELS = {"SEQMARK_CUBLASLT": "heuristic"}


def ab(
    plain: Path,
    planted: Path,
    flags: Sequence[str],
    folder: Path,
    *,
    rounds: int,
    most_seconds: float,
    say: Say,
) -> None:
    """Rounds of three processes, plain, planted, plain: a planted one lies between two of the same.

    Stops before `rounds` where one ends after `most_seconds`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in _rounds(rounds, say, most_seconds):
        for binary, name in (
            (plain, f"plain-{2 * number - 1:03}"),
            (planted, f"planted-{number:03}"),
            (plain, f"plain-{2 * number:03}"),
        ):
            processes.run(binary, flags, folder / f"{name}.json")


def times(build: Path, flags: Sequence[str], folder: Path, *, rounds: int, say: Say) -> None:
    """The rows by seqmark_bench and under CUPTI, and by turns by NVBench and with dirty caches.

    `rounds` processes of each of the latter: a row's time changes with where its process's memory
    comes to lie, so that one of each would compare two draws.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Of an earlier collection, which may have had more rounds.
    for pattern in ("nvbench.json", "nvbench-*.json", "dirty.json", "dirty-*.json"):
        for earlier in folder.glob(pattern):
            earlier.unlink()
    bench, programs = build / "seqmark_bench", build / "tests" / "trials"
    flags = [*flags, "--energy_time=0"]
    ours = processes.run(bench, flags, folder / "ours.json", _SAME_KERNELS)
    say("seqmark_bench done")
    if (programs / "seqmark_nvbench_rows").exists():
        names, dirty = kernels.names(ours), [*flags, "--cache=dirty"]
        for number in _rounds(rounds, say):
            out = folder / f"nvbench-{number:03}.json"
            command = [str(programs / "seqmark_nvbench_rows"), "--json", str(out), *_NVBENCH]
            _program([*command, *_NVBENCH_REST], names, _SAME_KERNELS)
            processes.run(bench, dirty, folder / f"dirty-{number:03}.json", _SAME_KERNELS)
    library = programs / "libseqmark_kernel_trace.so"
    if library.exists():
        trace = folder / "trace.txt"
        environment = {
            **_SAME_KERNELS,
            "CUDA_INJECTION64_PATH": str(library.resolve()),
            "SEQMARK_KERNEL_TRACE": str(trace.resolve()),
        }
        traced = processes.run(bench, flags, folder / "traced.json", environment)
        files.write_json(folder / "kernels.json", kernels.summary(trace, traced))
        trace.unlink()
        say("CUPTI done")


def energy(
    build: Path,
    flags: Sequence[str],
    folder: Path,
    *,
    count: int,
    warm_ups: int,
    window: float,
    say: Say,
) -> None:
    """The rows in `count` processes, then each beside power that is sampled.

    Before them `warm_ups` processes whose energies do not count: a cold device takes less power.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("warm-up-*.json"):
        earlier.unlink()
    for number in range(1, warm_ups + 1):
        processes.run(build / "seqmark_bench", flags, folder / f"warm-up-{number:03}.json")
        say(f"warm-up process {number} of {warm_ups} done")
    for number in range(1, count + 1):
        first = processes.run(build / "seqmark_bench", flags, folder / f"process-{number:03}.json")
        say(f"process {number} of {count} done")
    program = build / "tests" / "trials" / "seqmark_power_rows"
    text = _program([str(program), str(window)], kernels.names(first))
    files.write(folder / "power.json", text)
    say("sampled power done")


def _rounds(count: int, say: Say, most_seconds: float = math.inf) -> Iterator[int]:
    """1 to `count`, but none after one that ends after `most_seconds`; says when each is done."""
    start = time.monotonic()
    for number in range(1, count + 1):
        yield number
        spent = time.monotonic() - start
        say(f"round {number} of {count} done, {spent:.0f} s")
        if spent > most_seconds:
            break


def _program(
    command: Sequence[str], rows: Sequence[str], environment: Mapping[str, str] | None = None
) -> str:
    """What the program says of the rows, which it is given by their names."""
    given = "".join(f"{name}\n" for name in rows)
    outcome = processes.run_program(command, given=given, environment=environment)
    if outcome.returncode != 0:
        last = "\n".join((outcome.stderr or outcome.stdout).strip().splitlines()[-5:])
        raise ResultError(f"{command[0]}: exit status {outcome.returncode}: {last}")
    return outcome.stdout
