# SPDX-License-Identifier: Apache-2.0
"""Proves what bench/METHOD.md says of a number, and writes the proof as a table.

    tools/seqmark trial ab --run PLAIN PLANTED --keep FOLDER -o TABLE -- FLAGS
    tools/seqmark trial times --run BUILD --keep FOLDER -o TABLE -- FLAGS
    tools/seqmark trial energy --run BUILD --keep FOLDER -o TABLE -- FLAGS
    tools/seqmark trial noise FILE... -o TABLE
    tools/seqmark trial memory FILE... -o TABLE
    tools/seqmark trial verify FILE... -o TABLE
    tools/seqmark trial copy FILE... -o TABLE
    tools/seqmark trial bytes FILE... -o TABLE

ab runs two programs by turns that are the same but for a slowdown planted in the second one (cmake
-DSEQMARK_PLANT=rmsnorm/native:cuda:1.03), and says what compare calls changed. times sets a row's
time against what CUPTI says of the same kernels, and medians over three rounds by turns (--rounds)
against NVBench's. energy sets a row's energy against that of other processes and sampled power. The
others are of result files: noise lists the noise of each row; memory and verify say by provider
what --verify_memory and --verify found; copy sets rows that memory limits beside a copy of the same
bytes in the same file; bytes sets what --verify_bytes counted beside what operators' READMEs claim.

PLAIN and PLANTED are programs, seqmark_bench; BUILD is a build folder with the target
seqmark_trials (and -DSEQMARK_NVBENCH=..., tests/trials/CMakeLists.txt). Raw files are kept in
FOLDER; without --run the table is made of those there: trial ab FOLDER -o TABLE. TABLE is NAME.md,
and NAME.json is written beside it.

exit status: 0  what METHOD.md demands was met
             1  it was not
             2  unusable input
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from seqmark_tools import files
from seqmark_tools.results import ResultError
from seqmark_tools.tables import Code, Heading, to_markdown
from seqmark_tools.trials import collect
from seqmark_tools.trials.outcome import Outcome

HELP = "prove what METHOD.md says of times, noise, energy, memory, outputs and comparisons"
COMMAND = "command"  # a file beside the raw ones: what made them
KINDS = {
    "ab": "what compare calls changed, where the truth is known",
    "times": "a row's time against CUPTI's and NVBench's of the same kernels",
    "energy": "a row's energy from process to process, and against sampled power",
    "noise": "the noise of each row of result files",
    "memory": "by provider, what rows count as memory against the driver: of --verify_memory",
    "verify": "by provider, how outputs were compared with the reference: of --verify",
    "copy": "rows that memory limits beside a copy of the same bytes",
    "bytes": "DRAM traffic against what operators' READMEs claim: of --verify_bytes",
}
_OF_FILES = {"noise", "memory", "verify", "copy", "bytes"}
_ROUNDS = {"ab": (10, "three processes each"), "times": (3, "NVBench and --cache=dirty by turns")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, said in KINDS.items():
        _add_kind(kinds.add_parser(name, help=said, description=said), name)


def _add_kind(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="TABLE", help="NAME.md")
    if kind in _OF_FILES:
        parser.add_argument("inputs", nargs="+", metavar="FILE", help="result files")
        return
    parser.add_argument(
        "inputs", nargs="*", metavar="FOLDER", help="of raw files; with --run flags, after --"
    )
    if kind == "ab":
        parser.add_argument("--run", nargs=2, type=Path, metavar="PROGRAM", help="plain, planted")
        parser.add_argument(
            "--seconds", type=float, default=3600, help="stop after a round that ends so late; 3600"
        )
    else:
        parser.add_argument("--run", nargs=1, type=Path, metavar="BUILD", help="a build folder")
    if kind in _ROUNDS:
        count, said = _ROUNDS[kind]
        parser.add_argument("--rounds", type=int, default=count, help=f"{said}; {count}")
    if kind == "energy":
        parser.add_argument("--processes", type=int, default=5, help="5 by default")
        parser.add_argument(
            "--warmup", type=int, default=1, help="processes before them, discarded; 1"
        )
        parser.add_argument("--window", type=float, default=2, help="of sampled power, seconds; 2")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of --run: for raw files")
    parser.add_argument("--collect", action="store_true", help="make raw files, and no table")


def run(args: argparse.Namespace) -> int:
    if args.output and args.output.suffix != ".md":
        raise ResultError(f"--output {args.output}: the name must end in .md")
    if args.kind not in _OF_FILES and args.run:
        _collect(args)
        if args.collect:
            return 0
        inputs = [args.keep]
    else:
        inputs = [Path(text) for text in args.inputs]
    made = _make(args.kind, inputs)
    commands = list(dict.fromkeys([*_collected_by(inputs), args.command_line]))
    text = to_markdown(
        [Heading(made.title, level=1), Code("\n".join(commands)), *made.blocks],
    )
    if args.output is None:
        sys.stdout.write(text)
    else:
        document: dict[str, Any] = {"seqmark_trial": made.kind, "command_lines": commands}
        document |= {"passed": made.passed, **made.document}
        files.write(args.output, text)
        files.write_json(args.output.with_suffix(".json"), document)
    print(f"trial {made.kind}: {'met' if made.passed else 'NOT met'}", file=sys.stderr)
    return 0 if made.passed else 1


def _collect(args: argparse.Namespace) -> None:
    if args.keep is None:
        raise ResultError("--run needs --keep FOLDER, for the raw files")
    if args.kind in _ROUNDS and args.rounds < 1:
        raise ResultError(f"--rounds {args.rounds}: one at least")

    def say(text: str) -> None:
        print(f"seqmark: {text}", file=sys.stderr, flush=True)

    programs: list[Path] = args.run
    files.write(args.keep / COMMAND, args.command_line + "\n")
    if args.kind == "ab":
        collect.ab(
            programs[0],
            programs[1],
            args.inputs,
            args.keep,
            rounds=args.rounds,
            most_seconds=args.seconds,
            say=say,
        )
    elif args.kind == "times":
        collect.times(programs[0], args.inputs, args.keep, rounds=args.rounds, say=say)
    else:
        collect.energy(
            programs[0],
            args.inputs,
            args.keep,
            count=args.processes,
            warm_ups=args.warmup,
            window=args.window,
            say=say,
        )


def _collected_by(inputs: list[Path]) -> list[str]:
    notes = [folder / COMMAND for folder in inputs if (folder / COMMAND).is_file()]
    return [note.read_text(encoding="utf-8").strip() for note in notes]


def _make(kind: str, inputs: list[Path]) -> Outcome:
    # Imported here: a run that only collects needs no NumPy.
    if kind == "noise":
        from seqmark_tools.trials import noise

        return noise.make(inputs)
    if kind == "memory":
        from seqmark_tools.trials import memory

        return memory.make(inputs)
    if kind == "verify":
        from seqmark_tools.trials import verify

        return verify.make(inputs)
    if kind == "copy":
        from seqmark_tools.trials import copies

        return copies.make(inputs)
    if kind == "bytes":
        from seqmark_tools.trials import traffic

        return traffic.make(inputs)
    if len(inputs) != 1:
        raise ResultError(f"trial {kind}: give the folder of its raw files, or --run")
    if kind == "ab":
        from seqmark_tools.trials import ab

        return ab.make(inputs[0])
    if kind == "times":
        from seqmark_tools.trials import times

        return times.make(inputs[0])
    from seqmark_tools.trials import energy

    return energy.make(inputs[0])
