"""Turns a prompt into tokens, and tokens into text that appears as it is generated."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from jostle.model import Model
from jostle.tokenizers import Tokenizer

_ANSWER = "\x02"
"""Stands for an answer, to see what a chat template writes after it."""


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


def stops(tokenizer: Tokenizer, *, answer: bool = False) -> list[int | str]:
    """What ends a text or, in a conversation, an answer."""
    found: list[int | str] = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    with contextlib.suppress(ValueError):  # no template
        end = tokenizer.chat(messages, answer=False).rpartition(_ANSWER)[2].strip()
        if answer and end:
            found.append(end)
    return found


def show(text: Iterable[str]) -> str:
    """Prints pieces as they arrive, and returns them joined."""
    shown = []
    for piece in text:
        shown.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(shown)
