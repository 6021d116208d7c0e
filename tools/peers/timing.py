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

import gc
import statistics
import time
from collections.abc import Callable

import torch

from peers import power
from peers.sampling import Limits, Timing, sample, warm_up

Call = Callable[[], object]


class CudaTimer:
    """Samples of calls on the current stream, in groups; cold by default."""

    GROUP_SECONDS = 20e-3  # as kBatchSeconds of fixtures/sampler.cc
    MOST_GROUPED = 100  # samples: well below the depth of the launch queue
    MOST_HELD_SECONDS = 50e-3

    def __init__(self, limits: Limits, *, cold: bool = True) -> None:
        self._limits = limits
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        self._power_limited = power.limit_of(f"GPU-{device.uuid}")
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
        fits = min(self.GROUP_SECONDS / max(seconds, 1e-6), self.MOST_HELD_SECONDS / enqueue)
        group = max(1, min(self.MOST_GROUPED, int(fits)))
        in_sample = 0
        waits = False  # the call does, for the device

        def take() -> list[float]:
            nonlocal enqueue, in_sample, group, waits
            for _ in range(1 if waits else 6):
                taken, hidden = self._take_group(call, group, enqueue)
                if hidden:
                    return taken
                if group == 1:
                    enqueue = min(2 * enqueue, 0.1)
                group = max(1, group // 2)
            waits = True  # stop trying
            in_sample += len(taken)
            enqueue = 100e-6
            return taken

        gc.collect()
        gc.disable()
        try:
            self._power_limited()  # before this row
            warm_up(self._limits, take)
            in_sample = 0
            samples = sample(self._limits, take, self._power_limited)
            timing = Timing(samples, host=host)
            timing.graph, timing.remark = graph_seconds(call, timing.median)
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


class ModelTimer:
    """Whole forwards as a user meets them: wall clock, the host's work inside.

    A call is enqueued, and waited for; with tokens to decode, several calls are,
    one after the other, before the wait, as in a loop of generation.
    """

    SAMPLE_SECONDS = 0.05  # of several calls
    MOST_CALLS = 32
    LONGEST_GRAPH = 0.2  # seconds: in a longer call the host hardly counts

    def __init__(self, limits: Limits, device: str) -> None:
        self._limits = limits
        self._cuda = device == "cuda"
        self._power_limited: Callable[[], bool] = lambda: False
        if self._cuda:
            properties = torch.cuda.get_device_properties(torch.cuda.current_device())
            self._power_limited = power.limit_of(f"GPU-{properties.uuid}")

    def time(self, call: Call, rewind: Call | None = None) -> Timing:
        """Samples of `call`, which is warm; of several and then `rewind`, if given."""
        hosts: list[float] = []
        events: list[float] = []

        def run(calls: int) -> float:
            if not self._cuda:
                start = time.perf_counter()
                for _ in range(calls):
                    call()
                return (time.perf_counter() - start) / calls
            first, last = _event(), _event()
            torch.cuda.synchronize()
            start = time.perf_counter()
            first.record()
            for _ in range(calls):
                call()
            last.record()
            hosts.append((time.perf_counter() - start) / calls)
            torch.cuda.synchronize()
            seconds = (time.perf_counter() - start) / calls
            events.append(first.elapsed_time(last) * 1e-3 / calls)
            return seconds

        calls = 1
        if rewind is not None:
            calls = max(1, min(self.MOST_CALLS, round(self.SAMPLE_SECONDS / run(1))))
            rewind()
        gc.collect()
        hosts.clear()
        events.clear()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()

        def take() -> list[float]:
            seconds = run(calls)
            if rewind is not None:
                rewind()
            return [seconds]

        self._power_limited()  # before this row
        timing = Timing(sample(self._limits, take, self._power_limited))
        if rewind is not None:
            timing.remark = f"{calls} token{'s' * (calls > 1)} a sample"
        if self._cuda:
            timing.peak = torch.cuda.max_memory_allocated()
            timing.host = statistics.median(hosts)
            timing.event = statistics.median(events)
        return timing

    def replayed(self, call: Call, seconds: float) -> tuple[float | None, str]:
        """Seconds of `call` as a CUDA graph, or None and why not; the last to do.

        A capture that fails may leave the allocator unable to free memory, so
        a call that waits for the device is found out before.
        """
        if not self._cuda:
            return None, ""
        if seconds > self.LONGEST_GRAPH:
            return None, "no graph: a long call"
        try:
            torch.cuda.set_sync_debug_mode("error")
            call()
        except Exception as error:  # whatever it was, it is not captured
            return None, f"no graph: {_first_line(error)}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.synchronize()
        return graph_seconds(call, seconds)


def graph_seconds(call: Call, seconds: float) -> tuple[float | None, str]:
    """Seconds of `call`, replayed as a CUDA graph, hot; or None and why not."""
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
    except Exception as error:
        torch.cuda.synchronize()
        return None, f"no graph: {_first_line(error)}"
    return replay_seconds(graph.replay, calls), ""


def replay_seconds(replay: Call, calls: int = 1) -> float:
    """Seconds of one of the `calls` that a graph holds, replayed."""
    replay()
    times = []
    for _ in range(5):
        start, end = _event(), _event()
        torch.cuda._sleep(1_000_000)  # hides the host's part of the replay
        start.record()
        replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e-3 / calls)
    return statistics.median(times)


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
            return Timing(sample(self._limits, lambda: [run(calls)]))
        finally:
            gc.enable()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
