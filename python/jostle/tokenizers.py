"""Text to tokens and back. A model's checkpoint keeps its tokenizer."""

from __future__ import annotations

import base64
import codecs
import importlib
import json
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jostle import _arguments, _files, _native, _tokenizer_json


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

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of tokens, piece by piece, as they arrive. Tokens wait until their characters are complete."""
        for token in tokens:
            yield self.decode([token])

    beginning: tuple[int, ...] = ()
    """The tokens that begin a document."""

    end_of_text: int | None = None
    """The token that ends a document."""

    def chat(self, messages: Iterable[Mapping[str, Any]], *, answer: bool = True) -> str:
        """The text of a conversation. ValueError if the tokenizer has no chat template."""
        raise ValueError("the tokenizer has no chat template")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that `load` reads. It appears complete or not at all."""
        _files.write(path, (json.dumps(self.state()) + "\n").encode())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer in a file that `save` wrote, in a tokenizer.json, in a tokenizer.bin of llama2.c, or in a Hugging Face
        folder. ValueError if there is none."""
        from jostle import _pretrained

        return _pretrained.load_tokenizer(Path(path))

    def files(self) -> dict[str, str]:
        """The files of a Hugging Face folder, by name: a tokenizer.json that gives the same tokens. None for a class of your
        own. ValueError for characters that have no UTF-8."""
        return {}

    def special(self) -> dict[str, int]:
        """The keys of config.json for the tokens that begin and end a text, as far as they are known."""
        return {}

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
        if kind == "pretrained":
            json_text = _arguments.instance("json", state["json"], str)
            return PretrainedTokenizer(json_text, _arguments.instance("settings", state["settings"], dict))
        if kind == "llama2c":
            file = base64.b64decode(_arguments.instance("file", state["file"], str), validate=True)
            return Llama2cTokenizer(file)
        raise ValueError(
            f"this checkpoint uses a custom tokenizer {kind!r}; in Python, pass it as tokenizer="
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.state() == other.state()

    def __hash__(self) -> int:
        return hash((type(self), self.vocab))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab={self.vocab})"


def _texts(text: str | Iterable[str]) -> Iterator[str]:
    """A text as its parts."""
    parts = text if isinstance(text, Iterable) and not isinstance(text, (str, bytes)) else (text,)
    for part in parts:
        yield _arguments.instance("text", part, str)


def _narrow(tokens: Any, vocab: int) -> npt.NDArray[Any]:
    """Tokens in the narrowest integers that training accepts without a copy."""
    kind = np.uint8 if vocab <= 1 << 8 else np.uint16 if vocab <= 1 << 16 else np.int32
    return np.asarray(tokens, dtype=kind)


def _known(tokens: Iterable[int], vocab: int, most: int | None = None) -> list[int]:
    """Tokens from 0 to `most`, by default the last one of the vocabulary. IndexError for another."""
    numbers = [operator.index(token) for token in tokens]
    end = vocab if most is None else most + 1
    for index, token in enumerate(numbers):
        if not 0 <= token < end:
            raise IndexError(f"token {token} at index {index} is outside the vocabulary of {vocab}")
    return numbers


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
        return self._join([self._pieces[token] for token in _known(tokens, self.vocab)])

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
    def from_text(cls, text: str | Iterable[str]) -> CharTokenizer:
        """The tokenizer of the characters of a text, or of several."""
        return cls(sorted(set().union(*_texts(text))))

    def encode(self, text: str) -> npt.NDArray[Any]:
        return self._encode(_arguments.instance("text", text, str), "character")

    def files(self) -> dict[str, str]:
        return _tokenizer_json.characters(self._pieces)

    def state(self) -> dict[str, Any]:
        return {"kind": "char", "characters": "".join(self._pieces)}


class WordTokenizer(_Table):
    """A token for each word, number, run of spaces and other character of a text: nothing is lost."""

    _pattern = re.compile(r"[^\W\d_]+|\d+|\s+|.", re.DOTALL)

    @classmethod
    def from_text(cls, text: str | Iterable[str]) -> WordTokenizer:
        """The tokenizer of the words of a text, or of several."""
        return cls(sorted(set().union(*map(cls._pattern.findall, _texts(text)))))

    def encode(self, text: str) -> npt.NDArray[Any]:
        return self._encode(self._pattern.findall(_arguments.instance("text", text, str)), "word")

    def files(self) -> dict[str, str]:
        # The first two kinds of the pattern.
        kinds = [
            {c for piece in self._pieces for c in re.findall(kind, piece)} for kind in (r"[^\W\d_]", r"\d")
        ]
        return _tokenizer_json.words(self._pieces, *kinds)

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

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            yield decoder.decode(bytes([token]))
        yield decoder.decode(b"", final=True)

    def files(self) -> dict[str, str]:
        return _tokenizer_json.utf8()

    def state(self) -> dict[str, Any]:
        return {"kind": "byte"}


class Llama2cTokenizer(Tokenizer):
    """A tokenizer.bin of llama2.c, from the file's bytes: byte-pair encoding with scores.

    A character without a token becomes its bytes, so it encodes every text.
    """

    def __init__(self, file: bytes) -> None:
        self._native = _native.Llama2cTokenizer(_arguments.instance("file", file, bytes))
        self.vocab = self._native.vocab()
        self.file = file
        """The file's bytes."""

    @classmethod
    def from_pieces(cls, pieces: Iterable[tuple[bytes, float]]) -> Llama2cTokenizer:
        """Makes a tokenizer of texts and scores, which begin with `<unk>`, BOS, EOS, and `<0x00>` to `<0xFF>`. Two neighbours
        merge before others if the resulting token has a higher score."""
        return cls(_native.Llama2cTokenizer.write(list(pieces)))

    def encode(self, text: str, *, bos: bool = True, eos: bool = False) -> npt.NDArray[Any]:
        """Tokens (length,) of a text, by default with BOS (1) in front, without which `decode` leaves a space there. eos:
        whether EOS (2) ends them."""
        text = _arguments.instance("text", text, str)
        bos, eos = _arguments.instance("bos", bos, bool), _arguments.instance("eos", eos, bool)
        return _narrow(np.frombuffer(self._native.encode(text.encode(), bos, eos), np.int32), self.vocab)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens. Bytes that are not UTF-8 become replacement characters."""
        return self._native.decode(None, _known(tokens, self.vocab)).decode(errors="replace")

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        previous = None
        for token in tokens:
            yield decoder.decode(self._native.decode(previous, _known([token], self.vocab)))
            previous = int(token)
        yield decoder.decode(b"", final=True)

    def state(self) -> dict[str, Any]:
        return {"kind": "llama2c", "file": base64.b64encode(self.file).decode()}


_MOST_WAITING = 8
"""The most tokens that wait for the end of a character: no character has more bytes."""


class PretrainedTokenizer(Tokenizer):
    """A tokenizer of the package `tokenizers`, from the text of its tokenizer.json. Needs the extra jostle[hf].

    settings: the object in tokenizer_config.json, with the names of special tokens and the chat template.

    `encode` adds no special tokens; those that a text has are found. A model may have more tokens than its tokenizer: these
    have no text.
    """

    def __init__(self, json_text: str, settings: Mapping[str, Any] | None = None) -> None:
        package = _package()
        try:
            self._tokenizer = package.Tokenizer.from_str(_arguments.instance("json_text", json_text, str))
        except Exception as error:
            if isinstance(error, TypeError):
                raise
            raise ValueError(f"not a tokenizer.json: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._settings = dict(settings or {})
        # Numbers may have gaps.
        self.vocab = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if not self.vocab:
            raise ValueError("not a tokenizer.json: it has no tokens")

    @classmethod
    def from_text(cls, text: str | Iterable[str], vocab: int) -> PretrainedTokenizer:
        """A byte-level BPE with at most `vocab` tokens, at least 256, trained on a text, or on several. It encodes every
        text."""
        vocab = _arguments.integer("vocab", vocab, 256, _arguments.MOST_SIZE)
        package = _package()
        from tokenizers import decoders, models, pre_tokenizers, trainers

        made = package.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        size = 1 << 20
        parts = (part[i : i + size] for part in _texts(text) for i in range(0, len(part), size))
        made.train_from_iterator(parts, trainer)
        return cls(made.to_str())

    def encode(self, text: str) -> npt.NDArray[Any]:
        text = _arguments.instance("text", text, str)
        return _narrow(self._tokenizer.encode(text, add_special_tokens=False).ids, self.vocab)

    def decode(self, tokens: Iterable[int]) -> str:
        numbers = _known(tokens, self.vocab, _arguments.MOST_SIZE)
        return str(self._tokenizer.decode(numbers, skip_special_tokens=False))

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        # The piece before decides on a space between the two.
        before: list[int] = []
        waiting: list[int] = []
        for token in tokens:
            waiting.append(token)
            piece = self._after(before, waiting)
            if not piece.endswith("\ufffd") or len(waiting) == _MOST_WAITING:
                yield piece
                before, waiting = waiting, []
        if waiting:
            yield self._after(before, waiting)

    def _after(self, before: list[int], tokens: list[int]) -> str:
        return self.decode(before + tokens)[len(self.decode(before)) :]

    def chat(self, messages: Iterable[Mapping[str, Any]], *, answer: bool = True) -> str:
        """The text of a conversation, by the tokenizer's chat template: what to encode.

        messages: objects with "role" ("system", "user" or "assistant") and "content". answer: whether the text ends with the
        beginning of an answer. ValueError if there is no template, or if it does not accept the messages.
        """
        template = self._settings.get("chat_template")
        if not isinstance(template, str):
            raise ValueError("the tokenizer has no chat template")
        jinja2 = _package("jinja2")
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = _to_json
        special = {name: self._special(name) for name in ("bos_token", "eos_token")}
        try:
            return environment.from_string(template).render(
                messages=list(messages),
                add_generation_prompt=answer,
                **{name: token for name, token in special.items() if token is not None},
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise ValueError(f"the chat template: {error}") from None

    def _special(self, name: str) -> str | None:
        """The text of a special token."""
        token = self._settings.get(name)
        # An object has the text and how it is found.
        token = token.get("content") if isinstance(token, dict) else token
        return token if isinstance(token, str) else None

    def files(self) -> dict[str, str]:
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self._settings}
        return {
            "tokenizer.json": self._tokenizer.to_str(pretty=True) + "\n",
            "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False) + "\n",
        }

    @cached_property
    def end_of_text(self) -> int | None:  # type: ignore[override]
        return self.special().get("eos_token_id")

    @cached_property
    def beginning(self) -> tuple[int, ...]:  # type: ignore[override]
        around = self._tokenizer.encode("", add_special_tokens=True).ids
        return tuple(token for token in around if token != self.end_of_text)

    def special(self) -> dict[str, int]:
        found = {}
        for name in ("bos_token", "eos_token"):
            token = self._special(name)
            number = None if token is None else self._tokenizer.token_to_id(token)
            if number is not None:
                found[f"{name}_id"] = number
        return found

    def state(self) -> dict[str, Any]:
        return {"kind": "pretrained", "json": self._tokenizer.to_str(), "settings": self._settings}


def _package(name: str = "tokenizers") -> Any:
    """A package of the extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs the package {name}: pip install 'jostle[hf]'") from error


def _refuse(sentence: str) -> None:
    """How a chat template refuses messages."""
    raise ValueError(f"the chat template: {sentence}")


def _to_json(value: Any, indent: int | None = None) -> str:
    """As Transformers has it: Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
