# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import made_up
from seqmark_tools import results, validation
from seqmark_tools.__main__ import main

Json = dict[str, Any]


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(results.read_json(validation.SCHEMA))


def test_committed_results_are_valid() -> None:
    found = [
        problem for path in validation.committed_files() for problem in validation.problems(path)
    ]
    assert not found


def test_good(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "good.json", made_up.good())
    assert list(validation.problems(path)) == []
    assert main(["validate", str(path)]) == 0


def change(**fields: Any) -> Callable[[Json], None]:
    """Changes fields of the first row; None removes one."""

    def apply(document: Json) -> None:
        for key, value in fields.items():
            if value is None:
                del document["benchmarks"][0][key]
            else:
                document["benchmarks"][0][key] = value

    return apply


def repeat(document: Json) -> None:
    document["benchmarks"].append(document["benchmarks"][0])


def forget(key: str) -> Callable[[Json], None]:
    return lambda document: document["context"].pop(key)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (change(name="BM_memcpy/8"), "BM_memcpy/8"),
        (change(name=made_up.name().replace("bf16", "f64")), "does not match"),
        (change(name=made_up.name(op="RmsNorm")), "does not match"),
        (change(name=made_up.name().replace("seqlen:1024", "limit:8")), "does not match"),
        (change(sol=1.5), "1.02"),
        (change(sol="0.5"), "not of type 'number'"),
        (change(samples=None), "'samples' is a required property"),
        (change(noise=-0.1), "minimum"),
        (change(real_time=0.0), "real_time"),
        (change(real_time=9e6), "not between time_p10 and time_p90"),
        (change(time_unit="minutes"), "minutes"),
        (change(bytes_per_second=1.0), "bytes_per_second is not bytes_moved over the time"),
        (change(flops=1.0), "flops_per_second is not flops over the time"),
        (change(energy=0), "energy"),
        (change(energy=0.6), "energy_per_token is not energy over the tokens"),
        (change(power=None), "'power' is a dependency of 'energy'"),
        (change(Energy=1), "Energy"),
        (change(error_occurred=True), "error_message"),
        (change(skipped=True, skip_message=""), "skip_message"),
        (change(share_gemm=0.5), "share_* sum to 0.500"),
        (change(memory_weights=1e6), "memory_* sum to 1000000, peak_memory is 5000000"),
        (repeat, "appears twice"),
        (forget("commit"), "'commit' is a required property"),
        (forget("seqmark_schema"), "'seqmark_schema' is a required property"),
        (lambda document: document.pop("context"), "'context' is a required property"),
        (lambda document: document["benchmarks"].clear(), "[]"),
    ],
)
def test_bad(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Json], object],
    why: str,
) -> None:
    document = made_up.good()
    damage(document)
    path = made_up.write(tmp_path / "bad.json", document)
    assert main(["validate", str(path)]) == 1
    assert why in capsys.readouterr().err


def test_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = made_up.write(tmp_path / "a.json", json.dumps(made_up.good()).replace("0.004", "NaN"))
    assert main(["validate", str(nan), str(tmp_path / "missing.json")]) == 1
    captured = capsys.readouterr()
    assert "NaN" in captured.err
    assert "missing.json" in captured.err
    assert "2 problems" in captured.out
