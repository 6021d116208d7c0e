# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import made_up
from seqmark_tools.frames import COLUMNS, frame
from seqmark_tools.results import read, read_all

FOREIGN = {
    "context": {"num_cpus": 8},
    "benchmarks": [
        {"name": "BM_a/8", "real_time": 5.0, "cpu_time": 4.0, "time_unit": "us", "batch": 3.0},
        {"name": "BM_b", "real_time": float("nan"), "cpu_time": 4.0, "time_unit": "us"},
    ],
}


def test_a_line_for_every_row(tmp_path: Path) -> None:
    paths = [made_up.write(tmp_path / f"{name}.json", made_up.good()) for name in "ab"]
    lines = frame(read_all(paths))
    assert len(lines) == 16
    assert list(lines.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert set(lines["file"]) == {str(path) for path in paths}
    assert sorted(lines["status"].value_counts().items()) == [
        ("error", 2),
        ("measured", 12),
        ("skipped", 2),
    ]
    (longest,) = lines[(lines["op"] == "max_context") & (lines["file"] == str(paths[0]))].index
    assert lines.loc[longest, "limit"] == 8 << 30
    assert pd.isna(lines.loc[longest, "seqlen"])
    assert lines.loc[longest, "max_seqlen"] == 9000
    failed = lines[lines["op"] == "attention"].iloc[0]
    assert (failed["reason"], pd.isna(failed["seconds"])) == ("y[3] is 2 | want 1", True)
    assert lines["context"][0]["cpu_model"] == "Made Up & Sons <tm>"
    assert lines["seqlen"].dtype == "Int64"
    assert lines["energy"].dtype == "float64"


def test_rows_of_other_programs(tmp_path: Path) -> None:
    lines = frame([read(made_up.write(tmp_path / "a.json", FOREIGN), foreign=True)])
    assert list(lines["name"]) == ["BM_a/8", "BM_b"]
    assert list(lines["status"]) == ["measured", "error"]
    assert lines["seconds"][0] == pytest.approx(5e-6)
    assert lines["batch"].isna().all()
    assert lines["batch_counter"][0] == 3.0
    assert lines["provider"].isna().all()


def test_nothing() -> None:
    assert list(frame([]).columns) == list(COLUMNS)
