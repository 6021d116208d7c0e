# SPDX-License-Identifier: Apache-2.0
"""The history file: whole or not at all, whatever happens to who writes it."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import made_up
import make_old_history
from seqmark_tools import results
from seqmark_tools.history.store import History, Run, Sample, Verdict, run_of
from seqmark_tools.results import ResultError

DATA = Path(__file__).parent / "data"
ENVIRONMENT = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
ROWS = 200
# Appends run after run for ever; says each run's name before and after.
WRITER = """
import sys
from pathlib import Path
from seqmark_tools.history.store import History, Run, Sample
with History(Path(sys.argv[1]), create=True) as history:
    for number in range(10**9):
        samples = [Sample(f"row{row}", 1e-3 * (row + 1)) for row in range(int(sys.argv[3]))]
        run = Run(f"{sys.argv[2]}-{number:06}", "machine", "2026-01-01T00:00:00+00:00", samples)
        history.append(run)
        print(run.run_id, flush=True)
"""


def make_run(run_id: str = "a", seconds: float = 1.0, **fields: str) -> Run:
    date = fields.get("date", "2026-01-01T00:00:00+00:00")
    samples = [Sample("x/device:cpu", seconds), Sample("y/device:cpu", failure="error: fell over")]
    return Run(run_id, fields.get("machine", "box"), date, samples, {"commit": "c"}, "the command")


def start_writer(path: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(ROWS)],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def read_line(writer: subprocess.Popen[str]) -> str:
    assert writer.stdout is not None
    return writer.stdout.readline().strip()


def rows_by_run(path: Path) -> dict[str, int]:
    """How many rows each run has; proves the file sound first."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    query = "SELECT run_id, count(row) FROM run LEFT JOIN sample ON run = id GROUP BY run_id"
    found = dict(connection.execute(query).fetchall())
    connection.close()
    return found


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    with History(tmp_path / "new" / "h.sqlite", create=True) as history:
        assert history.append(make_run("b", 2.0, date="2026-01-02T00:00:00+00:00"))
        assert history.append(make_run("a", 1.0))
        assert history.append(make_run("c", 9.0, machine="other"))
        assert history.machines() == ["box", "other"]
        assert history.rows("box") == ["x/device:cpu", "y/device:cpu"]
        nights = history.nights("box")
        assert [night.run_id for night in nights] == ["a", "b"]  # by date
        assert nights[0].facts == {"commit": "c"}
        times = history.times("box")
        assert [times["x/device:cpu"][night.key].seconds for night in nights] == [1.0, 2.0]
        assert times["y/device:cpu"][nights[0].key].is_error
        assert history.machine_of_run("c") == "other"
        assert history.machine_of_run("d") is None
        assert len(list(history.every())) == 6
        assert {record["seconds"] for record in history.every("other")} == {9.0, None}


def test_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite", create=True):
        connection = sqlite3.connect(tmp_path / "h.sqlite")
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


