# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from pathlib import Path

import pytest

import made_up
from seqmark_tools import results
from seqmark_tools.report import findings, labels
from seqmark_tools.report.crossover import compare, interpolate
from seqmark_tools.report.data import Collection, collect

LENGTHS = (256.0, 1024.0, 8192.0, 57344.0)


def law(scale: float, power: float) -> list[tuple[float, float]]:
    return [(x, scale * x**power) for x in LENGTHS]


def test_power_laws_are_exact() -> None:
    for x in (300.0, 1024.0, 5000.0, 57344.0):
        assert interpolate(law(3, 1.7), x) == pytest.approx(3 * x**1.7)


def test_one_crossing() -> None:
    linear, square = law(1.0, 1), law(1 / 3000, 2)
    result = compare(linear, square)
    assert result is not None
    assert [c.length for c in result.crossings] == [pytest.approx(3000)]
    assert result.crossings[0].overtaker == 0, "the linear one is below from there on"
    assert result.crossings[0].between == (1024, 8192)
    assert result.leader == 0
    assert result.ratio_high == pytest.approx(3000 / 57344)
    swapped = compare(square, linear)
    assert swapped is not None
    assert swapped.crossings[0].overtaker == 1


def test_two_crossings() -> None:
    flat = [(x, 1.0) for x in LENGTHS]
    dip = list(zip(LENGTHS, (2.0, 0.5, 0.5, 2.0), strict=True))
    result = compare(dip, flat)
    assert result is not None
    assert [c.overtaker for c in result.crossings] == [0, 1]
    assert result.crossings[0].length == pytest.approx(math.sqrt(256 * 1024))


def test_touching_is_no_crossing() -> None:
    flat = [(x, 1.0) for x in LENGTHS]
    touching = list(zip(LENGTHS, (2.0, 1.0, 1.0, 2.0), strict=True))
    result = compare(touching, flat)
    assert result is not None
    assert result.crossings == []


def test_passing_through_a_point_crosses_there() -> None:
    flat = [(x, 1.0) for x in LENGTHS]
    through = list(zip(LENGTHS, (2.0, 1.0, 1.0, 0.5), strict=True))
    result = compare(flat, through)
    assert result is not None
    assert [c.overtaker for c in result.crossings] == [1]
    assert result.crossings[0].length == pytest.approx(8192)


def test_ranges() -> None:
    assert compare(law(1, 1)[:1], law(1, 2)) is None, "one point is no curve"
    assert compare(law(1, 1)[:2], law(1, 2)[2:]) is None, "nothing in common"
    result = compare([(512.0, 1.0), (16384.0, 1.0)], law(1, 1))
    assert result is not None
    assert (result.low, result.high) == (512, 16384)


def test_words(tmp_path: Path) -> None:
    def rows(shape: str, scale: float, power: float) -> list[made_up.Json]:
        return [
            made_up.measured(made_up.name("prefill", "auto", shape, "cuda", int(x)), y)
            | {"memory_weights": 1e9, "peak_memory": 2e9}
            for x, y in law(scale, power)
        ]

    document = made_up.document(
        *rows("qwen2.5-0.5b", 1e-6 / 9300, 2),
        *rows("mamba2-780m", 1e-6, 1),
        *rows("mamba-790m", 5e-6, 1),
    )
    path = made_up.write(tmp_path / "models.json", document)
    said = findings.crossovers(collect([results.read(path)]))
    times = [s.text for s in said if s.metric == "time to first token"]
    assert times[0] == (
        "Mamba2-780m overtakes Qwen2.5-0.5B at 9.3K tokens (measured at 8K and 57,344); 6.2x at "
        "57,344."
    )
    assert times[2] == (
        "Mamba2-780m is faster than Mamba-790m from 256 to 57,344 tokens, 5.0x at 256, 5.0x at "
        "57,344; neither overtakes the other in range."
    )
    memory = [s.text for s in said if s.metric == "memory of a prompt"]
    assert memory[0] == "Qwen2.5-0.5B and Mamba-790m are equal from 256 to 57,344 tokens."


