# SPDX-License-Identifier: Apache-2.0
"""The page of any set of result files: which sections it has and what stands in them."""

from __future__ import annotations

from seqmark_tools.report import findings, model_figures, operator_figures, tables
from seqmark_tools.report.data import Collection, date_of
from seqmark_tools.report.figure import Figure, Json
from seqmark_tools.report.page import (
    Page,
    Section,
    bullets,
    escape,
    rows_html,
    table_html,
)


def summary(rows: Collection) -> str:
    """Counts, findings and the machines."""
    text = f"{tables.counts(rows.items)}, in {_files(len(rows.files))}."
    if rows.repeated:
        text += (
            f" {rows.repeated} measurements are of rows that were measured again later. Lines "
            "are of one build each; elsewhere the newest of a row counts."
        )
    said = findings.findings(rows)
    parts = [f'<p class="lead">{escape(text)}</p>']
    if said:
        parts.append(bullets(said))
    parts.append('<h3>Machines</h3><div class="facts">')
    for machine in rows.machines:
        facts: dict[str, str] = {}
        for file in sorted(rows.files, key=date_of):  # the newest file's facts last
            if any(item.file is file and item.machine == machine for item in rows.items):
                facts |= dict(tables.facts(file.context))
        facts = {title: facts[title] for title in tables.ordered(facts)}
        terms = "".join(
            f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items()
        )
        parts.append(f"<section><h4>{escape(machine)}</h4><dl>{terms}</dl></section>")
    parts.append(f"</div>{table_html(tables.files_table(rows))}")
    return "".join(parts)


def _files(number: int) -> str:
    return "one file" if number == 1 else f"{number} files"


def crossings(rows: Collection) -> str:
    """Who overtakes whom, and below it who never does."""
    every = findings.crossovers(rows)
    if not every:
        return ""
    parts = [
        '<p class="lead">Models of different families whose weights differ by no more than '
        f"{findings.SIMILAR_SIZE:g}x, between lengths that both were measured at; a crossing is "
        "interpolated on straight lines in log-log, between the two lengths named.</p>"
    ]
    for metric in dict.fromkeys(sentence.metric for sentence in every):
        here = [sentence for sentence in every if sentence.metric == metric]
        crossing = [sentence.text for sentence in here if sentence.crossings]
        never = [sentence.text for sentence in here if not sentence.crossings]
        parts.append(f"<h3>{escape(metric.capitalize())}</h3>")
        parts.append(bullets(crossing) if crossing else "<p>No model overtakes another.</p>")
        if never:
            parts.append(
                f"<details><summary>{len(never)} pairs without a crossing</summary>"
                f"{bullets(never)}</details>"
            )
    return "".join(parts)


def make_page(rows: Collection, history: Figure | None = None) -> Page:
    """Everything there is to say; sections without rows are left out."""
    models = [
        figure
        for figure in (
            model_figures.latency(rows),
            model_figures.peak_memory(rows),
            model_figures.memory_parts(rows),
            model_figures.longest_prompt(rows),
            model_figures.time_shares(rows),
            model_figures.energy(rows),
        )
        if figure.views
    ]
    operators = [
        f for f in (operator_figures.scaling(rows), operator_figures.roofline(rows)) if f.views
    ]
    table: Json = tables.rows_table(rows)
    every = [
        Section("summary", "Summary", before=summary(rows)),
        Section("models", "Models", figures=models),
        Section("crossovers", "Crossovers", before=crossings(rows)),
        Section(
            "operators",
            "Operators",
            figures=operators,
            after=table_html(tables.provider_table(findings.provider_scores(rows))),
        ),
        Section("history", "History", figures=[history] if history else []),
        Section("failures", "Errors and skips", before=_failures(rows)),
        Section("rows", "Every row", before=rows_html(table)),
    ]
    shown = [s for s in every if s.before or s.figures or s.after]
    names = ", ".join(file.path.name for file in rows.files)
    where = ", ".join(rows.machines)
    return Page(f"seqmark on {where}", shown, f"Made by tools/seqmark report from {names}.", table)


def _failures(rows: Collection) -> str:
    return "".join(table_html(tables.failures(rows, wanted)) for wanted in ("error", "skipped"))
