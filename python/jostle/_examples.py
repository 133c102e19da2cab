"""Examples for fine-tuning: texts, completions and conversations as tokens, and batches of them."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jostle import _arguments, _documents
from jostle._arrays import Int
from jostle._checkpoint import understood
from jostle.tokenizers import Tokenizer

PADDING = 0
"""The token after the end of a sequence. Nothing sees it, because attention is causal and its targets do not count."""

_FORMS = '"text", or "prompt" and "completion", or "messages"'


class Example(NamedTuple):
    """Tokens (length,), at least two, and whether each counts when it is predicted (length,)."""

    tokens: Int
    counted: npt.NDArray[np.bool_]

    @property
    def inputs(self) -> Int:
        """The tokens that the model reads: all but the last."""
        return self.tokens[:-1]

    @property
    def targets(self) -> Int:
        """The token that follows each of the inputs, or -1 if it does not count."""
        return np.where(self.counted[1:], self.tokens[1:], np.int32(-1))


def read_examples(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], tokenizer: Tokenizer, context: int
) -> list[Example]:
    """The examples in files of JSON lines, or in folders of them. A line has an object in one of these forms:

    - {"text": "..."}: all tokens count. A text that is longer than `context` becomes several examples.
    - {"prompt": "...", "completion": "..."}: the tokens of the completion count. Both may be lists of messages instead.
    - {"messages": [{"role": "user", "content": "..."}, ...]}: the turns of the assistant count. The tokenizer needs a chat
      template.

    Texts and completions end with the tokenizer's token for that. Others than texts are cut after `context` tokens; a
    RuntimeWarning tells how many. ValueError, which names the file and the line, for anything else.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    files = [Path(path) for path in given]
    examples: list[Example] = []
    cut = lost = 0
    for path in _documents.files(files, (".jsonl",)):
        for number, line in _documents.lines(path):
            with understood(f"{path}, line {number}"):
                for example in examples_of(line, tokenizer):
                    if "text" in line:
                        examples += _windows(example, context)
                        continue
                    cut += len(example.inputs) > context
                    short = Example(example.tokens[: context + 1], example.counted[: context + 1])
                    if (short.targets >= 0).any():
                        examples.append(short)
                    else:
                        lost += 1
    if cut or lost:
        warnings.warn(
            f"{cut} examples are longer than the context, {context}, and are cut; {lost} are left out, because none of their"
            " tokens counts",
            RuntimeWarning,
            stacklevel=2,
        )
    if not examples:
        raise ValueError(f"there are no examples in {', '.join(map(str, files))}")
    return examples


def _windows(example: Example, context: int) -> Iterator[Example]:
    """Examples that predict each token but the first once."""
    for first in range(0, len(example.inputs), context):
        part = slice(first, first + context + 1)
        yield Example(example.tokens[part], example.counted[part])


def examples_of(line: Mapping[str, Any], tokenizer: Tokenizer) -> Iterator[Example]:
    """The examples of an object in one of the forms of `read_examples`."""
    if "tools" in line:
        raise ValueError("tools are not supported")
    if "text" in line:
        tokens = _document(_arguments.instance("text", line["text"], str), tokenizer)
        yield _example(tokens, [(1, len(tokens))])
    elif "messages" in line:
        yield from _conversation([], _arguments.instance("messages", line["messages"], list), tokenizer)
    elif "prompt" in line and "completion" in line:
        prompt, completion = line["prompt"], line["completion"]
        if isinstance(prompt, list) and isinstance(completion, list):
            yield from _conversation(prompt, completion, tokenizer)
            return
        prompt = _arguments.instance("prompt", prompt, str)
        completion = _arguments.instance("completion", completion, str)
        tokens = _document(prompt + completion, tokenizer)
        yield _example(
            tokens, [(_common([*tokenizer.beginning, *tokenizer.encode(prompt)], tokens), len(tokens))]
        )
    else:
        raise ValueError(f"the keys are {_arguments.brief(list(line))}; expected {_FORMS}")


def _document(text: str, tokenizer: Tokenizer) -> list[int]:
    """The tokens of a whole text, with those that begin and end one."""
    end = tokenizer.end_of_text
    tokens = [*tokenizer.beginning, *map(int, tokenizer.encode(text))]
    return tokens if end is None or (tokens and tokens[-1] == end) else [*tokens, end]


