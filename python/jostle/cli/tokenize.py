"""jostle tokenize: turns texts into a token file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from jostle import _documents, _native, data, runs
from jostle.cli import options, progress

EXAMPLE = "jostle tokenize texts --tokenizer gpt2 --out tokens.bin"


def command(
    ctx: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help='Texts in UTF-8, JSON lines with {"text": "..."}, folders of both, or - for standard input.',
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The token file, whose name ends in .bin.", show_default=False)],
    tokenizer: options.Tokenizer = None,
    vocab: options.Vocab = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="The number of processes.", show_default="all processors"),
    ] = None,
) -> None:
    """Turn texts into a token file.

    Each file, and each line of a .jsonl file, is a document. Each document ends with the token for that, if the tokenizer
    has one. The tokenizer is saved beside the token file.
    """
    if not runs.is_token_file(out):
        raise typer.BadParameter(f"{str(out)!r} does not end in {data.SUFFIX}", ctx, param_hint="--out")
    kind = tokenizer or "char"
    options.check_vocab(ctx, kind, vocab)
    found = _documents.files(files)
    if _documents.STANDARD_INPUT in found and kind in runs.KINDS and kind != "byte":
        raise typer.BadParameter(
            f"{kind} is made of the text, and standard input can be read only once; name a file or folder with a"
            " tokenizer",
            ctx,
            param_hint="--tokenizer",
        )
    made = runs.make_tokenizer(kind, ("".join(parts) for parts in _documents.documents(found)), vocab)
    with progress.of_bytes(_documents.size(found)) as report:
        pieces = _documents.tokens(
            _documents.documents(found), made, processes or _native.available_threads(), report
        )
        count = data.write_tokens(out, pieces, made.vocab)
    made.save(data.tokenizer_path(out))
    print(f"{count:,} tokens ({made.vocab:,} different), {os.stat(out).st_size:,} bytes: {out}")
