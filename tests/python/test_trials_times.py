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
    for file, overhead in (("ours.json", 3e-7), ("traced.json", 8e-7), ("dirty.json", 6e-7)):
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


KNOWN_EDGES = json.dumps({"kernel_edges_seconds": made_up.EDGES})


def test_times(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    plain = made_up_times(folder, ceilings=KNOWN_EDGES)
    # 1.2 us in samples of NVBench, 0.6 in ours; the longest kernel is 5 % longer by NVBench.
    kernels = {name: s - 6e-7 for name, s in plain.items()}
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
        "nvbench": [1, 7],
        "clean_nvbench": [1, 7],
    }
    assert document["nvbench_holds"] == pytest.approx(held)
    assert "hold 1.20 (1.10 to 3.00) us besides a kernel, by 3 times" in text
    assert "ours behind dirty caches 0.60 (0.60 to 0.60) us" in text
    assert "| +0.10 us | +0.60 us | 1 | 9.40 | 9.45 | -0.05 us | 1.74 | 1.64 | 10.00 |" in text
    assert document["rows"][0]["nvbench_kernel"] == pytest.approx(9.45e-6)
    theirs = {name: s + 1.2e-6 for name, s in kernels.items()}
    file.write_text(json.dumps(made_up.nvbench(theirs, held)))
    status, document, _ = make(folder)
    assert (status, document["agree"]["nvbench_kernel"]) == (0, [7, 7])
    assert "nvbench_clock" not in document["rows"][0]
    file.unlink()
    status, _, text = make(folder)
    assert status == 0
    assert "There are no times by NVBench" in text
    (folder / "traced.json").unlink()
    (folder / "kernels.json").unlink()
    assert make(folder)[0] == 0


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
    assert document["nvbench_holds"] == []
    assert "What NVBench's samples hold is not known" in text
    assert "nvbench_kernel" not in document["rows"][0]
