"""Turns a prompt into tokens, and tokens into text that appears as it is generated."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from jostle.model import Model
from jostle.tokenizers import Tokenizer


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


def show(text: Iterable[str]) -> str:
    """Prints pieces as they arrive, and returns them joined."""
    shown = []
    for piece in text:
        shown.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(shown)
