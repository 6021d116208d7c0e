# SPDX-License-Identifier: Apache-2.0
"""tools/seqmark trial: what it says of raw files whose truth is known."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import made_up
from seqmark_tools import results, validation
from seqmark_tools.__main__ import main
from seqmark_tools.history.store import run_of
from seqmark_tools.results import ResultError, read
from seqmark_tools.trials import ab, collect, copies, kernels, noise, outcome

Json = dict[str, Any]
PLANT = "rmsnorm/highway:cpu:1.03"


def test_what_made_files_is_said_of_each_that_differs() -> None:
    def made(number: int, **context: str) -> results.ResultFile:
        own = {"date": f"2026-01-0{number}", "command_line": f"bench --benchmark_out={number}.json"}
        return results.ResultFile(Path("x.json"), own | context, [])

    one = outcome.facts([made(1, commit="a")])
    assert one == {
        "commit": "a",
        "command_line": "bench --benchmark_out=1.json",
        "date": "2026-01-01",
    }
    commits = [made(n, commit=c) for n, c in enumerate("abba", 1)]
    assert outcome.facts(commits) == one | {"commit": "a; b", "date": "2026-01-01 to 2026-01-04"}
    many = [made(n, command_line=f"bench {n} {n * 'x'}") for n in range(1, 8)]
    last = "bench 4 xxxx; and 3 more"
    assert outcome.facts(many)["command_line"].endswith(last)
    long = outcome.facts([made(1, command_line="y" * 2000)])["command_line"]
    assert long == "y" * 1000 + "... (2000 characters)"


def processes(
    folder: Path, *, sigma: float, planted: float = 1.03, count: int = 10, seed: int = 1
) -> Path:
    """As many planted processes and twice as many plain ones; 10 rows of two providers each."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for kind, number in (("plain", 2 * count), ("planted", count)):
        for process in range(number):
            entries = []
            for length in range(1, 11):
                for provider in ("highway", "onednn"):
                    slow = planted if (kind, provider) == ("planted", "highway") else 1.0
                    seconds = length * 1e-4 * slow * math.exp(rng.normal() * sigma)
                    name = made_up.name(provider=provider, seqlen=length)
                    entries.append(made_up.measured(name, seconds, energy=seconds * 100.0))
            document = made_up.document(*entries)
            if kind == "planted":
                document["context"]["planted"] = PLANT
            made_up.write(folder / f"{kind}-{process:03}.json", document)
    return folder


def trial(*arguments: object) -> tuple[int, Json, str]:
    """The exit status, the document and the Markdown; -o must be the last argument."""
    status = main(["trial", *map(str, arguments)])
    path = Path(str(arguments[-1]))
    return status, json.loads(path.with_suffix(".json").read_text()), path.read_text()


def test_ab_of_quiet_processes(tmp_path: Path) -> None:
    folder = processes(tmp_path / "raw", sigma=0.005)
    status, document, text = trial("ab", folder, "-o", tmp_path / "ab.md")
    assert status == 0
    assert document["seqmark_trial"] == "ab"
    assert document["passed"]
    assert document["aa_as_run"] == {"rows": 20, "called": 0, "suspect": 0}
    assert document["aa_drawn"]["rows"] == 20 * ab.TRIALS
    assert document["ab_as_run"] == {"rows": 20, "called": 20, "suspect": 0}
    assert document["ab_drawn"]["called"] == 10 * ab.TRIALS
    assert sum(row["planted"] for row in document["rows"]) == 10
    for row in document["rows"]:
        wanted = 0.03 if row["planted"] else 0.0
        assert row["low"] - 0.005 < wanted < row["high"] + 0.005
        assert row["called_slower"] == pytest.approx(1.0 if row["planted"] else 0.0)
    assert "rmsnorm/highway/qwen2.5-1.5b.add" in text


