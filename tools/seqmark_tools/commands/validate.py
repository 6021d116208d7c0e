# SPDX-License-Identifier: Apache-2.0
"""Checks result files against results/schema.json and what a schema cannot say.

    tools/seqmark validate results/h200/*.json

Without files it checks every one under results/ but results/local/. Prints each problem and exits
with 1 if there is any.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from seqmark_tools import validation

HELP = "check result files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", type=Path, help="default: all of results/")


def run(args: argparse.Namespace) -> int:
    files: list[Path] = args.files or validation.committed_files()
    found = [problem for file in files for problem in validation.problems(file)]
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"{len(files)} result files checked, {len(found)} problems")
    return 1 if found else 0
