# SPDX-License-Identifier: Apache-2.0
"""Judges a night: which rows became slower and stay so.

1. Suspect: Otava finds a change point in the row's nights since its last accepted change.
2. An event beside it (another machine, driver or build) explains it: noted, no alarm.
3. Otherwise the row is run again, several times. The new times have no part in the suspicion, so
   that they are not biased by it: they must lie on the new level's side of the old one by at least
   the least effect and half of the suspected one, and Welch's t-test must tell them from the nights
   before.
4. Confirmed once the new level has been seen on two nights; a single bad night, which spoils
   the row's second runs too, is no regression.

A row that had times and fails is run again as well, and is broken if it fails again.

Where the device was held back (power limit, heat, a quota) for more of the row's time at the new
level than before, the verdict's note says so; it excuses nothing.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from scipy.stats import ttest_ind

from seqmark_tools.history.facts import EXCUSES, events
from seqmark_tools.history.series import excuses, timed
from seqmark_tools.history.shifts import Detection, Shift, shifts
from seqmark_tools.history.store import Night, Sample, Verdict


class Kind(StrEnum):
    """What a night makes of a row."""

    REGRESSION = "regression"  # confirmed, slower
    IMPROVEMENT = "improvement"  # confirmed, faster
    EXPLAINED = "explained"  # by an event
    WAITING = "waiting"  # the new runs agree, more nights must
    DISMISSED = "dismissed"  # the new runs do not agree
    UNCHECKED = "unchecked"  # there were no new runs
    BROKEN = "broken"  # had times, fails now and again
    FLAKY = "flaky"  # failed, and did not fail again


ACCEPTED = (Kind.REGRESSION, Kind.IMPROVEMENT, Kind.EXPLAINED)  # a new level, not asked again
ALARMS = (Kind.REGRESSION, Kind.BROKEN)
_HELD_BACK_MORE = 0.05  # of a row's time: what is worth a word


@dataclass(frozen=True)
class Rules:
    """When a row is called. results/examples/nightly.md says what these find."""

    detection: Detection = field(default_factory=Detection)
    baseline: int = 6  # nights before a change, at least
    recent: int = 14  # nights since a change, at most: older ones were judged
    evidence: int = 2  # nights at the new level
    reruns: int = 5
    rerun_pvalue: float = 0.01
    excuses: tuple[str, ...] = EXCUSES


# Runs rows again, so many times: their times, and no time where a run of a row failed.
Rerun = Callable[[Sequence[str], int], Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Suspect:
    """A row to run again."""

    row: str
    shift: Shift
    old: Sequence[float]  # seconds of the nights before
    nights: int  # at the new level
    onset: Night
    note: str  # what held the row back, if anything did


def suspect_shift(seconds: Sequence[float], start: int, rules: Rules) -> Shift | None:
    """The last night's suspicion: a change point of the values from `start` on, if it is recent."""
    start = max(start, len(seconds) - rules.detection.window)
    found = shifts(seconds[start:], rules.detection)
    if not found or found[-1].index < rules.baseline:
        return None
    last = found[-1]
    shift = Shift(last.index + start, last.before, last.after, last.pvalue)
    return shift if len(seconds) - shift.index <= rules.recent else None


def agrees(shift: Shift, old: Sequence[float], again: Sequence[float], rules: Rules) -> bool:
    """Whether the times of new runs say what the suspicion says."""
    if len(again) < 2:
        return False
    effect = statistics.median(again) / statistics.median(old) - 1
    least = max(rules.detection.min_effect, abs(shift.effect) / 2)
    if effect * shift.effect <= 0 or abs(effect) < least:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all of a side the same: p is 0
        return bool(ttest_ind(again, old, equal_var=False).pvalue <= rules.rerun_pvalue)


def held_back(throttled: Sequence[float | None], index: int) -> str:
    """What to say where a device was held back for more of the time from night `index` on.

    `throttled` are the nights' shares; a row has none where nothing held its device back.
    """
    shares = [share or 0.0 for share in throttled]
    before, since = statistics.median(shares[:index]), statistics.median(shares[index:])
    if since - before < _HELD_BACK_MORE:
        return ""
    return f"throttled {since:.0%} of the time, {before:.0%} before".replace("%", " %")


