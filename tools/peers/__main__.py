# SPDX-License-Identifier: Apache-2.0
"""Times other libraries on the same problems, into the same result format.

    python3 tools/peers --out=peers.json                      the whole sweep
    python3 tools/peers --filter='^ssd_scan/.*seqlen:65536/'
    build/seqmark_bench --benchmark_list_tests | python3 tools/peers --rows=-
    python3 tools/peers --device=cpu --threads=2 --filter=^gemm/
    python3 tools/peers --filter='^(prefill|decode)/.*/qwen2.5-0.5b/'
    python3 tools/peers --check                               outputs, no times

A peer of an operator is given the very inputs of seqmark_bench's row at its
default seed, in the layout that the library likes. --check compares what it
computes of small rows with our references (tests/golden/peers). Models have random
weights and tokens, but not ours.

Rows have our names with the peer as the provider, so a result file compares with
one of seqmark_bench made in the same run. --rows takes names, one a line, or a
result file; any provider in them stands for every peer of that operator. Filters
see the peer's row name; --device and --dtype choose among all.

Rows of models (prefill, decode; models.py says what a call is) come last, those
of a model together, and are timed by the wall clock with the host's work inside:
real_time. event_time is between CUDA events around the same call, host_time the
host's part of it, graph_time the call replayed as a CUDA graph where it can be.
They take --max-time seconds of samples, five (on the CPU three) all the same
unless --min-samples is less.

Needs PyTorch and NumPy; a peer that cannot be imported or does not do a problem becomes a
skipped row with the reason. The file is written after every row, so an
interrupted run keeps what it has; --resume goes on from there.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-call"
from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import NoReturn

import torch

if not __package__:  # run as a folder
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from peers import checking, zoo
from peers import rows as entries
from peers.filling import make_inputs
from peers.models import MODEL_PEERS, ModelPeer, ModelRunner
from peers.names import SUFFIX, RowName, Shapes, read_rows
from peers.problems import UnknownRowError, make_problem, sweep
from peers.providers import PEERS, Peer, SkipError
from peers.rows import Json
from peers.sampling import Limits
from peers.tensors import Problem
from peers.timing import Call, CpuTimer, CudaTimer, DoBenchTimer, ModelTimer

Timer = CpuTimer | CudaTimer | DoBenchTimer


def _parse_arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="tools/peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", help="file of row names or results; - for stdin")
    parser.add_argument("--filter", default="", help="regular expression on row names")
    parser.add_argument("--providers", default="", help="comma-separated; empty: all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--dtype", choices=["bf16", "f16", "f32"], default="bf16")
    parser.add_argument("--timer", choices=["events", "do_bench"], default="events")
    parser.add_argument("--cache", choices=["cold", "hot"], help="cuda: cold, cpu: hot")
    parser.add_argument("--threads", type=int, help="CPU threads; all by default")
    parser.add_argument("--max-time", type=float, default=1.5, help="seconds of samples a row")
    parser.add_argument("--min-samples", type=int, default=20)
    parser.add_argument("--min-time", type=float, default=0.1, help="seconds of calls a row")
    parser.add_argument("--max-flops", type=float, help="skip larger rows; cpu: 1e12")
    parser.add_argument("--budget", type=float, help="seconds in all; later rows are left out")
    parser.add_argument("--out", type=pathlib.Path, help="result file; else a table only")
    parser.add_argument("--resume", action="store_true", help="keep the rows --out has")
    parser.add_argument("--check", action="store_true", help="compare outputs, timing nothing")
    parser.add_argument("--list", action="store_true", help="names only, timing nothing")
    options = parser.parse_args()
    if options.check and (options.rows or options.out or options.resume or options.list):
        parser.error("--check compares golden rows: leave out --rows, --out, --resume and --list")
    return options


@dataclasses.dataclass(frozen=True)
class OperatorWork:
    """A row of an operator."""

    problem: Problem
    peer: Peer

    @property
    def name(self) -> RowName:
        """The row's, with the peer as the provider."""
        return self.problem.name


@dataclasses.dataclass(frozen=True)
class ModelWork:
    """A row of a model."""

    name: RowName
    peer: ModelPeer
    config: Json


Work = OperatorWork | ModelWork


