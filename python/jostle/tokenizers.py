"""Text to tokens and back. A model's checkpoint keeps its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from jostle import _arguments


class Tokenizer:
    """The base class of all tokenizers. Subclass it for your own, which `Model.load` and `Trainer.resume` then ask for."""

    vocab: int
    """V: the number of different tokens."""

    def encode(self, text: str) -> npt.NDArray[Any]:
        """Tokens (length,) of a text."""
        raise NotImplementedError

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; IndexError for one outside the vocabulary."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """A value for JSON that `from_state` accepts. For a class of your own it is the class name."""
        return {"kind": type(self).__qualname__, "vocab": self.vocab}

    @staticmethod
    def from_state(state: dict[str, Any]) -> Tokenizer:
        """The tokenizer that `state` described."""
        kind = state.get("kind")
        if kind == "byte":
            return ByteTokenizer()
        if kind == "char":
            return CharTokenizer(_arguments.instance("characters", state["characters"], str))
        if kind == "word":
            return WordTokenizer(_arguments.instance("words", state["words"], list))
        raise ValueError(
            f"this checkpoint uses a custom tokenizer {kind!r}; in Python, pass it as tokenizer="
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.state() == other.state()

    def __hash__(self) -> int:
        return hash((type(self), self.vocab))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab={self.vocab})"


def _narrow(tokens: Any, vocab: int) -> npt.NDArray[Any]:
    """Tokens in the narrowest integers that training accepts without a copy."""
    kind = np.uint8 if vocab <= 1 << 8 else np.uint16 if vocab <= 1 << 16 else np.int32
    return np.asarray(tokens, dtype=kind)


class _Table(Tokenizer):
    """A table of pieces of text; a token is an index into it."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = [_arguments.instance("piece", piece, str) for piece in pieces]
        self._numbers = {piece: number for number, piece in enumerate(self._pieces)}
        if len(self._numbers) != len(self._pieces) or not self._pieces:
            raise ValueError("expected at least one piece, and none twice")
        self.vocab = len(self._pieces)

    def _encode(self, pieces: Iterable[str], kind: str) -> npt.NDArray[Any]:
        try:
            return _narrow([self._numbers[piece] for piece in pieces], self.vocab)
        except KeyError as error:
            raise ValueError(f"the {kind} {error.args[0]!r} is not in the vocabulary") from None

    def decode(self, tokens: Iterable[int]) -> str:
        pieces = []
        for index, token in enumerate(tokens):
            if not 0 <= token < self.vocab:
                raise IndexError(f"token {token} at index {index} is outside the vocabulary of {self.vocab}")
            pieces.append(self._pieces[token])
        return self._join(pieces)

    def _join(self, pieces: list[str]) -> str:
        return "".join(pieces)


class CharTokenizer(_Table):
    """A token for each character of a text, in the order of their code points."""

    def __init__(self, characters: Iterable[str]) -> None:
        super().__init__(characters)
        for piece in self._pieces:
            if len(piece) != 1:
                raise ValueError(f"characters has {piece!r}; expected single characters")

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """The tokenizer of a text's characters."""
        return cls(sorted(set(_arguments.instance("text", text, str))))

    def encode(self, text: str) -> npt.NDArray[Any]:
        return self._encode(_arguments.instance("text", text, str), "character")

    def state(self) -> dict[str, Any]:
        return {"kind": "char", "characters": "".join(self._pieces)}


class WordTokenizer(_Table):
    """A token for each word, number, run of spaces and other character of a text: nothing is lost."""

    _pattern = re.compile(r"[^\W\d_]+|\d+|\s+|.", re.DOTALL)

    @classmethod
    def from_text(cls, text: str) -> WordTokenizer:
        """The tokenizer of a text's words."""
        return cls(sorted(set(cls._pattern.findall(_arguments.instance("text", text, str)))))

    def encode(self, text: str) -> npt.NDArray[Any]:
        return self._encode(self._pattern.findall(_arguments.instance("text", text, str)), "word")

    def state(self) -> dict[str, Any]:
        return {"kind": "word", "words": self._pieces}


class ByteTokenizer(Tokenizer):
    """A token for each byte of UTF-8: encodes every text."""

    vocab = 256

    def encode(self, text: str) -> npt.NDArray[Any]:
        return np.frombuffer(_arguments.instance("text", text, str).encode(), dtype=np.uint8)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens. Bytes that are not UTF-8 become replacement characters."""
        try:
            # A list, because `bytes` would copy the memory of an array instead of its elements.
            return bytes(list(tokens)).decode(errors="replace")
        except ValueError:
            raise IndexError("a token is outside the vocabulary of 256") from None

    def state(self) -> dict[str, Any]:
        return {"kind": "byte"}
