# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

import made_up
from seqmark_tools.results import ResultError, RowName, read

FOREIGN = {"context": {}, "benchmarks": [{"name": "BM_memcpy/8", "real_time": 1.0}]}


def test_reads_every_kind_of_row(tmp_path: Path) -> None:
    results = read(made_up.write(tmp_path / "good.json", made_up.good()))
    assert len(results.rows) == 8
    assert len(results.measured) == 6
    by_op = {row.name.op: row for row in results.rows}
    assert by_op["attention"].error == "y[3] is 2 | want 1"
    assert by_op["ssd_scan"].skip == "needs 9 GB, 2 GB are free"
    assert by_op["gemm"].seconds == pytest.approx(2e-3), "the median, not the repetition"
    assert by_op["prefill"].counter("memory_weights") == 3e6
    assert by_op["prefill"].counter("energy") is None
    assert by_op["prefill"].counter("iterations") is None


@pytest.mark.parametrize(("unit", "factor"), [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])
def test_time_unit(tmp_path: Path, unit: str, factor: float) -> None:
    entry = made_up.entry(made_up.name(), real_time=3.0, time_unit=unit)
    path = made_up.write(tmp_path / "unit.json", made_up.document(entry))
    assert read(path).rows[0].seconds == pytest.approx(3 * factor)


def test_a_row_without_time_is_an_error(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "a.json", made_up.document(made_up.entry(made_up.name())))
    assert read(path).rows[0].error == "the row has no time"


def test_repetitions_without_aggregates_give_their_median(tmp_path: Path) -> None:
    entries = [
        made_up.measured(made_up.name(), seconds, repetition_index=index, repetitions=3)
        for index, seconds in enumerate((5e-3, 1e-3, 2e-3))
    ]
    path = made_up.write(tmp_path / "a.json", made_up.document(*entries))
    assert read(path).rows[0].seconds == pytest.approx(2e-3)


def test_name() -> None:
    text = "gemm/cublaslt/qwen2.5-1.5b.mlp_up/dtype:bf16/device:cuda/batch:1/seqlen:65536"
    name = RowName.parse(text + "/iterations:1/repeats:3/manual_time")
    assert name is not None
    assert (name.op, name.shape, name.seqlen) == ("gemm", "qwen2.5-1.5b.mlp_up", 65536)
    assert str(name) == text
    assert not name.is_foreign
    for wrong in (
        "BM_memcpy/8",
        text.replace("bf16", "f64"),
        text.replace("batch:1", "batch:0"),
        text.replace("/seqlen:65536", ""),
        text + "/threads:2",
    ):
        assert RowName.parse(wrong) is None, wrong


def test_name_with_a_limit() -> None:
    text = "max_context/auto/mamba-130m/dtype:bf16/device:cuda/batch:1/limit:24GiB"
    name = RowName.parse(text + "/iterations:1/manual_time")
    assert name is not None
    assert (name.seqlen, name.limit, str(name)) == (0, 24 << 30, text)
    less = RowName.parse(text.replace("24", "8"))
    assert less is not None
    assert less < name, "by size, not by letter"
    for wrong in ("limit:0GiB", "limit:24", "limit:", "seqlen:1/limit:24GiB"):
        assert RowName.parse(text.replace("limit:24GiB", wrong)) is None, wrong


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not whole JSON"),
        (json.dumps(made_up.good())[:-40], "not whole JSON"),
        (json.dumps(made_up.good()).replace("0.004", "NaN"), "NaN"),
        (json.dumps(made_up.good()).replace("0.004", "-Infinity"), "Infinity"),
        ("[" * 100_000, "not whole JSON"),
        ("[]", "not a seqmark result file"),
        ('{"rows": []}', "not a seqmark result file"),
        ('{"context": {}, "benchmarks": []}', "no rows"),
        ('{"context": {}, "benchmarks": [3]}', r"benchmarks\[0\] is not an object"),
        (json.dumps(FOREIGN), "BM_memcpy/8"),
    ],
)
def test_refuses(tmp_path: Path, content: str, why: str) -> None:
    path = made_up.write(tmp_path / "bad.json", content)
    with pytest.raises(ResultError, match=why) as refusal:
        read(path)
    assert str(path) in str(refusal.value)


def test_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="cannot be read"):
        read(tmp_path / "missing.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ResultError, match="cannot be read"):
        read(tmp_path / "binary.json")
