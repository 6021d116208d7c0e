# SPDX-License-Identifier: Apache-2.0
"""What tools/peers mirrors of the C++ side; tests/peer_inputs_test.cc reads the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peers import inputs
from peers.names import RowName, Shapes
from peers.problems import MAKERS, make_problem
from peers.tensors import Spec

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "peers"
INPUTS: dict[str, Any] = json.loads((GOLDEN / "inputs.json").read_text())
PROBLEMS: dict[str, Any] = json.loads((GOLDEN / "problems.json").read_text())


def spec_of(golden: dict[str, Any]) -> Spec:
    dims = tuple(golden["dims"])
    return Spec(golden["name"], golden["role"], dims, golden["dtype"], golden.get("limit", 0))


def as_numbers(dtype: str, elements: inputs.Elements) -> list[float]:
    if dtype == "bf16":
        elements = (elements.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return [float(x) for x in elements]


def test_seed_is_the_suites() -> None:
    assert INPUTS["seed"] == PROBLEMS["seed"] == inputs.SEED


# Bit for bit. What another libm does to the last places of a double shows in some four
# f32 elements of 10^9 (peers/inputs.py); there are ten thousand in the file.
@pytest.mark.parametrize(
    "golden", INPUTS["tensors"], ids=lambda g: f"{g['name']}-{g['role']}-{g['dtype']}"
)
def test_values(golden: dict[str, Any]) -> None:
    spec = spec_of(golden)
    block = inputs.block(spec)
    assert len(block) == min(spec.elements, inputs.BLOCK)
    whole = np.resize(block, spec.elements)  # repeats
    assert as_numbers(spec.dtype, whole[:3]) == golden["first"]
    assert as_numbers(spec.dtype, whole[-1:]) == [golden["last"]]
    bits = whole.view(f"u{whole.itemsize}").astype(np.uint64)
    places = np.arange(1, spec.elements + 1, dtype=np.uint64)
    assert str(int((bits * places).sum())) == golden["sum"]


def test_every_role_is_in_the_file() -> None:
    roles = {spec.role for problem in problems() for spec in problem.specs} - {"output"}
    assert {golden["role"] for golden in INPUTS["tensors"]} >= roles
    with pytest.raises(ValueError, match="role output"):
        inputs.block(Spec("y", "output", (3,), "f32"))


def test_blocks_are_remembered() -> None:
    """A block is remembered by all that it depends on."""
    rows = Spec("weight", "weight", (64, 32), "f32")
    columns = Spec("weight", "weight", (32, 64), "f32")
    ratio = inputs.block(rows) / inputs.block(columns)
    assert np.allclose(ratio, 2**0.5, rtol=1e-6)
    assert inputs.block(rows) is inputs.block(rows)
    assert not inputs.block(rows).flags.writeable


def problems() -> list[Any]:
    shapes = Shapes.read()
    return [make_problem(RowName.parse(golden["row"]), shapes) for golden in PROBLEMS["rows"]]


def test_every_operator_is_in_the_file() -> None:
    assert {RowName.parse(golden["row"]).op for golden in PROBLEMS["rows"]} == set(MAKERS)


@pytest.mark.parametrize("golden", PROBLEMS["rows"], ids=lambda g: g["row"])
def test_problems_are_the_suites(golden: dict[str, Any]) -> None:
    problem = make_problem(RowName.parse(golden["row"]), Shapes.read())
    assert problem.flops == pytest.approx(golden["flops"], rel=1e-12)
    named = {spec.name: spec for spec in problem.specs}
    assert len(named) == len(problem.specs)
    assert named.keys() == {tensor["name"] for tensor in golden["tensors"]}
    for tensor in golden["tensors"]:
        spec = named[tensor["name"]]
        assert (spec.role, spec.dtype, list(spec.dims), spec.bytes) == (
            tensor["role"],
            tensor["dtype"],
            tensor["dims"],
            tensor["bytes"],
        ), tensor["name"]
        assert spec.limit == tensor.get("limit", 0)


def test_pytorch_gets_the_same() -> None:
    torch = pytest.importorskip("torch")
    from peers.filling import fill

    for golden in INPUTS["tensors"]:
        spec = spec_of(golden)
        tensor = fill(spec, "cpu")
        assert tuple(tensor.shape) == spec.dims
        flat = tensor.flatten()
        assert flat[:3].tolist() == golden["first"]
        assert flat[-1].item() == golden["last"]
        whole = torch.from_numpy(
            np.resize(inputs.block(spec), spec.elements).view(f"i{flat.element_size()}")
        )
        assert torch.equal(flat.view(whole.dtype), whole)


def test_pytorchs_outputs_are_ours() -> None:
    pytest.importorskip("torch")
    from peers import checking
    from peers.providers import PEERS

    shapes = Shapes.read()
    compared = set()
    for row in checking.golden_rows("cpu"):
        for peer in PEERS:
            if peer.op == row.op and "cpu" in peer.devices:
                problem = make_problem(row.with_provider(peer.provider), shapes)
                assert checking.error(problem, peer, "cpu") <= checking.MOST, row
                compared.add(row.op)
    assert compared == {peer.op for peer in PEERS if "cpu" in peer.devices}


def test_a_normed_output_is_compared_whole() -> None:
    """Ours leaves the norm's factor of a token to the next operator, libraries do not."""
    torch = pytest.importorskip("torch")
    from peers import checking
    from peers.providers import EPSILON, Peer

    def build(problem: Any, inputs: Any) -> Any:
        t = {name: tensor.double() for name, tensor in inputs.items()}
        axes, silu = problem.axes, torch.nn.functional.silu
        heads, groups, d_state = axes["heads"], axes["groups"], axes["d_state"]
        width = t["conv_weight"].shape[-1]
        xbc = torch.nn.functional.pad(t["xbc"].mT, (width - 1, 0))
        convolved = silu(
            torch.nn.functional.conv1d(
                xbc, t["conv_weight"].reshape(-1, 1, width), t["conv_bias"], groups=xbc.shape[1]
            )
        ).mT
        x, b, c = convolved.split((axes["d_inner"], groups * d_state, groups * d_state), -1)
        x = x.unflatten(-1, (heads, -1))
        b, c = (
            v.unflatten(-1, (groups, d_state)).repeat_interleave(heads // groups, 2) for v in (b, c)
        )
        dt = torch.nn.functional.softplus(t["dt"] + t["dt_bias"])
        state, y = torch.zeros(*x[:, 0].shape, d_state, dtype=torch.float64), []
        for i in range(x.shape[1]):
            added = torch.einsum("bh,bhp,bhn->bhpn", dt[:, i], x[:, i], b[:, i])
            state = state * torch.exp(dt[:, i] * t["A"])[..., None, None] + added
            y.append(torch.einsum("bhpn,bhn->bhp", state, c[:, i]) + t["D"][:, None] * x[:, i])
        gated = torch.stack(y, 1).flatten(-2) * silu(t["z"])
        if "norm_weight" in t:
            squares = gated.square().mean(-1, keepdim=True)
            gated = gated * torch.rsqrt(squares + EPSILON) * t["norm_weight"]
        return lambda: gated

    shapes, normed = Shapes.read(), []
    for row in checking.golden_rows("cpu"):
        if row.op != "mamba2_inner":
            continue
        problem = make_problem(row.with_provider("mamba_ssm"), shapes)
        peer = Peer("mamba2_inner", "definition", frozenset({"cpu"}), build)
        assert checking.error(problem, peer, "cpu") < 1e-9
        normed.append(any(spec.name == "norm_weight" for spec in problem.specs))
    assert set(normed) == {True, False}