def _selected(options: argparse.Namespace) -> list[Work]:
    shapes = Shapes.read()
    wanted: Iterable[RowName]
    if options.check:
        wanted = checking.golden_rows(options.device)
    elif options.rows:
        text = sys.stdin.read() if options.rows == "-" else pathlib.Path(options.rows).read_text()
        wanted = (
            row
            for row in read_rows(text)
            if (row.device, row.dtype) == (options.device, options.dtype)
        )
    else:
        wanted = itertools.chain(
            sweep(shapes, options.dtype, options.device),
            zoo.sweep(shapes, options.dtype, options.device),
        )
    providers = set(filter(None, options.providers.split(",")))

    def is_selected(name: RowName, devices: frozenset[str], unasked: bool) -> bool:
        return (
            name.device in devices
            and (name.provider in providers if providers else unasked)
            and re.search(options.filter, f"{name}{SUFFIX}") is not None
        )

    # By name: rows of one problem merge. Rows of one model stay together.
    operators: dict[RowName, Work] = {}
    models: dict[tuple[str, str], dict[RowName, Work]] = {}
    for row in wanted:
        try:
            if row.op in zoo.OPERATIONS:
                config = zoo.read(row.shape)
                for model_peer in MODEL_PEERS:
                    name = row.with_provider(model_peer.provider)
                    unasked = model_peer.runs_unasked(name, config)
                    if is_selected(name, model_peer.devices, unasked):
                        of_model = models.setdefault((name.shape, name.provider), {})
                        of_model[name] = ModelWork(name, model_peer, config)
                continue
            for peer in PEERS:
                name = row.with_provider(peer.provider)
                if peer.op == row.op and is_selected(name, peer.devices, not peer.optional):
                    operators[name] = OperatorWork(make_problem(name, shapes), peer)
        except (UnknownRowError, zoo.UnknownModelError) as error:
            print(f"left out: {error}", file=sys.stderr)
    return [*operators.values(), *(work for rows in models.values() for work in rows.values())]


class Bench:
    """Times rows with the options of the command line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._device: str = options.device
        self._max_flops = options.max_flops or (1e12 if self._device == "cpu" else math.inf)
        limits = Limits(
            least_samples=min(5, options.min_samples),
            most_samples=max(5, options.min_samples),
            most_seconds=options.max_time,
            fewest_samples=min(5 if self._device == "cuda" else 3, options.min_samples),
        )
        self._models = ModelRunner(self._device, ModelTimer(limits, self._device))

    @functools.cached_property
    def _timer(self) -> Timer:
        options = self._options
        limits = Limits(
            least_samples=options.min_samples,
            least_seconds=options.min_time,
            most_seconds=options.max_time,
        )
        if self._device == "cpu":
            return CpuTimer(limits)
        if options.timer == "do_bench":
            return DoBenchTimer()
        return CudaTimer(limits, cold=options.cache != "hot")

    def time(self, work: Work) -> Json:
        """The row of `work`: timed, skipped or failed."""
        row = entries.entry(work.name)
        try:
            if isinstance(work, ModelWork):
                return row | self._models.run(work.name, work.peer, work.config)
            self._models.close()
            return row | self._time_operator(work.problem, work.peer)
        except Exception as error:  # one row lost, not the file
            skipped, message = _declines(error)
            return row | (entries.skipped(message) if skipped else entries.failed(message))

    def _time_operator(self, problem: Problem, peer: Peer) -> Json:
        if problem.flops > self._max_flops:
            raise SkipError(f"more than --max-flops={self._max_flops:g}")
        row: Json = {}
        timer = self._timer
        inputs: dict[str, torch.Tensor] = {}
        try:
            inputs = make_inputs(problem, self._device)
            plan_start = time.perf_counter()
            call = peer.build(problem, inputs)
            with torch.inference_mode():
                call()  # finds out whether it can; compiles and tunes
                if not isinstance(timer, CpuTimer):
                    torch.cuda.synchronize()
                row["plan_seconds"] = time.perf_counter() - plan_start
                if not isinstance(timer, CpuTimer):
                    row["peak_memory"] = _peak_memory(call) - timer.bytes
                timing = timer.time(call)
        finally:
            inputs.clear()
        row |= entries.counters(timing, problem.name.batch * problem.name.seqlen)
        return row | entries.work(timing, problem.bytes_moved, problem.flops)

    def free(self) -> None:
        """Frees what a row has left; a model stays for its next rows."""
        self._models.free()


# How SDPA declines, and how the CPU's allocator does.
DECLINES = ("No available kernel", "can't allocate memory", "not enough memory")


def _declines(error: Exception) -> tuple[bool, str]:
    """Whether it says that the peer does not do the row, and what it says."""
    if isinstance(error, ImportError | SkipError | NotImplementedError):
        return True, _first_line(error)
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True, _first_line(error)
    message = f"{type(error).__name__}: {_first_line(error)}"
    return any(text in message for text in DECLINES), message


def _check(selected: list[Work], device: str) -> int:
    """Prints how far each output is from ours; the exit status is 1 if one is too far."""
    checked = wrong = 0
    for work in selected:
        if not isinstance(work, OperatorWork):
            continue
        try:
            error = checking.error(work.problem, work.peer, device)
        except Exception as raised:
            skipped, message = _declines(raised)
            wrong += not skipped
            print(f"{'skipped' if skipped else 'FAILED '} {work.name}: {message}")
            continue
        good = error <= checking.MOST  # not where it is NaN
        checked += 1
        wrong += not good
        print(f"{'agrees ' if good else 'DIFFERS'} {work.name}: {error:.2g}")
    print(f"{checked} outputs compared, {wrong} wrong; at most {checking.MOST:.2g} is allowed")
    return 0 if checked and not wrong else 1


def _peak_memory(call: Call) -> int:
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _git(*arguments: str) -> str:
    root = pathlib.Path(__file__).resolve().parents[2]
    result = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def _version(package: str) -> str:
    if importlib.util.find_spec(package) is None:
        return "absent"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = importlib.import_module(package)
        return str(getattr(module, "__version__", "unknown"))


def _context(options: argparse.Namespace) -> Json:
    facts: Json = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "host_name": platform.node(),
        "num_cpus": os.cpu_count() or 1,
        "seqmark_schema": "1",
        "commit": _git("rev-parse", "HEAD"),
        "dirty": "true" if _git("status", "--porcelain", "-uno") else "false",
        "command_line": shlex.join(["python3", *sys.argv]),
        "timer": options.timer,
        "cache": options.cache or ("cold" if options.device == "cuda" else "hot"),
        "python": platform.python_version(),
    }
    for package in ("torch", "triton", "transformers", "mamba_ssm", "causal_conv1d"):
        facts[package] = _version(package)
    if options.device == "cpu":
        facts["cpu_threads"] = str(torch.get_num_threads())
    else:
        device = torch.cuda.get_device_properties(0)
        facts["gpu_name"] = device.name
        facts["gpu_l2_bytes"] = str(device.L2_cache_size)
        facts["cuda_runtime"] = str(torch.version.cuda)
        facts["cudnn"] = str(torch.backends.cudnn.version())
    return facts


def _write(path: pathlib.Path, results: Json) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def _context_is_lost() -> bool:
    """Whether CUDA is past use: after an illegal access, or a capture that failed."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


