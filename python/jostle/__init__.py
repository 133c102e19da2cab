"""Trains small transformer language models: fast, and with the same bits everywhere.

>>> import jostle
>>> text = "I like to ski when it snows. " * 50

>>> tokenizer = jostle.CharTokenizer.from_text(text)
>>> config = jostle.Config(vocab=tokenizer.vocab, context=32, layers=2, heads=2, width=32)
>>> model = jostle.Model(config, seed=1337)

>>> trainer = jostle.Trainer(model, jostle.AdamW(model), train=tokenizer.encode(text), batch=8, steps=50)
>>> for report in trainer:
...     last = report
>>> last.loss < 3
True
>>> continuation = tokenizer.decode(model.generate(tokenizer.encode("I like"), 40))

The legend of all shapes: B sequences, T their length, C the width, V the vocabulary, L layers, H heads.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jostle import callbacks, data, ops
from jostle.adapters import LoRA
from jostle.config import Config
from jostle.model import Model
from jostle.optimizers import SGD, AdamW, Optimizer
from jostle.planning import Plan, plan
from jostle.schedules import Constant, Cosine, Linear, Schedule, WarmupStableDecay
from jostle.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    Llama2cTokenizer,
    PretrainedTokenizer,
    Tokenizer,
    WordTokenizer,
)
from jostle.training import Report, Trainer

if TYPE_CHECKING:
    from jostle import plot as plot
    from jostle import runs as runs

__version__ = version("jostle")

__all__ = [
    "SGD",
    "AdamW",
    "ByteTokenizer",
    "CharTokenizer",
    "Config",
    "Constant",
    "Cosine",
    "Linear",
    "Llama2cTokenizer",
    "LoRA",
    "Model",
    "Optimizer",
    "Plan",
    "PretrainedTokenizer",
    "Report",
    "Schedule",
    "Tokenizer",
    "Trainer",
    "WarmupStableDecay",
    "WordTokenizer",
    "callbacks",
    "data",
    "ops",
    "plan",
]


def __getattr__(name: str) -> Any:
    # Imported when they are used: most programs need neither, and `plot` needs matplotlib.
    if name in ("plot", "runs"):
        return importlib.import_module(f"jostle.{name}")
    raise AttributeError(f"module 'jostle' has no attribute {name!r}")
