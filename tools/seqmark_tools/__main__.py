# SPDX-License-Identifier: Apache-2.0
"""The command line of tools/seqmark: finds the commands and runs one."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
import shlex
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from seqmark_tools import commands
from seqmark_tools.results import ResultError

UNUSABLE = 2  # the exit status of input that cannot be used, as argparse's own


class Command(Protocol):
    """What a module in commands/ holds."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's own arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Runs the command; returns the exit status."""


def names() -> list[str]:
    """All commands' names, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))


def load(name: str) -> Command:
    """The command of that name."""
    return cast("Command", importlib.import_module(f"{commands.__name__}.{name}"))


def make_parser(wanted: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of the `wanted` commands."""
    parser = argparse.ArgumentParser(
        prog="tools/seqmark", description="Compares, draws and keeps seqmark's result files."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in wanted:
        command = load(name)
        subparser = subparsers.add_parser(
            name,
            help=command.HELP,
            description=inspect.getdoc(command) or command.HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(command=command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    every = names()
    # The command that is asked for is the only one to import its libraries.
    wanted = arguments[:1] if arguments and arguments[0] in every else every
    parsed = make_parser(wanted).parse_args(arguments)
    command = cast("Command", parsed.command)
    parsed.command_line = shlex.join(["tools/seqmark", *arguments])
    try:
        return command.run(parsed)
    except ResultError as error:
        print(f"seqmark: {error}", file=sys.stderr)
        return UNUSABLE
    except BrokenPipeError:  # what reads our output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("seqmark: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
