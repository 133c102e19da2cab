"""Atomic writes: a file appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes next to the path, then renames: a reader finds the old file or the new one."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            # With the name that users know. The system names no file when the disk is full.
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise
