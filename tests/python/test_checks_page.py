# SPDX-License-Identifier: Apache-2.0
"""results/h200/trials/README.md: the tests, steps and tables that it names are there."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from seqmark_tools.commands.trial import KINDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "results" / "h200" / "trials" / "README.md"
SUITE = re.compile(r"^TEST(?:_F|_P)?\((\w+),\s*(\w+)\)", re.MULTILINE)


def known_tests() -> list[str]:
    """Every test of seqmark_test, the rows' by what they register themselves as."""
    names = ["Rows.rmsnorm_native_cuda_bf16", "LargeRows.rmsnorm_native_cuda_bf16"]
    for source in (ROOT / "tests").glob("*_test.cc"):
        names += [f"{suite}.{test}" for suite, test in SUITE.findall(source.read_text())]
    return names


def patterns() -> list[str]:
    filters = re.findall(r"`([\w.*:]+[.*][\w.*:]*)`", PAGE.read_text())
    return [
        pattern
        for text in filters
        for pattern in text.split(":")
        if "*" in pattern or "." in pattern
    ]


@pytest.mark.parametrize("pattern", patterns())
def test_a_filter_has_tests(pattern: str) -> None:
    assert any(fnmatch(name, pattern) for name in known_tests())


def test_every_suite_is_some_steps() -> None:
    """Of those that METHOD.md rests on: the ones in the files that it names."""
    method = (ROOT / "bench" / "METHOD.md").read_text()
    files = {Path(name) for name in re.findall(r"tests/\w+_test\.cc", method)}
    assert len(files) > 10
    named = {
        f"{suite}.{test}"
        for file in files
        for suite, test in SUITE.findall((ROOT / file).read_text())
    }
    missing = [
        name for name in sorted(named) if not any(fnmatch(name, pattern) for pattern in patterns())
    ]
    assert missing == []


def test_every_table_and_kind_of_trial_is_there() -> None:
    text = PAGE.read_text()
    for kind in KINDS:
        assert f"trial {kind} " in text
    for table in PAGE.parent.glob("*.md"):
        assert table == PAGE or f"]({table.name})" in text
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (PAGE.parent / link).exists(), link


def test_every_step_is_one_of_the_method() -> None:
    steps = re.findall(r"^## (\d+)\. ", (ROOT / "bench" / "METHOD.md").read_text(), re.MULTILINE)
    assert steps == [str(number) for number in range(1, len(steps) + 1)]
    assert set(re.findall(r"^\| (\d+) ", PAGE.read_text(), re.MULTILINE)) == set(steps)
