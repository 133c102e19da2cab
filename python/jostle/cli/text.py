"""Turns a prompt into tokens, and tokens into text that appears as it is generated."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy.typing as npt

from jostle.model import Model
from jostle.tokenizers import ByteTokenizer, Tokenizer


def tokenizer_of(model: Model) -> Tokenizer:
    """A model's tokenizer. ValueError if its checkpoint has none."""
    if model.tokenizer is None:
        raise ValueError("the checkpoint has no tokenizer: text cannot be turned into its tokens")
    return model.tokenizer


def encode(model: Model, prompt: str) -> npt.NDArray[Any]:
    """The tokens of a prompt (T,). ValueError if it is empty, or has characters outside the vocabulary."""
    if not prompt:
        raise ValueError("the prompt is empty; expected at least one character")
    return tokenizer_of(model).encode(prompt)


def pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of tokens, piece by piece. Bytes wait until their character is complete."""
    if not isinstance(tokenizer, ByteTokenizer):
        for token in tokens:
            yield tokenizer.decode([token])
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        yield decoder.decode(bytes([token]))
    yield decoder.decode(b"", final=True)


def show(text: Iterable[str]) -> str:
    """Prints pieces as they arrive, and returns them joined."""
    shown = []
    for piece in text:
        shown.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(shown)
