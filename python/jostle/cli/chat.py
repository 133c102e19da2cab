"""jostle chat: a conversation with a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from jostle import runs
from jostle.cli import options, text

EXAMPLE = "jostle chat runs/chats-1/model --system 'You answer briefly.'"


def command(
    model: options.Model,
    system: Annotated[
        str | None, typer.Option(help="The first message, which tells the model how to answer.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")] = 500,
    temperature: options.Temperature = 0.8,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = 1.0,
    seed: options.Seed = 0,
) -> None:
    """Talk with a model. Each line of input is a message; the end of the input ends the conversation."""
    loaded = runs.load(model)
    tokenizer = text.tokenizer_of(loaded)
    tokenizer.chat(
        [{"role": "user", "content": "?"}]
    )  # without a template, an error before the first message
    messages = [] if system is None else [{"role": "system", "content": system}]
    for number, line in enumerate(_lines()):
        messages.append({"role": "user", "content": line})
        prompt = tokenizer.encode(tokenizer.chat(messages))
        tokens = loaded.generate(
            prompt,
            count,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed + number,
            stream=True,
            stop=text.stops(tokenizer, answer=True),
            repetition_penalty=repetition_penalty,
        )
        messages.append({"role": "assistant", "content": text.show(tokenizer.pieces(tokens))})


def _lines() -> Iterator[str]:
    """The lines of input that are not empty, with a prompt in a terminal."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