def _restart(options: argparse.Namespace, seconds_left: float) -> NoReturn:
    """Goes on in a new process."""
    if options.out is None or options.rows == "-":
        sys.exit("the CUDA context is lost; with --out and no --rows=- it would go on")
    arguments = [*sys.orig_argv[1:], "--resume"]
    if options.budget:
        arguments.append(f"--budget={max(1.0, seconds_left):.0f}")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *arguments])


def main() -> int:
    """Runs the command line; the exit status is 1 if a row erred or none ran."""
    options = _parse_arguments()
    if options.device == "cpu" and (options.cache == "cold" or options.timer == "do_bench"):
        sys.exit("on the CPU there are hot samples only")
    selected = _selected(options)
    if not selected:
        print("no row matches", file=sys.stderr)
        return 1
    if options.list:
        print("\n".join(f"{work.name}{SUFFIX}" for work in selected))
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no usable GPU; --device=cpu times the CPU")
    if options.check:
        return _check(selected, options.device)
    results: Json = {"context": _context(options), "benchmarks": []}
    if options.resume and options.out and options.out.exists():
        results = json.loads(options.out.read_text())
    rows = results["benchmarks"]
    done = {row["name"] for row in rows}
    left = [work for work in selected if f"{work.name}{SUFFIX}" not in done]
    bench = Bench(options)
    start = time.perf_counter()
    for number, work in enumerate(left):
        seconds_left = (options.budget or math.inf) - (time.perf_counter() - start)
        if seconds_left < 0:
            print("out of time: --resume goes on from here", file=sys.stderr)
            break
        print(f"[{number + 1}/{len(left)}] {work.name}", file=sys.stderr, flush=True)
        row = bench.time(work)
        rows.append(row)
        print(entries.describe(row), flush=True)
        if options.out:
            _write(options.out, results)
        if options.device == "cuda" and _context_is_lost():
            _restart(options, seconds_left)
        bench.free()
    return 0 if rows and not any("error_message" in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
