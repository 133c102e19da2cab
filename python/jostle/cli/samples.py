"""Samples of a trained model, in the terminal and in the file sample.txt of its run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from jostle import _files, data
from jostle.cli import text as texts
from jostle.runs import Run
from jostle.training import Trainer

_PROMPT = "The "
"""The beginning of the sample, if the vocabulary has its characters."""
_TOKENS = 500
"""The number of tokens in the sample."""
_SAMPLES = 3
"""The samples after fine-tuning on examples."""
_LONGER = 50
"""The tokens that an answer may have more than the example's."""


def write(run: Run, trainer: Trainer) -> None:
    """Lets the model write, in the terminal and in sample.txt."""
    samples = [_answer(trainer, example) for example in _examples(trainer)] or [_continuation(trainer)]
    shown = []
    for pieces in samples:
        print()
        shown.append(texts.show(pieces))
    _files.write(run.path / "sample.txt", ("\n\n".join(shown) + "\n").encode())


def _examples(trainer: Trainer) -> list[data.Example]:
    """Some of the examples for validation."""
    validation = trainer.validation
    return list(validation.examples[:_SAMPLES]) if isinstance(validation, data.Batches) else []


def _answer(trainer: Trainer, example: data.Example) -> Iterator[str]:
    """The tokens of an example before the first that counts, and how the model continues them."""
    count = max(1, int(example.counted.argmax()))
    return _pieces(trainer, example.tokens[:count], len(example.tokens) - count + _LONGER, answer=True)


def _continuation(trainer: Trainer) -> Iterator[str]:
    tokenizer = texts.tokenizer_of(trainer.model)
    try:
        prompt = tokenizer.encode(_PROMPT)
    except ValueError:
        prompt = trainer.train[:1]
    return _pieces(trainer, prompt, _TOKENS)


def _pieces(trainer: Trainer, prompt: Any, count: int, *, answer: bool = False) -> Iterator[str]:
    tokenizer = texts.tokenizer_of(trainer.model)
    stop = texts.stops(tokenizer, answer=answer)
    tokens = trainer.model.generate(prompt, count, temperature=0.8, seed=trainer.seed, stream=True, stop=stop)
    return tokenizer.pieces(itertools.chain(prompt.tolist(), tokens))