def test_ab_where_noise_is_as_large_as_the_slowdown(tmp_path: Path) -> None:
    folder = processes(tmp_path / "raw", sigma=0.05)
    status, document, _ = trial("ab", folder, "-o", tmp_path / "ab.md")
    assert status == 1
    assert not document["passed"]
    assert document["ab_drawn"]["called"] < 0.95 * document["ab_drawn"]["rows"]
    assert document["aa_drawn"]["called"] <= 0.05 * document["aa_drawn"]["rows"]


def test_ab_where_processes_of_one_program_differ(tmp_path: Path) -> None:
    """A drift that hits every second process is seen as run, and seldom in other orders."""
    folder = processes(tmp_path / "raw", sigma=0.002)
    for path in sorted(folder.glob("plain-*.json"))[1::2]:
        document = json.loads(path.read_text())
        for entry in document["benchmarks"]:
            entry["real_time"] *= 1.05
        path.write_text(json.dumps(document))
    _, document, _ = trial("ab", folder, "-o", tmp_path / "ab.md")
    assert document["aa_as_run"]["called"] == 20


def test_ab_needs_both_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = processes(tmp_path / "raw", sigma=0.005, count=2)
    for path in folder.glob("planted-*.json"):
        path.write_text(path.read_text().replace(PLANT, "gemm/onednn:cpu:1.03"))
    assert main(["trial", "ab", str(folder)]) == 2
    assert "no row of gemm/onednn" in capsys.readouterr().err
    for path in folder.glob("planted-*.json"):
        document = json.loads(path.read_text())
        del document["context"]["planted"]
        path.write_text(json.dumps(document))
    assert main(["trial", "ab", str(folder)]) == 2
    assert "not of one build with a slowdown planted" in capsys.readouterr().err
    assert main(["trial", "ab", str(tmp_path)]) == 2
    assert main(["trial", "ab"]) == 2
    assert main(["trial", "ab", "--run", "a", "b"]) == 2
    assert "--keep" in capsys.readouterr().err
    assert main(["trial", "noise", str(folder), "-o", "x.html"]) == 2


def test_a_planted_build_is_kept_nowhere(tmp_path: Path) -> None:
    document = made_up.document(made_up.measured(made_up.name()))
    document["context"]["planted"] = PLANT
    path = made_up.write(tmp_path / "planted.json", document)
    assert any("planted" in problem for problem in validation.problems(path))
    with pytest.raises(ResultError, match="planted"):
        run_of(read(path))


@pytest.mark.parametrize(("called", "rows", "low", "high"), [(0, 40, 0, 0.088), (40, 40, 0.912, 1)])
def test_interval(called: int, rows: int, low: float, high: float) -> None:
    count = ab.Count(rows, called)
    assert count.interval() == pytest.approx((low, high), abs=1e-3)
    low, high = ab.Count(100, 5).interval()
    assert 0.016 < low < 0.05 < high < 0.113


def trace(calls: int, parts: list[tuple[int, int]]) -> Iterator[kernels.Kernel]:
    """A row's kernels as the sampler enqueues them: `parts` are starts and ends within a call."""
    at = 1000
    for names in (["HoldKernel", "StampKernel", "StampKernel"], ["HoldKernel", "StampKernel"]):
        yield from ((at + i, at + i + 1, name) for i, name in enumerate(names))
        at += 10
        for _ in range(calls):
            yield at, at + 5, "void StreamTiles<0>"
            at += 100
            yield from ((at + start, at + end, "work") for start, end in parts)
            at += 10000
    yield at, at + 1, "StampKernel"
    yield at + 10, at + 500, "work"  # of a graph, after no flush
    yield at + 1000, at + 1001, "memcpy"  # of the next row's tensors


def test_kernels_of_rows() -> None:
    both = [*trace(5, [(0, 700)]), *trace(3, [(0, 300), (350, 900)])]
    first, second = kernels.sections(both)
    assert (len(first), len(second)) == (10, 6)
    assert {sample[0][1] - sample[0][0] for sample in first} == {700}
    assert {sample[-1][1] - sample[0][0] for sample in second} == {900}
    assert {len(sample) for sample in second} == {2}


