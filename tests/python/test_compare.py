# SPDX-License-Identifier: Apache-2.0
"""tools/seqmark compare: what it says of files, and its exit status."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import made_up
from comparisons import Json, rows, verdicts
from seqmark_tools.__main__ import main
from seqmark_tools.validation import committed_files

COMPARE_PY = Path("/usr/share/benchmark/compare.py")  # Debian's libbenchmark-tools


def compare(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Json]:
    """The exit status and the JSON document."""
    status = main(["compare", *map(str, arguments), "--format=json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("factor", "status", "verdict"),
    [(1.0, 0, "same"), (1.5, 1, "worse"), (0.5, 0, "better"), (1.019, 0, "same")],
)
def test_exit_status(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    factor: float,
    status: int,
    verdict: str,
) -> None:
    base = made_up.write(tmp_path / "base.json", rows())
    new = made_up.write(tmp_path / "new.json", rows(factor))
    found, document = compare(capsys, base, new)
    assert (found, document["exit_status"], verdicts(document)) == (status, status, {verdict: 30})
    first = document["comparisons"][0]["rows"][0]
    assert first["ratio"] == pytest.approx(factor)
    assert first["low"] < first["ratio"] < first["high"]
    assert document["comparisons"][0]["groups"][0]["ratio"] == pytest.approx(factor)


def test_a_throttled_row_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like a slower program may be a machine that was held back."""
    base = made_up.write(tmp_path / "base.json", rows())
    slow = rows(1.5)
    slow["benchmarks"][0]["throttled"] = 0.4
    new = made_up.write(tmp_path / "new.json", slow)
    _, document = compare(capsys, base, new)
    assert [line["throttled"] for line in document["comparisons"][0]["rows"]][:2] == [
        [0, 0.4],
        [0, 0],
    ]
    main(["compare", str(base), str(new), "--format=markdown"])
    text = capsys.readouterr().out
    assert "– → 40 %" in text
    assert "hypervisor" in text
    main(["compare", str(base), str(base), "--format=markdown"])
    assert "hypervisor" not in capsys.readouterr().out


def test_thresholds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = made_up.write(tmp_path / "base.json", rows())
    new = made_up.write(tmp_path / "new.json", rows(1.3))
    assert compare(capsys, base, new, "--min-effect=31%")[0] == 0
    assert compare(capsys, base, new, "--min-effect=0.29")[0] == 1
    assert compare(capsys, base, new, "--alpha=1e-12")[0] == 0


def test_each_new_is_compared_with_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [made_up.write(tmp_path / f"{x}.json", rows(x)) for x in (1.0, 1.0, 1.5)]
    status, document = compare(capsys, *paths, paths[0])
    assert status == 1
    assert [c["new"]["label"] for c in document["comparisons"]] == [
        str(path) for path in (*paths[1:], paths[0])
    ]


@pytest.mark.parametrize("as_folders", [False, True])
def test_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_folders: bool) -> None:
    """A shift of 3 % that one process a side could not show."""
    for side, shift in (("a", 1.0), ("b", 1.03)):
        (tmp_path / side).mkdir()
        for number, luck in enumerate((0.997, 1.0, 1.002)):
            made_up.write(tmp_path / side / f"{number}.json", rows(shift * luck))
    if as_folders:
        status, document = compare(capsys, tmp_path / "a", tmp_path / "b")
    else:
        a, b = (sorted((tmp_path / side).iterdir()) for side in "ab")
        status, document = compare(capsys, "--base", *a, "--new", *b)
    assert status == 1
    assert verdicts(document) == {"worse": 30}
    assert document["comparisons"][0]["rows"][0]["processes"] == [3, 3]
    assert "processes" in document["comparisons"][0]["methods"][0]


