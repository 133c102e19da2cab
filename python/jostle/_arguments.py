"""Checks of arguments. An error names the argument, the value that was given, and the values that are accepted."""

from __future__ import annotations

import fnmatch
import math
import operator
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from jostle import _native

if TYPE_CHECKING:
    from jostle.config import Config

T = TypeVar("T")

_MOST_THREADS = 1024
MOST_SIZE = 2**31 - 1
_FLOAT32 = 3.4028234663852886e38


def integer(name: str, given: Any, low: int, high: int) -> int:
    """An integer in [low, high]: an int or a NumPy integer, not a bool or a float."""
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise TypeError(f"{name} is {given!r}; expected an integer")
    number = operator.index(given)
    if not low <= number <= high:
        end = f"2**{high.bit_length()} - 1" if high > 1 << 16 and not high & (high + 1) else high
        raise ValueError(f"{name} is {number}; expected at least {low} and at most {end}")
    return number


def size(name: str, given: Any) -> int:
    """A size: as `integer`, at least 1."""
    return integer(name, given, 1, MOST_SIZE)


def count(name: str, given: Any) -> int:
    """A number of steps, tokens or bytes: as `integer`, at least 0."""
    return integer(name, given, 0, 2**63 - 1)


def seed(name: str, given: Any) -> int:
    """As `integer`, unsigned with 64 bits."""
    return integer(name, given, 0, 2**64 - 1)


def threads(given: Any) -> int:
    """A number of threads. None for the environment variable JOSTLE_THREADS or, without it, as many as the process may
    use: its affinity and its group's quota count."""
    name = "threads"
    if given is None:
        name, given = "JOSTLE_THREADS", os.environ.get("JOSTLE_THREADS") or None
        if given is not None:
            if not given.isascii() or not given.isdigit():
                raise ValueError(f"JOSTLE_THREADS is {given!r}; expected an integer")
            given = int(given)
    if given is None:
        given = min(_native.available_threads(), _MOST_THREADS)
    return integer(name, given, 1, _MOST_THREADS)


def number(name: str, given: Any) -> float:
    """A number as a float. NaN is accepted."""
    if isinstance(given, (bool, str)) or not hasattr(given, "__float__"):
        raise TypeError(f"{name} is {given!r}; expected a number")
    try:
        return float(given)
    except OverflowError:
        return math.inf if given > 0 else -math.inf


def float32(name: str, given: Any) -> float:
    """As `number`, in the fewest digits that identify its float32, so that a value read back from a file compares equal."""
    with np.errstate(over="ignore"):
        return float(str(np.float32(number(name, given))))


def rate(name: str, given: Any) -> float:
    """A rate of dropout: as `float32`, at least 0 and below 1."""
    rate = float32(name, given)
    if not 0 <= rate < 1:
        raise ValueError(f"{name} is {given}; expected at least 0 and below 1")
    return rate


def amount(name: str, given: Any) -> float:
    """As `number`, at least 0, and finite as float32 too."""
    amount = number(name, given)
    if not 0 <= amount <= _FLOAT32:
        raise ValueError(f"{name} is {amount}; expected finite and at least 0")
    return amount


def head_rows(given: Any) -> int | None:
    """The rows of logits that exist at a time, or None for all."""
    return None if given is None else size("head_rows", given)


def clip(given: Any) -> float | None:
    """A norm to clip to, or None."""
    if given is None:
        return None
    norm = number("clip", given)
    if not norm > 0:
        raise ValueError(f"clip is {norm}; expected more than 0, or None")
    return norm


ROPE_SCALING = {
    "rope_factor": "factor",
    "rope_low_freq_factor": "low_freq_factor",
    "rope_high_freq_factor": "high_freq_factor",
    "rope_original_context": "original_max_position_embeddings",
}
"""The arguments of `Config`, and the keys of Hugging Face's config.json, for Llama 3's scaling of rotary positions."""


def rope_scaling(name: str, given: Any) -> dict[str, Any]:
    """Llama 3's scaling of rotary positions, with the keys of Hugging Face's config.json, as arguments of `Config`. None, and the
    type "default", for none."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} is {brief(given)}; expected a dict or None")
    kind = given.get("rope_type", given.get("type"))
    if kind == "default":
        return {}
    if kind != "llama3":
        raise ValueError(f"{name} has rope_type {brief(kind)}; only 'default' and 'llama3' are supported")
    missing = [key for key in ROPE_SCALING.values() if key not in given]
    if missing:
        raise ValueError(f"{name} lacks {missing[0]}")
    return {argument: given[key] for argument, key in ROPE_SCALING.items()}


def instance(name: str, given: Any, wanted: type[T]) -> T:
    """The value, which must be of the class `wanted`."""
    if not isinstance(given, wanted):
        raise TypeError(f"{name} is of {_class(type(given))}; expected {_class(wanted)}")
    return given


def _class(kind: type) -> str:
    """A class by its name, with its module unless that is Python's own. jostle's classes have one public path."""
    module = kind.__module__.partition(".")[0] if kind.__module__.startswith("jostle") else kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def tensors(name: str, given: Any, config: Config) -> tuple[str, ...]:
    """The tensors that names or patterns like "h.0.*" select, in the model's order."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is of {type(given).__name__}; expected a list of names of tensors")
    patterns = [instance(name, pattern, str) for pattern in given]
    names = [known for known, _ in _native.tensors(config)] if patterns else []
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(known, pattern) for known in names):
            raise ValueError(
                f'{name} has {pattern!r}; expected names of the model\'s tensors or patterns, like "wte.weight", "h.0.*"'
            )
    return tuple(known for known in names if any(fnmatch.fnmatchcase(known, pattern) for pattern in patterns))


def brief(given: Any) -> str:
    """A value of a file for an error, cut to a readable length."""
    return f"{given!r:.60}"
