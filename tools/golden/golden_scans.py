# SPDX-License-Identifier: Apache-2.0
"""Golden cases of the scans and their steps: recurrences as their papers have them.

They are compared with the slow path of Transformers, if that can be imported.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return"
from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from golden_cases import Case, Function, Inputs, agrees_with_transformers, problem
from torch import Tensor


def selective_scan_recurrence(
    t: dict[str, Tensor], initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The outputs and the last state of the tensors of a selective scan."""
    batch, seqlen, d_inner = t["x"].shape
    step = F.softplus(t["dt"] + t.get("dt_bias", 0.0))  # (b, l, d)
    state = initial_state
    if state is None:
        state = torch.zeros(batch, d_inner, t["A"].shape[1], dtype=torch.float64)
    y = torch.empty_like(t["x"])
    for i in range(seqlen):
        decay = torch.exp(step[:, i, :, None] * t["A"])
        added = torch.einsum("bd,bn,bd->bdn", step[:, i], t["B"][:, i], t["x"][:, i])
        state = decay * state + added
        y[:, i] = torch.einsum("bdn,bn->bd", state, t["C"][:, i])
    if "D" in t:
        y = y + t["D"] * t["x"]
    if "z" in t:
        y = y * F.silu(t["z"])
    return y, state


def selective_scan() -> Iterator[Case]:
    """Gu and Dao 2023, algorithm 2, discretised as in their code."""
    inputs = Inputs(6)
    every = {"has_d": True, "has_dt_bias": True, "has_z": True, "has_initial_state": True}
    none = dict.fromkeys(every, False)
    for (batch, seqlen, d_inner, d_state), options in [
        ((1, 1, 1, 1), every),
        ((1, 9, 5, 3), {**every, "has_initial_state": False}),
        ((2, 5, 3, 4), every),
        ((1, 6, 3, 5), none),
        ((1, 5, 2, 2), {**none, "has_z": True}),
        ((1, 5, 2, 3), {**none, "has_d": True, "has_dt_bias": True}),
        ((1, 4, 3, 2), {**none, "has_initial_state": True}),
    ]:
        t = {
            "x": inputs.activation(batch, seqlen, d_inner),
            "dt": inputs.step(batch, seqlen, d_inner),
            "A": inputs.decay(d_inner, d_state),
            "B": inputs.activation(batch, seqlen, d_state),
            "C": inputs.activation(batch, seqlen, d_state),
        }
        if options["has_d"]:
            t["D"] = inputs.scale(d_inner)
        if options["has_z"]:
            t["z"] = inputs.activation(batch, seqlen, d_inner)
        if options["has_dt_bias"]:
            t["dt_bias"] = inputs.step_bias(d_inner)
        if options["has_initial_state"]:
            t["initial_state"] = inputs.state(batch, d_inner, d_state)

        y, state = selective_scan_recurrence(t, t.get("initial_state"))
        t["y"], t["final_state"] = y, state
        if not options["has_initial_state"]:  # its function takes none

            def call(scan: Function, t: dict[str, Tensor] = t) -> tuple[Tensor, ...]:
                y, state = scan(
                    t["x"].mT,
                    t["dt"].mT,
                    t["A"],
                    t["B"].mT,
                    t["C"].mT,
                    D=t.get("D"),
                    z=t["z"].mT if "z" in t else None,
                    delta_bias=t.get("dt_bias"),
                    delta_softplus=True,
                    return_last_state=True,
                )
                return y.mT, state

            agrees_with_transformers(
                "mamba.modeling_mamba", "mamba_selective_scan", call, (y, state)
            )
        yield problem(batch, seqlen, d_inner=d_inner, d_state=d_state, **options), t


