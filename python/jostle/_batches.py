"""Batches of the caller's: pairs of tokens and targets, drawn from an iterable, and its position."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from jostle import _arguments, _arrays, _positions
from jostle._arrays import Int

Batch = tuple[Int, Int]
"""Tokens and targets (B, T)."""


def are_batches(given: Any) -> bool:
    """Whether these are batches, not a text of tokens."""
    if hasattr(given, "__array__") or isinstance(given, (str, bytes, bytearray, memoryview)):
        return False
    if isinstance(given, Sequence):
        return len(given) > 0 and isinstance(given[0], tuple)
    return isinstance(given, Iterable)


def checked(given: Any, vocab: int, most: tuple[int, int]) -> Batch:
    """A batch of at most so many sequences and tokens in each, with tokens and targets of the vocabulary."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"a batch is {_arguments.brief(given)}; expected a pair (tokens, targets)")
    tokens, targets = (
        _arrays.tokens(name, array, 2) for name, array in zip(("tokens", "targets"), given, strict=True)
    )
    if tokens.shape != targets.shape:
        raise ValueError(
            f"targets have the shape {targets.shape}; expected the shape of the tokens, {tokens.shape}"
        )
    if tokens.shape[0] > most[0] or tokens.shape[1] > most[1]:
        raise ValueError(
            f"a batch has the shape {tokens.shape}; expected at most batch, {most[0]}, sequences of at most {most[1]} tokens"
        )
    for name, array, least in (("token", tokens, 0), ("target", targets, -1)):
        wrong = array[(array < least) | (array >= vocab)]
        if wrong.size:
            hint = ", or -1 for a target that does not count" if least else ""
            raise IndexError(
                f"{name} {wrong[0]} is outside the vocabulary; expected tokens below {vocab}{hint}"
            )
    return tokens, targets


class Feed:
    """The batches of steps, from an iterable. When it ends, it is iterated again: an epoch each time.

    An iterable with `state_dict` and `load_state_dict` can be asked for its position, as StatefulDataLoader of torchdata
    can.
    """

    def __init__(self, source: Iterable[Any]) -> None:
        self.source = source
        self._iterator: Iterator[Any] | None = None
        self._step: list[Batch] = []
        self._drawn = 0
        """The batches of all steps that are done."""
        self._before: Any = None
        """The position before the step's batches were drawn."""

    def draw(self, count: int, check: Callable[[Any], Batch]) -> list[Batch]:
        """The checked batches of the next step. They stay the same until `done`."""
        if not self._step:
            self._before = self._position()
            batches = [check(self._next()) for _ in range(count)]
            if all((targets == -1).all() for _, targets in batches):
                raise ValueError("no target of the step's batches counts; expected one that is not -1")
            self._step = batches
        return self._step

    def done(self) -> None:
        """Ends the step: the next `draw` draws others."""
        self._drawn += len(self._step)
        self._step = []

    def _next(self) -> Any:
        for _ in range(2):
            if self._iterator is None:
                self._iterator = iter(self.source)
            for batch in self._iterator:
                return batch
            if self._iterator is self.source:
                break
            self._iterator = None
        raise ValueError(f"train has no more batches, after {self._drawn + len(self._step)}")

    def _position(self) -> Any:
        ask = getattr(self.source, "state_dict", None)
        return None if ask is None else ask()

    def state(self) -> dict[str, Any]:
        """What `restore` takes. Warns of a position that `_positions` cannot hold."""
        try:
            position = _positions.to_json(self._before if self._step else self._position())
        except TypeError as error:
            warnings.warn(f"the position of train is not kept: {error}", RuntimeWarning, stacklevel=4)
            position = None
        return {"batches": self._drawn, "position": position}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues the iterable at a position. Warns if it cannot be asked for that."""
        self._drawn = _arguments.count("batches", state["batches"])
        position = state["position"]
        load = getattr(self.source, "load_state_dict", None)
        if position is not None and load is not None:
            load(_positions.from_json(position))
        elif self._drawn:
            warnings.warn(
                f"train has no position to continue from: it needs state_dict and load_state_dict. Training continues with its"
                f" next batch; {self._drawn} were drawn before",
                RuntimeWarning,
                stacklevel=4,
            )
