"""What runs train on: texts, token files and examples, with the checksums of their files."""

from __future__ import annotations

import codecs
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jostle import _documents, data
from jostle.data import Batches
from jostle.tokenizers import ByteTokenizer, CharTokenizer, PretrainedTokenizer, Tokenizer, WordTokenizer

Tokens = npt.NDArray[Any]

_MOST_VALIDATION = 1 << 20
"""The most tokens of a token file that each evaluation reads."""

STANDARD_INPUT = "stdin.txt"
"""The file in a run's folder with what was read from standard input."""


class Text(NamedTuple):
    """Joined texts, and checksums that later show whether a file was changed."""

    text: str
    files: list[dict[str, Any]]
    """path (absolute), size in bytes and sha256 of each."""
    own: dict[str, bytes] = {}
    """What was read from standard input, by the name of the file in the run's folder."""

    @classmethod
    def read(cls, paths: Iterable[str | os.PathLike[str]]) -> Text:
        """Raises OSError for a file that cannot be read, ValueError for one that is empty or not UTF-8. A byte order
        mark, which some editors write, is not part of the text. The path "-" is standard input."""
        texts, files, own = [], [], {}
        for path in map(Path, paths):
            if path == _documents.STANDARD_INPUT:
                own[STANDARD_INPUT] = contents = sys.stdin.buffer.read()
                texts.append(_decoded(contents, Path("standard input")))
                digest = hashlib.sha256(contents).hexdigest()
                files.append({"path": STANDARD_INPUT, "size": len(contents), "sha256": digest})
                continue
            if path.exists() and not path.is_file() and not path.is_dir():
                raise ValueError(
                    f"{path} is not a regular file; a run reads its text again, to resume and to draw"
                )
            texts.append(_decoded(path.read_bytes(), path))
            files.append(describe(path))
        return cls("".join(texts), files, own)


def _decoded(contents: bytes, path: Path) -> str:
    if not contents:
        raise ValueError(f"{path} is empty")
    try:
        return contents.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from None


def describe(path: Path) -> dict[str, Any]:
    """A file's path, size and checksum, as in a run's configuration."""
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            digest.update(block)
    return {"path": str(path.resolve()), "size": size, "sha256": digest.hexdigest()}


def is_as_before(path: Path, file: Mapping[str, Any]) -> bool:
    """Whether a file has the contents that a configuration describes."""
    try:
        return path.stat().st_size == file["size"] and bool(describe(path)["sha256"] == file["sha256"])
    except OSError:
        return False


GIVEN = "file"
"""The kind of a tokenizer that a run was given."""

KINDS = ("char", "word", "byte", "bpe")
"""The tokenizers that are made of a text."""


def make_tokenizer(kind: str, text: str | Iterable[str], vocab: int | None = None) -> Tokenizer:
    """The tokenizer of a text, or of several: "char", "word", "byte" or "bpe", which has at most `vocab` tokens, 4096 by
    default. Any other `kind` is the path of a tokenizer, as of `Tokenizer.load`."""
    if kind == "char":
        return CharTokenizer.from_text(text)
    if kind == "word":
        return WordTokenizer.from_text(text)
    if kind == "byte":
        return ByteTokenizer()
    if kind == "bpe":
        return PretrainedTokenizer.from_text(text, 4096 if vocab is None else vocab)
    if not Path(kind).exists():
        raise ValueError(
            f"tokenizer is {kind!r}; expected {', '.join(KINDS)}, or a file or folder that has one"
        )
    return Tokenizer.load(kind)


def is_token_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a token file, by its name."""
    return Path(path).suffix == data.SUFFIX


def read_tokens(path: str | os.PathLike[str], vocab: int) -> Tokens:
    """The tokens of a token file. Without a header, they have as many bits as the vocabulary needs."""
    return data.read_tokens(path, "u16" if vocab <= 1 << 16 else "u32")


def read_examples(
    paths: Sequence[Path], tokenizer: Tokenizer, length: int, batch: int, seed: int
) -> tuple[Batches, Batches]:
    """Batches of at most this length for training and for validation, which is in the files called valid.jsonl or else in
    the last tenth."""
    for_validation = [path for path in paths if path.name == "valid.jsonl"]
    rest = [path for path in paths if path not in for_validation]
    train = data.read_examples(rest, tokenizer, length)
    if for_validation:
        validation = data.read_examples(for_validation, tokenizer, length)
    else:
        train, validation = data.split(train)
    return Batches(train, batch, seed), Batches(validation, batch)


def split(tokens: Tokens, context: int) -> tuple[Tokens, Tokens]:
    """Tokens for training and, from the last tenth, for validation. ValueError if they are too few. Of a token file, at most
    1,048,576 tokens are for validation."""
    validation = -(-len(tokens) // 10)
    if isinstance(tokens, np.memmap):
        validation = min(validation, _MOST_VALIDATION)
    training = len(tokens) - validation
    if training <= context:
        wanted = -(-(context + 1) * 10 // 9)
        raise ValueError(
            f"the text has {len(tokens)} tokens; at least {wanted} are needed for a context of {context}"
        )
    return tokens[:training], tokens[training:]