@pytest.mark.parametrize(
    ("metric", "field", "factor", "status"),
    [
        ("sol", "sol", 0.5, 1),
        ("sol", "sol", 2.0, 0),
        ("peak_memory", "peak_memory", 1.03, 1),
        ("peak_memory", "peak_memory", 1.01, 0),
        ("peak_memory", "peak_memory", 0.5, 0),
        ("energy", "energy", 2.0, 1),
        ("tokens_per_second", "tokens_per_second", 0.5, 1),
        ("flops", "flops", 2.0, 0),  # another definition is no regression
        ("power", "power", 2.0, 0),
        ("real_time,peak_memory", "peak_memory", 1.5, 1),
        ("all", "peak_memory", 1.5, 1),
        ("real_time", "peak_memory", 1.5, 0),
        ("speed:higher", "speed", 0.5, 1),
        ("speed:lower", "speed", 0.5, 0),
    ],
)
def test_counters(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    metric: str,
    field: str,
    factor: float,
    status: int,
) -> None:
    base = made_up.write(tmp_path / "base.json", rows(1.0, count=30, **{field: 0.4}))
    new = made_up.write(tmp_path / "new.json", rows(1.0, count=30, **{field: 0.4 * factor}))
    assert compare(capsys, base, new, f"--metric={metric}")[0] == status


def test_a_counter_without_direction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_up.write(tmp_path / "a.json", rows(speed=1.0))
    assert main(["compare", str(path), str(path), "--metric=speed"]) == 2
    assert "--metric speed:lower" in capsys.readouterr().err
    assert main(["compare", str(path), str(path), "--metric=sol:up"]) == 2
    assert main(["compare", str(path), str(path), "--metric=,"]) == 2
    assert main(["compare", str(path), str(path), "--metric=energy"]) == 2
    assert "no row is measured on both sides" in capsys.readouterr().err


def spoil(document: Json, number: int, **fields: Any) -> None:
    """Makes a row an error or a skipped one, as the program writes them."""
    document["benchmarks"][number] = made_up.entry(document["benchmarks"][number]["name"], **fields)


FAILED = {"error_occurred": True, "error_message": "y[3] is 2"}
SKIPPED = {"skipped": True, "skip_message": "needs 9 GB"}


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_rows_that_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str) -> None:
    """They are shown with the reason, and never as faster."""
    before, after = rows(count=5), rows(count=5)
    spoil(after, 0, **FAILED)
    spoil(after, 1, **SKIPPED)
    spoil(before, 2, **FAILED)
    del after["benchmarks"][3]
    base = made_up.write(tmp_path / "base.json", before)
    new = made_up.write(tmp_path / "new.json", after)
    assert main(["compare", str(base), str(new), f"--format={form}"]) == 1, "a row fails now"
    text = capsys.readouterr().out
    for part in ("y[3] is 2", "needs 9 GB", "absent", "skipped", "error"):
        assert part in text
    assert "faster" not in text
    assert "-100" not in text
    _, document = compare(capsys, base, new)
    gaps = {
        row["name"].rpartition(":")[2]: (row["base"], row["new"])
        for row in document["comparisons"][0]["not_compared"]
    }
    assert gaps == {
        "1": ("measured", "error"),
        "2": ("measured", "skipped"),
        "3": ("error", "measured"),
        "4": ("measured", "absent"),
    }


def test_require_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = rows(count=5)
    spoil(after, 0, **SKIPPED)
    base = made_up.write(tmp_path / "base.json", rows(count=5))
    new = made_up.write(tmp_path / "new.json", after)
    assert compare(capsys, base, new)[0] == 0
    assert compare(capsys, base, new, "--require-all")[0] == 1


def test_a_counter_on_one_side_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = rows(count=3, energy=1.0)
    del after["benchmarks"][0]["energy"]
    base = made_up.write(tmp_path / "base.json", rows(count=3, energy=1.0))
    new = made_up.write(tmp_path / "new.json", after)
    _, document = compare(capsys, base, new, "--metric=energy")
    assert len(document["comparisons"][0]["rows"]) == 2
    assert document["comparisons"][0]["not_compared"][0]["new"] == "no energy"


def providers(*seconds: tuple[str, str, float]) -> Json:
    return made_up.document(
        *(
            made_up.measured(made_up.name(provider=provider, device=device, seqlen=s), time * s)
            for provider, device, time in seconds
            for s in (1, 2)
        )
    )


