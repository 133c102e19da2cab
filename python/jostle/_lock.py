"""A lock on a folder, for one process at a time. The system releases it when the process ends, however that comes."""

from __future__ import annotations

import errno
import os
import socket
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = "lock"
"""The file in the folder: its contents say who holds the lock."""


class Lock:
    """Holds a folder's lock until it is released, or the process ends. Raises BlockingIOError, which names the process that
    holds it, if that is another one. File systems and systems without locks have none."""

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
                self._close()
                raise BlockingIOError(errno.EWOULDBLOCK, f"{holder} is training it", str(folder)) from None
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def release(self) -> None:
        """Lets others take the lock."""
        self._close()
