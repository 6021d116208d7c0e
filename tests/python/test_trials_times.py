# SPDX-License-Identifier: Apache-2.0
"""trial times: rows' times against CUPTI's and NVBench's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import made_up
from made_up import Json
from seqmark_tools.__main__ import main
from seqmark_tools.trials import times


def make(folder: Path) -> tuple[int, Json, str]:
    """The exit status, the document and the table."""
    out = folder.parent / "times.md"
    status = main(["trial", "times", str(folder), "-o", str(out)])
    return status, json.loads(out.with_suffix(".json").read_text()), out.read_text()


@pytest.mark.parametrize(
    ("ours", "other", "agree"),
    [(5e-6, 5.4e-6, True), (5e-6, 5.6e-6, False), (1e-4, 1.019e-4, True), (1e-4, 1.03e-4, False)],
)
def test_what_agrees(ours: float, other: float, agree: bool) -> None:
    assert times.agrees(ours, other) == agree


def made_up_times(folder: Path, *, ceilings: str) -> dict[str, float]:
    """Files of one GPU, all but NVBench's; rows and their kernels' times."""
    lengths = (1.0, 1.2, 1.4, 1.6, 3.0, 4.0, 5.0)
    rows = {made_up.name(seqlen=round(10 * length)): length * 1e-5 for length in lengths}
    for file, overhead in (("ours.json", 3e-7), ("traced.json", 8e-7), ("dirty.json", HOLD)):
        measured = [
            made_up.measured(
                name, seconds, host_time=4e-6, kernel_time=seconds - overhead, clock=1.74e9
            )
            for name, seconds in rows.items()
        ]
        document = made_up.document(*measured)
        document["context"]["cuda_ceilings"] = ceilings
        made_up.write(folder / file, document)
    plain = {name.split("/iterations")[0]: seconds for name, seconds in rows.items()}
    seen = {
        name: {"samples": 9, "kernels": 1, "seconds": s - 9e-7, "busy_seconds": s}
        for name, s in plain.items()
    }
    (folder / "kernels.json").write_text(json.dumps(seen))
    return plain


HOLD = 1e-6  # of our samples behind dirty caches, besides kernels
KNOWN_EDGES = json.dumps({"kernel_edges_seconds": made_up.EDGES})


def test_times(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    plain = made_up_times(folder, ceilings=KNOWN_EDGES)
    # 1.2 us in samples of NVBench, 1.0 in ours; the longest kernel is 5 % longer by NVBench.
    kernels = {name: s - HOLD for name, s in plain.items()}
    theirs = {name: s * (1.05 if s > 4.5e-5 else 1.0) + 1.25e-6 for name, s in kernels.items()}
    held = (1.1e-6, 1.2e-6, 3.0e-6)  # one is off
    file = folder / "nvbench.json"
    file.write_text(json.dumps(made_up.nvbench(theirs, held, 1.64e9)))
    status, document, text = make(folder)
    assert status == 1
    assert document["agree"] == {
        "cupti": [7, 7],
        "unwatched_cupti": [2, 7],
        "nvbench_kernel": [6, 7],
        "nvbench": [6, 7],
        "clean_nvbench": [6, 7],
    }
    assert document["rounds"] == 1  # of nvbench.json and dirty.json
    assert document["nvbench_holds"] == [pytest.approx(held)]
    assert "say is of 1 round, in each" in text
    assert "hold 1.20 (1.10 to 3.00) us besides a kernel, by 3 times" in text
    assert "ours behind dirty caches 1.00 (1.00 to 1.00) us" in text
    assert "| +0.10 us | +0.60 us | 1 | 9.00 | 9.05 | -0.05 us | 1.74 | 1.64 | 10.00 |" in text
    assert document["rows"][0]["nvbench_kernel"] == pytest.approx(9.05e-6)
    theirs = {name: s + 1.2e-6 for name, s in kernels.items()}
    file.write_text(json.dumps(made_up.nvbench(theirs, held)))
    status, document, _ = make(folder)
    assert (status, document["agree"]["nvbench_kernel"]) == (0, [7, 7])
    assert "nvbench_clock" not in document["rows"][0]
    # The same kernels, in samples that hold too much.
    theirs = {name: s + 1.9e-6 for name, s in kernels.items()}
    file.write_text(json.dumps(made_up.nvbench(theirs, (1.9e-6,))))
    status, document, _ = make(folder)
    assert (status, document["agree"]["nvbench_kernel"]) == (1, [7, 7])
    assert document["agree"]["nvbench"] == [1, 7]
    file.unlink()
    status, document, text = make(folder)
    assert (status, document["left_out"]) == (1, ["dirty.json"])
    assert "There are no times by NVBench" in text
    (folder / "dirty.json").unlink()
    status, _, text = make(folder)
    assert status == 0
    assert "There are no times by NVBench" in text
    (folder / "traced.json").unlink()
    (folder / "kernels.json").unlink()
    assert make(folder)[0] == 0


def add_round(
    folder: Path,
    number: int,
    kernels: dict[str, float],
    *,
    held: float = 1.2e-6,
    slower: float = 1.0,
    edges: float = made_up.EDGES,
    clock: float = 1.7e9,
) -> None:
    """Files of one round: ours takes `slower` times as long, and NVBench's samples hold `held`."""
    ours = [
        made_up.measured(
            name + made_up.SUFFIX, s * slower + HOLD, kernel_time=s * slower, clock=clock
        )
        for name, s in kernels.items()
    ]
    document = made_up.document(*ours)
    document["context"]["cuda_ceilings"] = json.dumps({"kernel_edges_seconds": edges})
    made_up.write(folder / f"dirty-{number:03}.json", document)
    theirs = made_up.nvbench(
        {name: s + held for name, s in kernels.items()},
        [held + edges - made_up.EDGES] * 3,  # what made_up.nvbench adds is EDGES
        clock,
    )
    made_up.write(folder / f"nvbench-{number:03}.json", json.dumps(theirs))


