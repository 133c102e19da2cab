"""Checkpoint files: what they say beside numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jostle import _native
from jostle.config import Config


class CheckpointFile:
    """A safetensors file, read and examined once."""

    def __init__(self, native: _native.Checkpoint) -> None:
        self.native = native
        self.metadata = dict(native.metadata())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CheckpointFile:
        """Reads a file. OSError if it cannot be read, ValueError if it is not safetensors or was altered."""
        return cls(_native.Checkpoint(Path(path).read_bytes()))

    def config(self) -> Config:
        """The configuration of a checkpoint of jostle."""
        return Config(**self.native.config())

    @contextmanager
    def parse(self, key: str) -> Iterator[dict[str, Any]]:
        """The JSON object in the metadata, empty if there is none, with errors as of `understood`."""
        with understood(f"checkpoint: metadata {key!r}"):
            yield json_object(self.metadata.get(key, "{}"))


def json_object(text: str) -> dict[str, Any]:
    """The object in a JSON text. ValueError or RecursionError if there is none, or if a name occurs twice in an object."""
    given = json.loads(text, object_pairs_hook=_object)
    if not isinstance(given, dict):
        raise ValueError(f"{given!r:.40} is not an object")
    return given


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"{name!r:.80} occurs twice")
        members[name] = value
    return members


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Turns every error of values that anybody may have written into a ValueError, which names the values as `what`."""
    try:
        yield
    except RecursionError:
        raise ValueError(f"{what}: too many levels") from None
    except KeyError as error:
        raise ValueError(f"{what}: {error.args[0]!r} is missing") from None
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what}: {error}") from None
