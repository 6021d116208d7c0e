# SPDX-License-Identifier: Apache-2.0
"""The values of fixtures/inputs.cc, in NumPy: a peer is given a row's very inputs.

A value is a function of the seed, the tensor's name and role, and its place. It
is the same here but for what NumPy's log, cos, pow and expm1 differ from the C
library's in the last places of a double. That moves an element, by one in its own
last place, where the double is that close to halfway between two elements: an
estimated four f32 elements in 10^9, fewer of 16 bits; none in the tests.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from peers.tensors import Spec

Doubles = npt.NDArray[np.floating[Any]]
Hashes = npt.NDArray[np.uint64]
Elements = npt.NDArray[Any]

SEED = 1  # of bench/options.cc
BLOCK = 1048573  # elements; a longer tensor repeats them

# Roles whose values depend on the length of the last axis.
BY_LAST_AXIS = ("weight", "decay", "frequency")


def block(spec: Spec, seed: int = SEED) -> Elements:
    """The first BLOCK elements, or all if fewer, as stored; bf16 as its bits."""
    last = spec.dims[-1] if spec.role in BY_LAST_AXIS else 1
    count = min(spec.elements, BLOCK)
    return _block(spec.role, spec.name, spec.dtype, last, spec.limit, count, seed)


# Rows of a sweep share most of their tensors' names: 4 MB each, at most.
@functools.lru_cache(maxsize=64)
def _block(
    role: str, name: str, dtype: str, last: int, limit: int, count: int, seed: int
) -> Elements:
    key = _hash(np.array([seed], np.uint64))
    for byte in name.encode():
        key = _hash(key ^ np.uint64(byte))
    elements = _stored(dtype, _values(role, key, last, limit, count))
    elements.flags.writeable = False
    return elements


def _hash(x: Hashes) -> Hashes:
    """splitmix64; arrays wrap around."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _values(role: str, key: Hashes, last: int, limit: int, count: int) -> Doubles:
    """Value() of inputs.cc: the same operations on doubles, in the same order."""
    pairs = key + np.uint64(2) * np.arange(count, dtype=np.uint64)

    def draw(stream: Hashes) -> Doubles:
        return (_hash(stream) >> np.uint64(11)).astype(np.float64) + 0.5

    def uniform() -> Doubles:  # in (0, 1)
        return draw(pairs) * 2.0**-53

    def normal() -> Doubles:  # Box-Muller
        angle = 2.0 * np.pi * draw(pairs + np.uint64(1)) * 2.0**-53
        values: Doubles = np.sqrt(-2.0 * np.log(uniform())) * np.cos(angle)
        return values

    def place() -> Doubles:  # along the last axis
        return (np.arange(count) % last).astype(np.float64)

    values: Doubles
    match role:
        case "activation":
            values = normal()
        case "weight":
            values = normal() / np.sqrt(np.float64(last))
        case "scale":
            values = 0.5 + uniform()
        case "bias":
            values = 0.1 * normal()
        case "step" | "state":
            values = 0.5 * normal()
        case "step_bias":  # inverse softplus
            values = np.log(np.expm1(0.001 * np.power(100.0, uniform())))
        case "decay":
            values = -(1.0 + place()) * (0.9 + 0.2 * uniform())
        case "head_decay":
            values = -(1.0 + 15.0 * uniform())
        case "frequency":
            values = np.power(5e5, -(place() + uniform()) / last)
        case "index":
            values = np.minimum(np.floor(limit * uniform()), limit - 1.0)
        case _:
            raise ValueError(f"inputs of the role {role} are unknown")
    return values


def _stored(dtype: str, values: Doubles) -> Elements:
    """StoreElement of fixtures/dtype.cc: to float, then to nearest even."""
    match dtype:
        case "f32":
            return values.astype(np.float32)
        case "f16":
            return values.astype(np.float32).astype(np.float16)
        case "bf16":
            bits = values.astype(np.float32).view(np.uint32)
            rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            return (rounded >> np.uint32(16)).astype(np.uint16)
        case "i32":
            return values.astype(np.int32)
    raise ValueError(f"tensors of {dtype} are unknown")
