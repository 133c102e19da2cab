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
    temperature: Annotated[
        float, typer.Option(help="Divides the logits; 0 takes the most probable token.")
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Keep that many tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Keep the fewest tokens with that much probability.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Keep the tokens with this share of the greatest probability.")
    ] = None,
    seed: options.Seed = 0,
) -> None:
    """Continue a text."""
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
    )
    text.show(itertools.chain([prompt], text.tokenizer_of(loaded).pieces(tokens)))
