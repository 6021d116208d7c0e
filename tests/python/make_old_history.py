# SPDX-License-Identifier: Apache-2.0
"""Makes a history of schema version 1: tests/python/data/history-1.sqlite.

python tests/python/make_old_history.py FILE
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

MACHINE = "made-up-gpu"
ROWS = ("rmsnorm/native/mamba-790m", "gemm/cublaslt/qwen2.5-1.5b.mlp_up")
NIGHTS = 12
DRIVER_NIGHT = 8


def row(start: str) -> str:
    return f"{start}/dtype:bf16/device:cuda/batch:1/seqlen:4096"


def seconds(number: int, night: int) -> float:
    return (1 + number) * 1e-3 * (1 + 0.001 * ((night * 7) % 5))


def make(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE runs (id TEXT PRIMARY KEY, machine TEXT, date TEXT, context TEXT);
        CREATE TABLE times (run TEXT, row TEXT, seconds REAL);
        PRAGMA user_version = 1;
        """
    )
    for night in range(NIGHTS):
        run = f"night-{night:02}"
        date = f"2026-01-{night + 1:02}T03:00:00+00:00"
        context = {
            "gpu_name": "Made Up GPU",
            "gpu_driver_version": "580.20" if night >= DRIVER_NIGHT else "580.10",
            "command_line": "seqmark_bench --preset=default",
            "load_avg": [0.1 * night],
        }
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?)", (run, MACHINE, date, json.dumps(context))
        )
        for number, start in enumerate(ROWS):
            connection.execute(
                "INSERT INTO times VALUES (?, ?, ?)", (run, row(start), seconds(number, night))
            )
    connection.commit()
    connection.close()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
