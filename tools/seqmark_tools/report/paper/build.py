# SPDX-License-Identifier: Apache-2.0
"""The page of the papers' figures."""

from __future__ import annotations

from pathlib import Path

from seqmark_tools.report.data import Collection
from seqmark_tools.report.figure import Figure
from seqmark_tools.report.page import Page, Section
from seqmark_tools.report.paper import breakdown, latency, memory
from seqmark_tools.report.paper.generation import generation
from seqmark_tools.report.paper.pairs import Ours
from seqmark_tools.report.paper.values import FOLDER, load

INTRODUCTION = (
    '<p class="lead">Paper 1 is “SSM-Scope”, arXiv 2507.12442; paper 2 is “An Empirical Study of '
    "Mamba-based Language Models”, arXiv 2406.07887. Each figure stands beside the values that "
    "were published, on other machines than ours: shapes and crossovers compare, absolute times do "
    "not. What was mistaken in the published data is corrected where the data allow it, and said "
    "under each figure.</p>"
)


def figures(rows: Collection, folder: Path = FOLDER) -> list[Figure]:
    """All figures of both papers."""
    published, ours = load(folder), Ours(rows)
    return [
        latency.fig1(published, ours),
        latency.fig3(published, ours),
        memory.fig5(published, ours, edge=False),
        memory.fig5(published, ours, edge=True),
        latency.fig6a(published, ours),
        latency.fig6b(published, ours),
        breakdown.fig7(published, ours),
        breakdown.fig8(published, ours),
        breakdown.fig9a(published, ours),
        breakdown.fig9b(published, ours),
        generation(ours),
    ]


def make_page(rows: Collection, folder: Path = FOLDER) -> Page:
    """One section a figure."""
    sections = [
        Section(
            figure.key,
            figure.title.partition(":")[0].replace("Paper 1, ", ""),
            figure.title,
            figures=[figure],
        )
        for figure in figures(rows, folder)
    ]
    sections[0].before = INTRODUCTION
    names = ", ".join(file.path.name for file in rows.files)
    return Page(
        f"The papers' figures on {', '.join(rows.machines)}",
        sections,
        f"Made by tools/seqmark report --paper from {names} and results/published/.",
    )
