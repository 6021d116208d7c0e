# SPDX-License-Identifier: Apache-2.0
"""Finds a row's calls in the kernels that CUPTI saw (tests/trials/kernel_trace.cc).

The sampler's own kernels tell where a row starts and which kernels are a sample's
(fixtures/sampler_cuda.cu): preparing a row stamps the clock twice in a row; a sample comes after
the kernel that empties the L2, and ends before the next such or the stamp after the group. Before
its first row a process samples a kernel of its own (fixtures/timer_overhead_cuda.h).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seqmark_tools import results
from seqmark_tools.results import ResultError

FLUSH, STAMP, HOLD = "StreamTiles", "StampKernel", "HoldKernel"
OWN = "SelfTimedKernel"
Kernel = tuple[int, int, str]  # start and end in nanoseconds, name


def names(path: Path) -> list[str]:
    """The rows that a result file has times of, in the order in which they ran."""
    file = results.read(path)
    measured = {str(row.name) for row in file.measured}
    entries = results.read_json(path)["benchmarks"]
    parsed = [str(results.RowName.parse(entry["run_name"])) for entry in entries]
    return [name for name in dict.fromkeys(parsed) if name in measured]


def summary(trace: Path, traced: Path) -> dict[str, Any]:
    """Of each row: seconds from its first kernel's start to its last one's end, as a median."""
    rows = names(traced)
    found = [
        samples
        for samples in sections(_lines(trace))
        if not any(OWN in kernel[2] for sample in samples for kernel in sample)
    ]
    if len(found) != len(rows):
        raise ResultError(f"{trace}: has kernels of {len(found)} rows, {traced} has {len(rows)}")
    summaries = {}
    for name, samples in zip(rows, found, strict=True):
        if not samples:
            raise ResultError(f"{trace}: has no sample of {name}")
        spans = [1e-9 * (max(k[1] for k in s) - s[0][0]) for s in samples]
        busy = [1e-9 * sum(k[1] - k[0] for k in s) for s in samples]
        summaries[name] = {
            "samples": len(samples),
            "kernels": round(statistics.median(len(s) for s in samples)),
            "seconds": statistics.median(spans),
            "busy_seconds": statistics.median(busy),
        }
    return summaries


def _lines(trace: Path) -> Iterator[Kernel]:
    try:
        with trace.open(encoding="utf-8") as file:
            for line in file:
                start, end, name = line.rstrip("\n").split(" ", 2)
                yield int(start), int(end), name
    except (OSError, ValueError) as error:
        raise ResultError(f"{trace}: is not a trace of kernels: {error}") from error


def sections(kernels: Iterable[Kernel]) -> Iterator[list[list[Kernel]]]:
    """Of each row its samples, each a list of its kernels in the order of their starts."""
    samples: list[list[Kernel]] | None = None
    sample: list[Kernel] | None = None
    was_stamp = False
    for kernel in kernels:
        is_stamp = STAMP in kernel[2]
        if is_stamp and was_stamp:
            if samples is not None:
                yield [s for s in samples if s]
            samples = []
        was_stamp = is_stamp
        if is_stamp or HOLD in kernel[2]:
            sample = None
        elif FLUSH in kernel[2] and samples is not None:
            sample = []
            samples.append(sample)
        elif sample is not None:
            sample.append(kernel)
    if samples is not None:
        yield [s for s in samples if s]
