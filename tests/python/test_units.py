# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from seqmark_tools import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (1.234e-3, "1.23 ms"),
        (9.996e-3, "10.0 ms"),
        (999.4e-6, "999 us"),
        (999.6e-6, "1.00 ms"),
        (1.0, "1.00 s"),
        (1000.0, "1.00 ks"),
        (4.3e12, "4.30 Ts"),
        (2e-12, "2.00 ps"),
        (2e-15, "0.00 ps"),
        (7e17, "700 Ps"),
    ],
)
def test_si(value: float | None, text: str) -> None:
    assert units.si(value, "s") == text


@pytest.mark.parametrize(
    ("counter", "unit"),
    [
        ("real_time", "s"),
        ("graph_time", "s"),
        ("kernel_time", "s"),
        ("time_p10", "s"),
        ("plan_seconds", "s"),
        ("memory_state", "B"),
        ("memory_kv_state", "B"),
        ("tokens_per_second", "tokens/s"),
        ("sol", ""),
    ],
)
def test_unit_of(counter: str, unit: str) -> None:
    assert units.unit_of(counter) == unit
