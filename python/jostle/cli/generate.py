"""jostle generate: continues a text."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from jostle import runs
from jostle.cli import options, text

EXAMPLE = "jostle generate runs/shakespeare-1 'O God' --count 300 --temperature 0.8"


def command(
    model: options.Model,
    prompt: options.Prompt,
    count: Annotated[int, typer.Option(min=0, help="The number of tokens to add.")] = 500,
    temperature: options.Temperature = 0.8,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="A string that ends the text, and is not shown. May be repeated.", show_default=False
        ),
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Continue a text, until the model ends it or the tokens are enough."""
    loaded = runs.load(model)
    tokens = loaded.generate(
        text.encode(loaded, prompt),
        count,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stream=True,
        stop=[*text.stops(text.tokenizer_of(loaded)), *(stop or ())],
        repetition_penalty=repetition_penalty,
    )
    text.show(itertools.chain([prompt], text.tokenizer_of(loaded).pieces(tokens)))
