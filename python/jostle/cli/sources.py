"""What `jostle train` trains on: texts, token files and examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import typer

from jostle import _documents, data, runs
from jostle.cli import options
from jostle.model import Model
from jostle.tokenizers import Tokenizer


class Tokens(NamedTuple):
    """A text as tokens, before there is a model."""

    tokens: runs.Tokens
    vocab: int
    tokenizer: Tokenizer | None
    kind: str
    """The tokenizer's, as in a run's configuration."""
    files: list[dict[str, Any]]
    own: dict[str, bytes] = {}
    """The files that the run's folder keeps, by name: the text from standard input."""


def read_tokens(ctx: typer.Context, files: list[Path], tokenizer: str | None, vocab: int | None) -> Tokens:
    """The tokens of texts or of a token file."""
    if any(file.suffix == ".jsonl" for file in files):
        raise typer.BadParameter(
            "JSON lines need a model to start --from; jostle tokenize makes a token file of their texts",
            ctx,
            param_hint="FILE",
        )
    if any(map(runs.is_token_file, files)):
        return _read_token_file(ctx, files, tokenizer, vocab)
    kind = tokenizer or "char"
    options.check_vocab(ctx, kind, vocab)
    text = runs.Text.read(_documents.files(files, (".txt",)))
    made = runs.make_tokenizer(kind, text.text, vocab)
    kind = kind if kind in runs.KINDS else runs.GIVEN
    return Tokens(made.encode(text.text), made.vocab, made, kind, text.files, text.own)


def _read_token_file(
    ctx: typer.Context, files: list[Path], tokenizer: str | None, vocab: int | None
) -> Tokens:
    if len(files) > 1:
        raise typer.BadParameter("a token file is trained on alone", ctx, param_hint="FILE")
    if tokenizer in runs.KINDS:
        raise typer.BadParameter(
            "a token file needs its own tokenizer, in a file or folder", ctx, param_hint="--tokenizer"
        )
    (path,) = files
    beside = data.tokenizer_path(path)
    if tokenizer is None and beside.exists():
        tokenizer = str(beside)
    made = None if tokenizer is None else runs.make_tokenizer(tokenizer, "")
    vocab = made.vocab if vocab is None and made is not None else vocab
    if vocab is None:
        raise typer.BadParameter(
            f"{path} has no {beside.name} beside it; give its tokenizer, or the size of its vocabulary",
            ctx,
            param_hint=["--tokenizer", "--vocab"],
        )
    return Tokens(runs.read_tokens(path, vocab), vocab, made, runs.GIVEN, [runs.describe(path)])


class Source(NamedTuple):
    """Texts or batches for a model that exists."""

    train: Any
    validation: Any
    files: list[dict[str, Any]]
    own: dict[str, bytes]
    epoch: int
    """The micro-batches that have about as many tokens as there are."""


def read_for(
    model: Model, ctx: typer.Context, files: list[Path], length: int, batch: int, seed: int
) -> Source:
    """The texts, the token file or the examples for a model, in sequences of at most this length."""
    found = _documents.files(files, (".jsonl", ".txt"))
    if any(file.suffix == ".jsonl" for file in found):
        tokenizer = _tokenizer(model)
        batches = runs.read_examples(found, tokenizer, length, batch, seed)
        return Source(*batches, list(map(runs.describe, found)), {}, len(batches[0]))
    if any(map(runs.is_token_file, files)):
        read = _read_token_file(ctx, files, None, model.config.vocab)
    else:
        text = runs.Text.read(found)
        tokens = _tokenizer(model).encode(text.text)
        read = Tokens(tokens, model.config.vocab, model.tokenizer, runs.GIVEN, text.files, text.own)
    train, validation = runs.split(read.tokens, length)
    return Source(train, validation, read.files, read.own, -(-len(train) // (batch * length)))


def _tokenizer(model: Model) -> Tokenizer:
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer; only a token file can be trained on")
    return model.tokenizer
