"""Converts the arrays that users pass to the one type and layout that the native module accepts."""

from __future__ import annotations

import hashlib
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int32]

_INT32 = np.dtype(np.int32)


def tokens(name: str, given: Any, dimensions: int) -> Int:
    """Integers of any width, as contiguous int32."""
    array = _integers(name, given)
    if array.ndim != dimensions:
        shape = {1: "(T,)", 2: "(B, T)"}[dimensions]
        raise ValueError(f"{name} has the shape {array.shape}; expected {shape}")
    return _as_int32(name, array)


_PIECE = 1 << 20
"""The tokens of a text that are examined at a time, so that a mapped file need not fit into memory."""


def text(name: str, given: Any, vocab: int) -> npt.NDArray[Any]:
    """A text of tokens of the vocabulary. uint8, uint16, uint32 and int32 are used in place, without a copy."""
    array = _text(name, given)
    if array.dtype.kind == "u" and vocab >> (8 * array.itemsize):
        return array
    for begin in range(0, len(array), _PIECE):
        piece = array[begin : begin + _PIECE]
        if piece.min() < 0 or piece.max() >= vocab:
            index = begin + int(np.argmax((piece < 0) | (piece >= vocab)))
            raise IndexError(
                f"{name} holds {array[index]} at index {index}: outside the vocabulary of {vocab}"
            )
        release(array)
    # Below the vocabulary, both types have the same bits.
    return array.view(np.int32) if array.dtype == np.uint32 else array


def digest(array: npt.NDArray[Any]) -> str:
    """A checksum of a text, whatever its integers' width."""
    total = hashlib.blake2b(digest_size=16)
    for begin in range(0, len(array), _PIECE):
        total.update(np.ascontiguousarray(array[begin : begin + _PIECE], "<i4").data)
        release(array)
    return total.hexdigest()


def release(array: npt.NDArray[Any]) -> None:
    """Returns the pages of a `numpy.memmap` to the system, which otherwise count as this process's memory. Their contents
    are read from the file again when they are used."""
    mapped: Any = array
    while mapped is not None and not isinstance(mapped, np.memmap):
        mapped = getattr(mapped, "base", None)
    # With mode "c", pages hold changes that the file does not have.
    if mapped is None or mapped.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    while not isinstance(mapped, mmap.mmap):
        mapped = mapped.base
    mapped.madvise(mmap.MADV_DONTNEED)


def _text(name: str, given: Any) -> npt.NDArray[Any]:
    array = _integers(name, given)
    if array.ndim != 1:
        raise ValueError(f"{name} has the shape {array.shape}; expected (length,)")
    in_place = array.dtype in (np.uint8, np.uint16, np.uint32, np.int32)
    if in_place and array.flags.c_contiguous and array.flags.aligned:
        return array
    return _as_int32(name, array)


def targets_like(given: Any, like: npt.NDArray[Any], name: str = "targets") -> Int:
    """Targets for logits `like` (..., V): integers of the shape before the last dimension."""
    array = _integers(name, given)
    if array.shape != like.shape[:-1]:
        raise ValueError(f"{name} have the shape {array.shape}; expected {like.shape[:-1]}")
    return _as_int32(name, array)


def floats(
    name: str, given: Any, dimensions: int | None = None, shape: tuple[int, ...] | None = None
) -> Float:
    """An array that must already be float32 and contiguous: nothing is copied behind the caller's back."""
    if not isinstance(given, np.ndarray):
        raise TypeError(f"{name} is {type(given).__name__}; expected a NumPy array of float32")
    if given.dtype != np.float32:
        raise TypeError(f"{name} is of {given.dtype}; expected float32")
    if dimensions is not None and given.ndim != dimensions:
        raise ValueError(f"{name} has {given.ndim} dimensions; expected {dimensions}")
    if shape is not None and given.shape != shape:
        raise ValueError(f"{name} has the shape {given.shape}; expected {shape}")
    if shape is None and (given.ndim == 0 or given.size == 0):
        raise ValueError(
            f"{name} has the shape {given.shape}; expected at least one element and one dimension"
        )
    if not given.flags.c_contiguous:
        raise ValueError(f"{name} is not contiguous; expected C order (numpy.ascontiguousarray)")
    if not given.flags.aligned:
        raise ValueError(f"{name} is not aligned in memory; expected an aligned array (numpy.require)")
    return given


def _integers(name: str, given: Any) -> npt.NDArray[Any]:
    array = np.asarray(given)
    if array.size == 0:
        raise ValueError(f"{name} has the shape {array.shape}; expected at least one token")
    if array.dtype.kind not in "iu":
        hint = " (encode text with a tokenizer first)" if array.dtype.kind in "US" else ""
        raise TypeError(f"{name} is of {array.dtype}; expected integers{hint}")
    return array


def _as_int32(name: str, array: npt.NDArray[Any]) -> Int:
    if array.dtype == _INT32 and array.flags.c_contiguous and array.flags.aligned:
        return array
    narrow = array.astype(_INT32, "C")
    # Searching bytes is several times as fast as a NumPy reduction, which matters for every batch.
    index = (narrow == array).tobytes().find(0)
    if index >= 0:
        raise IndexError(f"{name} holds {array.flat[index]} at index {index}: outside every vocabulary")
    return narrow