def judge(
    nights: Sequence[Night],
    times: Mapping[str, Mapping[int, Sample]],
    verdicts: Iterable[Verdict],
    rerun: Rerun | None,
    rules: Rules,
) -> list[Verdict]:
    """The verdicts of the last of `nights`, of rows that there is something to say of.

    `verdicts` are those of the nights before. Without `rerun` suspects stay unchecked.
    """
    tonight = nights[-1]
    accepted = {v.row: v.onset for v in verdicts if v.kind in ACCEPTED}
    suspects: list[Suspect] = []
    failed: list[str] = []
    found: list[Verdict] = []
    for row, samples in sorted(times.items()):
        known = timed(nights, samples)
        if tonight.key not in samples or not known:
            continue
        if samples[tonight.key].seconds is None:
            if samples[tonight.key].is_error and known[-1][0] is _before(nights, samples):
                failed.append(row)
            continue
        keys = [night.key for night, _ in known]
        start = keys.index(accepted[row]) if accepted.get(row) in keys else 0
        seconds = [time for _, time in known]
        shift = suspect_shift(seconds, start, rules)
        if shift is None:
            continue
        onset = known[shift.index][0]
        first = max(start, len(seconds) - rules.detection.window)
        held = held_back([samples[key].throttled for key in keys[first:]], shift.index - first)
        reasons = excuses(
            shift.index,
            events(((night.date, night.facts) for night, _ in known), row),
            rules.excuses,
        )
        if reasons:
            note = "; ".join(filter(None, [*map(str, reasons), held]))
            found.append(_verdict(row, tonight, onset, Kind.EXPLAINED, shift, (), note))
            continue
        old = seconds[first : shift.index]
        suspects.append(Suspect(row, shift, old, len(seconds) - shift.index, onset, held))
    asked = [*(s.row for s in suspects), *failed]
    again = rerun(asked, rules.reruns) if rerun is not None and asked else {}
    found += (_call(suspect, tonight, again, rules) for suspect in suspects)
    for row in failed:
        kind = Kind.UNCHECKED if row not in again else Kind.FLAKY if again[row] else Kind.BROKEN
        found.append(
            Verdict(
                row=row,
                decided=tonight.key,
                onset=tonight.key,
                kind=kind,
                reruns=tuple(again.get(row, ())),
                note=times[row][tonight.key].failure or "",
            )
        )
    return sorted(found, key=lambda verdict: verdict.row)


def _call(
    suspect: Suspect, tonight: Night, again: Mapping[str, Sequence[float]], rules: Rules
) -> Verdict:
    times = tuple(again.get(suspect.row, ()))
    if suspect.row not in again:
        kind = Kind.UNCHECKED
    elif not agrees(suspect.shift, suspect.old, times, rules):
        kind = Kind.DISMISSED
    elif suspect.nights < rules.evidence:
        kind = Kind.WAITING
    else:
        kind = Kind.REGRESSION if suspect.shift.effect > 0 else Kind.IMPROVEMENT
    return _verdict(suspect.row, tonight, suspect.onset, kind, suspect.shift, times, suspect.note)


def _verdict(
    row: str,
    tonight: Night,
    onset: Night,
    kind: Kind,
    shift: Shift,
    again: tuple[float, ...],
    note: str,
) -> Verdict:
    return Verdict(
        row=row,
        decided=tonight.key,
        onset=onset.key,
        kind=kind,
        before=shift.before,
        after=shift.after,
        pvalue=shift.pvalue,
        reruns=again,
        note=note,
    )


def _before(nights: Sequence[Night], samples: Mapping[int, Sample]) -> Night | None:
    """The night before the last that the row was in."""
    earlier = [night for night in nights[:-1] if night.key in samples]
    return earlier[-1] if earlier else None
