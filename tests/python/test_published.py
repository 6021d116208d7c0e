# SPDX-License-Identifier: Apache-2.0
"""What papers published, as result files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from seqmark_tools import validation
from seqmark_tools.__main__ import main
from seqmark_tools.frames import frame
from seqmark_tools.results import read

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"
CSV = PUBLISHED / "csv"


def row(file: str, op: str, model: str, seqlen: int) -> dict[str, Any]:
    (found,) = (
        entry
        for entry in json.loads((PUBLISHED / f"ssm-scope-{file}.json").read_text())["benchmarks"]
        if entry["name"].startswith(f"{op}/ssm-scope/{model}/")
        and entry["name"].endswith(f"/seqlen:{seqlen}")
    )
    return dict(found)


def test_the_committed_files_are_what_the_command_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["published", "results/published/csv", "-o", str(tmp_path)]) == 0
    assert "line 138 has not as many fields" in capsys.readouterr().err
    committed = {path.name: json.loads(path.read_text()) for path in PUBLISHED.glob("*.json")}
    made = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    for document in made.values():
        document["context"]["command_line"] = (
            "tools/seqmark published results/published/csv -o results/published"
        )
    assert made == committed


def test_they_are_valid() -> None:
    files = sorted(PUBLISHED.glob("*.json"))
    assert len(files) == 8
    assert not [problem for file in files for problem in validation.problems(file)]


def test_numbers_of_the_figures() -> None:
    """Numbers of the paper's figures, with their units."""
    assert row("fig1", "prefill", "qwen2.5-0.5b", 1024)["real_time"] == 0.013824
    assert row("fig1", "decode", "mamba2-780m", 32768)["real_time"] == 0.013698
    assert row("fig3", "prefill", "falcon-h1-1.5b", 57344)["accuracy_mmlu"] == 0.6181
    assert row("fig6a", "prefill", "mamba2-780m", 57344)["energy"] == 370.53
    tokens = row("fig6b", "decode", "qwen2.5-0.5b", 1024)["overall_tokens_per_second"]
    assert tokens == pytest.approx(382, abs=0.5)


def test_memory() -> None:
    last = row("fig5a", "prefill", "mamba2-780m", 220000)
    assert last["peak_memory"] == pytest.approx(23247.42 * 2**20, abs=1)
    assert last["real_time"] == 0
    assert "memory_state" not in last, "it is set to 0 there"
    qwen = row("fig5a", "prefill", "qwen2.5-0.5b", 57344)
    assert qwen["memory_state"] == 672 * 2**20
    parts = [qwen[f"memory_{part}"] for part in ("weights", "state", "activations")]
    assert sum(parts) == qwen["peak_memory"]
    assert "memory_state" not in row("fig5a", "prefill", "falcon-h1-0.5b", 256), "-230 MiB"


def test_breakdown() -> None:
    zamba = row("fig7-9-rtx4090", "prefill", "zamba2-1.2b", 32768)
    assert zamba["published_share_arithmetic"] == pytest.approx(0.511, abs=5e-4)
    assert zamba["share_attention"] == pytest.approx(0.471, abs=5e-4)
    assert zamba["real_time"] == pytest.approx(2.75737, abs=1e-4)
    conv = [
        row("fig7-9-rtx4090", "prefill", "zamba2-1.2b", length)["share_conv"]
        for length in (4096, 8192, 16384)
    ]
    assert max(conv) < 2 * min(conv), "also where the artifact has it under GEMM"
    hymba = row("fig9-jetson-orin-nano", "prefill", "hymba-1.5b", 1024)
    assert hymba["share_attention"] == pytest.approx(0.052, abs=5e-4)


def test_rows_without_time_are_read() -> None:
    lines = frame([read(PUBLISHED / "ssm-scope-fig5a.json")])
    assert (lines["status"] == "measured").all()
    assert lines["seconds"].isna().all()
    assert lines["peak_memory"].notna().all()
    assert lines["context"][0]["faults"]


def test_against_other_providers(capsys: pytest.CaptureFixture[str]) -> None:
    ours = ROOT / "results" / "h200" / "models.json"
    paper = PUBLISHED / "ssm-scope-fig5a.json"
    arguments = ["--by=provider=ssm-scope", "--metric=peak_memory", "--format=json"]
    assert main(["compare", *arguments, str(paper), str(ours)]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert comparison["new"]["label"] == "auto"
    assert {row["name"].split("/")[2] for row in comparison["rows"]} == {"falcon-h1-0.5b"}


@pytest.mark.parametrize("damage", ["gone", "empty", "foreign", "binary"])
def test_other_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    """Nothing is written where one of the tables cannot be used."""
    tables, out = tmp_path / "csv", tmp_path / "out"
    shutil.copytree(CSV, tables)
    table = tables / "ttft_tpot_rtx4090.csv"
    if damage == "gone":
        table.unlink()
    elif damage == "empty":
        table.write_text("model_name,input_seq_length\n")
    elif damage == "binary":
        table.write_bytes(b"\xff\xfe\x00")
    else:
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([["a", "b"], ["1", "2"]])
    assert main(["published", str(tables), "-o", str(out)]) == 2
    assert str(table) in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("faults", None, "'faults' is a required property"),
        ("kind", "guessed", "'published' was expected"),
        ("source", 3, "not of type 'string'"),
    ],
)
def test_context_is_checked(tmp_path: Path, key: str, value: object, why: str) -> None:
    document = json.loads((PUBLISHED / "ssm-scope-fig1.json").read_text())
    if value is None:
        del document["context"][key]
    else:
        document["context"][key] = value
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    assert any(why in problem for problem in validation.problems(path))
