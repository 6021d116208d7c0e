# SPDX-License-Identifier: Apache-2.0
"""How a peer's call is timed: as fixtures/sampler.h times ours.

CUDA: events around one call, the L2 emptied before it by reading a buffer of
twice its size (a memset would leave dirty lines, to be written back inside the
sample), a group of such samples enqueued behind one sleeping kernel, so that
the host's launch cost is in no sample and the chip is kept as busy, and as
warm, as in our own samples: a pause before each call raises its clock. CPU:
wall clock, hot.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-call"
from __future__ import annotations

import dataclasses
import gc
import math
import statistics
import time
from collections.abc import Callable

import torch

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Limits:
    """When to stop sampling; SamplerOptions of fixtures/sampler.h."""

    noise: float = 0.005
    least_samples: int = 20
    most_samples: int = 20000
    least_seconds: float = 0.02  # of samples, in sum
    most_seconds: float = 1.5  # wall; three samples are taken all the same


@dataclasses.dataclass
class Timing:
    """A call's samples, and what else was learnt of it."""

    samples: list[float]  # seconds, one call each
    graph: float | None = None  # seconds a call, replayed as a CUDA graph, hot
    host: float | None = None  # host seconds to enqueue one call
    remark: str = ""

    @property
    def median(self) -> float:
        """Seconds a call."""
        return statistics.median(self.samples)

    @property
    def noise(self) -> float:
        """Relative half-width of the median's interval."""
        return noise(self.samples)

    @property
    def p10(self) -> float:
        """The 10th percentile, in seconds."""
        return sorted(self.samples)[(len(self.samples) - 1) // 10]

    @property
    def p90(self) -> float:
        """The 90th percentile, in seconds."""
        return sorted(self.samples)[-1 - (len(self.samples) - 1) // 10]


def noise(samples: list[float]) -> float:
    """Relative half-width of the 95 % interval of the median.

    By order statistics, so that no distribution is assumed; below six samples
    it is the whole range.
    """
    n = len(samples)
    if n == 1:
        return 1.0
    if n > 200:  # the normal approximation is exact to a rank here
        low = math.floor(0.5 * n - 0.98 * math.sqrt(n)) - 1
    else:  # the largest k with P(Binomial(n, 1/2) <= k) <= 0.025
        low, probability = 0, 0.5**n
        at_most = probability
        while at_most + probability * (n - low) / (low + 1) <= 0.025:
            probability *= (n - low) / (low + 1)
            at_most += probability
            low += 1
    ordered = sorted(samples)
    width = ordered[n - 1 - low] - ordered[low]
    return min(1.0, 0.5 * width / statistics.median(ordered))


def _sample(limits: Limits, take: Callable[[], list[float]]) -> list[float]:
    samples: list[float] = []
    start = time.perf_counter()
    look = limits.least_samples
    while len(samples) < limits.most_samples:
        samples += take()
        n = len(samples)
        if n >= 3 and time.perf_counter() - start > limits.most_seconds:
            break
        if n >= look and sum(samples) >= limits.least_seconds:
            if noise(samples) <= limits.noise:
                break
            look = n + n // 5 + 1  # each look is a chance to stop by luck
    return samples


class CudaTimer:
    """Samples of calls on the current stream, in groups; cold by default."""

    GROUP_SECONDS = 20e-3  # as kBatchSeconds of fixtures/sampler.cc
    MOST_GROUPED = 100  # samples: well below the depth of the launch queue
    MOST_HELD_SECONDS = 50e-3

    def __init__(self, limits: Limits, *, cold: bool = True) -> None:
        self._limits = limits
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        # Rows that one block each sums: no second pass, no allocation.
        rows = 2 * device.L2_cache_size // 32768
        self._flush = torch.ones((rows, 8192), device="cuda") if cold else None
        self._sums = torch.empty((rows,), device="cuda")
        self.bytes = torch.cuda.memory_allocated()  # not the row's
        self._cycles_per_second = self._measure_clock()

    @staticmethod
    def _measure_clock() -> float:
        cycles = 20_000_000
        start, end = _event(), _event()
        torch.cuda._sleep(cycles)
        torch.cuda.synchronize()
        start.record()
        torch.cuda._sleep(cycles)
        end.record()
        torch.cuda.synchronize()
        return cycles / (start.elapsed_time(end) * 1e-3)

    def time(self, call: Call) -> Timing:
        """Samples, then the same call as a graph."""
        host = self._warm_up(call)
        enqueue = 2 * host + 50e-6  # seconds a sample
        seconds = self._take_group(call, 1, enqueue)[0][0]
        group = min(
            self.GROUP_SECONDS / max(seconds, 1e-6), self.MOST_HELD_SECONDS / enqueue
        )
        group = max(1, min(self.MOST_GROUPED, int(group)))
        in_sample = 0

        def take() -> list[float]:
            nonlocal enqueue, in_sample, group
            for _ in range(1 if in_sample else 6):
                taken, hidden = self._take_group(call, group, enqueue)
                if hidden:
                    return taken
                if group == 1:
                    enqueue = min(2 * enqueue, 0.1)
                group = max(1, group // 2)
            in_sample += len(taken)  # it waits for the device itself: stop trying
            enqueue = 100e-6
            return taken

        gc.collect()
        gc.disable()
        try:
            samples = _sample(self._limits, take)
            timing = Timing(samples, host=host)
            timing.graph, timing.remark = self._graph(call, timing.median)
        finally:
            gc.enable()
        if in_sample:
            timing.remark = (
                f"{in_sample} of {len(samples)} samples hold the host's launch cost"
                f"; {timing.remark}"
            ).removesuffix("; ")
        return timing

    def _warm_up(self, call: Call) -> float:
        """Tunes and compiles; then the host's time to enqueue one call."""
        start = time.perf_counter()
        for _ in range(3):
            call()
            torch.cuda.synchronize()
        hosts: list[float] = []
        while len(hosts) < 3 or (len(hosts) < 20 and time.perf_counter() - start < 0.1):
            begin = time.perf_counter()
            call()
            hosts.append(time.perf_counter() - begin)
            torch.cuda.synchronize()
        return statistics.median(hosts)

    def _take_group(self, call: Call, count: int, enqueue: float) -> tuple[list[float], bool]:
        """`count` samples, and whether the sleep covered the host's work.

        `enqueue` is the host's seconds a sample, generously.
        """
        woke = _event()
        events = [(_event(), _event()) for _ in range(count)]
        torch.cuda._sleep(int((100e-6 + count * enqueue) * self._cycles_per_second))
        woke.record()
        for start, end in events:
            if self._flush is not None:
                torch.sum(self._flush, dim=1, out=self._sums)
            start.record()
            call()
            end.record()
        hidden = not woke.query()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e-3 for start, end in events], hidden

    @staticmethod
    def _graph(call: Call, seconds: float) -> tuple[float | None, str]:
        calls = max(1, min(50, round(1e-3 / seconds)))
        try:
            graph = torch.cuda.CUDAGraph()
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                call()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph):
                for _ in range(calls):
                    call()
        except RuntimeError as error:
            torch.cuda.synchronize()
            return None, f"no graph: {str(error).splitlines()[0]}"
        graph.replay()
        times = []
        for _ in range(5):
            start, end = _event(), _event()
            torch.cuda._sleep(1_000_000)  # hides the host's part of the replay
            start.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) * 1e-3 / calls)
        return statistics.median(times), ""


class DoBenchTimer:
    """triton.testing.do_bench, to reproduce published numbers.

    Its flush is a memset, whose dirty lines are written back inside the sample,
    and short calls hold the host's launch cost.
    """

    bytes = 0

    def time(self, call: Call) -> Timing:
        """Samples of do_bench with its defaults."""
        from triton.testing import do_bench

        for _ in range(3):
            call()
        times = do_bench(call, warmup=25, rep=100, return_mode="all")
        return Timing([t * 1e-3 for t in times], remark="do_bench")


class CpuTimer:
    """Hot wall-clock samples; a short call is repeated within a sample."""

    LEAST_SAMPLE = 50e-6

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def time(self, call: Call) -> Timing:
        """Samples of one call, or of the mean of several short ones."""

        def run(calls: int) -> float:
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return (time.perf_counter() - start) / calls

        run(1)
        seconds = run(1)
        calls = 1 if seconds > self.LEAST_SAMPLE else int(self.LEAST_SAMPLE / seconds) + 1
        gc.collect()
        gc.disable()
        try:
            return Timing(_sample(self._limits, lambda: [run(calls)]))
        finally:
            gc.enable()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)
