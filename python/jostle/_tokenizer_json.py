"""The tokenizers of this package as tokenizer.json, which the package `tokenizers` and Transformers read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def files(model: dict[str, Any], splitter: dict[str, Any] | None, decoder: dict[str, Any]) -> dict[str, str]:
    """The files of a Hugging Face folder: their names and contents."""
    whole: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": splitter,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    contents = {"tokenizer.json": whole, "tokenizer_config.json": settings}
    return {name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in contents.items()}


def characters(pieces: Sequence[str]) -> dict[str, str]:
    """A token for each character: BPE that merges nothing."""
    return files(_bpe(pieces), None, {"type": "Fuse"})


def words(pieces: Sequence[str], words: Iterable[str], digits: Iterable[str]) -> dict[str, str]:
    """A token for each run of characters of one kind, and for each character of no kind."""
    found = [set(words), set(digits), {c for piece in pieces for c in piece if c.isspace()}]
    kinds = [_class(kind) for kind in found if kind]
    # Only characters of the vocabulary have tokens, so their kinds can be written down.
    other = f"[^{''.join(kinds)}]" if kinds else "[\\s\\S]"
    pattern = "|".join([*(f"[{kind}]+" for kind in kinds), other])
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    model = {"type": "WordLevel", "vocab": _numbers(pieces), "unk_token": ""}
    return files(model, split, {"type": "Fuse"})


def utf8() -> dict[str, str]:
    """A token for each byte of UTF-8."""
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return files(_bpe(list(_byte_characters())), split, split)


def _bpe(pieces: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": _numbers(pieces),
        "merges": [],
    }


def _numbers(pieces: Sequence[str]) -> dict[str, int]:
    for piece in pieces:
        if any("\ud800" <= character <= "\udfff" for character in piece):
            raise ValueError(f"the piece {piece!r} has no UTF-8, which tokenizer.json needs")
    return {piece: number for number, piece in enumerate(pieces)}


def _class(characters: Iterable[str]) -> str:
    """What stands between the brackets of a regular expression for these characters, as ranges."""
    codes = sorted(map(ord, characters))
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in ranges)


def _byte_characters() -> Iterator[str]:
    """The character that stands for each byte in GPT-2's byte-level tokenizers."""
    shown = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = 0
    for byte in range(256):
        if byte in shown:
            yield chr(byte)
        else:
            yield chr(256 + hidden)
            hidden += 1
