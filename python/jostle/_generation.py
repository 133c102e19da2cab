"""Generation token by token: repetition penalty, stop tokens and stop strings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jostle import _arguments, _arrays, _native
from jostle._arrays import Float, Int
from jostle.tokenizers import Tokenizer

_BEFORE = 4
"""The tokens before a piece of text that may decide on its first character."""
_MOST_BYTES = 8
"""More tokens than a character has."""


class Settings(NamedTuple):
    """How tokens are drawn, as for `Model.generate`."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int

    @classmethod
    def checked(
        cls, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None, seed: int
    ) -> Settings:
        """Numbers of the right types. Their ranges are checked natively."""
        return cls(
            _arguments.number("temperature", temperature),
            None if top_k is None else _arguments.size("top_k", top_k),
            None if top_p is None else _arguments.number("top_p", top_p),
            None if min_p is None else _arguments.number("min_p", min_p),
            _arguments.seed("seed", seed),
        )


class Stops:
    """Where a text ends: before a token, or before a string."""

    def __init__(self, stop: int | str | Iterable[int | str], tokenizer: Tokenizer | None) -> None:
        given = [stop] if isinstance(stop, (int, str)) else list(stop)
        self.strings = [one for one in given if isinstance(one, str)]
        self.tokens = {_arguments.count("stop", one) for one in given if not isinstance(one, str)}
        self._tokenizer = tokenizer
        if "" in self.strings:
            raise ValueError("stop has an empty string")
        if self.strings and tokenizer is None:
            raise ValueError("stop has strings, but the model has no tokenizer; expected tokens")

    def cut(self, tokens: Iterator[int]) -> Iterator[int]:
        """The tokens before the end. Tokens wait as long as they may be the beginning of a stop string."""
        tokens = self._until_token(tokens)
        return self._until_string(tokens) if self.strings else tokens

    def _until_token(self, tokens: Iterator[int]) -> Iterator[int]:
        for token in tokens:
            if token in self.tokens:
                return
            yield token

    def _until_string(self, tokens: Iterator[int]) -> Iterator[int]:
        before: list[int] = []
        waiting: list[int] = []
        longest = max(map(len, self.strings))
        for token in tokens:
            waiting.append(token)
            text = self._text(before, waiting)
            places = [place for string in self.strings if (place := text.find(string)) >= 0]
            # A character that is not complete may be any.
            whole = text if len(waiting) > _MOST_BYTES else text.rstrip("\ufffd")
            limit = min(places) if places else len(whole) - longest + 1
            while waiting and len(self._text(before, waiting[:1])) <= limit:
                limit -= len(self._text(before, waiting[:1]))
                yield waiting[0]
                before = [*before, waiting.pop(0)][-_BEFORE:]
            if places:
                return
        yield from waiting

    def _text(self, before: list[int], tokens: list[int]) -> str:
        assert self._tokenizer is not None, "checked when the strings were given"
        decode = self._tokenizer.decode
        return decode([*before, *tokens])[len(decode(before)) :]


def draw(
    generator: _native.Generator, start: Int, logits: Float, count: int, settings: Settings, penalty: float
) -> Iterator[int]:
    """Tokens that continue a text, which the generator was fed, and which gave these logits."""
    if penalty == 1.0:
        for number in range(count):
            yield generator.draw(1, *settings, number)[0]
        return
    seen = np.unique(start)
    for number in range(count):
        # Keskar et al. 2019, as Transformers has it.
        before = logits[seen]
        logits[seen] = np.where(before > 0, before / np.float32(penalty), before * np.float32(penalty))
        token = generator.sample(logits, *settings, number)
        yield token
        seen = np.union1d(seen, [token])
        logits = generator.feed(_arrays.tokens("token", [token], 1))
