# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from seqmark_tools.results import ResultError


def write(path: Path, content: str | bytes) -> None:
    """Writes the file at `path` through a temporary one beside it; ResultError where it cannot.

    Whoever opens `path` meanwhile sees the old file or the new one, and so does who comes after a
    crash or a full disk.
    """
    data = content.encode() if isinstance(content, str) else content
    partial: Path | None = None
    path = Path(os.path.realpath(path))  # a link stays one
    try:
        if path.exists() and not path.is_file():  # /dev/stdout
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        partial = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask)
        partial.replace(path)
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {error}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Writes strict JSON, whole or not at all; ValueError where `document` has a NaN."""
    write(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
