# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/peers that need no library."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import made_up
from peers import power, rows, sampling, zoo
from peers.names import RowName, Shapes, read_rows
from peers.problems import make_problem, sweep
from seqmark_tools import validation

TORCH_FREE = ("inputs", "names", "power", "problems", "rows", "sampling", "tensors", "zoo")
NEW_OPERATORS = (
    "activation",
    "attention_decode",
    "copy",
    "embedding",
    "rope",
    "selective_scan_step",
    "ssd_step",
)


def model_row(op: str = "decode", model: str = "mamba2-130m", seqlen: int = 4096) -> RowName:
    return RowName(op, "auto", model, "bf16", "cuda", 8, seqlen)


def test_names_of_models() -> None:
    text = "decode/auto/mamba2-130m/dtype:bf16/device:cuda/batch:8/seqlen:4096"
    assert RowName.parse(text) == model_row()
    assert RowName.parse(f"{text}/iterations:1/manual_time") == model_row()
    assert str(model_row().with_provider("mamba_ssm")) == text.replace("auto", "mamba_ssm")


def test_reads_a_list() -> None:
    text = (
        "prefill/auto/qwen2.5-0.5b/dtype:bf16/device:cuda/batch:8/seqlen:1024\n\n"
        "max_context/auto/qwen2.5-0.5b/dtype:bf16/device:cuda/batch:1/limit:24GiB\n"
        "decode/auto/qwen2.5-0.5b/dtype:bf16/device:cuda/batch:8/seqlen:1024/iterations:1\n"
    )
    assert read_rows(text) == [model_row(op, "qwen2.5-0.5b", 1024) for op in ("prefill", "decode")]


def test_reads_a_result_file() -> None:
    names = [row.op for row in read_rows(json.dumps(made_up.good()))]
    assert "prefill" in names
    assert "gemm" in names


@pytest.mark.parametrize(
    "text",
    [
        "prefill/auto/mamba-130m/dtype:bf16/device:cuda/batch:1",
        "prefill/auto/mamba-130m/dtype:bf16/device:cuda/batch:1/seqlen:0",
        "prefill/mamba-130m/dtype:bf16/device:cuda/batch:1/seqlen:1",
        "prefill/auto/mamba-130m/dtype:fp8/device:cuda/batch:1/seqlen:1",
    ],
)
def test_refuses_names(text: str) -> None:
    with pytest.raises(ValueError, match="is not <op>/<provider>/"):
        read_rows(text)


def test_every_model_is_understood() -> None:
    assert "mamba2-2.7b" in zoo.models()
    for model in zoo.models():
        kind, fields = zoo.for_transformers(zoo.read(model))
        assert kind
        assert "model_type" not in fields
        assert "architectures" not in fields
    with pytest.raises(zoo.UnknownModelError, match="no model gpt-5"):
        zoo.read("gpt-5")


def test_sizes_of_mamba_ssm() -> None:
    kind, fields = zoo.for_transformers(zoo.read("mamba2-780m"))
    assert (kind, fields["num_heads"], fields["state_size"]) == ("mamba2", 48, 128)
    assert fields["vocab_size"] == zoo.vocabulary(zoo.read("mamba2-780m")) == 50288
    kind, fields = zoo.for_transformers(zoo.read("mamba-8b"))
    assert (kind, fields["state_size"]) == ("mamba", 128)
    assert fields["tie_word_embeddings"] is False
    assert fields["vocab_size"] == 256000
    config = zoo.read("mamba-130m") | {"ssm_cfg": {"layer": "Mamba2", "d_has_hdim": True}}
    with pytest.raises(zoo.UnknownModelError, match="d_has_hdim"):
        zoo.for_transformers(config)


@pytest.mark.parametrize(
    ("op", "model", "seqlen", "refused"),
    [
        ("prefill", "gpt-neo-125m", 2048, False),
        ("prefill", "gpt-neo-125m", 4096, True),
        ("decode", "gpt-neo-125m", 1024, False),
        ("decode", "gpt-neo-125m", 2048, True),  # its next token has no position
        ("decode", "qwen2.5-0.5b", 131072, False),
    ],
)
def test_positions(op: str, model: str, seqlen: int, *, refused: bool) -> None:
    assert bool(zoo.refusal(model_row(op, model, seqlen), zoo.read(model))) == refused


def test_sweep_of_models() -> None:
    names = list(zoo.sweep(Shapes.read(), "bf16", "cuda"))
    assert len(set(names)) == len(names)
    assert {name.shape for name in names} == set(zoo.models())
    assert {name.seqlen for name in names} >= {1024, 57344, 131072}


def test_entries(tmp_path: Path) -> None:
    timing = sampling.Timing([3e-3, 1e-3, 2e-3], graph=1e-3, host=2e-3, event=1.9e-3, peak=10**9)
    timing.remark = "eager"
    name = model_row()
    row = rows.entry(name) | rows.counters(timing, rows.tokens_of(name)) | {"parameters": 10}
    assert row["real_time"] == pytest.approx(2e6)
    assert row["tokens_per_second"] == pytest.approx(8 / 2e-3)
    assert (row["event_time"], row["graph_time"], row["host_time"]) == (1.9e-3, 1e-3, 2e-3)
    operator = rows.entry(RowName.parse(made_up.name())) | rows.counters(timing, 1024)
    operator |= rows.work(timing, 4000, 6.0)
    absent = rows.entry(model_row(seqlen=1)) | rows.skipped("no library")
    lost = rows.entry(model_row(seqlen=2)) | rows.failed("it broke")
    document = made_up.document(row, operator, absent, lost)
    assert list(validation.problems(made_up.write(tmp_path / "r.json", document))) == []
    assert "2000.0 us" in rows.describe(row)
    assert "graph 1000.0 us" in rows.describe(row)
    assert "GB/s" in rows.describe(operator)
    assert "SKIPPED: no library" in rows.describe(absent)
    assert "ERROR: it broke" in rows.describe(lost)