def test_by_provider(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = providers(("a", "cpu", 1.0), ("b", "cpu", 2.0), ("c", "cpu", 3.0))
    path = made_up.write(tmp_path / "a.json", content)
    status, document = compare(capsys, "--by", "provider", path)
    assert status == 0, "it describes"
    sides = [(c["base"]["label"], c["new"]["label"]) for c in document["comparisons"]]
    assert sides == [("a", "b"), ("a", "c"), ("b", "c")]
    _, document = compare(capsys, "--by", "provider=b", path)
    ratios = {
        c["new"]["label"]: [row["ratio"] for row in c["rows"]] for c in document["comparisons"]
    }
    assert ratios == {"a": pytest.approx([0.5, 0.5]), "c": pytest.approx([1.5, 1.5])}


def test_by_provider_within_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that differ by 50 % while the providers in each differ by the same 3 %."""
    paths = [
        made_up.write(
            tmp_path / f"{luck}.json", providers(("a", "cpu", luck), ("b", "cpu", luck * 1.03))
        )
        for luck in (1.0, 1.5, 0.8, 1.2, 0.9)
    ]
    _, document = compare(capsys, "--by", "provider", *paths)
    assert verdicts(document) == {"worse": 2}


def test_by_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = providers(("slow", "cpu", 9.0), ("fast", "cpu", 4.0), ("native", "cuda", 1.0))
    path = made_up.write(tmp_path / "a.json", content)
    _, document = compare(capsys, "--by", "device", path)
    (comparison,) = document["comparisons"]
    assert [row["providers"] for row in comparison["rows"]] == [["fast", "native"]] * 2
    assert [row["ratio"] for row in comparison["rows"]] == pytest.approx([0.25, 0.25])
    assert main(["compare", "--by", "device", str(path)]) == 0
    assert "fast → native" in capsys.readouterr().out


def test_contexts_that_differ_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = rows(count=3)
    after["context"]["cpu_cache"] = "cold"
    base = made_up.write(tmp_path / "base.json", rows(count=3))
    new = made_up.write(tmp_path / "new.json", after)
    assert main(["compare", str(base), str(new)]) == 0
    out = capsys.readouterr().out
    assert "cpu_cache" in out
    assert "cold" in out


def test_output_is_whole_or_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = made_up.write(tmp_path / "base.json", rows(count=3))
    out = tmp_path / "deep" / "out.md"
    assert main(["compare", str(base), str(base), "-o", str(out)]) == 0
    assert out.read_text().startswith("# seqmark: rows compared\n")
    assert capsys.readouterr().out == ""
    assert main(["compare", str(base), str(tmp_path / "no.json"), "-o", f"{out}.2"]) == 2
    assert [path.name for path in out.parent.iterdir()] == ["out.md"]


FOREIGN = {
    "context": {"date": "2026-01-01", "num_cpus": 8},
    "benchmarks": [
        {
            "name": name,
            "run_name": name,
            "run_type": "iteration",
            "repetitions": 4,
            "repetition_index": index,
            "iterations": 1000,
            "real_time": 10.0 + 0.01 * index,
            "cpu_time": 10.0,
            "time_unit": "us",
            "items_per_second": 1e5,
            "ratio": 0.5,
        }
        for name in ("BM_copy/8", "BM_copy/64")
        for index in range(4)
    ]
    + [
        {
            "name": "BM_copy_BigO",
            "run_name": "BM_copy",
            "run_type": "aggregate",
            "aggregate_name": "BigO",
            "cpu_coefficient": 1.5,
            "real_coefficient": 1.5,
            "big_o": "N",
            "time_unit": "ns",
        }
    ],
}


def slower(document: Json, factor: float) -> Json:
    result = copy.deepcopy(document)
    for entry in result["benchmarks"]:
        if "real_time" in entry:
            entry["real_time"] *= factor
    return result


def test_files_of_other_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = made_up.write(tmp_path / "base.json", FOREIGN)
    new = made_up.write(tmp_path / "new.json", slower(FOREIGN, 1.4))
    status, document = compare(capsys, base, new)
    assert (status, verdicts(document)) == (1, {"worse": 2})
    assert [row["name"] for row in document["comparisons"][0]["rows"]] == [
        "BM_copy/64",
        "BM_copy/8",
    ]
    assert compare(capsys, base, new, "--metric=items_per_second")[0] == 0


def test_nan_of_other_programs_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps(FOREIGN).replace("100000.0", "NaN").replace("0.5", "-Infinity")
    path = made_up.write(tmp_path / "nan.json", text)
    assert compare(capsys, path, path)[0] == 0
    assert main(["compare", str(path), str(path), "--metric=items_per_second"]) == 2


def no_time(document: Json) -> None:
    for entry in document["benchmarks"]:
        entry["real_time"] = None


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: text[:-40], "is not whole JSON"),
        (lambda _: "", "is not whole JSON"),
        (lambda _: "[1, 2]", "the top is not an object"),
        (lambda _: '{"tests": []}', "'benchmarks'"),
        (lambda _: '{"context": {}, "benchmarks": []}', "holds no rows"),
        (lambda _: '{"context": {}, "benchmarks": [{"name": 3}]}', "is named 3"),
        (lambda text: text.replace("0.004", "NaN"), "holds NaN"),
        (lambda text: text.replace('"seqmark_schema": "1"', '"seqmark_schema": "2"'), "'2'"),
    ],
)
def test_unusable_files(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[str], str],
    why: str,
) -> None:
    good = made_up.write(tmp_path / "good.json", rows())
    bad = made_up.write(tmp_path / "bad.json", damage(json.dumps(rows())))
    for arguments in ([good, bad], [bad, good], ["--by=provider", bad]):
        assert main(["compare", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert str(bad) in captured.err
        assert why in captured.err
        assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["a.json"], "two files at least"),
        ([], "two files at least"),
        (["--base", "a.json"], "--new"),
        (["--by=colour", "a.json"], "provider or device"),
        (["--by=provider"], "--by PART FILE"),
        (["--by=provider=cudnn", "a.json"], "the files have highway"),
        (["--by=provider", "a.json"], "no two providers"),
        (["a.json", "empty"], "holds no result file"),
        (["a.json", "other.json"], "no row is measured on both sides"),
        (["--run", "no-such-binary", "neither"], "cannot be run"),
        (["--run", "a", "b", "--metric=all"], "--metric all"),
        (["--run", "a", "b", "--max-rounds=1"], "two at least"),
        (["--run", "a", "b", "--by=device"], "goes without"),
    ],
)
def test_unusable_command_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    made_up.write(tmp_path / "a.json", rows(count=3))
    made_up.write(tmp_path / "other.json", made_up.document(made_up.measured(made_up.name("x"))))
    (tmp_path / "empty").mkdir()
    assert main(["compare", *arguments]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--alpha=0", "--alpha=x", "--min-effect=-1%", "--max-rounds=0"])
def test_options_out_of_range(option: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["compare", "a", "b", option])
    assert end.value.code == 2


def test_fields_that_googles_compare_reads() -> None:
    fields = {"name", "run_type", "real_time", "cpu_time", "time_unit"}
    for path in committed_files():
        for entry in json.loads(path.read_text())["benchmarks"]:
            assert fields <= entry.keys(), (path, entry["name"])


@pytest.mark.skipif(not COMPARE_PY.exists(), reason="libbenchmark-tools is not installed")
def test_googles_compare(tmp_path: Path) -> None:
    base = made_up.write(tmp_path / "base.json", rows(count=3))
    new = made_up.write(tmp_path / "new.json", rows(1.5, count=3))
    command = map(str, (sys.executable, COMPARE_PY, "--no-color", "benchmarks", base, new))
    outcome = subprocess.run(list(command), capture_output=True, text=True, check=True)
    assert outcome.stdout.count("+0.5000") == 4, "three rows and their mean"