def models(tmp_path: Path, *entries: made_up.Json) -> Collection:
    path = made_up.write(tmp_path / "models.json", made_up.document(*entries))
    return collect([results.read(path)])


def test_words_of_memory_say_its_direction(tmp_path: Path) -> None:
    """Who overtakes in memory would be the better one to some readers, the larger to others."""
    rows = [
        made_up.measured(made_up.name("prefill", "auto", shape, "cuda", int(x)), 1.0)
        | {"memory_weights": 1e9, "peak_memory": y}
        for shape, curve in (("qwen2.5-0.5b", law(1e5, 1)), ("mamba2-780m", law(1e9, 0)))
        for x, y in curve
    ]
    (memory,) = [
        s.text
        for s in findings.crossovers(models(tmp_path, *rows))
        if s.metric == "memory of a prompt"
    ]
    assert memory == (
        "Mamba2-780m needs less than Qwen2.5-0.5B from 10K tokens (measured at 8K and 57,344); "
        "5.7x at 57,344."
    )


def test_one_bad_row_is_not_the_first_finding(tmp_path: Path) -> None:
    """It makes two crossings, and would be the clearest of all by its factor at the end."""
    spike = [(x, y * (1000 if x == LENGTHS[1] else 1)) for x, y in law(1e-7, 1)]
    rows = [
        made_up.measured(made_up.name("decode", "auto", shape, "cuda", int(x)), y)
        | {"memory_weights": 1e9}
        for shape, curve in (
            ("mamba2-780m", spike),
            ("falcon-h1-0.5b", law(2e-5, 1)),
            ("qwen2.5-0.5b", law(2e-5 / 9300, 2)),
        )
        for x, y in curve
    ]
    said = findings.findings(models(tmp_path, *rows))
    assert said[0].startswith("Time per token: Falcon-H1-0.5B overtakes Qwen2.5-0.5B at"), said


def test_extremes_are_of_one_kind_and_say_which(tmp_path: Path) -> None:
    """Not f32 against bf16, nor a peer against us; who is left out is counted."""
    rows = [
        made_up.measured(made_up.name("prefill", "auto", shape, "cuda", length), seconds)
        for shape, seconds in (("mamba-130m", 1.0), ("qwen2.5-0.5b", 2.0), ("mamba2-130m", 3.0))
        for length in ((1024, 4096) if shape != "mamba2-130m" else (1024,))
    ]
    for shape, provider, dtype in (("mamba-130m", "auto", "f32"), ("mamba2-130m", "peer", "bf16")):
        faster = made_up.name("prefill", provider, shape, "cuda", 4096).replace("bf16", dtype)
        rows.append(made_up.measured(faster, 1e-3))
    assert (
        "A prompt of 4K tokens (bf16, batch 1, 2 of 3 models) is read first by Mamba-130m (1.00 s),"
        " last by Qwen2.5-0.5B (2.00 s)."
    ) in findings.findings(models(tmp_path, *rows))


def test_the_state_is_one_number_in_old_files_and_new(tmp_path: Path) -> None:
    rows = [
        made_up.measured(made_up.name("decode", "auto", shape, "cuda", 4096), 1.0)
        | {"memory_weights": 1e9}
        | state
        for shape, state in (
            ("mamba-130m", {"memory_ssm_state": 2e6}),
            ("falcon-h1-0.5b", {"memory_kv_state": 3e6, "memory_ssm_state": 4e6}),
            ("qwen2.5-0.5b", {"memory_state": 6e6}),
        )
    ]
    assert (
        "The state after 4K tokens (bf16, batch 1) is smallest in Mamba-130m (2.00 MB) and "
        "largest in Falcon-H1-0.5B (7.00 MB)."
    ) in findings.findings(models(tmp_path, *rows))


