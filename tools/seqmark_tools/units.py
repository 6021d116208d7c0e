# SPDX-License-Identifier: Apache-2.0
"""How quantities are written for people."""

from __future__ import annotations

import math

DASH = "–"


def si(value: float | None, unit: str) -> str:
    """Three digits and an SI prefix: 1.23 ms, 45.6 GB/s; a dash for None."""
    if value is None:
        return DASH
    if value == 0:
        return f"0 {unit}"
    exponent = min(max(math.floor(math.log10(abs(value)) / 3 + 1e-12), -4), 5)
    if abs(value) >= 999.5 * 1000.0**exponent and exponent < 5:
        exponent += 1  # 999.6 is 1.00 k, not 1000
    scaled = value / 1000.0**exponent
    decimals = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{decimals}f} {'pnum kMGTP'[exponent + 4].strip()}{unit}"


# The unit of a counter, by its name or by how the name ends; the rest are plain numbers.
_UNITS = {
    "real_time": "s",
    "seconds": "s",
    "noise": "",
    "bytes_moved": "B",
    "flops": "FLOP",
    "bytes_per_second": "B/s",
    "flops_per_second": "FLOP/s",
    "tokens_per_second": "tokens/s",
    "peak_memory": "B",
    "driver_memory": "B",
    "driver_memory_difference": "B",
    "energy": "J",
    "energy_per_token": "J",
    "power": "W",
    "clock": "Hz",
    "max_seqlen": "tokens",
}


def unit_of(counter: str) -> str:
    """The unit of a counter of ours, as "B/s" or "J"; empty where it has none."""
    if counter in _UNITS:
        return _UNITS[counter]
    if counter.startswith("memory_"):
        return "B"
    if counter.startswith("time_") or counter.endswith(("_time", "_seconds")):
        return "s"
    return ""