def _conversation(before: list[Any], rest: list[Any], tokenizer: Tokenizer) -> Iterator[Example]:
    """The example of a conversation, in which the assistant's turns in `rest` count.

    A turn's tokens are those after the tokens of the conversation before it, with the beginning of an answer. Where the
    template writes earlier turns otherwise once later ones follow, each turn is an example by itself.
    """
    messages = [*before, *rest]
    chat = tokenizer.chat
    turns = []
    for number, message in enumerate(messages):
        role = _arguments.instance("a message", message, dict)["role"]
        if role == "assistant" and number >= len(before):
            turns.append(number)
    if not turns:
        raise ValueError("there is no turn of the assistant")
    whole = chat(messages, answer=False)
    spans = [(chat(messages[:turn], answer=True), chat(messages[: turn + 1], answer=False)) for turn in turns]
    if all(whole.startswith(through) and through.startswith(begin) for begin, through in spans):
        wholes = {whole: spans}
    else:
        wholes = {through: [(begin, through)] for begin, through in spans}
    for text, parts in wholes.items():
        tokens = [int(token) for token in tokenizer.encode(text)]
        ranges = [[_common(tokenizer.encode(part), tokens) for part in pair] for pair in parts]
        yield _example(tokens, ranges)


def _common(beginning: Iterable[int], tokens: Sequence[int]) -> int:
    """How many tokens both have in common from their beginnings on."""
    count = 0
    for one, other in zip(beginning, tokens, strict=False):
        if one != other:
            break
        count += 1
    return count


def _example(tokens: Sequence[int], ranges: Iterable[Sequence[int]]) -> Example:
    """The example in which the tokens of the ranges count."""
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} tokens; expected at least 2")
    counted = np.zeros(len(tokens), np.bool_)
    for begin, end in ranges:
        counted[begin:end] = True
    return Example(np.array(tokens, np.int32), counted)


class Batches:
    """Examples as batches for `Trainer`: pairs of tokens and targets (B, T), as long as the longest of its examples.

    Each iteration is an epoch: every example once. Examples of like lengths share a batch. Their order is a function of the
    seed and the epoch. `Trainer.resume` continues within an epoch.
    """

    def __init__(self, examples: Sequence[Example], batch: int, seed: int = 1337) -> None:
        self.examples = examples
        self.batch = _arguments.size("batch", batch)
        self.seed = _arguments.seed("seed", seed)
        if not examples:
            raise ValueError("there are no examples")
        self._epoch = self._next = 0

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.examples) // self.batch)

    def __iter__(self) -> Iterator[tuple[Int, Int]]:
        groups = self._groups(self._epoch)
        while self._next < len(groups):
            self._next += 1
            yield self._padded(groups[self._next - 1])
        self._next = 0
        self._epoch += 1

    def in_order(self) -> Iterator[tuple[Int, Int]]:
        """Every example once, the shortest first: for an evaluation. The position stays."""
        return map(self._padded, self._cut(range(len(self.examples))))

    def _groups(self, epoch: int) -> list[list[int]]:
        """The numbers of the examples in each batch of an epoch."""
        # Its floats are the same in every version of Python.
        chance = random.Random(f"{self.seed} {epoch}")
        groups = self._cut(sorted(range(len(self.examples)), key=lambda _: chance.random()))
        return sorted(groups, key=lambda _: chance.random())

    def _cut(self, order: Iterable[int]) -> list[list[int]]:
        by_length = sorted(order, key=lambda number: len(self.examples[number].tokens))
        return [by_length[first : first + self.batch] for first in range(0, len(by_length), self.batch)]

    def _padded(self, group: list[int]) -> tuple[Int, Int]:
        examples = [self.examples[number] for number in group]
        shape = len(group), max(len(example.inputs) for example in examples)
        tokens, targets = np.full(shape, PADDING, np.int32), np.full(shape, -1, np.int32)
        for row, example in enumerate(examples):
            tokens[row, : len(example.inputs)] = example.inputs
            targets[row, : len(example.inputs)] = example.targets
        return tokens, targets

    @property
    def longest(self) -> int:
        """The tokens of the longest sequence."""
        return max(len(example.inputs) for example in self.examples)

    @property
    def padding(self) -> float:
        """The share of padding in the batches."""
        lengths = [
            [len(self.examples[number].inputs) for number in group]
            for group in self._cut(range(len(self.examples)))
        ]
        rows = sum(len(group) * max(group) for group in lengths)
        return 1 - sum(map(sum, lengths)) / rows

    def state_dict(self) -> dict[str, int]:
        """The position: the epoch, and the batches of it that were drawn."""
        return {"epoch": self._epoch, "batches": self._next}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continues at a position."""
        epoch, batches = (_arguments.count(name, state[name]) for name in ("epoch", "batches"))
        self._epoch, self._next = epoch, min(batches, len(self))


def split(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Examples for training and, from the last tenth, for validation. ValueError if there are fewer than two."""
    validation = -(-len(examples) // 10)
    if len(examples) <= validation:
        raise ValueError(f"there are {len(examples)} examples; at least 2 are needed")
    return list(examples[:-validation]), list(examples[-validation:])
