# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from seqmark_tools import files
from seqmark_tools.results import ResultError


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    files.write(path, "one")
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    files.write(link, b"two")
    assert path.read_text() == "two"
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")

    def full(descriptor: int) -> None:
        raise OSError(28, f"No space left on device, {descriptor}")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultError, match=r"a\.txt: cannot be written: .*No space left"):
        files.write(path, "two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"time": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_into_what_is_no_file() -> None:
    files.write(Path("/dev/null"), "gone")
    assert not Path("/dev/null").is_file()
