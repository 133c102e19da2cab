"""Hugging Face folders, read and written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jostle import _families, _files, _native, _safetensors
from jostle._arrays import Float
from jostle._checkpoint import json_object, understood
from jostle._families import Family
from jostle.config import Config
from jostle.tokenizers import Llama2cTokenizer, PretrainedTokenizer, Tokenizer

if TYPE_CHECKING:
    from jostle.model import Model

_MOST_CONFIG = 1 << 20
_MOST_INDEX = 1 << 24
_MOST_TOKENIZER = 1 << 27
"""The most bytes of each file."""

_MOST_NAMES = 8
"""The names of tensors that an error lists."""

_DTYPES = {"f32": ("F32", "float32"), "bf16": ("BF16", "bfloat16"), "f16": ("F16", "float16")}
"""The names of a type here, in safetensors and in config.json."""


def _read_bytes(path: Path, most: int) -> bytes:
    """A file of at most so many bytes. ValueError for a longer one."""
    _safetensors.refuse_special(path)
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path}: more than {most} bytes")
    return data


def _read(path: Path, most: int) -> str:
    """A text file of at most so many bytes. ValueError for a longer one, or one that is not UTF-8."""
    data = _read_bytes(path, most)
    with understood(os.fspath(path)):
        return data.decode()


def read_object(path: Path, most: int) -> dict[str, Any]:
    """The object in a JSON file of at most so many bytes. ValueError for another file."""
    text = _read(path, most)
    with understood(os.fspath(path)):
        return json_object(text)


def read_config(folder: Path) -> tuple[Family, Config]:
    """The model that a folder's config.json describes."""
    path = folder / "config.json"
    given = read_object(path, _MOST_CONFIG)
    with understood(os.fspath(path)):
        family = _families.family_of(given)
        return family, Config(**family.arguments(given))


def _read_tokenizer(path: Path) -> PretrainedTokenizer:
    """The tokenizer in a tokenizer.json, with the settings in the files beside it."""
    text = _read(path, _MOST_TOKENIZER)
    settings_path = path.with_name("tokenizer_config.json")
    settings = read_object(settings_path, _MOST_TOKENIZER) if settings_path.exists() else {}
    template = path.with_name("chat_template.jinja")
    if template.exists():
        settings["chat_template"] = _read(template, _MOST_CONFIG)
    with understood(os.fspath(path)):
        return PretrainedTokenizer(text, settings)


def load_tokenizer(path: Path) -> Tokenizer:
    """As `Tokenizer.load`."""
    if path.is_dir():
        path /= "tokenizer.json"
    if path.suffix == ".bin":
        file = _read_bytes(path, _MOST_TOKENIZER)
        with understood(os.fspath(path)):
            return Llama2cTokenizer(file)
    state = read_object(path, _MOST_TOKENIZER)
    if "kind" not in state:
        return _read_tokenizer(path)
    with understood(os.fspath(path)):
        return Tokenizer.from_state(state)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(f"{name:.80}" for name in names[:_MOST_NAMES]) + more


