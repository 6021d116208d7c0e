# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import plotly.graph_objects as go

import made_up
from seqmark_tools.__main__ import main
from seqmark_tools.history import ChangePoint, Series
from seqmark_tools.report import nights

NIGHTS = tuple(str(date(2026, 1, 1) + timedelta(days=n)) for n in range(60))


def series(row: str, change: int | None) -> Series:
    """60 nights of 1 ms; from night `change` on, 1.05 ms."""
    seconds = tuple(1.05e-3 if change is not None and n >= change else 1e-3 for n in range(60))
    points: tuple[ChangePoint, ...] = ()
    if change is not None:
        points = (ChangePoint(change, NIGHTS[change], 1e-3, 1.05e-3, 1e-9, verdict="regression"),)
    return Series("made-up", row, NIGHTS, seconds, points, ())


def test_changes_come_first() -> None:
    rows = [series("steady", None), series("early", 10), series("late", 40)]
    figure = nights.figure(rows)
    assert figure is not None
    assert [view.label for view in figure.views] == ["late", "early", "steady"]
    late, _, steady = figure.views
    assert late.text == f"{NIGHTS[40]}: 5.0% slower, 1.00 ms to 1.05 ms (regression)."
    assert steady.text == "No change point."
    traces = {trace["name"]: trace for trace in late.panels[0].traces}
    assert traces["level"]["x"] == [NIGHTS[0], NIGHTS[39], NIGHTS[40], NIGHTS[59]]
    assert [round(y, 8) for y in traces["level"]["y"]] == [1e-3, 1e-3, 1.05e-3, 1.05e-3]
    assert traces["slower"]["x"] == [NIGHTS[40]]
    for view in figure.views:
        go.Figure({"data": view.panels[0].traces, "layout": view.panels[0].layout})


def test_many_rows_are_chosen_from() -> None:
    rows = [series(f"row {n}", 30 if n >= 90 else None) for n in range(100)]
    figure = nights.figure(rows)
    assert figure is not None
    assert len(figure.views) == nights.MOST_ROWS
    assert {view.label for view in figure.views[:10]} == {f"row {n}" for n in range(90, 100)}
    assert "100 rows, 10 of them with a change point" in figure.caption


def test_nothing_to_draw() -> None:
    assert nights.figure([]) is None


def test_command(tmp_path: Path) -> None:
    files = []
    for day in (1, 2, 3):
        document = made_up.document(made_up.measured(made_up.name(), day * 1e-3))
        document["context"]["date"] = f"2026-11-0{day}T03:00:00+00:00"
        files.append(str(made_up.write(tmp_path / f"{day}.json", document)))
    db = tmp_path / "history.sqlite"
    assert main(["history", "import", "--db", str(db), *files]) == 0
    page = tmp_path / "page.html"
    folder = tmp_path / "data"
    words = ["--history", str(db), "-o", str(page), "--csv", str(folder), "--only", "history*"]
    assert main(["report", files[-1], *words]) == 0
    assert '<section id="history"' in page.read_text(encoding="utf-8")
    lines = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
    nights_drawn = [line for line in lines if line.startswith("median of the night")]
    assert [float(line.rsplit(",", 1)[1]) for line in nights_drawn] == [1e-3, 2e-3, 3e-3]


def test_no_history(tmp_path: Path) -> None:
    path = made_up.write(tmp_path / "good.json", made_up.good())
    missing = str(tmp_path / "missing.sqlite")
    assert main(["report", str(path), "--history", missing]) == 2
    assert not (tmp_path / "good.html").exists()
