# SPDX-License-Identifier: Apache-2.0
"""Events, change points and series, of made-up nights whose truth is known."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from seqmark_tools import history
from seqmark_tools.history import Event
from seqmark_tools.history.drawing import draw
from seqmark_tools.history.facts import events, facts_of, machine_of
from seqmark_tools.history.shifts import Detection, shifts
from seqmark_tools.history.store import History, Run, Sample
from seqmark_tools.results import ResultError

CUDA = "gemm/cublaslt/qwen2.5-1.5b.mlp_up/dtype:bf16/device:cuda/batch:1/seqlen:4096"
CPU = "gemm/onednn/qwen2.5-1.5b.mlp_up/dtype:bf16/device:cpu/batch:1/seqlen:4096"


def date(night: int) -> str:
    return str(np.datetime64("2026-01-01") + night) + "T03:00:00+00:00"


def noisy(nights: int, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(1e-3, 1e-5, nights)


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def fill(path: Path, rows: dict[str, list[float]], driver_night: int | None = None) -> None:
    with History(path, create=True) as store:
        for night in range(len(next(iter(rows.values())))):
            driver = "2" if driver_night is not None and night >= driver_night else "1"
            samples = [Sample(row, times[night]) for row, times in rows.items()]
            facts = {"gpu_driver_version": driver, "commit": f"{night // 10:040}"}
            assert store.append(Run(f"n{night}", "box", date(night), samples, facts))


def test_facts_leave_out_what_changes_by_itself() -> None:
    facts = facts_of({"gpu_name": "H200", "load_avg": [1.0], "commit": "abc", "dirty": "true"})
    assert facts == {"gpu_name": "H200", "commit": "abc with changes"}


def test_machine_names() -> None:
    assert machine_of({"gpu_name": "NVIDIA H200", "cpu_model": "Xeon"}) == "nvidia-h200"
    assert machine_of({"cpu_model": "Intel(R) Xeon(R) Processor"}) == "intel-xeon-processor"
    assert machine_of({"host_name": "box.lab"}) == "box-lab"
    assert machine_of({}) == "unknown"


def test_events_are_what_changed_and_bears_on_the_row() -> None:
    nights = [
        ("d0", {"gpu_driver_version": "1", "host_name": "a", "onednn_version": "2.6"}),
        ("d1", {"gpu_driver_version": "1", "host_name": "a"}),  # one fact not stated
        ("d2", {"gpu_driver_version": "2", "host_name": "a", "onednn_version": "2.6"}),
        ("d3", {"gpu_driver_version": "2", "host_name": "b", "onednn_version": "3.0"}),
    ]
    driver = Event(2, "d2", "driver", "gpu_driver_version", "1", "2")
    moved = Event(3, "d3", "machine", "host_name", "a", "b")
    library = Event(3, "d3", "build", "onednn_version", "2.6", "3.0")
    assert events(nights) == [driver, moved, library]
    assert events(nights, CUDA) == [driver, moved]
    assert events(nights, CPU) == [moved, library]
    assert str(driver) == "driver: gpu_driver_version 1 → 2"


@pytest.mark.parametrize("effect", [0.05, -0.05, 0.2])
def test_shifts_are_found_where_they_are(effect: float) -> None:
    for seed in range(20):
        seconds = noisy(120, seed)
        seconds[80:] *= 1 + effect
        (found,) = shifts(list(seconds), Detection())
        assert abs(found.index - 80) <= 1
        assert found.effect == pytest.approx(effect, abs=0.01)
        assert found.before == pytest.approx(1e-3, rel=0.01)


def test_no_shifts_in_noise_or_in_nothing() -> None:
    found = [shift for seed in range(100) for shift in shifts(list(noisy(60, seed)), Detection())]
    assert len(found) <= 1
    assert shifts([1.0] * 50, Detection()) == []
    assert shifts([], Detection()) == []
    assert shifts([1.0, 2.0], Detection()) == []


def test_a_step_without_noise_is_found() -> None:
    (found,) = shifts([1.0] * 20 + [1.1] * 20, Detection())
    assert found.index == 20
    assert found.pvalue == 0


def test_effects_below_the_least_are_left_alone() -> None:
    seconds = noisy(200)
    seconds[100:] *= 1.03
    assert len(shifts(list(seconds), Detection(min_effect=0.02))) == 1
    assert shifts(list(seconds), Detection(min_effect=0.05)) == []


def test_a_change_with_the_driver_is_the_drivers(tmp_path: Path) -> None:
    seconds = noisy(90)
    seconds[50:] *= 1.06
    db = tmp_path / "h.sqlite"
    fill(db, {CUDA: list(seconds), CPU: list(seconds)}, driver_night=50)
    cuda = history.series(db, "box", CUDA)
    (point,) = cuda.change_points
    assert [event.fact for event in point.events] == ["gpu_driver_version"]
    assert point.night == 50
    assert point.date == date(50)
    assert cuda.nights == tuple(date(night) for night in range(90))
    assert cuda.seconds == tuple(seconds)
    assert len([event for event in cuda.events if event.group == "commit"]) == 8
    # The GPU's driver has nothing to do with a CPU row, and a commit excuses nothing.
    (point,) = history.series(db, "box", CPU).change_points
    assert point.events == ()
    assert {event.group for event in history.series(db, "box", CPU).events} == {"commit"}


def test_a_change_far_from_an_event_is_not_explained(tmp_path: Path) -> None:
    seconds = noisy(90)
    seconds[60:] *= 1.06
    fill(tmp_path / "h.sqlite", {CUDA: list(seconds)}, driver_night=50)
    (point,) = history.series(tmp_path / "h.sqlite", "box", CUDA).change_points
    assert point.events == ()


def test_series_that_are_not_there(tmp_path: Path) -> None:
    fill(tmp_path / "h.sqlite", {CUDA: [1.0, 1.0]})
    with pytest.raises(ResultError, match="knows no machine 'tower'"):
        history.series(tmp_path / "h.sqlite", "tower", CUDA)
    with pytest.raises(ResultError, match="has no row"):
        history.series(tmp_path / "h.sqlite", "box", CPU)


def test_500_rows_of_365_nights_within_a_minute(tmp_path: Path) -> None:
    names = [CUDA.replace("mlp_up", f"mlp_up{number}") for number in range(500)]
    rows = {name: noisy(365, seed) for seed, name in enumerate(names)}
    for number in range(0, 500, 5):
        rows[names[number]][200:] *= 1.05
    db = tmp_path / "h.sqlite"
    fill(db, {name: list(times) for name, times in rows.items()})
    start = cpu_seconds()
    every = history.all_series(db, "box", processes=2)
    assert cpu_seconds() - start < 60  # whoever else has the cores
    assert [series.row for series in every] == sorted(names)
    found = {series.row for series in every if series.change_points}
    shifted = set(names[::5])
    assert len(found & shifted) >= 99
    assert len(found - shifted) <= 4


def test_the_drawing_shows_the_change(tmp_path: Path) -> None:
    seconds = noisy(60)
    seconds[40:] *= 1.5
    fill(tmp_path / "h.sqlite", {CUDA: list(seconds)}, driver_night=20)
    lines = [text.plain for text in draw(history.series(tmp_path / "h.sqlite", "box", CUDA), 100)]
    assert max(map(len, lines)) <= 100
    axis = next(line for line in lines if "└" in line)
    assert axis.index("▲") - axis.index("└") - 1 == 40
    assert axis.index("┊") < axis.index("▲")
    plot = [line.split("│", 1)[1] for line in lines if "│" in line]
    assert all(not line[40:].strip() for line in plot[6:])  # the second level is in the upper half
    assert all(not line[:40].strip() for line in plot[:6])
    assert any(re.match(rf"▲ {date(40)[:10]}  \+(49|50)\.\d%  ", line) for line in lines)
    assert any("gpu_driver_version 1 → 2" in line for line in lines)


def test_a_drawing_of_few_nights(tmp_path: Path) -> None:
    fill(tmp_path / "h.sqlite", {CUDA: [1.0]})
    lines = [text.plain for text in draw(history.series(tmp_path / "h.sqlite", "box", CUDA), 80)]
    assert "nights with a time: 1" in lines
