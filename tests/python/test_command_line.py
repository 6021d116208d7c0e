# SPDX-License-Identifier: Apache-2.0
"""What is the same for every command of tools/seqmark."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import made_up
from seqmark_tools import __main__ as command_line

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_is_a_command() -> None:
    assert "validate" in command_line.names()
    for name in command_line.names():
        assert command_line.load(name).HELP


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command_line.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in command_line.names())


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command_line.main(["frobnicate"])
    assert end.value.code == 2
    assert "frobnicate" in capsys.readouterr().err


def test_paths_are_relative_to_where_it_is_called(tmp_path: Path) -> None:
    """In a checkout whose packages are there; installing them is no part of this."""
    tools, python = tmp_path / "checkout" / "tools", tmp_path / "checkout" / ".venv" / "bin"
    tools.mkdir(parents=True)
    python.mkdir(parents=True)
    shutil.copy2(ROOT / "tools" / "seqmark", tools)
    (tools / "seqmark_tools").symlink_to(ROOT / "tools" / "seqmark_tools")
    (tools / "install").write_text('#!/bin/sh\n[ "$*" = --python ] && echo installing\n')
    (tools / "install").chmod(0o755)
    (python / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (python / "python").chmod(0o755)
    made_up.write(tmp_path / "mine.json", made_up.good())
    outcome = subprocess.run(
        [tools / "seqmark", "validate", "mine.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "1 result files checked, 0 problems\n"


def test_pins_are_the_same_everywhere() -> None:
    pin = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+")
    text = "".join(file.read_text() for file in (ROOT / "tools").glob("requirements*.txt"))
    hooks = set(pin.findall((ROOT / ".pre-commit-config.yaml").read_text()))
    assert hooks
    assert hooks <= set(pin.findall(text))
