# SPDX-License-Identifier: Apache-2.0
"""Result files as pandas frames, one row of the results a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from seqmark_tools.results import ResultFile, Row

NAME_PARTS = ("op", "provider", "shape", "dtype", "device", "batch", "seqlen", "limit")
# Columns that every frame has; counters follow, as they are named.
COLUMNS = (
    "file",  # the path, as given
    "name",  # the row's whole name, without what Google Benchmark adds
    *NAME_PARTS,  # batch, seqlen (tokens) and limit (bytes) are Int64, <NA> where there is none
    "status",  # measured, skipped or error
    "reason",  # why it is skipped or an error; "" where it is measured
    "seconds",  # median time of one call; NaN without a time
    "context",  # the file's, a dict: the same object in all lines of the file
)


def frame(files: Iterable[ResultFile]) -> pd.DataFrame:
    """Every row of `files` in order; a counter that a row lacks is NaN.

    A counter of another program that is named as a column of ours gets "_counter" at its end.
    """
    lines = [_line(file, row) for file in files for row in file.rows]
    counters = {key: None for line in lines for key in line if key not in COLUMNS}
    result = pd.DataFrame(lines, columns=[*COLUMNS, *counters])
    sizes = dict.fromkeys(("batch", "seqlen", "limit"), "Int64")
    numbers = dict.fromkeys(("seconds", *counters), "float64")
    return result.astype({**sizes, **numbers})


def _line(file: ResultFile, row: Row) -> dict[str, Any]:
    parts = {part: getattr(row.name, part) or None for part in NAME_PARTS}
    status = "error" if row.error is not None else "skipped" if row.skip is not None else "measured"
    counters = {
        f"{key}_counter" if key in COLUMNS else key: value
        for key, value in (row.counters or {}).items()
    }
    return {
        "file": str(file.path),
        "name": str(row.name),
        **parts,
        "status": status,
        "reason": row.error or row.skip or "",
        "seconds": row.seconds,
        "context": file.context,
        **counters,
    }
