# SPDX-License-Identifier: Apache-2.0
"""tools/seqmark nightly and history, over a program that stands in for the benchmark."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import made_up
from seqmark_tools import __main__ as command_line
from seqmark_tools.nightly.bench import filters

ROOT = Path(__file__).resolve().parents[2]
SLOW, OTHER, FAILS = (
    made_up.name(shape=shape).removesuffix(made_up.SUFFIX) for shape in ("slow", "other", "fails")
)
# Writes the rows of plan.json, a level each, with noise that differs by night, call and row.
PROGRAM = """#!{python}
import json, math, re, sys
from pathlib import Path
sys.path[:0] = {path!r}
import made_up
here = Path(__file__).parent
plan = json.loads((here / "plan.json").read_text())
calls = json.loads((here / "calls.json").read_text()) if (here / "calls.json").exists() else []
calls.append(sys.argv[1:])
(here / "calls.json").write_text(json.dumps(calls))
flags = dict(argument.split("=", 1) for argument in sys.argv[1:])
entries = []
for number, (row, seconds) in enumerate(sorted(plan["rows"].items())):
    name = row + made_up.SUFFIX
    if not re.search(flags.get("--benchmark_filter", ""), name):
        continue
    noise = 0.01 * math.sin(12.9898 * len(calls) + 78.233 * number + 40.1 * plan["night"])
    entries.append(
        made_up.entry(name, error_occurred=True, error_message="fell over") if seconds is None
        else made_up.measured(name, seconds * (1 + noise)))
document = made_up.document(*entries)
document["context"]["date"] = plan["date"]
document["context"].update(plan.get("context", {{}}))
if plan.get("write", True):
    Path(flags["--benchmark_out"]).write_text(json.dumps(document))
print("a table for people")
sys.exit(plan.get("status", 0))
"""


class Nights:
    """A benchmark, a history and a folder of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = folder / "history.sqlite"
        self.binary = folder / "bench"
        path = [str(Path(__file__).parent), str(ROOT / "tools")]
        self.binary.write_text(PROGRAM.format(python=sys.executable, path=path))
        self.binary.chmod(0o755)
        self.count = 0

    def run(self, rows: dict[str, float | None], *extra: str, **plan: object) -> int:
        self.count += 1
        date = f"2026-{1 + self.count // 28:02}-{1 + self.count % 28:02}T03:00:00+00:00"
        plan = {"context": {"os": "Linux 7"}} | plan
        content = {"rows": rows, "date": date, "night": self.count, **plan}
        (self.folder / "plan.json").write_text(json.dumps(content))
        (self.folder / "calls.json").unlink(missing_ok=True)
        where = ["--db", str(self.db), "--results", str(self.folder)]
        return command_line.main(
            ["nightly", *where, "--binary", str(self.binary), "--machine", "box", *extra]
        )

    def calls(self) -> list[list[str]]:
        calls: list[list[str]] = json.loads((self.folder / "calls.json").read_text())
        return calls

    def history(self, *arguments: str) -> int:
        verb, *rest = arguments
        return command_line.main(["history", verb, "--db", str(self.db), *rest])


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def quiet(nights: Nights, count: int) -> None:
    for _ in range(count):
        assert nights.run({SLOW: 1e-3, OTHER: 2e-3}) == 0


def test_a_regression_is_called_when_it_stays(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet(nights, 12)
    assert len(nights.calls()) == 1  # nothing suspect, nothing run again
    capsys.readouterr()
    assert nights.run({SLOW: 1.2e-3, OTHER: 2e-3}) == 0  # one night
    assert "Waiting for another night" in capsys.readouterr().out
    again = nights.calls()[1:]
    assert len(again) == 5
    assert all("--preset=default" in call for call in again)
    assert all(any(f"^({SLOW.replace('.', '[.]')})" in flag for flag in call) for call in again)
    assert nights.run({SLOW: 1.2e-3, OTHER: 2e-3}) == 1
    out, err = capsys.readouterr()
    assert "1 regression" in out
    assert SLOW in out
    assert OTHER not in out
    assert "a table for people" not in out
    assert err.endswith("nightly: 1 regression\n")
    assert nights.run({SLOW: 1.2e-3, OTHER: 2e-3}) == 0  # called once
    assert nights.history("list") == 0
    out = capsys.readouterr().out
    assert any(SLOW in line and "regression" in line and "+2" in line for line in out.splitlines())
    assert nights.history("show", "slow") == 0
    out = capsys.readouterr().out
    assert "▲" in out
    assert "\x1b" not in out


def test_a_new_driver_is_no_regression(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    quiet(nights, 12)
    for _ in range(3):
        assert nights.run({SLOW: 1.2e-3, OTHER: 2e-3}, context={"os": "Linux 8"}) == 0
    out = capsys.readouterr().out
    assert "Explained by what changed" in out
    assert "driver: os Linux 7 → Linux 8" in out


def test_a_row_that_breaks_is_called(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    quiet(nights, 2)
    assert nights.run({SLOW: None, OTHER: 2e-3}, status=1) == 1
    assert "1 broken row" in capsys.readouterr().out
    assert nights.run({SLOW: None, OTHER: 2e-3}, status=1) == 0


def test_a_night_of_the_same_id_is_run_once(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet(nights, 12)
    for _ in range(2):
        nights.run({SLOW: 1.2e-3, OTHER: 2e-3})
    assert nights.run({SLOW: 1.2e-3, OTHER: None}, "--run-id", "ci-7", status=1) == 1
    first = capsys.readouterr().out.split("# box")[-1]
    assert nights.run({SLOW: 1.2e-3, OTHER: 2e-3}, "--run-id", "ci-7") == 1
    assert not (nights.folder / "calls.json").exists()
    assert capsys.readouterr().out.split("# box")[-1] == first


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"write": False, "status": 3}, "left no results"),
        ({"status": 130}, "ended by a signal"),
        ({"context": {"date": "once"}}, "not ISO 8601"),
    ],
)
def test_nights_that_cannot_be_used(
    nights: Nights,
    capsys: pytest.CaptureFixture[str],
    plan: dict[str, object],
    message: str,
) -> None:
    assert nights.run({SLOW: 1e-3}, **plan) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert nights.history("list") == 0
    assert SLOW not in capsys.readouterr().out


