# SPDX-License-Identifier: Apache-2.0
"""Compares result files row by row: what is slower, faster, or no longer there.

    tools/seqmark compare BASE NEW...                 each NEW with BASE
    tools/seqmark compare --base A1 A2 A3 --new B1 B2 B3
    tools/seqmark compare --by provider FILE...       every two providers of the files
    tools/seqmark compare --by provider=cudnn FILE...
    tools/seqmark compare --by device FILE...         CPU and CUDA, the fastest provider of each
    tools/seqmark compare --run A_BINARY B_BINARY -- --benchmark_filter=^gemm/

BASE and NEW are files or folders; the files of a folder, and those after --base and --new, are
processes of the same program. Three or more a side tell much smaller changes than one: what
differs between processes is then seen, not guessed. --run makes them itself, base and new by turns
(ABBA), until every row is decided, by a test that may be looked at every time.

A change counts where it is at least --min-effect and its p-value, corrected for all rows by
Benjamini and Hochberg's procedure, is at most --alpha. --by describes: its exit status is 0.
Files of other Google Benchmark programs can be compared as well.

exit status: 0  nothing got worse
             1  a row got worse, or was measured and now fails
             2  unusable input
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from seqmark_tools import files
from seqmark_tools.comparing import interleave, metrics, outcome, sides
from seqmark_tools.comparing.lines import Comparison, Rules, compare
from seqmark_tools.comparing.sides import Side
from seqmark_tools.results import ResultError
from seqmark_tools.tables import Block, Code, Heading, to_html, to_markdown, to_terminal

HELP = "compare result files, or two binaries"
TITLE = "seqmark: rows compared"
FORMATS = ("table", "markdown", "json", "html")
_FORMAT_OF = {".md": "markdown", ".json": "json", ".html": "html"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="*", metavar="FILE", help="BASE NEW...; flags with --run")
    parser.add_argument("--base", nargs="+", type=Path, metavar="FILE", help="processes of base")
    parser.add_argument("--new", nargs="+", type=Path, metavar="FILE", help="processes of new")
    parser.add_argument("--by", metavar="PART", help="provider or device; PART=VALUE is the base")
    parser.add_argument(
        "--run", nargs=2, type=Path, metavar="BINARY", help="run both by turns; flags follow --"
    )
    parser.add_argument("--max-rounds", type=_natural, default=20, help="of --run; default: 20")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the files of --run")
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME",
        help="real_time (default) or counters: sol,peak_memory; all; NAME:lower, NAME:higher say "
        "what is better",
    )
    parser.add_argument("--alpha", type=_share, default=0.05, help="default: 0.05")
    parser.add_argument(
        "--min-effect", type=_effect, default=0.02, metavar="PART", help="2%% (default) or 0.02"
    )
    parser.add_argument(
        "--require-all", action="store_true", help="a row that is no longer measured is worse"
    )
    parser.add_argument("--all", action="store_true", help="show rows that are the same too")
    parser.add_argument(
        "--format", choices=FORMATS, help="default: as OUTPUT ends, .md .json .html; else table"
    )
    parser.add_argument("-o", "--output", type=Path, help="default: standard output")


def run(args: argparse.Namespace) -> int:
    rules = Rules(args.alpha, args.min_effect)
    chosen = args.metric or [metrics.TIME]
    if args.run:
        comparisons = _run_binaries(args, chosen, rules)
    else:
        pairs = _pairs(args)
        comparisons = compare(
            pairs, _metrics(chosen, pairs), rules, "paired" if args.by else "independent"
        )
    if not any(comparison.lines for comparison in comparisons):
        for comparison in comparisons:
            for gap in comparison.gaps[:5]:
                said = f"{gap.name}: {gap.base} in base, {gap.new} in new"
                print(f"seqmark: {said}{': ' if gap.reason else ''}{gap.reason}", file=sys.stderr)
        raise ResultError("no row is measured on both sides")
    status = 0 if args.by else _status(comparisons, strict=args.require_all)
    _write(args, comparisons, rules, status)
    return status


def _status(comparisons: Sequence[Comparison], *, strict: bool) -> int:
    worse = any(line.verdict == "worse" for c in comparisons for line in c.lines)
    broken = any(g.is_broken or (strict and g.is_lost) for c in comparisons for g in c.gaps)
    return 1 if worse or broken else 0


def _pairs(args: argparse.Namespace) -> list[tuple[Side, Side]]:
    inputs = [Path(text) for text in args.inputs]
    if args.by:
        part, _, base = args.by.partition("=")
        make = {"provider": sides.by_provider, "device": sides.by_device}.get(part)
        if make is None:
            raise ResultError(f"--by {args.by}: is provider or device, or one of them with =VALUE")
        if args.base or args.new or not inputs:
            raise ResultError("--by compares parts of the same files: --by PART FILE...")
        return make(inputs, base or None)
    if args.base or args.new:
        if inputs or not (args.base and args.new):
            raise ResultError("give --base FILE... and --new FILE..., or BASE NEW...")
        return [(sides.of_files(args.base), sides.of_files(args.new))]
    if len(inputs) < 2:
        raise ResultError("two files at least are needed: BASE NEW...")
    base_side = sides.of_files(inputs[:1])
    return [(base_side, sides.of_files([path])) for path in inputs[1:]]


def _metrics(chosen: Sequence[str], pairs: Sequence[tuple[Side, Side]]) -> list[metrics.Metric]:
    """Those asked for, each once; "all" is every one of the rows whose direction is known."""
    found: dict[str, metrics.Metric] = {}
    for name in (part for text in chosen for part in text.split(",") if part):
        if name != "all":
            metric = metrics.parse(name)
            found[metric.name] = metric
            continue
        found.setdefault(metrics.TIME, metrics.parse(metrics.TIME))
        counters = {
            counter
            for pair in pairs
            for side in pair
            for rows in side.rows.values()
            for row in rows
            for counter in (row.counters if row and row.counters else ())
        }
        for counter in sorted(counters):
            known = metrics.known(counter)
            if known is not None and known.better != "neither":
                found.setdefault(counter, known)
    if not found:
        raise ResultError("--metric: names none")
    return list(found.values())


def _run_binaries(
    args: argparse.Namespace, chosen: Sequence[str], rules: Rules
) -> list[Comparison]:
    if args.base or args.new or args.by:
        raise ResultError("--run makes its own files: it goes without --base, --new and --by")
    if args.max_rounds < 2:
        raise ResultError("--max-rounds: two at least")
    if any("all" in text.split(",") for text in chosen):
        raise ResultError("--metric all: name those that --run is to decide")
    with tempfile.TemporaryDirectory(prefix="seqmark-") as folder:
        keep: Path | None = args.keep
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        base, new = (binary.resolve() for binary in args.run)
        plan = interleave.Plan(
            base, new, tuple(args.inputs), keep or Path(folder), most_rounds=args.max_rounds
        )

        def say(text: str) -> None:
            print(f"seqmark: {text}", file=sys.stderr, flush=True)

        return interleave.run(plan, _metrics(chosen, []), rules, say)


def _write(
    args: argparse.Namespace, comparisons: Sequence[Comparison], rules: Rules, status: int
) -> None:
    suffix = args.output.suffix if args.output else ""
    form = args.format or _FORMAT_OF.get(suffix, "table")
    if form == "json":
        text = json.dumps(outcome.document(comparisons, rules, status), indent=1, allow_nan=False)
        text += "\n"
    else:
        heading: list[Block] = [Heading(TITLE, level=1), Code(args.command_line)]
        blocks = list(outcome.blocks(comparisons, rules, every=args.all))
        if form == "markdown":
            text = to_markdown([*heading, *blocks])
        elif form == "html":
            text = to_html([*heading, *blocks], TITLE)
        else:
            text = to_terminal(blocks, is_terminal=args.output is None and sys.stdout.isatty())
    if args.output is None:
        sys.stdout.write(text)
    else:
        files.write(args.output, text)


def _natural(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _effect(text: str) -> float:
    value = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 % and 100 %")
    return value
