# SPDX-License-Identifier: Apache-2.0
"""Times other libraries on the same problems, into the same result format.

    python3 tools/peers --out=peers.json                      the whole sweep
    python3 tools/peers --filter='^ssd_scan/.*seqlen:65536/'
    build/seqmark_bench --benchmark_list_tests | python3 tools/peers --rows=-
    python3 tools/peers --device=cpu --threads=2 --filter=^gemm/

Rows have our names with the peer as the provider, so a result file compares with
one of seqmark_bench made in the same run. --rows takes names, one a line, or a
result file; any provider in them stands for every peer of that operator. Filters
see the peer's row name; --device and --dtype choose among all.

Needs PyTorch; a peer that cannot be imported or does not do a problem becomes a
skipped row with the reason. The file is written after every row, so an
interrupted run keeps what it has; --resume goes on from there.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-call"
from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import importlib.util
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
from typing import Any

import torch

if not __package__:  # run as a folder
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from peers.names import SUFFIX, RowName, Shapes, read_rows
from peers.problems import Problem, UnknownRowError, make_problem, sweep
from peers.providers import PEERS, Peer, SkipError
from peers.timing import Call, CpuTimer, CudaTimer, DoBenchTimer, Limits, Timing

Json = dict[str, Any]
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
    parser.add_argument("--max-flops", type=float, help="skip larger rows; cpu: 1e12")
    parser.add_argument("--budget", type=float, help="seconds in all; later rows are left out")
    parser.add_argument("--out", type=pathlib.Path, help="result file; else a table only")
    parser.add_argument("--resume", action="store_true", help="keep the rows --out has")
    parser.add_argument("--list", action="store_true", help="names only, timing nothing")
    return parser.parse_args()


def _selected(options: argparse.Namespace) -> list[tuple[Problem, Peer]]:
    shapes = Shapes.read()
    wanted: Iterable[RowName]
    if options.rows:
        text = sys.stdin.read() if options.rows == "-" else pathlib.Path(options.rows).read_text()
        wanted = (
            row
            for row in read_rows(text)
            if (row.device, row.dtype) == (options.device, options.dtype)
        )
    else:
        wanted = sweep(shapes, options.dtype, options.device)
    providers = set(filter(None, options.providers.split(",")))
    work: dict[str, tuple[Problem, Peer]] = {}  # by name: rows of one problem merge
    for row in wanted:
        for peer in PEERS:
            name = row.with_provider(peer.provider)
            if (
                peer.op == row.op
                and row.device in peer.devices
                and (peer.provider in providers if providers else not peer.optional)
                and re.search(options.filter, f"{name}{SUFFIX}")
            ):
                try:
                    work[str(name)] = make_problem(name, shapes), peer
                except UnknownRowError as error:
                    print(f"left out: {error}", file=sys.stderr)
    return list(work.values())


def _make_timer(options: argparse.Namespace) -> Timer:
    limits = Limits(least_samples=options.min_samples, most_seconds=options.max_time)
    if options.device == "cpu":
        if options.cache == "cold" or options.timer == "do_bench":
            sys.exit("on the CPU there are hot samples only")
        return CpuTimer(limits)
    if options.timer == "do_bench":
        return DoBenchTimer()
    return CudaTimer(limits, cold=options.cache != "hot")


def _time_row(problem: Problem, peer: Peer, timer: Timer, device: str, max_flops: float) -> Json:
    row = _entry(problem.name)
    if problem.flops > max_flops:
        return row | {"skipped": True, "skip_message": f"more than --max-flops={max_flops:g}"}
    inputs: dict[str, torch.Tensor] = {}
    try:
        plan_start = time.perf_counter()
        inputs = problem.make_inputs(device)
        call = peer.build(problem, inputs)
        with torch.inference_mode():
            call()  # finds out whether it can; compiles and tunes
            if not isinstance(timer, CpuTimer):
                torch.cuda.synchronize()
            row["plan_seconds"] = time.perf_counter() - plan_start
            if not isinstance(timer, CpuTimer):
                row["peak_memory"] = _peak_memory(call) - timer.bytes
            timing = timer.time(call)
    except (ImportError, SkipError, NotImplementedError) as error:
        return row | {"skipped": True, "skip_message": _first_line(error)}
    except torch.cuda.OutOfMemoryError as error:
        return row | {"skipped": True, "skip_message": _first_line(error)}
    except Exception as error:  # one row lost, not the file
        message = f"{type(error).__name__}: {_first_line(error)}"
        if "No available kernel" in message:  # how SDPA declines
            return row | {"skipped": True, "skip_message": message}
        return row | {"error_occurred": True, "error_message": message}
    finally:
        inputs.clear()
    row |= _counters(problem, timing)
    if timing.remark:
        row["label"] = timing.remark
    return row


def _peak_memory(call: Call) -> int:
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def _entry(name: RowName) -> Json:
    text = f"{name}{SUFFIX}"
    return {
        "name": text,
        "run_name": text,
        "run_type": "iteration",
        "repetitions": 1,
        "repetition_index": 0,
        "threads": 1,
        "iterations": 1,
        "real_time": 0.0,
        "cpu_time": 0.0,
        "time_unit": "ns",
    }


def _counters(problem: Problem, timing: Timing) -> Json:
    seconds = timing.median
    counters: Json = {
        "real_time": seconds * 1e9,
        "samples": len(timing.samples),
        "noise": timing.noise,
        "time_p10": timing.p10,
        "time_p90": timing.p90,
        "bytes_moved": problem.bytes_moved,
        "bytes_per_second": problem.bytes_moved / seconds,
        "flops": problem.flops,
        "flops_per_second": problem.flops / seconds,
        "tokens_per_second": problem.name.batch * problem.name.seqlen / seconds,
    }
    if timing.graph is not None:
        counters["graph_time"] = timing.graph
    if timing.host is not None:
        counters["host_time"] = timing.host
    return counters


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
    for package in ("torch", "triton", "mamba_ssm", "causal_conv1d"):
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


def _describe(row: Json) -> str:
    name = row["name"].removesuffix(SUFFIX)
    if "skip_message" in row:
        return f"{name}  SKIPPED: {row['skip_message']}"
    if "error_message" in row:
        return f"{name}  ERROR: {row['error_message']}"
    graph = f"  graph {row['graph_time'] * 1e6:.1f} us" if "graph_time" in row else ""
    return (
        f"{name}  {row['real_time'] * 1e-3:.1f} us +-{row['noise']:.1%}"
        f"  {row['bytes_per_second'] * 1e-9:.0f} GB/s"
        f"  {row['flops_per_second'] * 1e-12:.2f} TFLOP/s{graph}"
        f"  {row.get('label', '')}"
    ).rstrip()


def _write(path: pathlib.Path, results: Json) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def _context_is_lost(row: Json) -> bool:
    """Whether the error ended the CUDA context: every later call would fail."""
    if "error_message" not in row or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def main() -> int:
    """Runs the command line; the exit status is 1 if a row erred or none ran."""
    options = _parse_arguments()
    work = _selected(options)
    if not work:
        print("no row matches", file=sys.stderr)
        return 1
    if options.list:
        print("\n".join(f"{problem.name}{SUFFIX}" for problem, _ in work))
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no usable GPU; --device=cpu times the CPU")
    results: Json = {"context": _context(options), "benchmarks": []}
    if options.resume and options.out and options.out.exists():
        results = json.loads(options.out.read_text())
    rows = results["benchmarks"]
    done = {row["name"] for row in rows}
    timer = _make_timer(options)
    max_flops = options.max_flops or (1e12 if options.device == "cpu" else math.inf)
    start = time.perf_counter()
    for problem, peer in work:
        if f"{problem.name}{SUFFIX}" in done:
            continue
        if options.budget and time.perf_counter() - start > options.budget:
            print("out of time: --resume goes on from here", file=sys.stderr)
            break
        row = _time_row(problem, peer, timer, options.device, max_flops)
        rows.append(row)
        print(_describe(row), flush=True)
        if options.out:
            _write(options.out, results)
        if _context_is_lost(row):
            if options.out is None or options.rows == "-":
                sys.exit("the CUDA context is lost; with --out and no --rows=- it would go on")
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "--resume"])
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
    return 0 if rows and not any("error_message" in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
