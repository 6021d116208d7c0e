# SPDX-License-Identifier: Apache-2.0
"""Draws result files as one page: findings in words, figures, and a table of every row.

    tools/seqmark report results/local/NAME.json               writes NAME.html beside it
    tools/seqmark report results/h200/*.json -o PAGE.html --png FIGURES --csv DATA
    tools/seqmark report --paper results/h200/*.json -o PAPERS.html

The page needs nothing but a browser. A page named .md has words and tables only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seqmark_tools import files, results
from seqmark_tools.report import build, export, markdown, page
from seqmark_tools.report.data import Collection, collect
from seqmark_tools.report.figure import Figure
from seqmark_tools.results import ResultError

HELP = "draw result files as a page of figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="result files")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PAGE",
        help="NAME.html or NAME.md; default: the first FILE with .html",
    )
    parser.add_argument("--png", type=Path, metavar="DIR", help="also write every figure there")
    parser.add_argument("--csv", type=Path, metavar="DIR", help="also write every figure's data")
    parser.add_argument(
        "--only",
        action="append",
        metavar="PATTERN",
        help="of --png and --csv, figures whose files are named so: 'latency*'; may be repeated",
    )
    parser.add_argument(
        "--paper", action="store_true", help="the figures of the two papers, theirs beside ours"
    )
    parser.add_argument("--history", type=Path, metavar="DB", help="draw the nights of a history")
    parser.add_argument("--machine", help="of the history; default: all that it knows")


def run(args: argparse.Namespace) -> int:
    """Writes what is asked for; prints the page's name."""
    output: Path = args.output or args.files[0].with_suffix(".html")
    if output.suffix not in (".html", ".md"):
        raise ResultError(f"--output {output}: the name must end in .html or .md")
    if output.suffix == ".md" and args.paper:
        raise ResultError(f"--output {output}: --paper has figures alone, so it needs an .html")
    rows = collect(results.read_all(args.files, foreign=True))
    if output.suffix == ".md":
        text, figures = markdown.to_markdown(rows), _figures(build.make_page(rows))
    else:
        drawn = _page(rows, args)
        text, figures = page.render(drawn), _figures(drawn)
    if args.csv or args.png:
        panels = export.choose(figures, args.only or ["*"])
        if args.csv:
            export.write_csv(args.csv, panels)
        if args.png:
            export.write_png(args.png, panels)
    files.write(output, text)
    print(output)
    return 0


def _figures(drawn: page.Page) -> list[Figure]:
    return [figure for section in drawn.sections for figure in section.figures]


def _page(rows: Collection, args: argparse.Namespace) -> page.Page:
    if args.paper:
        # Imported here: it reads the published values.
        from seqmark_tools.report.paper import build as paper

        return paper.make_page(rows)
    if args.history:
        # Imported here: it needs the libraries that find change points.
        from seqmark_tools.report import nights

        return build.make_page(rows, nights.figure(nights.read(args.history, args.machine)))
    return build.make_page(rows)