def ssd_recurrence(t: dict[str, Tensor], initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """The outputs, before the gate, and the last state of Mamba-2's scan."""
    batch, seqlen, heads, head_dim = t["x"].shape
    step = F.softplus(t["dt"] + t.get("dt_bias", 0.0))  # (b, l, h)
    # Head h reads group h // (heads // groups).
    B, C = (t[k].repeat_interleave(heads // t[k].shape[2], dim=2) for k in "BC")  # noqa: N806
    state = initial_state
    if state is None:
        state = torch.zeros(batch, heads, head_dim, B.shape[-1], dtype=torch.float64)
    y = torch.empty_like(t["x"])
    for i in range(seqlen):
        decay = torch.exp(step[:, i] * t["A"])
        added = torch.einsum("bh,bhp,bhn->bhpn", step[:, i], t["x"][:, i], B[:, i])
        state = decay[..., None, None] * state + added
        y[:, i] = torch.einsum("bhpn,bhn->bhp", state, C[:, i])
    if "D" in t:
        y = y + t["D"][:, None] * t["x"]
    return y, state


def ssd_scan() -> Iterator[Case]:
    """Dao and Gu 2024, section 6: one decay a head; the gate of section 7."""
    inputs = Inputs(7)
    every = {"has_d": True, "has_dt_bias": True, "has_z": True, "has_initial_state": True}
    none = dict.fromkeys(every, False)
    for (batch, seqlen, heads, head_dim, groups, d_state), options in [
        ((1, 1, 1, 1, 1, 1), every),
        ((1, 9, 2, 3, 1, 5), {**none, "has_d": True, "has_dt_bias": True}),
        ((2, 5, 4, 2, 2, 3), every),
        ((1, 7, 3, 2, 3, 4), none),
        ((1, 4, 2, 2, 2, 3), {**none, "has_initial_state": True}),
        ((1, 6, 2, 3, 1, 2), {**none, "has_z": True, "has_dt_bias": True}),
    ]:
        states = (batch, heads, head_dim, d_state)
        t = {
            "x": inputs.activation(batch, seqlen, heads, head_dim),
            "dt": inputs.step(batch, seqlen, heads),
            "A": inputs.decay(heads),
            "B": inputs.activation(batch, seqlen, groups, d_state),
            "C": inputs.activation(batch, seqlen, groups, d_state),
        }
        if options["has_d"]:
            t["D"] = inputs.scale(heads)
        if options["has_dt_bias"]:
            t["dt_bias"] = inputs.step_bias(heads)
        if options["has_z"]:
            t["z"] = inputs.activation(batch, seqlen, heads, head_dim)
        if options["has_initial_state"]:
            t["initial_state"] = inputs.state(*states)

        y, state = ssd_recurrence(t, t.get("initial_state"))

        def call(scan: Function, t: dict[str, Tensor] = t) -> tuple[Tensor, ...]:
            return scan(
                *(t[k] for k in ("x", "dt", "A", "B", "C")),
                chunk_size=4,
                D=t.get("D"),
                dt_bias=t.get("dt_bias"),
                initial_states=t.get("initial_state"),
                dt_softplus=True,
                return_final_states=True,
            )

        agrees_with_transformers("mamba2.modeling_mamba2", "mamba2_chunk_scan", call, (y, state))
        t["y"] = y * F.silu(t["z"]) if options["has_z"] else y
        t["final_state"] = state
        yield (
            problem(
                batch,
                seqlen,
                heads=heads,
                head_dim=head_dim,
                groups=groups,
                d_state=d_state,
                **options,
            ),
            t,
        )


def step_case(
    recurrence: Callable[[dict[str, Tensor], Tensor | None], tuple[Tensor, Tensor]],
    t: dict[str, Tensor],
) -> None:
    """Adds to a step's tensors what the scan of one token puts out."""
    tokens = {k: v.unsqueeze(1) if k in ("x", "dt", "B", "C", "z") else v for k, v in t.items()}
    y, t["state_out"] = recurrence(tokens, t["state"])
    t["y"] = y.squeeze(1)


def selective_scan_step() -> Iterator[Case]:
    """The recurrence of selective_scan, once."""
    inputs = Inputs(8)
    for (batch, d_inner, d_state), has_z, has_d, has_dt_bias in [
        ((1, 1, 1), True, True, True),
        ((2, 5, 3), True, True, True),
        ((2, 3, 4), False, False, False),
        ((1, 4, 2), True, False, True),
    ]:
        t = {
            "x": inputs.activation(batch, d_inner),
            "dt": inputs.step(batch, d_inner),
            "A": inputs.decay(d_inner, d_state),
            "B": inputs.activation(batch, d_state),
            "C": inputs.activation(batch, d_state),
            "state": inputs.state(batch, d_inner, d_state),
        }
        if has_d:
            t["D"] = inputs.scale(d_inner)
        if has_z:
            t["z"] = inputs.activation(batch, d_inner)
        if has_dt_bias:
            t["dt_bias"] = inputs.step_bias(d_inner)
        step_case(selective_scan_recurrence, t)
        options = {"has_z": has_z, "has_d": has_d, "has_dt_bias": has_dt_bias}
        yield problem(batch, 7, d_inner=d_inner, d_state=d_state, **options), t


def ssd_step() -> Iterator[Case]:
    """The recurrence of ssd_scan, once."""
    inputs = Inputs(9)
    for (batch, heads, head_dim, groups, d_state), has_d, has_dt_bias, has_z in [
        ((1, 1, 1, 1, 1), True, True, True),
        ((2, 4, 3, 2, 5), True, True, True),
        ((2, 3, 2, 3, 4), False, False, False),
        ((1, 2, 3, 1, 2), True, True, False),
    ]:
        t = {
            "x": inputs.activation(batch, heads, head_dim),
            "dt": inputs.step(batch, heads),
            "A": inputs.decay(heads),
            "B": inputs.activation(batch, groups, d_state),
            "C": inputs.activation(batch, groups, d_state),
            "state": inputs.state(batch, heads, head_dim, d_state),
        }
        if has_d:
            t["D"] = inputs.scale(heads)
        if has_dt_bias:
            t["dt_bias"] = inputs.step_bias(heads)
        if has_z:
            t["z"] = inputs.activation(batch, heads, head_dim)
        step_case(ssd_recurrence, t)
        if has_z:
            t["y"] = t["y"] * F.silu(t["z"])
        options = {"has_d": has_d, "has_dt_bias": has_dt_bias, "has_z": has_z}
        yield (
            problem(
                batch, 7, heads=heads, head_dim=head_dim, groups=groups, d_state=d_state, **options
            ),
            t,
        )