class Folder:
    """A Hugging Face folder whose files fit each other and the configuration. ValueError if they do not.

    Headers are compared before memory for the model is allocated.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        self.family, self.config = read_config(self.path)
        self._tensors = self._find()
        self._check()

    @cached_property
    def tokenizer(self) -> PretrainedTokenizer | None:
        """The tokenizer in tokenizer.json, if there is one. ImportError if the package `tokenizers` is missing."""
        path = self.path / "tokenizer.json"
        if not path.exists():
            return None
        tokenizer = _read_tokenizer(path)
        if tokenizer.vocab > self.config.vocab:
            raise ValueError(
                f"{path}: the tokenizer has {tokenizer.vocab} tokens, more than vocab_size in config.json,"
                f" {self.config.vocab}"
            )
        return tokenizer

    def _find(self) -> dict[str, _safetensors.Tensor]:
        """The tensors of all files, by the model's own names."""
        index = self.path / "model.safetensors.index.json"
        single = self.path / "model.safetensors"
        if single.exists() or not index.exists():
            return self._merge({}, _safetensors.tensors(single))
        places = read_object(index, _MOST_INDEX)
        with understood(os.fspath(index)):
            places = places["weight_map"]
            for name, file in places.items():
                if not isinstance(file, str) or Path(file).name != file or "\\" in file or ":" in file:
                    raise ValueError(
                        f"weight_map: {name:.80} is in {file!r:.80}; expected the name of a file beside it"
                    )
        found: dict[str, _safetensors.Tensor] = {}
        for file in sorted(set(places.values())):
            shard = _safetensors.tensors(self.path / file)
            for name in shard:
                if places.get(name) != file:
                    raise ValueError(f"{index}: weight_map does not say that {name:.80} is in {file}")
            self._merge(found, shard)
        for name, file in places.items():
            if self.family.own_name(name) not in found:
                raise ValueError(f"{self.path / file}: {name:.80} is missing, which is there by weight_map")
        return found

    def _merge(
        self, found: dict[str, _safetensors.Tensor], more: dict[str, _safetensors.Tensor]
    ) -> dict[str, _safetensors.Tensor]:
        for name, tensor in more.items():
            name = self.family.own_name(name)
            if name in found:
                raise ValueError(f"{tensor.path}: {name:.80} occurs twice, also in {found[name].path}")
            found[name] = tensor
        return found

    def _check(self) -> None:
        """Refuses files that do not have exactly the model's tensors."""
        # Before the names of all layers are made.
        if self.config.layers > len(self._tensors):
            raise ValueError(
                f"{self.path / 'config.json'}: {self.family.layers} is {self.config.layers},"
                f" but the files have only {len(self._tensors)} tensors"
            )
        wanted = dict(_native.tensors(self.config))
        missing = [name for name in wanted if name not in self._tensors]
        if missing:
            raise ValueError(f"{self.path}: the files lack {_names(missing)}")
        for name, shape in wanted.items():
            path, dtype, given, _ = self._tensors[name]
            if dtype not in _safetensors.SIZES:
                raise ValueError(f"{path}: {name} is {dtype!r:.80}; expected F32, F16 or BF16")
            if given != shape:
                raise ValueError(f"{path}: {name} has shape {given}; config.json makes it {shape}")
        unused = [name for name in self._tensors if name not in wanted and not self._is_needless(name)]
        if unused:
            raise ValueError(
                f"{self._tensors[unused[0]].path}: the model of config.json does not have {_names(unused)}"
            )

    def _is_needless(self, name: str) -> bool:
        if self.family.needless.fullmatch(name):
            return True
        # A tied head may be saved too.
        return name == "lm_head.weight" and self.config.tied and self._is_embedding(self._tensors[name])

    def _is_embedding(self, head: _safetensors.Tensor) -> bool:
        embedding = self._tensors[self.family.embedding]
        if head[1:3] != embedding[1:3]:
            return False
        pairs = zip(head.blocks(), embedding.blocks(), strict=True)
        return all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for (_, a), (_, b) in pairs)

    def read(self, parameters: Mapping[str, Float]) -> None:
        """Fills a model's arrays."""
        for name, array in parameters.items():
            flat = array.reshape(-1)
            for first, numbers in self._tensors[name].blocks():
                flat[first : first + numbers.size] = numbers


def save(model: Model, folder: str | os.PathLike[str], dtype: str) -> None:
    """Writes a model's folder."""
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected one of {list(_DTYPES)}")
    kind, name = _DTYPES[dtype]
    family, keys = _families.family_for(model.config), model.config.to_hugging_face()
    keys["dtype"] = keys["torch_dtype"] = name
    arrays = {
        family.file_name(name): numbers for name, numbers in family.arrays(model.config, model.parameters)
    }
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    _safetensors.write(path / "model.safetensors", arrays, kind)
    if model.tokenizer is not None:
        for file, text in model.tokenizer.files().items():
            _files.write(path / file, text.encode())
        keys |= model.tokenizer.special()
    _files.write(path / "config.json", (json.dumps(keys, indent=2) + "\n").encode())