def test_a_run_is_appended_once(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite", create=True) as history:
        assert history.append(make_run())
        assert not history.append(make_run())
        with pytest.raises(ResultError, match="other rows or times"):
            history.append(make_run(seconds=1.5))
    assert rows_by_run(tmp_path / "h.sqlite") == {"a": 2}


def test_a_row_twice_adds_nothing(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite", create=True) as history:
        twice = Run("a", "box", "2026-01-01", [Sample("x", 1.0), Sample("x", 2.0)])
        with pytest.raises(ResultError, match="cannot be written"):
            history.append(twice)
        assert history.machines() == []
        assert history.append(make_run())


def test_verdicts_replace_those_of_the_same_night(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite", create=True) as history:
        history.append(make_run())
        (night,) = history.nights("box")
        assert not history.is_judged(night)
        said = Verdict("x/device:cpu", night.key, night.key, "regression", 1.0, 1.5, 1e-9, (1.5,))
        history.judge(night, [said])
        history.judge(night, [said])
        assert history.is_judged(night)
        assert history.verdicts("box") == [said]
        assert history.verdicts("box", "y/device:cpu") == []
        assert said.effect == 0.5


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.03, 0.1])
def test_kill_9_leaves_whole_runs(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "h.sqlite"
    writer = start_writer(path, "killed")
    last = [read_line(writer) for _ in range(5)][-1]
    time.sleep(delay)
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    found = rows_by_run(path)
    assert last in found  # what was said to be there is there
    assert set(found.values()) == {ROWS}
    with History(path) as history:  # and the next writer goes on
        assert history.append(make_run())
        samples = [Sample(f"row{row}", 1e-3 * (row + 1)) for row in range(ROWS)]
        again = Run(last, "machine", "2026-01-01T00:00:00+00:00", samples)
        assert not history.append(again)


def test_kill_9_in_the_middle_of_a_run_leaves_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path, create=True) as history:
        history.append(make_run())
    script = """
import sys, time
from pathlib import Path
from seqmark_tools.history.store import History, Run, Sample
class Slow(list):
    passes = 0
    def __iter__(self):
        Slow.passes += 1
        for number, sample in enumerate(super().__iter__()):
            # The digest and the rows have been taken: the samples are being inserted.
            if Slow.passes == 3 and number == 100:
                print("half", flush=True)
                time.sleep(60)
            yield sample
samples = Slow(Sample(f"row{row}", 1.0) for row in range(200))
with History(Path(sys.argv[1])) as history:
    history.append(Run("half", "machine", "2026-01-01T00:00:00+00:00", samples))
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert read_line(writer) == "half"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert rows_by_run(path) == {"a": 2}
    with History(path) as history:
        assert history.machines() == ["box"]
        assert "row0" not in {record["row"] for record in history.every()}


def test_two_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    writers = [start_writer(path, name) for name in ("one", "two")]
    for _ in range(10):
        for writer in writers:
            assert read_line(writer)
    for writer in writers:
        writer.kill()
        writer.wait()
    found = rows_by_run(path)
    assert {run.split("-")[0] for run in found} == {"one", "two"}
    assert len(found) >= 20
    assert set(found.values()) == {ROWS}


def test_waits_for_who_makes_the_file(tmp_path: Path) -> None:
    """The change to WAL mode would fail at once while another connection is about to write."""
    path = tmp_path / "h.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ["COMMIT"])
    release.start()
    with History(path, create=True) as history:
        release.join()
        assert history.append(make_run())
    other.close()
    assert rows_by_run(path) == {"a": 2}


def test_version_1_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    shutil.copy(DATA / "history-1.sqlite", path)
    with History(path) as history:
        assert history.machines() == [make_old_history.MACHINE]
        nights = history.nights(make_old_history.MACHINE)
        assert len(nights) == make_old_history.NIGHTS
        assert nights[0].facts == {"gpu_name": "Made Up GPU", "gpu_driver_version": "580.10"}
        assert all(history.is_judged(night) for night in nights)
        times = history.times(make_old_history.MACHINE)
        for number, start in enumerate(make_old_history.ROWS):
            samples = times[make_old_history.row(start)]
            for index, night in enumerate(nights):
                assert samples[night.key].seconds == make_old_history.seconds(number, index)
        assert history.append(make_run())
    with History(path) as history:  # and is the new version from then on
        assert len(history.nights(make_old_history.MACHINE)) == make_old_history.NIGHTS
    connection = sqlite3.connect(path)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    assert tables.isdisjoint({"runs", "times", "runs_1", "times_1"})
    connection.close()


def test_version_2_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path, create=True) as history:
        assert history.append(make_run())
        (machine,) = history.machines()
        before = history.times(machine)
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE sample DROP COLUMN throttled")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    with History(path) as history:
        assert history.times(machine) == before


def test_how_long_a_device_was_held_back_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    kept = Sample("row", 1.0, 0.01, throttled=0.25)
    run = Run("r", "m", "2026-01-01T00:00:00+00:00", [kept, Sample("free", 1.0)])
    with History(path, create=True) as history:
        assert history.append(run)
        found = {name: list(nights.values()) for name, nights in history.times("m").items()}
        assert found == {"row": [kept], "free": [Sample("free", 1.0)]}
        assert [record["throttled"] for record in history.every("m")] == [None, 0.25]


def test_the_old_file_is_what_its_script_makes(tmp_path: Path) -> None:
    make_old_history.make(tmp_path / "made.sqlite")

    def dump(path: Path) -> list[str]:
        connection = sqlite3.connect(path)
        lines = list(connection.iterdump())
        connection.close()
        return lines

    assert dump(tmp_path / "made.sqlite") == dump(DATA / "history-1.sqlite")


def test_a_failed_migration_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    shutil.copy(DATA / "history-1.sqlite", path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE times SET seconds = -1 WHERE run = 'night-05'")
    connection.commit()
    before = list(connection.iterdump())
    with pytest.raises(ResultError, match="not a history that can be used"):
        History(path)
    assert list(connection.iterdump()) == before
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()


def test_files_that_are_no_history(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no such history"):
        History(tmp_path / "none.sqlite")
    text = made_up.write(tmp_path / "text.sqlite", "a text that is long enough to be a header " * 9)
    with pytest.raises(ResultError, match=r"text\.sqlite"):
        History(text)
    for name, statement, message in (
        ("other", "CREATE TABLE t (x)", "not a history of seqmark"),
        ("newer", "PRAGMA user_version = 99", "newer seqmark"),
    ):
        connection = sqlite3.connect(tmp_path / name)
        connection.execute(statement)
        connection.commit()
        connection.close()
        with pytest.raises(ResultError, match=message):
            History(tmp_path / name)


def test_a_result_file_as_a_run(tmp_path: Path) -> None:
    document = made_up.good()
    document["context"] |= {"date": "2026-11-22T05:00:00+04:00", "gpu_name": "NVIDIA(R) H200"}
    path = made_up.write(tmp_path / "x.json", document)
    run = run_of(results.read(path))
    assert run.date == "2026-11-22T01:00:00+00:00"
    assert run.machine == "nvidia-h200"
    assert run.facts["cpu_model"] == "Made Up & Sons <tm>"
    failures = {sample.row.split("/")[0]: sample.failure for sample in run.samples}
    assert failures["attention"] == "error: y[3] is 2 | want 1"
    assert failures["ssd_scan"] == "skipped: needs 9 GB, 2 GB are free"
    assert failures["prefill"] is None
    assert run_of(results.read(path), "box", "id").run_id == "id"
    assert run.run_id == run_of(results.read(path), "elsewhere").run_id
    document["context"]["date"] = "yesterday"
    with pytest.raises(ResultError, match="not ISO 8601"):
        run_of(results.read(made_up.write(path, document)))
