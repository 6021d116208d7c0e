# SPDX-License-Identifier: Apache-2.0
"""Runs a night: runs rows, adds them to the history, judges and reports them.

For cron, a systemd timer (tools/systemd/) or CI. Rows that look slower than the nights before are
run again before they are called. The verdict is printed as Markdown.

    tools/seqmark nightly --preset=default
    tools/seqmark nightly --binary build/seqmark_bench -- --preset=smoke --devices=cpu

Exit status: 0 nothing is worse, 1 a confirmed regression or a row that broke, 2 the night cannot be
used. What follows -- goes to the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from seqmark_tools import files
from seqmark_tools.commands import report
from seqmark_tools.history.facts import GROUPS, events
from seqmark_tools.history.shifts import Detection
from seqmark_tools.history.store import DATABASE, History, Night, Verdict, run_of
from seqmark_tools.nightly.bench import ROOT, Bench
from seqmark_tools.nightly.judge import ALARMS, Rules, judge
from seqmark_tools.nightly.summary import headline, markdown
from seqmark_tools.results import ResultError

HELP = "run rows, keep them, and say what became slower"
RESULTS = DATABASE.parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    rules = Rules()
    parser.add_argument("--db", type=Path, default=DATABASE, help="default: %(default)s")
    parser.add_argument(
        "--machine", help="what to keep the rows under; default: its GPU's or CPU's"
    )
    parser.add_argument(
        "--run-id",
        type=_run_id,
        help="of this night, such as CI's; a night that is there is not run again, and its verdict "
        "is the same",
    )
    parser.add_argument(
        "--preset",
        choices=("smoke", "default", "full"),
        help="of the benchmark's; default: default",
    )
    parser.add_argument("--binary", type=Path, help="the benchmark; default: tools/bench builds it")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder; default: %(default)s"
    )
    parser.add_argument("--report", type=Path, help="also write seqmark report's page there")
    parser.add_argument("--summary", type=Path, help="also write the verdict there")
    parser.add_argument(
        "--reruns", type=_count, default=rules.reruns, help="of a suspect row; default: %(default)s"
    )
    parser.add_argument(
        "--nights",
        type=_count,
        default=rules.evidence,
        help="that a new level must be seen on; default: %(default)s",
    )
    parser.add_argument(
        "--min-effect",
        type=_fraction,
        default=rules.detection.min_effect,
        help="least relative change; default: %(default)s",
    )
    parser.add_argument(
        "--excuse",
        type=_groups,
        default=rules.excuses,
        help=f"changes that explain others, of {','.join(GROUPS)}; default: "
        f"{','.join(rules.excuses)}",
    )
    parser.add_argument("flags", nargs="*", help="after --: flags of the benchmark")


def run(args: argparse.Namespace) -> int:
    """Runs the night; returns the exit status."""
    flags = list(args.flags)
    if args.preset or not any(flag.startswith("--preset") for flag in flags):
        flags.insert(0, f"--preset={args.preset or 'default'}")
    bench = Bench((args.binary or ROOT / "tools" / "bench").absolute(), flags)
    rules = Rules(
        detection=Detection(min_effect=args.min_effect),
        evidence=args.nights,
        reruns=args.reruns,
        excuses=args.excuse,
    )
    with _alone(args.db), History(args.db, create=True) as history:
        machine, run_id = args.machine, args.run_id
        stamp = run_id or datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        out = args.results / f"nightly-{stamp}.json"
        known = history.machine_of_run(run_id) if run_id else None
        if known is None:
            night = run_of(bench.run(out), machine, run_id)
            history.append(night)
            known, run_id = night.machine, night.run_id
        verdicts, text = _judge(history, bench, rules, known, run_id)
    print(text)
    if args.summary:
        files.write(args.summary, text)
    print(f"nightly: {headline(verdicts)}", file=sys.stderr)
    if args.report:
        _report(args, known, out)
    return int(any(verdict.kind in ALARMS for verdict in verdicts))


def _judge(
    history: History, bench: Bench, rules: Rules, machine: str, run_id: str
) -> tuple[list[Verdict], str]:
    """The night's verdicts and what to say of them; a night is judged once."""
    nights = _until(history.nights(machine), run_id)
    tonight = nights[-1]
    times = history.times(machine)
    if not history.is_judged(tonight):
        keys = {night.key for night in nights[:-1]}
        before = [v for v in history.verdicts(machine) if v.decided in keys]
        history.judge(tonight, judge(nights, times, before, bench.again, rules))
    verdicts = [v for v in history.verdicts(machine) if v.decided == tonight.key]
    changed = events((night.date, night.facts) for night in nights)
    text = markdown(
        machine,
        nights,
        {row: samples[tonight.key] for row, samples in times.items() if tonight.key in samples},
        [event for event in changed if event.night == len(nights) - 1],
        verdicts,
    )
    return verdicts, text


def _report(args: argparse.Namespace, machine: str, results: Path) -> None:
    """Draws the page of the night's rows and their history; the verdict stands without it."""
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    page = ["-o", str(args.report), "--history", str(args.db), "--machine", machine]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            report.run(parser.parse_args([str(results), *page]))
    except ResultError as error:
        print(f"nightly: no report: {error}", file=sys.stderr)


def _until(nights: list[Night], run_id: str) -> list[Night]:
    """The nights up to that run: later ones do not judge it."""
    last = next(number for number, night in enumerate(nights) if night.run_id == run_id)
    return nights[: last + 1]


@contextlib.contextmanager
def _alone(db: Path) -> Iterator[None]:
    """Two nights at once would measure each other."""
    lock = db.with_name(f"{db.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise ResultError(f"{db}: another night is running with this history") from error


def _run_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not of letters, digits, '.', '_' and '-'")
    return text


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 9999")
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1, as 0.02 is")
    return value


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(filter(None, text.split(",")))
    if unknown := set(groups) - set(GROUPS):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))} is none of {', '.join(GROUPS)}"
        )
    return groups
