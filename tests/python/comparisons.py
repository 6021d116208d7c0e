# SPDX-License-Identifier: Apache-2.0
"""What tests of tools/seqmark compare compare, and how they read its answer."""

from __future__ import annotations

from typing import Any

import made_up

Json = dict[str, Any]


def rows(factor: float = 1.0, *, count: int = 30, **fields: Any) -> Json:
    """A document of rows of many lengths, `factor` times as slow."""
    return made_up.document(
        *(
            made_up.measured(made_up.name(seqlen=length), length * 1e-5 * factor, **fields)
            for length in range(1, count + 1)
        )
    )


def verdicts(document: Json) -> dict[str, int]:
    counts: dict[str, int] = document["comparisons"][0]["groups"][0]["verdicts"]
    return counts
