# SPDX-License-Identifier: Apache-2.0
"""Result files that are garbage: some executions of fuzz_results.py, and what it has found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fuzz_results
import made_up
from seqmark_tools.results import ResultError, read


def test_some_executions(tmp_path: Path) -> None:
    assert fuzz_results.fuzz(3000, 7, tmp_path) == 0


def test_a_failure_is_counted_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, deep: bool) -> None:
        raise KeyError(path, deep)

    monkeypatch.setattr(fuzz_results, "execute", fail)
    assert fuzz_results.fuzz(3, 7, tmp_path) == 3
    assert len(list(tmp_path.glob("fuzz-7-*.json"))) == 3


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("9" * 309, "99999999999999999999...,"),
        ("1" * 5000, "11111111111111111111...,"),
        ("1e999", "1e999,"),
    ],
)
def test_a_number_that_no_double_holds(tmp_path: Path, number: str, said: str) -> None:
    file = made_up.write(tmp_path / "x.json", made_up.document(made_up.measured(made_up.name())))
    file.write_text(file.read_text().replace('"samples": 20.0', f'"samples": {number}'))
    with pytest.raises(ResultError, match="too large") as refused:
        read(file)
    assert f"holds {said}" in str(refused.value)
    # Another program's counter: left out, as its NaN would be.
    document = {"context": {}, "benchmarks": [{"name": "BM_x", "real_time": 1.0, "odd": 0}]}
    file.write_text(json.dumps(document).replace('"odd": 0', f'"odd": {number}'))
    assert read(file, foreign=True).rows[0].counters == {}


def test_half_a_character(tmp_path: Path) -> None:
    entry = made_up.measured(made_up.name(), label="\U0001f600")  # two halves in JSON
    file = made_up.write(tmp_path / "x.json", made_up.document(entry))
    text = json.dumps(made_up.document(entry))
    file.write_text(text)
    assert read(file).rows[0].label == "\U0001f600"
    file.write_text(text.replace("\\ude00", ""))
    with pytest.raises(ResultError, match="half a character"):
        read(file)


@pytest.mark.parametrize("seconds", [1e-6, 1.0, 1e6])
def test_a_rate_that_no_double_holds(tmp_path: Path, seconds: float) -> None:
    rates = {"flops": 1e308, "bytes_per_second": 1e308, "sol": 5e-324}
    row = made_up.measured(made_up.name(), seconds, **rates)
    file = made_up.write(tmp_path / "x.json", made_up.document(row))
    fuzz_results.run_commands(file)


def test_a_time_that_is_none_in_seconds(tmp_path: Path) -> None:
    row = made_up.measured(made_up.name()) | {"real_time": 5e-324}
    file = made_up.write(tmp_path / "x.json", made_up.document(row))
    assert read(file).measured == []
    fuzz_results.run_commands(file)


@pytest.mark.parametrize("value", [[], {}, ["median"]])
def test_an_aggregate_that_is_no_name(tmp_path: Path, value: object) -> None:
    entry = made_up.measured(made_up.name(), aggregate_name=value)
    assert len(read(made_up.write(tmp_path / "x.json", made_up.document(entry))).measured) == 1


@pytest.mark.parametrize("part", ["batch:1", "seqlen:1024"])
def test_a_length_of_thousands_of_digits(tmp_path: Path, part: str) -> None:
    name = made_up.name().replace(part, part + "0" * 5000)
    file = made_up.write(tmp_path / "x.json", made_up.document(made_up.measured(name)))
    with pytest.raises(ResultError, match="is named"):
        read(file)
