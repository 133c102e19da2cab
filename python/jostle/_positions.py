"""Positions of iterables as values for JSON: numbers, texts, lists, tuples, dictionaries, arrays and tensors of PyTorch."""

from __future__ import annotations

import base64
import importlib
import math
from typing import Any

import numpy as np

_KIND = "jostle.kind"
"""The key of objects in JSON that stand for something else."""


def to_json(value: Any) -> Any:
    """A value for JSON. TypeError for what `from_json` would not give back."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [to_json(item) for item in value]
    if type(value) is tuple:
        return {_KIND: "tuple", "items": [to_json(item) for item in value]}
    if isinstance(value, dict) and _KIND not in value and all(type(key) is str for key in value):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {_KIND: "array", **_numbers(value)}
    if type(value).__module__ == "torch" and type(value).__name__ == "Tensor":
        return {_KIND: "tensor", **_numbers(value.cpu().numpy())}
    raise TypeError(f"it has a value of {type(value).__name__}, {value!r:.40}")


def from_json(value: Any) -> Any:
    """The value that `to_json` was given."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KIND)
    if kind is None:
        return {key: from_json(item) for key, item in value.items()}
    if kind == "tuple":
        return tuple(from_json(item) for item in value["items"])
    dtype, shape = np.dtype(str(value["dtype"])), tuple(int(side) for side in value["shape"])
    data = base64.b64decode(value["data"], validate=True)
    if dtype.kind not in "biuf" or len(data) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{len(data)} bytes are not an array of {dtype} and shape {shape}")
    array = np.frombuffer(data, dtype).reshape(shape).copy()
    return importlib.import_module("torch").from_numpy(array) if kind == "tensor" else array


def _numbers(array: Any) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}
