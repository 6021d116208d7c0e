# SPDX-License-Identifier: Apache-2.0
"""Shows and fills the history of rows that `nightly` keeps.

    tools/seqmark history list                      machines, or with --machine their rows
    tools/seqmark history show ROW                  draws a row's nights, change points and events
    tools/seqmark history import FILE...            adds result files made elsewhere
    tools/seqmark history export -o history.csv     every sample of every run

ROW is a row's name, or a part of it that no other row has.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from seqmark_tools import files, history, results
from seqmark_tools.history import Series
from seqmark_tools.history.drawing import draw
from seqmark_tools.history.store import DATABASE, History, run_of
from seqmark_tools.results import ResultError
from seqmark_tools.units import si

HELP = "show, fill and export the history of rows"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="verb")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--db", type=Path, default=DATABASE, help="default: %(default)s")
    common.add_argument("--machine", help="default: the only one there is")

    listing = verbs.add_parser("list", parents=[common], help="machines, or a machine's rows")
    listing.add_argument("--filter", default="", help="rows with this in their names")
    show = verbs.add_parser("show", parents=[common], help="draw a row")
    show.add_argument("row", metavar="ROW")
    importing = verbs.add_parser("import", parents=[common], help="add result files")
    importing.add_argument("files", nargs="+", type=Path, metavar="FILE")
    export = verbs.add_parser("export", parents=[common], help="write every sample")
    export.add_argument("-o", "--output", type=Path, help="default: standard output")
    export.add_argument("--format", choices=("csv", "json"), default="csv")


def run(args: argparse.Namespace) -> int:
    """Runs the verb; returns the exit status."""
    verbs = {"list": _list, "show": _show, "import": _import, "export": _export}
    verbs[args.verb](args)
    return 0


def _import(args: argparse.Namespace) -> None:
    runs = [run_of(file, args.machine) for file in results.read_all(args.files)]
    with History(args.db, create=True) as store:
        for path, night in zip(args.files, runs, strict=True):
            added = store.append(night)
            said = "added as" if added else "is there already as"
            print(f"{path}: {said} {night.run_id} of {night.machine}", file=sys.stderr)


def _export(args: argparse.Namespace) -> None:
    with History(args.db) as store:
        records = list(store.every(args.machine))
    if args.format == "json":
        text = json.dumps(records, indent=1) + "\n"
    else:
        stream = io.StringIO()
        columns = list(records[0]) if records else []
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        text = stream.getvalue()
    if args.output:
        files.write(args.output, text)
    else:
        sys.stdout.write(text)


def _list(args: argparse.Namespace) -> None:
    with History(args.db) as store:
        machines = store.machines()
        nights = {name: store.nights(name) for name in machines}
        rows = {name: len(store.rows(name)) for name in machines}
    if args.machine is None and len(machines) != 1:
        table = _table("machine", "rows", "nights", "first", "last")
        for name in machines:
            dates = [night.date for night in nights[name]]
            table.add_row(name, str(rows[name]), str(len(dates)), min(dates), max(dates))
        _print(table)
        return
    machine = _machine(args, machines)
    table = _table("row", "nights", "last time", "changes", "last change", "since", "verdict")
    for series in history.all_series(args.db, machine):
        if args.filter in series.row:
            table.add_row(*_line(series))
    _print(table)


def _line(series: Series) -> tuple[str, ...]:
    last = si(series.seconds[-1], "s") if series.seconds else ""
    start = (series.row, str(len(series.nights)), last, str(len(series.change_points)))
    if not series.change_points:
        return (*start, "", "", "")
    point = series.change_points[-1]
    said = "; ".join(map(str, point.events)) or point.verdict or ""
    return (*start, f"{point.effect:+.1%}", point.date[:10], said)


def _show(args: argparse.Namespace) -> None:
    with History(args.db) as store:
        machine = _machine(args, store.machines())
        row = _one(args.row, store.rows(machine), machine)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    for line in draw(history.series(args.db, machine, row), console.width):
        console.print(line, soft_wrap=True)


def _machine(args: argparse.Namespace, machines: Sequence[str]) -> str:
    if args.machine in machines:
        return str(args.machine)
    if args.machine is None and len(machines) == 1:
        return machines[0]
    known = ", ".join(machines) or "none"
    if args.machine is None:
        raise ResultError(f"{args.db}: --machine must say which: it knows {known}")
    raise ResultError(f"{args.db}: knows no machine {args.machine!r}; it knows {known}")


def _one(wanted: str, rows: Sequence[str], machine: str) -> str:
    """The row that is named so, or the only one that has it in its name."""
    found = [row for row in rows if row == wanted] or [row for row in rows if wanted in row]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ResultError(f"{machine} has no row with {wanted!r} in its name")
    some = "\n  ".join(found[:10])
    raise ResultError(f"{len(found)} rows of {machine} have {wanted!r} in their names:\n  {some}")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")
    for other in others:
        table.add_column(other, justify="right" if other in _NUMBERS else "left", no_wrap=True)
    return table


_NUMBERS = {"rows", "nights", "last time", "changes", "last change"}


def _print(table: Table) -> None:
    # To a file or a pipe nothing is wrapped.
    Console(highlight=False, width=None if sys.stdout.isatty() else 1000).print(table)