def test_kernels_must_be_of_the_rows(tmp_path: Path) -> None:
    names = [made_up.name(seqlen=length) for length in (2, 1)]
    path = made_up.write(tmp_path / "traced.json", made_up.document(*map(made_up.measured, names)))
    text = tmp_path / "trace.txt"
    both = [*trace(5, [(0, 700)]), *trace(3, [(0, 300), (350, 900)])]
    # The process's own kernel, sampled before them, is not a row's.
    own = [(a, b, name.replace("work", kernels.OWN)) for a, b, name in trace(4, [(0, 10000)])]
    assert any(kernels.OWN in name for _, _, name in own)
    text.write_text("".join(f"{a} {b} {name}\n" for a, b, name in [*own, *both]))
    found = kernels.summary(text, path)
    # In the order in which they ran, which is not the names'.
    assert [name.rsplit(":", 1)[1] for name in found] == ["2", "1"]
    assert [row["kernels"] for row in found.values()] == [1, 2]
    assert [row["seconds"] for row in found.values()] == pytest.approx([7e-7, 9e-7])
    assert [row["busy_seconds"] for row in found.values()] == pytest.approx([7e-7, 8.5e-7])
    text.write_text("".join(f"{a} {b} {name}\n" for a, b, name in trace(5, [(0, 700)])))
    with pytest.raises(ResultError, match="kernels of 1 rows"):
        kernels.summary(text, path)
    text.write_text("x\n")
    with pytest.raises(ResultError, match="not a trace"):
        kernels.summary(text, path)


