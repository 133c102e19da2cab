"""jostle predict: the most probable next tokens."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jostle import runs
from jostle.cli import options, text

EXAMPLE = "jostle predict runs/shakespeare-1 'To be or not to b' --top 5"


def command(
    model: options.Model,
    prompt: options.Prompt,
    top: Annotated[int, typer.Option(min=1, help="How many tokens to show.")] = 10,
) -> None:
    """Show the most probable next tokens."""
    loaded = runs.load(model)
    tokenizer = text.tokenizer_of(loaded)
    probabilities = loaded.probabilities(text.encode(loaded, prompt))
    table = Table("token", box=None)
    table.add_column("probability", justify="right")
    table.add_column()
    for token in np.argsort(-probabilities, kind="stable")[:top]:
        probability = float(probabilities[token])
        table.add_row(
            Text(repr(tokenizer.decode([token]))), f"{probability:.2%}", Bar(1, 0, probability, width=40)
        )
    Console().print(table)
