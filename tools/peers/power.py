# SPDX-License-Identifier: Apache-2.0
"""Whether a GPU met its power limit, as its driver counts it; needs no library.

A chip at its limit takes half a second to find a clock that it can keep up;
who samples it wants to know (peers.sampling).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_POWER = 0  # NVML_PERF_POLICY_POWER


class _ViolationTime(ctypes.Structure):
    """nvmlViolationTime_t, in us and ns."""

    _fields_ = (("reference_time", ctypes.c_ulonglong), ("violation_time", ctypes.c_ulonglong))


def limit_of(uuid: str, library: str = "libnvidia-ml.so.1") -> Callable[[], bool]:
    """Says, of the GPU "GPU-...", whether its limit held it back since this was last asked.

    Always False where NVML does not say.
    """
    device = ctypes.c_void_p()
    try:
        nvml = ctypes.CDLL(library)
        status = nvml.nvmlDeviceGetViolationStatus
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(
            uuid.encode(), ctypes.byref(device)
        ):
            return lambda: False
    except (OSError, AttributeError):  # no driver, or one without these functions
        return lambda: False

    def counted() -> int | None:
        time = _ViolationTime()
        failed = status(device, _POWER, ctypes.byref(time))
        return None if failed else int(time.violation_time)

    last = counted()

    def limited() -> bool:
        nonlocal last
        before, last = last, counted()
        return before is not None and last is not None and last > before

    return limited
