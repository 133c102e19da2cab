"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes beside the path, then renames: whoever reads finds the old file or the new one."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