def test_no_program(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    nights.binary.unlink()
    assert nights.run({SLOW: 1e-3}) == 2
    assert "cannot be run" in capsys.readouterr().err


def test_one_night_at_a_time(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    with nights.db.with_name("history.sqlite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert nights.run({SLOW: 1e-3}) == 2
    assert "another night is running" in capsys.readouterr().err
    assert nights.run({SLOW: 1e-3}) == 0


@pytest.mark.parametrize(
    "flags",
    [["--reruns=0"], ["--min-effect=2"], ["--min-effect=x"], ["--excuse=luck"], ["--run-id=../x"]],
)
def test_bad_flags(nights: Nights, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        nights.run({SLOW: 1e-3}, *flags)
    assert end.value.code == 2


def test_flags_go_to_the_benchmark(nights: Nights) -> None:
    summary = nights.folder / "night.md"
    assert nights.run({SLOW: 1e-3}, "--summary", str(summary), "--", "--devices=cpu") == 0
    (call,) = nights.calls()
    assert call[:2] == ["--preset=default", "--devices=cpu"]
    assert summary.read_text().startswith("# box, ")
    assert nights.run({SLOW: 1e-3}, "--", "--preset=smoke") == 0
    assert nights.calls()[0][0] == "--preset=smoke"


def test_the_report_is_of_the_night_and_its_history(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet(nights, 3)
    page = nights.folder / "page.html"
    capsys.readouterr()
    assert nights.run({SLOW: 1e-3, OTHER: 2e-3}, "--report", str(page)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("# box, ")
    assert "page.html" not in out
    assert "page.html" in err
    text = page.read_text()
    assert SLOW in text
    assert "Time night by night" in text
    # A page that cannot be drawn does not hide the verdict.
    assert nights.run({SLOW: None, OTHER: 2e-3}, "--report", "page.pdf", status=1) == 1
    out, err = capsys.readouterr()
    assert "1 broken row" in out
    assert "no report" in err


def test_import_and_export(nights: Nights, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(made_up.write(nights.folder / "mine.json", made_up.good()))
    assert nights.history("import", path) == 0
    assert "added as" in capsys.readouterr().err
    assert nights.history("import", path) == 0
    assert "is there already" in capsys.readouterr().err
    assert nights.history("export") == 0
    records = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(records) == 8
    (row,) = [record for record in records if record["row"].startswith("prefill/")]
    assert float(row["seconds"]) == 0.5
    assert row["machine"] == "made-up-sons-tm"
    out = nights.folder / "h.json"
    assert nights.history("export", "--format=json", "-o", str(out)) == 0
    assert len(json.loads(out.read_text())) == 8
    bad = made_up.write(nights.folder / "bad.json", "{")
    assert nights.history("import", path, str(bad)) == 2
    assert nights.history("import", str(ROOT / "results" / "h200" / "bf16-run1.json")) == 0
    capsys.readouterr()
    assert nights.history("list") == 0
    assert "nvidia-h200" in capsys.readouterr().out


def test_history_says_what_it_does_not_know(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nights.history("list") == 2
    assert "no such history" in capsys.readouterr().err
    quiet(nights, 1)
    assert nights.history("show", "nothing") == 2
    assert nights.history("show", "rmsnorm") == 2
    assert "2 rows of box" in capsys.readouterr().err
    assert nights.history("show", SLOW, "--machine=tower") == 2
    assert "it knows box" in capsys.readouterr().err


def test_filters_match_just_the_rows() -> None:
    rows = [SLOW, OTHER]
    (text,) = filters(rows)
    every = [name + made_up.SUFFIX for name in (SLOW, OTHER, FAILS, SLOW + "0")]
    outcome = subprocess.run(
        ["grep", "-E", text], input="\n".join(every), capture_output=True, text=True, check=True
    )
    assert outcome.stdout.split() == [row + made_up.SUFFIX for row in rows]
    many = [f"{SLOW}{number}" for number in range(3000)]
    parts = list(filters(many))
    assert len(parts) > 1
    assert max(map(len, parts)) < 128 * 1024
    assert sum(part.count("|") + 1 for part in parts) == len(many) + len(parts)
    assert list(filters([])) == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_units_are_well_formed(tmp_path: Path) -> None:
    for unit in (ROOT / "tools" / "systemd").iterdir():
        text = unit.read_text().replace("%h/seqmark", str(ROOT))
        (tmp_path / unit.name).write_text(text)
    outcome = subprocess.run(
        ["systemd-analyze", "--user", "verify", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(tmp_path) not in outcome.stderr, outcome.stderr
    assert len(list(tmp_path.iterdir())) == 2
