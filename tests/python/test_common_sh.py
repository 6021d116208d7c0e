# SPDX-License-Identifier: Apache-2.0
"""The shell functions that decide what is built, with stand-ins for the machine's programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

COMMON = Path(__file__).resolve().parents[2] / "tools" / "common.sh"


def shell(script: str, **environment: str) -> str:
    return subprocess.run(
        ["bash", "-c", f"source {COMMON}; {script}"],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
    ).stdout.strip()


def program(path: Path, text: str, status: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{text}'\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "least", "answer"),
    [
        ("12.6", "12.6", "yes"),
        ("13.0", "12.6", "yes"),
        ("12.10", "12.6", "yes"),
        ("11.8", "12.6", "no"),
        ("", "12.6", "no"),
    ],
)
def test_at_least(version: str, least: str, answer: str) -> None:
    assert shell(f"at_least '{version}' {least} && echo yes || echo no") == answer


@pytest.mark.parametrize(
    ("said", "status", "architectures"),
    [
        ("9.0", 0, "90a-real"),
        ("8.9\n8.9\n9.0", 0, "89-real;90a-real"),
        ("12.0", 0, "120-real"),
        ("NVIDIA-SMI has failed because it could not reach the driver 9.0", 9, ""),
        ("[N/A]", 0, ""),
    ],
)
def test_gpu_architectures(tmp_path: Path, said: str, status: int, architectures: str) -> None:
    program(tmp_path / "nvidia-smi", said, status)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert shell("gpu_architectures", PATH=path) == architectures


def test_usable_nvcc_passes_over_one_that_is_too_old(tmp_path: Path) -> None:
    release = "Cuda compilation tools, release {}, V{}.1"
    program(tmp_path / "old/bin/nvcc", release.format("11.8", "11.8"))
    program(tmp_path / "new/bin/nvcc", release.format("13.0", "13.0"))
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    nvcc = f"{new}/bin/nvcc"
    assert shell("usable_nvcc", CUDA_HOME=old, CUDA_PATH=new) == nvcc
    assert shell('use_cuda "$(usable_nvcc)"; echo "$CUDA_HOME"', CUDA_PATH=new) == new
