"""Atomic writes: a file appears complete or not at all, also when several threads or machines write the same one."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""The end of the name of a file that is being written."""


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file with this content."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new, empty file beside `path`, for the caller to fill and sync. It is then renamed to `path`, so a reader finds the
    old file or the new one. Permissions stay, and a symbolic link keeps pointing to the file.
    """
    target = Path(os.path.realpath(path))
    # As long as it is shorter than the longest name that systems allow, whatever the target's name is.
    partial = target.with_name(f"{target.name[:100]}.{secrets.token_hex(8)}{PARTIAL}")
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        # The name is nobody else's. What others may not read, they may not read meanwhile.
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        os.close(os.open(partial, flags, 0o666 if mode is None else 0o600))
        yield partial
        if mode is not None:
            partial.chmod(mode)
        partial.replace(target)
        sync_folder(target.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            # With the name that users know. The system names no file when the disk is full.
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Makes sure that a folder's entries are on the disk, where the system can do that."""
    if os.name == "nt":
        return
    # Some file systems refuse it.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_partials(folder: Path) -> None:
    """Removes what killed processes have left in a folder. Nobody else may be writing there."""
    for path in folder.glob(f"*{PARTIAL}"):
        with contextlib.suppress(OSError):
            path.unlink()