def test_tokens() -> None:
    assert rows.tokens_of(model_row("prefill")) == 8 * 4096
    assert rows.tokens_of(model_row("decode")) == 8


def test_samples() -> None:
    limits = sampling.Limits(least_samples=5, most_samples=20, most_seconds=0, fewest_samples=4)
    assert sampling.sample(limits, lambda: [1.0]) == [1.0] * 4  # out of time
    steady = sampling.Limits(least_samples=8, most_seconds=60)
    assert sampling.sample(steady, lambda: [1.0]) == [1.0] * 8
    values = iter(range(1, 100))
    noisy = sampling.Limits(least_samples=5, most_samples=20, most_seconds=60)
    assert len(sampling.sample(noisy, lambda: [float(next(values))])) == 20


def test_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("peers.sampling.time.perf_counter", lambda: now)
    taken: list[float] = []

    def take(each: list[float], wall: float) -> list[float]:
        nonlocal now
        now += wall
        taken.append(each[min(len(taken), len(each) - 1)])
        return taken[-1:]

    limits = sampling.Limits(warm_up_seconds=0.05, most_seconds=10)
    # A chip that slows down for six batches: on until two agree.
    sampling.warm_up(limits, lambda: take([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.5], 0.01))
    assert len(taken) == 7
    now, taken = 0.0, []
    sampling.warm_up(limits, lambda: take([1.0], 0.01))  # steady, but long enough
    assert len(taken) == 5
    now, taken = 0.0, []
    sampling.warm_up(limits, lambda: take([1.0, 2.0] * 50, 0.01))  # never: four times that
    assert len(taken) == 20


@pytest.mark.parametrize(
    ("met", "wall"),
    [(0.0, 60), (0.1, 60), (0.3, 60), (0.9, 60), (0.0, 0.6), (0.5, 0.6), (9.0, 60)],
)
def test_samples_at_the_power_limit(
    monkeypatch: pytest.MonkeyPatch, met: float, wall: float
) -> None:
    now = 0.0  # seconds of load
    monkeypatch.setattr("peers.sampling.time.perf_counter", lambda: now)

    def take() -> list[float]:  # the clock falls at 0.4 s
        nonlocal now
        now += 0.01
        return [2.0 if now > 0.4 else 1.0]

    limits = sampling.Limits(least_seconds=95, most_seconds=wall)
    samples = sampling.sample(limits, take, lambda: now >= met)
    if met > 1:  # never
        assert samples[0] == 1.0
        assert now < 1.5
    elif wall < 1:  # counted from a third of it on; met too late, all of it
        assert samples[0] == 1.0
        assert len(samples) in ((60, 61) if met > 0 else (40, 41))
    else:
        assert set(samples) == {2.0}
        assert now == pytest.approx(max(met, 0.5) + 1, abs=0.03)


def test_power_limit_by_the_drivers_counter(tmp_path: Path) -> None:
    assert power.limit_of("GPU-0", str(tmp_path / "no-driver.so"))() is False
    assert power.limit_of("GPU-0", "libc.so.6")() is False  # none of its functions
    source = tmp_path / "nvml.c"
    source.write_text("""
#include <string.h>
int calls;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  *device = (void*)0x100000000;
  return strcmp(uuid, "GPU-0") != 0;
}
int nvmlDeviceGetViolationStatus(void* device, int policy, unsigned long long* time) {
  ++calls;
  time[1] = calls < 3 ? 5 : 9;  /* grows once, at the third */
  return device != (void*)0x100000000 || policy != 0 || calls == 5;
}
""")
    library = tmp_path / "nvml.so"
    subprocess.run(["g++", "-xc", "-shared", "-fPIC", "-o", library, source], check=True)
    assert power.limit_of("GPU-1", str(library))() is False
    limited = power.limit_of("GPU-0", str(library))
    assert [limited() for _ in range(5)] == [False, True, False, False, False]


def test_torch_free_parts_import_no_torch() -> None:
    folder = Path(zoo.__file__).parent
    for module in TORCH_FREE:
        assert "import torch" not in (folder / f"{module}.py").read_text()


def test_problems() -> None:
    shapes = Shapes.read()
    names = list(sweep(shapes, "bf16", "cuda"))
    assert {name.op for name in names} >= set(NEW_OPERATORS)
    for name in names:
        assert make_problem(name, shapes).bytes_moved > 0
    (gated,) = (n for n in names if n.shape == "mamba2-8b.gated" and n.seqlen == 1024)
    assert make_problem(gated, shapes).axes == {"width": 8192, "groups": 8}
    copies = [n for n in names if n.op == "copy"]
    assert (len(copies), max(n.seqlen for n in copies)) == (14 + 8 * 4, 524288)
    copied = RowName("copy", "*", "custom.width33", "f32", "cpu", 2, 3)
    assert make_problem(copied, shapes).bytes_moved == 2 * 2 * 3 * 33 * 4
    one = RowName("embedding", "*", "mamba-130m", "bf16", "cpu", 1, 1)
    assert make_problem(one, shapes).bytes_moved == 4 + 2 * 768 * 2