def test_energy(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, luck in enumerate((1.0, 1.02, 0.99)):
        made_up.write(
            folder / f"process-{number}.json",
            made_up.document(
                *(
                    made_up.measured(
                        made_up.name(seqlen=length),
                        length * 1e-4,
                        energy=length * 3e-2 * luck,
                        energy_noise=0.004 * luck,
                        power=300.0,
                        graph_time=length * 5e-5,
                    )
                    for length in (1, 2)
                )
            ),
        )
    sampled = {
        "context": {
            "idle_power_watts": 100,
            "sampled_idle_power_watts": 101,
            "energy_update_seconds": 0.1,
        },
        "rows": [
            {
                "row": made_up.name(seqlen=length).split("/iterations")[0],
                "energy": 1e-2 * length,
                "power": 300,
                "sampled_power": watts,
                "window_seconds": 2.0,
            }
            for length, watts in ((1, 295), (2, 330))
        ],
    }
    (folder / "power.json").write_text(json.dumps(sampled))
    status, document, text = trial("energy", folder, "-o", tmp_path / "energy.md")
    assert status == 1
    assert (document["repeats"], document["agree"]) == ([2, 2], [1, 2])
    assert "100.0 W counted, 101.0 W sampled" in text
    assert [row["stretch"] for row in document["rows"]] == pytest.approx([2.0, 2.0])
    assert [row["claimed"] for row in document["rows"]] == [0.004, 0.004]
    assert "0 of 6 energies were refused" in text

    # An energy that was refused is counted, not passed over.
    refused = json.loads((folder / "process-1.json").read_text())
    for name in ("energy", "energy_per_token", "energy_noise", "power"):
        refused["benchmarks"][0].pop(name, None)
    (folder / "process-1.json").write_text(json.dumps(refused))
    _, document, text = trial("energy", folder, "-o", tmp_path / "energy.md")
    assert [row["missing"] for row in document["rows"]] == [1, 0]
    assert "1 of 6 energies were refused" in text


def test_noise(tmp_path: Path) -> None:
    folder = processes(tmp_path / "raw", sigma=0.01)
    rows, files = noise.read(sorted(folder.glob("plain-*.json")))
    assert (len(rows), len(files)) == (20, 20)
    assert {row.within for row in rows} == {0.004}
    assert float(np.median([row.between for row in rows])) == pytest.approx(0.01, rel=0.2)
    _, document, text = trial(
        "noise", next(folder.glob("plain-*.json")), "-o", tmp_path / "noise.md"
    )
    assert "between" not in document["rows"][0]
    assert "rmsnorm/onednn" in text


def moving(
    op: str, moved: float, rate: float, *, seqlen: int = 1024, flops: float = 0.0, **of: str
) -> Json:
    """A row of so many bytes, at so many a second."""
    seconds = moved / rate
    name = made_up.name(op=op, seqlen=seqlen, **{"device": "cuda"} | of)
    return made_up.measured(
        name,
        seconds,
        bytes_moved=moved,
        bytes_per_second=rate,
        flops=flops,
        flops_per_second=flops / seconds,
    )


def beside_copies(path: Path) -> Path:
    """Copies of 100 to 400 MB, the driver's ahead at the last; rows whose shares are known."""
    return made_up.write(
        path,
        made_up.document(
            moving("copy", 100e6, 2e12, seqlen=1, provider="native"),
            moving("copy", 200e6, 4e12, seqlen=2, provider="native"),
            moving("copy", 400e6, 2e12, seqlen=4, provider="native"),
            moving("copy", 400e6, 4e12, seqlen=4, provider="driver"),
            moving("copy", 1600e6, 4e12, seqlen=16, provider="native"),
            # Halfway between two copies that take as long: 50 us.
            moving("rmsnorm", 100e6 * math.sqrt(2), 2e12, seqlen=1, flops=4e8),
            moving("rmsnorm", 200e6, 3.68e12, seqlen=2),
            moving("rmsnorm", 400e6, 3e12, seqlen=3),
            moving("layernorm", 439e6, 4e12),  # within a tenth of 400 MB
            moving("rope", 500e6, 4e12),  # neither that, nor between two copies
            moving("layernorm", 99e6, 1e12, seqlen=2),  # small
            moving("gemm", 200e6, 1e12, flops=801e6),  # not memory's
            moving("decode", 200e6, 1e12, provider="auto"),
            moving("rmsnorm", 200e6, 1e11, device="cpu"),  # of another device
        ),
    )


def test_copies(tmp_path: Path) -> None:
    file = beside_copies(tmp_path / "run.json")
    assert list(validation.problems(file)) == []
    status, document, text = trial("copy", file, "-o", tmp_path / "copy.md")
    assert status == 0
    shares = [
        (row["name"].split("/")[0], row["name"].rpartition(":")[2], row["share"])
        for row in document["rows"]
    ]
    assert shares == [
        ("rmsnorm", "1", pytest.approx(1 / math.sqrt(2))),
        ("rmsnorm", "3", pytest.approx(0.75)),
        ("rmsnorm", "2", pytest.approx(0.92)),
        ("layernorm", "1024", pytest.approx(1.0)),
    ]
    assert [name.split("/")[0] for name in document["without_a_copy"]] == ["rmsnorm", "rope"]
    assert "| rmsnorm/highway | 3 | 1 | 70.7 % | 75.0 % | 92.0 % |" in text
    assert "Rows without a copy of their size" in text


def test_copies_are_of_the_same_file(tmp_path: Path) -> None:
    row = moving("rmsnorm", 200e6, 2e12)
    slow = made_up.document(moving("copy", 200e6, 2e12, provider="native"), row)
    fast = made_up.document(moving("copy", 200e6, 4e12, provider="native"), row)
    paths = [made_up.write(tmp_path / f"{i}.json", d) for i, d in enumerate((slow, fast))]
    shares, without, files = copies.read(paths)
    assert [share.share for share in shares] == pytest.approx([0.5, 1.0])
    assert (without, len(files)) == ([], 2)


def test_copies_need_copies_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = made_up.write(tmp_path / "none.json", made_up.document(moving("rmsnorm", 200e6, 2e12)))
    assert main(["trial", "copy", str(none)]) == 2
    assert "none.json: has no row of copy" in capsys.readouterr().err
    alone = made_up.write(tmp_path / "alone.json", made_up.document(moving("copy", 200e6, 2e12)))
    assert main(["trial", "copy", str(alone)]) == 2
    assert "no row moves 100 MB or more" in capsys.readouterr().err


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def bench(path: Path, document: Json) -> Path:
    """A program that notes that it ran, and how, and leaves `document` as its results."""
    source = made_up.write(path.parent / f"{path.name}.in", document)
    return program(
        path,
        f'echo "{path.name} $*" >> {path.parent}/log\n'
        "for flag; do case $flag in --benchmark_out=*) out=${flag#*=};; esac; done\n"
        f'cp {source} "$out"\n'
        'if [ -n "$CUDA_INJECTION64_PATH" ]; then echo "1 2 x" > "$SEQMARK_KERNEL_TRACE"; fi',
    )


def test_programs_run_by_turns(tmp_path: Path) -> None:
    document = made_up.document(made_up.measured(made_up.name()))
    plain = bench(tmp_path / "plain", document)
    document["context"]["planted"] = PLANT
    planted = bench(tmp_path / "planted", document)
    arguments = ["--run", plain, planted, "--rounds=2", "--keep", tmp_path / "raw", "--collect"]
    assert main(["trial", "ab", *map(str, arguments), "--", "--devices=cpu"]) == 0
    ran = [line.split()[:2] for line in (tmp_path / "log").read_text().splitlines()]
    assert ran == [[name, "--devices=cpu"] for name in ("plain", "planted", "plain") * 2]
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [
        "command",
        *(f"plain-{number:03}.json" for number in range(1, 5)),
        *(f"planted-{number:03}.json" for number in (1, 2)),
    ]
    _, document, text = trial("ab", tmp_path / "raw", "-o", tmp_path / "ab.md")
    assert [" --run " in line for line in document["command_lines"]] == [True, False]
    assert document["command_lines"][0] in text


def test_what_times_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = tmp_path / "build"
    said: list[str] = []
    build.mkdir()
    bench(build / "seqmark_bench", made_up.document(made_up.measured(made_up.name(), 1e-4)))
    raw = tmp_path / "raw"
    collect.times(build, [], raw, rounds=2, say=said.append)
    assert [path.name for path in raw.iterdir()] == ["ours.json"]
    (build / "log").unlink()
    for earlier in ("nvbench.json", "dirty-003.json"):  # of a collection before
        (raw / earlier).write_text("{}")
    name = made_up.name().split("/iterations")[0]
    answer = made_up.write(build / "answer", made_up.nvbench({name: 1.01e-4}))
    program(
        build / "tests" / "trials" / "seqmark_nvbench_rows",
        f'echo "nvbench $*" >> {build}/log; cat > {build}/given\n'
        f'[ "$1" = --json ] && cp {answer} "$2"',
    )
    program(build / "tests" / "trials" / "libseqmark_kernel_trace.so", "")
    # The trace holds no row's kernels, and is left for who wants to know why.
    with pytest.raises(ResultError, match="kernels of 0 rows"):
        collect.times(build, [], raw, rounds=2, say=said.append)
    ran = [line.split() for line in (build / "log").read_text().splitlines()]
    assert [(words[0], "--cache=dirty" in words) for words in ran] == [
        ("seqmark_bench", False),
        *[("nvbench", False), ("seqmark_bench", True)] * 2,
        ("seqmark_bench", False),
    ]
    assert sorted(path.name for path in raw.glob("[nd]*-*.json")) == [
        *("dirty-001.json", "dirty-002.json", "nvbench-001.json", "nvbench-002.json")
    ]
    assert not (raw / "nvbench.json").exists()
    assert sum(line.startswith("round ") for line in said) == 2
    assert (build / "given").read_text() == f"{name}\n"
    assert (raw / "trace.txt").read_text() == "1 2 x\n"
    # What that program's samples hold is not known.
    assert main(["trial", "times", str(raw)]) == 1
    assert "100.00" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "programs"), [("ab", ["a", "b"]), ("times", ["build"])])
def test_there_is_a_round(
    kind: str, programs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    arguments = ["trial", kind, "--rounds=0", "--run", *programs, "--keep", str(raw)]
    assert main(arguments) == 2
    assert "--rounds 0: one at least" in capsys.readouterr().err
    assert not raw.exists()