def rounds_of(folder: Path) -> dict[str, float]:
    """A folder without rounds yet; the rows' kernels by their time."""
    folder.mkdir()
    plain = made_up_times(folder, ceilings=KNOWN_EDGES)
    (folder / "dirty.json").unlink()
    return {name: s - HOLD for name, s in plain.items()}


def test_times_are_medians_over_rounds(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    kernels = rounds_of(folder)
    # Each round by its own samples and its own edges.
    add_round(folder, 1, kernels, held=1.1e-6, slower=0.99, clock=1.6e9)
    add_round(folder, 2, kernels, held=2.2e-6, slower=1.01, clock=1.7e9)
    add_round(folder, 3, kernels, held=1.3e-6, slower=1.002, edges=9e-7, clock=1.71e9)
    status, document, text = make(folder)
    assert status == 0
    assert (document["rounds"], document["left_out"]) == (3, [])
    assert document["nvbench_holds"] == [pytest.approx([x] * 3) for x in (1.1e-6, 2.2e-6, 1.3e-6)]
    row, kernel = document["rows"][0], min(kernels.values())
    assert row["dirty"] == pytest.approx(1.002 * kernel + HOLD)
    assert row["dirty_kernel"] == pytest.approx(1.002 * kernel)
    assert row["nvbench"] == pytest.approx(kernel + 1.3e-6)
    assert row["nvbench_kernel"] == pytest.approx(kernel)
    assert (row["dirty_clock"], row["nvbench_clock"]) == (1.7e9, 1.7e9)
    assert [one["nvbench"] for one in row["rounds"]] == [
        pytest.approx(kernel + held) for held in (1.1e-6, 2.2e-6, 1.3e-6)
    ]
    assert "the median over 3 rounds, in each" in text
    assert "by 9 times of the kernel of known length, one before each row; ours" in text


def test_a_bad_round_is_outvoted(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    kernels = rounds_of(folder)
    for number in (1, 2):
        add_round(folder, number, kernels, slower=1.0 if number == 1 else 1.2)
    assert make(folder)[0] == 1
    add_round(folder, 3, kernels)
    status, document, _ = make(folder)
    assert (status, document["agree"]["nvbench_kernel"]) == (0, [7, 7])


def test_half_a_round_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    kernels = rounds_of(folder)
    for number in (1, 2):
        add_round(folder, number, kernels, slower=1.0 if number == 1 else 1.2)
    (folder / "dirty-002.json").unlink()
    status, document, text = make(folder)
    assert (status, document["rounds"], document["left_out"]) == (0, 1, ["nvbench-002.json"])
    assert "as the other file of that round is missing: nvbench-002.json." in text
    (folder / "nvbench-001.json").unlink()
    status, document, text = make(folder)
    assert (status, document["rounds"]) == (1, 0)  # half of a round shows nothing
    assert document["left_out"] == ["dirty-001.json", "nvbench-002.json"]
    assert "There are no times by NVBench here. Left out" in text


def test_rounds_that_lack_something(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    kernels = rounds_of(folder)
    fewer = dict(list(kernels.items())[1:])
    add_round(folder, 1, kernels)
    add_round(folder, 2, fewer, slower=1.001)
    add_round(folder, 3, kernels, edges=0)  # not known
    status, document, text = make(folder)
    assert (status, document["agree"]["nvbench_kernel"]) == (0, [7, 7])
    assert "by 6 times of the kernel of known length, one before each row, in 2 of 3" in text
    assert "whose median is over the rest: 1." in text


@pytest.mark.parametrize(
    ("ceilings", "held"),
    [
        (KNOWN_EDGES, ()),  # as NVBench's program wrote it before there was such a kernel
        (json.dumps({"kernel_edges_seconds": 0}), (1.2e-6,)),  # CUPTI was not there
        ("{}", (1.2e-6,)),
    ],
)
def test_times_without_what_nvbench_holds(
    tmp_path: Path, ceilings: str, held: tuple[float, ...]
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    plain = made_up_times(folder, ceilings=ceilings)
    (folder / "nvbench.json").write_text(json.dumps(made_up.nvbench(plain, held)))
    status, document, text = make(folder)
    assert status == 1  # not known is not met
    assert document["agree"]["nvbench"] == [7, 7]
    assert document["agree"]["nvbench_kernel"] == [0, 0]
    assert document["nvbench_holds"] == [[]]
    assert "What NVBench's samples hold is not known" in text
    assert "nvbench_kernel" not in document["rows"][0]
