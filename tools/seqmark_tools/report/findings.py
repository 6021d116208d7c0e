# SPDX-License-Identifier: Apache-2.0
"""What the rows say, in words: the best of each, and who overtakes whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations, groupby

from seqmark_tools.report import labels
from seqmark_tools.report.crossover import Comparison, compare
from seqmark_tools.report.data import Collection, Item, Series
from seqmark_tools.report.operator_figures import operator_items
from seqmark_tools.units import si

# Models are compared whose weights differ by no more than this factor.
SIMILAR_SIZE = 2.0
METRICS = (
    ("prefill", "seconds", "time to first token", "is faster"),
    ("decode", "seconds", "time per token", "is faster"),
    ("prefill", "peak_memory", "memory of a prompt", "needs less"),
)


@dataclass(frozen=True)
class Sentence:
    """A comparison of two models in words, and how often one overtakes the other."""

    metric: str
    text: str
    crossings: int
    ratio: float


def crossovers(rows: Collection) -> list[Sentence]:
    """Every pair of similar models of different families, by TTFT, TPOT and memory."""
    sentences = []
    for op, counter, metric, better in METRICS:
        groups: dict[tuple[str, str, int, str], list[Series]] = {}
        for one in rows.lines(op):
            key = (one.provider, one.dtype, one.batch, one.machine)
            groups.setdefault(key, []).append(one)
        for (_, dtype, batch, machine), members in groups.items():
            context = [
                *([machine] if len(rows.machines) > 1 else []),
                *([dtype] if len({key[1] for key in groups}) > 1 else []),
                *([f"batch {batch}"] if len({key[2] for key in groups}) > 1 else []),
            ]
            for first, second in _pairs(members):
                result = compare(first.points(counter), second.points(counter))
                if result is not None:
                    builds = {first.build, second.build}
                    where = [
                        *context,
                        *([f"builds {' and '.join(sorted(builds))}"] if len(builds) > 1 else []),
                    ]
                    names = labels.display_shape(first.shape), labels.display_shape(second.shape)
                    text = in_words(names, result, better)
                    said = f" ({', '.join(where)})" if where else ""
                    ratio = max(result.ratio_high, 1 / result.ratio_high)
                    sentences.append(
                        Sentence(metric, f"{text}{said}.", len(result.crossings), ratio)
                    )
    # More than one crossing may be one row that was measured badly.
    return sorted(sentences, key=lambda s: (s.crossings == 0, s.crossings, -s.ratio))


def _pairs(members: list[Series]) -> Iterable[tuple[Series, Series]]:
    """Models of different families and similar size, of one build where there is such a pair."""
    pairs: dict[tuple[str, str], tuple[int, Series, Series]] = {}
    for first, second in combinations(members, 2):
        if labels.family_of(first.model) == labels.family_of(second.model):
            continue
        if not _similar(first, second):
            continue
        key = (first.shape, second.shape)
        shared = len({item.seqlen for item in first.items} & {item.seqlen for item in second.items})
        # One build beats two; then the pair that shares more lengths.
        rank = 1000 * (first.build == second.build) + shared
        if key not in pairs or rank > pairs[key][0]:
            pairs[key] = (rank, first, second)
    return [(first, second) for _, first, second in pairs.values()]


def _similar(first: Series, second: Series) -> bool:
    sizes = [one.items[0].value("memory_weights") for one in (first, second)]
    if sizes[0] is None or sizes[1] is None or min(sizes[0], sizes[1]) <= 0:
        return True
    return max(sizes[0], sizes[1]) / min(sizes[0], sizes[1]) <= SIMILAR_SIZE


def in_words(names: tuple[str, str], result: Comparison, better: str) -> str:
    """Who overtakes whom and at which length, or who leads throughout."""
    low, high = labels.tokens(result.low), labels.tokens(result.high)
    if not result.crossings:
        if result.ratio_low == result.ratio_high == 1:
            return f"{names[0]} and {names[1]} are equal from {low} to {high} tokens"
        leader = result.leader or 0
        ratios = [result.ratio_low, result.ratio_high]
        if leader == 0:
            ratios = [1 / ratio for ratio in ratios]
        return (
            f"{names[leader]} {better} than {names[1 - leader]} from {low} to {high} tokens, "
            f"{times(ratios[0])} at {low}, {times(ratios[1])} at {high}; neither overtakes the "
            "other in range"
        )
    steps = []
    for crossing in result.crossings:
        between = " and ".join(labels.tokens(x) for x in crossing.between)
        over, at = ("overtakes", "at") if better == "is faster" else (f"{better} than", "from")
        steps.append(
            f"{names[crossing.overtaker]} {over} {names[1 - crossing.overtaker]} {at} "
            f"{labels.about(crossing.length)} tokens (measured at {between})"
        )
    final = max(result.ratio_high, 1 / result.ratio_high)
    return f"{', then '.join(steps)}; {times(final)} at {high}"


def times(ratio: float) -> str:
    """A factor: 1.05x, 2.3x, 12x."""
    digits = 2 if ratio < 1.995 else 1 if ratio < 9.95 else 0
    return f"{ratio:.{digits}f}x"


def findings(rows: Collection) -> list[str]:
    """The best of what was measured, a sentence each."""
    crossing = [sentence for sentence in crossovers(rows) if sentence.crossings]
    first = {sentence.metric: sentence for sentence in reversed(crossing)}  # the clearest of each
    return [
        *(
            f"{metric.capitalize()}: {first[metric].text}"
            for _, _, metric, _ in METRICS
            if metric in first
        ),
        *_fastest(rows, "prefill", "a prompt of {length} tokens ({of}) is read first by {best}"),
        *_fastest(
            rows, "decode", "after {length} tokens ({of}) the next one comes first from {best}"
        ),
        *_leanest(rows),
        *_frugal(rows),
        *_nearest_limit(rows),
        *_providers(rows),
        *_throttled(rows),
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _by_machine(items: Iterable[Item]) -> Iterable[tuple[str, list[Item]]]:
    ordered = sorted(items, key=lambda item: item.machine)
    for machine, group in groupby(ordered, key=lambda item: item.machine):
        yield machine, list(group)


def _where(rows: Collection, machine: str) -> str:
    return f" on {machine}" if len(rows.machines) > 1 else ""


def _longest_shared(items: list[Item]) -> tuple[list[Item], str]:
    """Rows at the longest length that at least half of the models have, and what they are of.

    All of batch 1, one provider and one dtype, those that most models have.
    """
    kinds: dict[tuple[str, str], dict[int, dict[str, Item]]] = {}
    for item in items:
        if item.name.batch == 1:
            lengths = kinds.setdefault((item.name.provider, item.name.dtype), {})
            lengths.setdefault(item.seqlen, {})[item.model] = item
    if not kinds:
        return [], ""
    models = {kind: set().union(*lengths.values()) for kind, lengths in kinds.items()}
    kind = max(sorted(kinds), key=lambda kind: len(models[kind]))
    most = max(map(len, kinds[kind].values()))
    length = max(value for value, found in kinds[kind].items() if 2 * len(found) >= most)
    found = list(kinds[kind][length].values())
    provider = [kind[0]] if kind[0] != "auto" else []
    left_out = len(models[kind]) - len(found)
    some = [f"{len(found)} of {len(models[kind])} models"] if left_out else []
    return found, ", ".join([*provider, kind[1], "batch 1", *some])


def _named(item: Item, value: str) -> str:
    return f"{labels.display_shape(item.name.shape)} ({value})"


def _extremes(
    items: list[Item], value: Callable[[Item], float | None], unit: str
) -> tuple[Item, Item, str, str] | None:
    known = [(v, n, item) for n, item in enumerate(items) if (v := value(item)) is not None]
    if len(known) < 2:
        return None
    (low, _, best), (high, _, worst) = min(known), max(known)
    return best, worst, _named(best, si(low, unit)), _named(worst, si(high, unit))


def _fastest(rows: Collection, op: str, form: str) -> Iterable[str]:
    for machine, items in _by_machine(rows.of(op)):
        shared, of = _longest_shared(items)
        found = _extremes(shared, lambda item: item.seconds, "s")
        if found:
            best, _, first, last = found
            text = form.format(length=labels.tokens(best.seqlen), of=of, best=first)
            yield f"{_capital(text)}, last by {last}{_where(rows, machine)}."


def _decode_extremes(
    rows: Collection, value: Callable[[Item], float | None], unit: str, form: str
) -> Iterable[str]:
    for machine, items in _by_machine(rows.of("decode")):
        shared, of = _longest_shared(items)
        found = _extremes(shared, value, unit)
        if found:
            best, _, least, most = found
            text = form.format(length=labels.tokens(best.seqlen), of=of, least=least, most=most)
            yield f"{text}{_where(rows, machine)}."


def _leanest(rows: Collection) -> Iterable[str]:
    form = "The state after {length} tokens ({of}) is smallest in {least} and largest in {most}"
    return _decode_extremes(rows, lambda item: item.state_bytes, "B", form)


def _frugal(rows: Collection) -> Iterable[str]:
    form = "A token after {length} ({of}) takes the least energy in {least}, the most in {most}"
    return _decode_extremes(rows, lambda item: item.value("energy_per_token"), "J", form)


def _nearest_limit(rows: Collection) -> Iterable[str]:
    """The operator whose best row comes closest to the machine, and the one that stays furthest."""
    for machine, items in _by_machine(operator_items(rows)):
        best: dict[str, tuple[float, str]] = {}
        for item in items:
            sol = item.value("sol")
            if sol is not None:
                here = (sol, f"{labels.display_shape(item.name.shape)}, {item.name.provider}")
                best[item.name.op] = max(best.get(item.name.op, (0.0, "")), here)
        high = max(best, key=lambda op: best[op], default="")
        low = min(best, key=lambda op: best[op], default="")
        if high == low or best[high][0] == best[low][0]:
            continue
        yield (
            f"{high} comes closest to the machine's limit, sol {best[high][0]:.2f} "
            f"({best[high][1]}); {low} stays furthest from it, {best[low][0]:.2f} at best "
            f"({best[low][1]}){_where(rows, machine)}."
        )


@dataclass(frozen=True)
class ProviderScore:
    """How a provider does on problems that it shares with others; `to_best` is geometric."""

    op: str
    machine: str
    provider: str
    problems: int
    fastest: int
    to_best: float


def provider_scores(rows: Collection) -> list[ProviderScore]:
    """Providers of each operator over the problems that they share, best first."""
    problems: dict[tuple[str, tuple[object, ...]], list[Item]] = {}
    for item in rows.newest:
        if not item.name.is_foreign:
            problems.setdefault((item.machine, item.name.problem), []).append(item)
    ratios: dict[tuple[str, str, str], list[float]] = {}
    for (machine, _), items in problems.items():
        best = min(item.seconds for item in items)
        for item in items if len(items) > 1 else ():
            key = (item.name.op, machine, item.name.provider)
            ratios.setdefault(key, []).append(item.seconds / best)
    scores = [
        ProviderScore(
            *key, len(r), sum(x == 1 for x in r), math.exp(math.fsum(map(math.log, r)) / len(r))
        )
        for key, r in ratios.items()
    ]
    return sorted(scores, key=lambda s: (s.op, s.machine, s.to_best, s.provider))


def _providers(rows: Collection) -> Iterable[str]:
    for (op, machine), group in groupby(provider_scores(rows), key=lambda s: (s.op, s.machine)):
        scores = list(group)
        if len(scores) == 2 and scores[0].problems == scores[1].problems:
            ratio = scores[1].to_best / scores[0].to_best
            yield (
                f"{op}: {scores[0].provider} is {times(ratio)} as fast as {scores[1].provider} "
                f"(geometric mean of {scores[0].problems} problems){_where(rows, machine)}."
            )


def _throttled(rows: Collection) -> Iterable[str]:
    for machine, items in _by_machine(rows.newest):
        held = sum((item.value("throttled") or 0) > 0 for item in items)
        if held:
            yield (
                f"{held} of {len(items)} rows were held back for more than 1 % of their time (the "
                f"power limit, heat, a quota or a hypervisor: `throttled`){_where(rows, machine)}."
            )