def test_throttled_rows_are_told(tmp_path: Path) -> None:
    rows = [
        made_up.measured(made_up.name(seqlen=length), 1.0, **({"throttled": 0.4} if held else {}))
        for length, held in ((1, True), (2, False))
    ]
    assert findings.findings(models(tmp_path, *rows))[-1].startswith("1 of 2 rows were held back")


def test_builds_are_not_joined(tmp_path: Path) -> None:
    """Two builds, the newer slower at the lengths that it has: no line and no crossing of both."""
    paths = []
    for number, (commit, lengths) in enumerate((("a" * 40, LENGTHS), ("b" * 40, LENGTHS[2:]))):
        document = made_up.document(
            *(
                made_up.measured(
                    made_up.name("prefill", "auto", "mamba-130m", "cuda", int(x)),
                    x * 1e-6 * 100**number,
                )
                for x in lengths
            )
        )
        document["context"] |= {"commit": commit, "date": f"2026-11-2{number}T00:00:00+00:00"}
        paths.append(made_up.write(tmp_path / f"{number}.json", document))
    rows = collect(results.read_all(paths))
    lines = {one.build: one.points("seconds") for one in rows.lines("prefill")}
    assert [x for x, _ in lines["aaaaaaa"]] == list(LENGTHS)
    assert [x for x, _ in lines["bbbbbbb"]] == list(LENGTHS[2:])
    assert rows.repeated == 2
    same = collect(results.read_all([paths[0], paths[0]]))
    assert len(same.lines("prefill")) == 1


@pytest.mark.parametrize(
    ("name", "shown", "family"),
    [
        ("qwen2.5-0.5b", "Qwen2.5-0.5B", labels.TRANSFORMER),
        ("mamba2-780m", "Mamba2-780m", labels.MAMBA2),
        ("mamba-1.4b", "Mamba-1.4B", labels.MAMBA),
        ("mamba-2.8b", "Mamba-2.8B", labels.MAMBA),
        ("mamba2-hybrid-8b", "Mamba2-Hybrid-8B", labels.HYBRID),
        ("falcon-h1-1.5b-deep", "Falcon-H1-1.5B-Deep", labels.HYBRID),
        ("phi-3-mini", "Phi-3-mini", labels.TRANSFORMER),
        ("transformer-8b", "Transformer-8B", labels.TRANSFORMER),
    ],
)
def test_models(name: str, shown: str, family: str) -> None:
    assert (labels.display_model(name), labels.family_of(name)) == (shown, family)


@pytest.mark.parametrize(
    ("shape", "model", "role"),
    [
        ("qwen2.5-1.5b.mlp_up", "qwen2.5-1.5b", "mlp_up"),
        ("qwen2.5-1.5b", "qwen2.5-1.5b", ""),
        ("mamba-130m", "mamba-130m", ""),
    ],
)
def test_shapes(shape: str, model: str, role: str) -> None:
    assert (labels.model_of(shape), labels.role_of(shape)) == (model, role)


@pytest.mark.parametrize(
    ("length", "text"),
    [(256, "256"), (1024, "1K"), (131072, "128K"), (57344, "57,344"), (1 << 20, "1M")],
)
def test_tokens(length: float, text: str) -> None:
    assert labels.tokens(length) == text


@pytest.mark.parametrize(
    ("length", "text"), [(9312.4, "9.3K"), (24345.0, "24K"), (873.0, "870"), (9960.0, "10K")]
)
def test_about(length: float, text: str) -> None:
    assert labels.about(length) == text


def test_every_model_has_its_own_look() -> None:
    folder = Path(__file__).parents[2] / "models" / "configs"
    models = [path.stem for path in folder.glob("*.json")]
    assert len(models) >= 25
    styles = labels.model_styles(models)
    assert len({colour for colour, _ in styles.values()}) == len(models)
