# SPDX-License-Identifier: Apache-2.0
"""Makes result files of the numbers that papers published.

    tools/seqmark published results/published/csv -o results/published

The folder holds the tables of SSM-Scope's artifact (results/published/README.md lists them). Rows
have `ssm-scope` as their provider; the context says figure, machine, method and known faults.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from seqmark_tools import files
from seqmark_tools.publishing.rows import Json, Lines
from seqmark_tools.publishing.sources import Source, sources
from seqmark_tools.results import ResultError

HELP = "import what papers published"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="of the CSV files")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("results/published"), help="folder to write to"
    )


def run(args: argparse.Namespace) -> int:
    command = args.command_line
    tables: dict[str, Lines] = {}
    for source in sources(command):
        for name in source.tables:
            if name not in tables:
                tables[name] = _read(args.folder / name)
    # All of them can be made before the first is written.
    documents = [(source, _document(source, tables, args.folder)) for source in sources(command)]
    for source, document in documents:
        path = args.output / f"{source.name}.json"
        files.write_json(path, document)
        print(f"{path}: {len(document['benchmarks'])} rows", file=sys.stderr)
    return 0


def _document(source: Source, tables: dict[str, Lines], folder: Path) -> Json:
    try:
        rows = source.make([line for name in source.tables for line in tables[name]])
    except (KeyError, ValueError, ZeroDivisionError) as error:
        paths = ", ".join(str(folder / name) for name in source.tables)
        raise ResultError(f"{paths}: not a table of the artifact: {error!r}") from error
    return {"context": source.context, "benchmarks": rows}


def _read(path: Path) -> Lines:
    """The table's lines. One that ends early, as one of the artifact does, is left out."""
    lines: Lines = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            for line in reader:
                if None in line or None in line.values():
                    said = f"line {reader.line_num} has not as many fields as the first"
                    print(f"seqmark: {path}: {said}; it is left out", file=sys.stderr)
                else:
                    lines.append(line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultError(f"{path}: cannot be read: {error}") from error
    if not lines:
        raise ResultError(f"{path}: holds no lines")
    return lines
