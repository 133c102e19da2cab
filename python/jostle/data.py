"""Data for training: token files, and examples for fine-tuning.

Token files are texts as tokens on disk, mapped into memory:

- nanoGPT's: u16, little-endian, without a header; the same with u32.
- llm.c's: a header of 256 i32, then u16 (GPT-2) or u32 (Llama 3).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jostle import _arguments, _files, _safetensors
from jostle._checkpoint import understood
from jostle._examples import Batches, Example, read_examples, split

__all__ = ["Batches", "Example", "read_examples", "read_tokens", "split", "tokenizer_path", "write_tokens"]

SUFFIX = ".bin"
"""The end of a token file's name."""

_TYPES: dict[str, np.dtype[Any]] = {
    "u16": np.dtype(np.uint16).newbyteorder("<"),
    "u32": np.dtype(np.uint32).newbyteorder("<"),
}

_HEADER = 256
"""The number of i32 in llm.c's header: magic, version, number of tokens, zeros."""

_USED = 4
"""The number of those that are not zero in any of llm.c's files."""

_LLM_C = {20240520: (1, "u16"), 20240801: (7, "u32")}
"""Magic -> version and type of tokens."""


def tokenizer_path(path: str | os.PathLike[str]) -> Path:
    """The file beside a token file that has its tokenizer: tokens.tokenizer.json beside tokens.bin."""
    return Path(path).with_suffix(".tokenizer.json")


def read_tokens(path: str | os.PathLike[str], dtype: Literal["u16", "u32"] = "u16") -> np.memmap[Any, Any]:
    """The tokens (length,) of a token file, mapped into memory. Nothing is read until it is used.

    dtype: the type of the tokens in a file without a header. llm.c's header says the type itself. ValueError, which names
    the file and the value, for a header that does not fit the file.
    """
    if dtype not in _TYPES:
        raise ValueError(f"dtype is {dtype!r}; expected 'u16' or 'u32'")
    path = Path(path)
    _safetensors.refuse_special(path)
    with path.open("rb") as file, understood(os.fspath(path)):
        size = os.fstat(file.fileno()).st_size
        kind, begin = _examine(file.read(4 * _HEADER), size, dtype)
        return np.memmap(path, _TYPES[kind], "r", begin)


def _examine(beginning: bytes, size: int, dtype: str) -> tuple[str, int]:
    """The type of a file's tokens, and the first byte after the header."""
    if not size:
        raise ValueError("the file is empty")
    header = np.frombuffer(beginning.ljust(4 * _HEADER, b"-"), "<i4")
    magic, version, count = (int(number) for number in header[:3])
    if magic not in _LLM_C:
        # Every header of this form ends with zeros. No text begins so.
        if magic and not header[_USED:].any():
            raise ValueError(f"the header's magic is {magic}; expected one of {list(_LLM_C)}, or no header")
        if size % _TYPES[dtype].itemsize:
            raise ValueError(f"{size} bytes; expected a multiple of {_TYPES[dtype].itemsize} for {dtype}")
        return dtype, 0
    wanted, kind = _LLM_C[magic]
    if version != wanted:
        raise ValueError(f"the header has version {version}; expected {wanted} with the magic {magic}")
    begin = 4 * _HEADER
    there = (size - begin) / _TYPES[kind].itemsize
    if count < 1 or count != there:
        raise ValueError(f"the header promises {count} tokens of {kind}; the file has {there:g}")
    return kind, begin


def write_tokens(path: str | os.PathLike[str], pieces: Iterable[Any], vocab: int) -> int:
    """Writes a text, given in pieces of tokens (length,), as a token file. Returns the number of tokens.

    Up to a vocabulary of 65,536 the file is nanoGPT's: u16 without a header. Beyond that it is llm.c's for Llama 3: u32
    with a header. The file appears complete or not at all. IndexError for a token outside the vocabulary.
    """
    vocab = _arguments.size("vocab", vocab)
    kind = "u16" if vocab <= 1 << 16 else "u32"
    count = 0
    with _files.replacing(path) as partial, partial.open("wb") as file:
        if kind == "u32":
            file.write(bytes(4 * _HEADER))
        for piece in pieces:
            array = np.asarray(piece)
            wrong = np.flatnonzero((array < 0) | (array >= vocab))
            if wrong.size:
                index = int(wrong[0])
                raise IndexError(
                    f"token {array[index]} at index {count + index} is outside the vocabulary of {vocab}"
                )
            file.write(array.astype(_TYPES[kind]).tobytes())
            count += array.size
        if not count:
            raise ValueError(f"{os.fspath(path)}: there are no tokens to write")
        if kind == "u32":
            if count > _arguments.MOST_SIZE:
                raise ValueError(
                    f"{os.fspath(path)}: {count} tokens; a file's header holds at most 2**31 - 1"
                )
            header = np.zeros(_HEADER, "<i4")
            header[:3] = 20240801, 7, count
            file.seek(0)
            file.write(header.tobytes())
        file.flush()
        os.fsync(file.fileno())
    return count
