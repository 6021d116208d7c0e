# SPDX-License-Identifier: Apache-2.0
"""Result files that are garbage, as the tools read them: each is read, or refused with a reason.

    PYTHONPATH=tools:tests/python python tests/python/fuzz_results.py 10000000 [seed]

An execution mutates a small result file, in its values, its keys or its bytes, and gives it to
results.read, as ours and as another program's, every 50th to what comes behind (validation,
frames), every 2,000th to commands. What is raised but ResultError, or a command's other status than
it says, is a failure: the file is kept as fuzz-SEED-NUMBER.json, and the exit status is 1.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import made_up
from seqmark_tools import frames, results, validation
from seqmark_tools.__main__ import main
from seqmark_tools.results import ResultError

DEEP, COMMANDS = 50, 2000

# What a value becomes.
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 10**400, -(10**400), 1e308, -1e308, 5e-324, 0.0, -0.0, 1e-300),
    *("", "1", "ns", "s", "nan", "median", "mean", "BigO", "aggregate", "published", "x" * 300),
    *([], [[]], {}, {"a": []}, ["median"], {"median": 1}, "\ud800", "\x00", "é", "1" * 5000),
    made_up.name().replace("batch:1", "batch:" + "9" * 5000),
    made_up.name().replace("seqlen:1024", "limit:" + "7" * 400 + "GiB"),
]
# What is put between bytes.
TOKENS = [b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 2000, b"{", b"}", b'"', b",", b"\xff"]
KEYS = ["real_time", "time_unit", "aggregate_name", "run_type", "run_name", "name", "skipped"]
KEYS += ["error_occurred", "label", "seqmark_schema", "kind", "benchmarks", "context", "samples"]


def corpus() -> list[Any]:
    """Small documents of every kind of row, ours, papers' and another program's."""
    fit = made_up.entry(made_up.name(), run_type="aggregate", aggregate_name="BigO")
    papers = made_up.document(made_up.entry(made_up.name(), speedup=2.0))
    papers["context"]["kind"] = results.PUBLISHED
    foreign = {"context": {}, "benchmarks": [{"name": "BM_memcpy/8", "real_time": 1.0}]}
    both = [made_up.measured(made_up.name(), index * 1e-3) for index in (1, 2)]
    documents = [made_up.good(), made_up.document(*both, fit), papers, foreign]
    return [*documents, made_up.document(made_up.measured(made_up.name()))]


def nodes(document: Any) -> list[tuple[Any, Any]]:
    """Every place in a document: what holds it, and its key there."""
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        at = waiting.pop()
        keys = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        for key in keys:
            places.append((at, key))
            waiting.append(at[key])
    return places


def mutate(document: Any, draw: random.Random) -> bytes:
    """One file: the document, changed in some places."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice((0, 1, 1, 2, 4))):
        places = nodes(document)
        if not places:
            break
        at, key = draw.choice(places)
        match draw.randrange(5):
            case 0:
                del at[key]
            case 1 if isinstance(at, dict):
                at[draw.choice(KEYS)] = at.pop(key)
            case 2:
                other, name = draw.choice(places)
                value = copy.deepcopy(other[name]) if _has(other, name) else None
                if _has(at, key):
                    at[key] = value
            case _:
                at[key] = copy.deepcopy(draw.choice(ODD))
    data = json.dumps(document).encode(errors="surrogatepass")
    if draw.random() < 0.3:
        at = draw.randrange(len(data) + 1)
        match draw.randrange(3):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + draw.choice(TOKENS) + data[at:]
            case _:
                data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
    return data


def _has(at: Any, key: Any) -> bool:
    return key in at if isinstance(at, dict) else key < len(at)


def execute(path: Path, deep: bool) -> None:
    """Raises what no one should see."""
    read = []
    for foreign in (False, True):
        try:
            read.append(results.read(path, foreign=foreign))
        except ResultError as refused:
            str(refused).encode(errors="backslashreplace")
    if not deep:
        return
    for problem in validation.problems(path):
        problem.encode(errors="backslashreplace")
    for file in read:
        try:
            frames.frame([file])
        except ResultError as refused:
            str(refused).encode(errors="backslashreplace")


def run_commands(path: Path) -> None:
    """Raises what no one should see."""
    file, page = str(path), str(path.with_suffix(".html"))
    for arguments in (
        ["validate", file],
        ["compare", file, file],
        ["report", file, "-o", page],
        *(["trial", kind, file] for kind in ("noise", "memory", "verify", "copy", "bytes")),
    ):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(arguments)
        if status not in (0, 1, 2):
            raise AssertionError(f"{arguments}: exit status {status}")
    path.with_suffix(".html").unlink(missing_ok=True)


def fuzz(count: int, seed: int, folder: Path, progress: bool = False) -> int:
    """How many of `count` files raised something else; each of those is kept in `folder`."""
    draw = random.Random(seed)
    documents, failures, start = corpus(), 0, time.monotonic()
    path = folder / f"fuzz-{seed}.json"
    for number in range(count):
        data = mutate(draw.choice(documents), draw)
        path.write_bytes(data)
        try:
            execute(path, deep=number % DEEP == 0)
            if number % COMMANDS == 0:
                run_commands(path)
        except Exception as error:
            failures += 1
            kept = folder / f"fuzz-{seed}-{number}.json"
            kept.write_bytes(data)
            print(f"{kept}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
        if progress and (number + 1) % 100000 == 0:
            rate = (number + 1) / (time.monotonic() - start)
            print(
                f"{number + 1} of {count}, {rate:.0f} a second, {failures} failed", file=sys.stderr
            )
    path.unlink(missing_ok=True)
    return failures


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100000
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    sys.exit(1 if fuzz(wanted, chosen, Path.cwd(), progress=True) else 0)
