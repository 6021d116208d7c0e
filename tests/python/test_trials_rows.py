# SPDX-License-Identifier: Apache-2.0
"""tools/seqmark trial memory, verify and bytes: result files whose rows are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import made_up
from seqmark_tools import validation
from seqmark_tools.__main__ import main
from seqmark_tools.results import ResultError, Row, RowName
from seqmark_tools.trials import collect, traffic, verify

Json = dict[str, Any]
MIB = 1 << 20
LENDS = "what the driver lends, in granules of 2097152 bytes"


def cuda(provider: str, seqlen: int = 1) -> str:
    return made_up.name(provider=provider, device="cuda", seqlen=seqlen)


def checked(name: str, difference: float, allocations: int = 3, over: float = 0) -> Json:
    """A row that counts 5 MiB, and once had `over` more."""
    return made_up.measured(
        name,
        peak_memory=5 * MIB + over,
        driver_memory=5 * MIB + difference,
        driver_memory_difference=difference,
        allocations=allocations,
    )


def run(kind: str, tmp_path: Path, *entries: Json, **context: str) -> tuple[int, Json, str]:
    document = made_up.document(*entries)
    document["context"] |= context
    file = made_up.write(tmp_path / "x.json", document)
    assert list(validation.problems(file)) == []
    table = tmp_path / "table.md"
    status = main(["trial", kind, str(file), "-o", str(table)])
    return status, json.loads((tmp_path / "table.json").read_text()), table.read_text()


def cells(text: str, first: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_memory_by_provider(tmp_path: Path) -> None:
    status, document, text = run(
        "memory",
        tmp_path,
        checked(cuda("native"), 1.5 * MIB),
        checked(cuda("native", 2), 1.75 * MIB, over=MIB),
        checked(cuda("cudnn"), -MIB, allocations=1),
        made_up.entry(cuda("cudnn", 2), skipped=True, skip_message="not this problem"),
        made_up.measured(made_up.name()),  # a CPU's, of which nothing is known
        cuda_driver_memory=LENDS,
    )
    assert status == 0
    assert (document["checked"], document["not_checked"], document["errors"]) == (3, 0, {})
    assert document["granule"] == 2 * MIB
    assert document["rows"][1]["counted"] == 5 * MIB
    assert cells(text, "rmsnorm/native")[1:-1] == [
        *("2", "0", "0", "0", "3", "+1.50", "+1.75", "1"),
    ]
    assert cells(text, "all")[1:-1] == [
        *("3", "0", "1", "0", "3", "-1.00", "+1.75", "1"),
    ]
    assert cells(text, "all")[-1] == "rmsnorm/native/qwen2.5-1.5b.add/seqlen:2"
    assert "rmsnorm/highway" not in text


@pytest.mark.parametrize("sign", [1, -1])
def test_memory_that_is_too_far_off(tmp_path: Path, sign: int) -> None:
    near, far = (checked(cuda("native"), sign * d) for d in (2 * MIB, 2 * MIB + 1))
    assert run("memory", tmp_path, near, cuda_driver_memory=LENDS)[0] == 0
    assert run("memory", tmp_path, far, cuda_driver_memory=LENDS)[0] == 1


def test_memory_of_a_row_that_failed_or_was_not_checked(tmp_path: Path) -> None:
    fine = checked(cuda("native"), MIB)
    failed = made_up.entry(cuda("cudnn"), error_occurred=True, error_message="the driver lends")
    status, document, text = run("memory", tmp_path, fine, failed, cuda_driver_memory=LENDS)
    assert status == 1
    assert list(document["errors"].values()) == ["the driver lends"]
    assert "| the driver lends |" in text
    unchecked = made_up.measured(cuda("cudnn"))
    status, document, _ = run("memory", tmp_path, fine, unchecked, cuda_driver_memory=LENDS)
    assert (status, document["not_checked"]) == (1, 1)


def test_memory_needs_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = made_up.document(made_up.measured(cuda("native")))
    file = made_up.write(tmp_path / "x.json", document)
    assert main(["trial", "memory", str(file)]) == 2
    assert "--verify_memory: no CUDA device" in capsys.readouterr().err
    document["context"]["cuda_driver_memory"] = "not measured: --verify_memory=false"
    made_up.write(file, document)
    assert main(["trial", "memory", str(file)]) == 2
    assert "not measured" in capsys.readouterr().err
    document["context"]["cuda_driver_memory"] = LENDS
    made_up.write(file, document)
    assert main(["trial", "memory", str(file)]) == 2
    assert "no row has `driver_memory`" in capsys.readouterr().err


# As bench/row_runner.cc puts labels together.
@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("verified: whole", "whole"),
        ("verified: whole; throttled: power cap", "whole"),
        ("verified: 4 parts, 0.2 % of the outputs; throttled: power cap", "parts"),
        ("verified: 1 parts", "parts"),
        ("verified: first 64 tokens, 6.2 % of the outputs", "first tokens"),
        ("verified: first 32768 tokens of 4 parts, 0.05 % of the outputs", "first tokens"),
        ("verified: logits are finite, not against a reference", "finite"),
        ("not verified: its reference takes 1e12 operations", "not"),
        ("throttled: power cap", "not"),
        ("verified: by eye", "not"),
        ("", "not"),
    ],
)
def test_how_a_row_was_verified(label: str, wanted: str) -> None:
    name = RowName.parse(made_up.name())
    assert name is not None
    assert verify.how(Row(name, seconds=1, label=label)) == wanted


def test_verify_by_provider(tmp_path: Path) -> None:
    rows = [
        made_up.measured(cuda("native"), verified=1, label="verified: whole"),
        made_up.measured(cuda("native", 2), verified=0.002, label="verified: 4 parts, 0.2 % of it"),
        made_up.measured(cuda("cudnn"), verified=0.5, label="verified: first 8 tokens, 50 %"),
        made_up.measured(
            made_up.name(op="prefill", provider="auto", device="cuda"),
            label="verified: logits are finite, not against a reference",
        ),
        made_up.entry(cuda("cudnn", 2), skipped=True, skip_message="not this problem"),
    ]
    status, document, text = run("verify", tmp_path, *rows)
    assert status == 0
    assert cells(text, "all")[1:] == ["4", "1", "1", "1", "1", "0", "1", "0", "0.002"]
    assert cells(text, "rmsnorm/native")[1:] == ["2", "1", "1", "0", "0", "0", "0", "0", "0.002"]
    assert cells(text, "prefill/auto")[-1] == "–"
    assert [document[key] for key in ("whole", "parts", "first_tokens", "finite", "not")] == [
        *(1, 1, 1, 1, 0),
    ]

    wrong = made_up.entry(cuda("cudnn", 3), error_occurred=True, error_message="wrong output")
    status, document, text = run("verify", tmp_path, *rows, wrong)
    assert (status, list(document["errors"].values())) == (1, ["wrong output"])
    assert "| wrong output |" in text

    unknown = made_up.measured(cuda("cudnn", 4), label="not verified: too long")
    status, document, text = run("verify", tmp_path, *rows, unknown)
    assert (status, document["not"]) == (1, 1)
    assert "| not verified: too long |" in text


def test_verify_needs_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = made_up.write(tmp_path / "x.json", made_up.document(made_up.measured(cuda("native"))))
    assert main(["trial", "verify", str(file)]) == 2
    assert "no row was run with --verify" in capsys.readouterr().err


def counted(seqlen: int, moved: float, dram: float) -> Json:
    return made_up.measured(cuda("native", seqlen), bytes_moved=moved, dram_bytes=dram)


def write_claims(tmp_path: Path, *lines: str) -> Path:
    folder = tmp_path / "ops" / "rmsnorm"
    folder.mkdir(parents=True, exist_ok=True)
    table = ["| DRAM traffic claimed | of the least | because |", "|---|---|---|", *lines]
    (folder / "README.md").write_text("\n".join(["# rmsnorm", "", *table, "", "| `x` | y |", ""]))
    return tmp_path / "ops"


def test_bytes_beside_the_claims(tmp_path: Path) -> None:
    document = made_up.document(
        counted(1, 300e6, 620e6),  # claimed: twice
        counted(2, 300e6, 300e6),
        counted(3, 10e6, 90e6),  # too small
        made_up.measured(cuda("cudnn"), bytes_moved=300e6, dram_bytes=900e6),
        made_up.measured(made_up.name(), bytes_moved=300e6),
    )
    document["context"]["gpu_l2_bytes"] = "60000000"
    file = made_up.write(tmp_path / "x.json", document)
    ops = write_claims(tmp_path, "| `seqlen:1$` | 2.0 | twice |", "| `native/` | 1.00 | once |")
    made = traffic.make([file], ops)
    assert made.passed
    assert (made.document["judged"], made.document["met"]) == (2, 2)
    assert [row["claimed"] for row in made.document["rows"]] == [2.0, 1.0, 1.0]
    assert [row["judged"] for row in made.document["rows"]] == [True, True, False]

    # More than a tenth off, either way; a row that nothing is claimed of; an operator without rows.
    for claim in ("| `native/` | 1.12 | once |", "| `native/` | 0.90 | once |"):
        assert not traffic.make([file], write_claims(tmp_path, claim)).passed
    made = traffic.make([file], write_claims(tmp_path, "| `seqlen:1$` | 2.0 | twice |"))
    assert (made.passed, made.document["met"]) == (False, 1)
    ops = write_claims(tmp_path, "| `seqlen:1$` | 2.0 | twice |", "| `native/` | 1.00 | once |")
    (ops / "rope").mkdir()
    (ops / "rope" / "README.md").write_text((ops / "rmsnorm" / "README.md").read_text())
    made = traffic.make([file], ops)
    assert (made.passed, made.document["operators_without"]) == (False, ["rope"])


def test_bytes_needs_the_flag_and_the_cache(tmp_path: Path) -> None:
    file = made_up.write(tmp_path / "x.json", made_up.document(made_up.measured(cuda("native"))))
    with pytest.raises(ResultError, match="--verify_bytes"):
        traffic.make([file])
    made_up.write(file, made_up.document(counted(1, 300e6, 300e6)))
    with pytest.raises(ResultError, match="gpu_l2_bytes"):
        traffic.make([file])


@pytest.mark.parametrize("line", ["| `(` | 1.0 | x |", "| `x` | 1.0.0 | x |", "| x | 1.0 | x |"])
def test_a_claim_that_is_none(tmp_path: Path, line: str) -> None:
    with pytest.raises(ResultError, match="the claim"):
        traffic.claims_of("rmsnorm", write_claims(tmp_path, line))


def test_every_operator_with_a_native_kernel_claims_its_bytes() -> None:
    claims = traffic.claiming(traffic.OPERATORS)
    kernels = {path.parent.name for path in traffic.OPERATORS.glob("*/native.cu")}
    assert kernels - set(claims) == set()


def test_energy_discards_a_warm_up(tmp_path: Path) -> None:
    build = tmp_path / "build"
    (build / "tests" / "trials").mkdir(parents=True)
    row = made_up.measured(made_up.name(), 1e-4, energy=3e-2, power=300.0)
    source = made_up.write(build / "in", made_up.document(row))
    bench, power = build / "seqmark_bench", build / "tests" / "trials" / "seqmark_power_rows"
    # The first process, on a cold device, takes half the energy.
    bench.write_text(
        "#!/bin/sh\nfor flag; do case $flag in --benchmark_out=*) out=${flag#*=};; esac; done\n"
        f'if [ -e {build}/warm ]; then cp {source} "$out"\n'
        f"else sed 's/0.03/0.015/; s/300/150/' {source} > \"$out\"; touch {build}/warm; fi\n"
    )
    power.write_text('#!/bin/sh\necho "{}"\n')
    for program in (bench, power):
        program.chmod(0o755)
    for warm_ups, status in ((1, 0), (0, 1), (1, 0)):
        (build / "warm").unlink(missing_ok=True)
        folder = tmp_path / "raw"
        arguments = ["--run", build, "--keep", folder, "--processes=2"]
        arguments += [f"--warmup={warm_ups}", "-o", tmp_path / "energy.md"]
        assert main(["trial", "energy", *map(str, arguments)]) == status
        document = json.loads((tmp_path / "energy.json").read_text())
        assert (document["processes"], document["warm_up_processes"]) == (2, warm_ups)
        text = (tmp_path / "energy.md").read_text()
        assert f"to warm the device, and discarded: {warm_ups}." in text


def test_energy_warms_up_once_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(collect, "energy", lambda *_, warm_ups, **__: asked.append(warm_ups))
    assert main(["trial", "energy", "--run", "b", "--keep", str(tmp_path), "--collect"]) == 0
    assert asked == [1]
