# SPDX-License-Identifier: Apache-2.0
"""tools/seqmark compare --run: two programs by turns until it is decided."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import made_up
from comparisons import rows, verdicts
from seqmark_tools.__main__ import main

PROGRAM = """#!{python}
import json, pathlib, random, sys
log = pathlib.Path({log!r})
random.seed("{name}" + str(len(log.read_bytes()) if log.exists() else 0))  # another at every call
out = [a.partition("=")[2] for a in sys.argv if a.startswith("--benchmark_out=")][0]
document = json.loads(pathlib.Path({document!r}).read_text())
for row in document["benchmarks"]:
    row["real_time"] *= random.gauss({factor}, 0.004)
    row["time_p10"] = row["time_p90"] = row["real_time"] * 1e-9
pathlib.Path(out).write_text(json.dumps(document))
with log.open("a") as calls:
    calls.write("{name}" + " ".join(a for a in sys.argv[1:] if "benchmark_out" not in a) + ";")
sys.exit({status})
"""


def program(folder: Path, name: str, factor: float, status: int = 0) -> Path:
    """An executable that writes rows `factor` times as slow, a little different each time."""
    document = made_up.write(folder / f"{name}.json", rows(count=3))
    path = folder / name
    path.write_text(
        PROGRAM.format(
            python=sys.executable,
            document=str(document),
            factor=factor,
            log=str(folder / "log"),
            name=name,
            status=status,
        )
    )
    path.chmod(0o755)
    return path


def test_run_by_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = program(tmp_path, "A", 1.0), program(tmp_path, "B", 1.1, status=1)
    keep = tmp_path / "kept"
    arguments = ["--run", str(a), str(b), f"--keep={keep}", "--format=json", "--", "--x=1"]
    assert main(["compare", *arguments]) == 1
    captured = capsys.readouterr()
    assert verdicts(json.loads(captured.out)) == {"worse": 3}
    order = (tmp_path / "log").read_text().split(";")[:-1]
    assert order[:4] == ["A--x=1", "B--x=1", "B--x=1", "A--x=1"]
    assert len(order) < 2 * 20, "it stops when it is decided"
    assert len(list(keep.iterdir())) == len(order)
    assert "3 of 3 decided" in captured.err


def test_run_of_the_same_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = program(tmp_path, "A", 1.0), program(tmp_path, "B", 1.0)
    assert main(["compare", "--run", str(a), str(b), "--format=json"]) == 0
    captured = capsys.readouterr()
    assert verdicts(json.loads(captured.out)) == {"same": 3}
    assert "3 of 3 decided" in captured.err


def test_run_that_ends_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = program(tmp_path, "A", 1.0), program(tmp_path, "B", 1.02)
    assert main(["compare", "--run", str(a), str(b), "--max-rounds=2", "--format=json"]) == 0
    captured = capsys.readouterr()
    assert verdicts(json.loads(captured.out)) == {"undecided": 3}
    assert "round 2 done: 0 of 3 decided" in captured.err


def test_run_of_what_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = program(tmp_path, "A", 1.0)
    b = tmp_path / "B"
    b.write_text("#!/bin/sh\necho 'unknown flag' >&2\nexit 3\n")
    b.chmod(0o755)
    assert main(["compare", "--run", str(a), str(b)]) == 2
    assert "exit status 3: unknown flag" in capsys.readouterr().err
