"""Safetensors files, read and written in blocks. Beside the numbers, memory holds one block.

Files are read, not mapped: pages of a mapped file count as resident memory, and a file that another program truncates
would end the process.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jostle import _files
from jostle._arrays import Float
from jostle._checkpoint import json_object, understood

BLOCK = 1 << 20
"""The numbers of a block."""

_MOST_HEADER = 1 << 24
"""The most bytes of a header: about 150,000 tensors."""

_MOST_SIDES = 8
"""The most sides of a tensor."""

SIZES = {"F32": 4, "F16": 2, "BF16": 2}
"""The bytes of a number of each type that is read and written."""


class Tensor(NamedTuple):
    """A tensor in a file."""

    path: Path
    dtype: str
    shape: list[int]
    begin: int
    """Its first byte in the file."""

    def blocks(self) -> Iterator[tuple[int, Float]]:
        """Its numbers in float32, exactly, block by block with the index of the first one."""
        count = math.prod(self.shape)
        with self.path.open("rb") as file:
            file.seek(self.begin)
            for first in range(0, count, BLOCK):
                wanted = min(BLOCK, count - first) * SIZES[self.dtype]
                data = file.read(wanted)
                if len(data) != wanted:
                    raise ValueError(f"{self.path}: the file was truncated while it was read")
                yield first, widen(self.dtype, data)


def widen(dtype: str, data: bytes) -> Float:
    """Numbers of a type in float32, exactly."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    # For NaNs that signal.
    with np.errstate(invalid="ignore"):
        return np.frombuffer(data, f"<f{SIZES[dtype]}").astype(np.float32)


def narrow(dtype: str, numbers: Float) -> npt.NDArray[Any]:
    """Numbers in a type, rounded to nearest, ties to even. OverflowError for one that is too large."""
    with np.errstate(all="ignore"):
        if dtype == "BF16":
            bits = numbers.view(np.uint32)
            upper = bits >> 16
            rounded = (bits + 0x7FFF + (upper & 1)) >> 16
            # A NaN stays one, and becomes quiet.
            given = np.where(np.isnan(numbers), upper | 0x40, rounded).astype("<u2")
            infinite = (given & 0x7FFF) == 0x7F80
        else:
            given = numbers.astype(f"<f{SIZES[dtype]}")
            infinite = np.isinf(given)
    too_large = infinite & np.isfinite(numbers)
    if too_large.any():
        raise OverflowError(f"{numbers[too_large][0]!s} is too large for {dtype}")
    return given


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. ValueError if it is not safetensors, OSError if it cannot be read."""
    refuse_special(path)
    with path.open("rb") as file, understood(os.fspath(path)):
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MOST_HEADER, size - 8):
            raise ValueError(
                f"the header has {length} bytes, the file {size}; it is not safetensors or not whole"
            )
        header = json_object(file.read(length).decode())
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise ValueError("__metadata__ is not an object")
        found, ranges = {}, []
        for name, entry in header.items():
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            sizes = (*shape, begin, end)
            if len(shape) > _MOST_SIDES or not all(type(x) is int and 0 <= x < 1 << 63 for x in sizes):
                raise ValueError(f"tensor {name!r:.80}: shape and data_offsets are not sizes")
            if dtype in SIZES and end - begin != math.prod(shape) * SIZES[dtype]:
                raise ValueError(f"tensor {name!r:.80}: data_offsets do not fit the shape")
            ranges.append((begin, end))
            found[name] = Tensor(path, dtype, shape, 8 + length + begin)
        last = 0
        for begin, end in sorted(ranges):
            if begin != last or end < begin:
                raise ValueError(f"tensors overlap or leave a gap at byte {begin} of the data")
            last = end
        if last != size - 8 - length:
            raise ValueError(f"the tensors have {last} bytes, the file's data {size - 8 - length}")
    return found


def refuse_special(path: Path) -> None:
    """ValueError for a pipe or a device, which could be read without end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")


def write(path: Path, arrays: Mapping[str, Float], dtype: str) -> None:
    """Writes arrays in a type. The file appears complete or not at all. ValueError for a number that is too large."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.size * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with _files.replacing(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, array in arrays.items():
            flat = array.reshape(-1)
            for first in range(0, flat.size, BLOCK):
                try:
                    file.write(narrow(dtype, flat[first : first + BLOCK]).data)
                except OverflowError as error:
                    raise ValueError(f"{name}: {error}") from None
        file.flush()
        os.fsync(file.fileno())
