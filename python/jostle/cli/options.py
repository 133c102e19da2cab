"""Options that several commands have."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

import jostle

MODEL = "Model"
"""The panel of `--help` for sizes."""


class Architecture(str, enum.Enum):
    """The choices of a model beside its sizes."""

    gpt2 = "gpt2"
    llama = "llama"


Recipe = Annotated[
    Architecture,
    typer.Option(
        rich_help_panel=MODEL,
        help="The architecture: a GPT-2, or a Llama with RMS norm, rotary positions, SwiGLU and no biases.",
    ),
]

Context = Annotated[
    int,
    typer.Option(min=1, rich_help_panel=MODEL, help="The longest sequence that the model attends to."),
]
Layers = Annotated[int, typer.Option(min=1, rich_help_panel=MODEL, help="The number of blocks.")]
Heads = Annotated[
    int,
    typer.Option(
        min=1, rich_help_panel=MODEL, help="The number of attention heads, which divides the width."
    ),
]
KvHeads = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=MODEL,
        help="The number of heads of keys and values, which divides the heads; with --recipe llama.",
        show_default="as many as heads",
    ),
]
Width = Annotated[int, typer.Option(min=1, rich_help_panel=MODEL, help="Width of the residual stream.")]
Hidden = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=MODEL,
        help="Width inside the MLP.",
        show_default="4 x width; with --recipe llama 8/3 x width, rounded up to a multiple of 32",
    ),
]
Tied = Annotated[
    bool,
    typer.Option("--tied/--untied", rich_help_panel=MODEL, help="Whether the head is the token embedding."),
]
Dropout = Annotated[
    float, typer.Option(help="The probability of dropout, everywhere; at least 0 and below 1.")
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        rich_help_panel=MODEL,
        help="What a token stands for: char, word, byte, bpe, or a tokenizer in a file or a Hugging Face folder.",
        show_default="char; for a token file, the tokenizer beside it",
    ),
]
Vocab = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=MODEL,
        help="The most tokens of a byte-level BPE, which is trained on the text; of a token file without a tokenizer, the"
        " number of different tokens.",
        show_default="4096 with --tokenizer bpe",
    ),
]
Batch = Annotated[int, typer.Option(min=1, help="Sequences in a batch.")]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A checkpoint, a run's folder, or a Hugging Face folder.", show_default=False
    ),
]
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.", show_default=False)]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="The seed of all random numbers.")]
Temperature = Annotated[float, typer.Option(help="Divides the logits; 0 takes the most probable token.")]
TopK = Annotated[int | None, typer.Option(min=1, help="Keep that many tokens.")]
TopP = Annotated[float | None, typer.Option(help="Keep the fewest tokens with that much probability.")]
MinP = Annotated[
    float | None, typer.Option(help="Keep the tokens with this share of the greatest probability.")
]
RepetitionPenalty = Annotated[
    float, typer.Option(help="Makes tokens less probable that the text has already; 1 does nothing.")
]


def check_vocab(ctx: typer.Context, kind: str, vocab: int | None) -> None:
    """Refuses a size for tokenizers that have their own."""
    if vocab is not None and kind != "bpe":
        raise typer.BadParameter("needs --tokenizer bpe", ctx, param_hint="--vocab")


def config(
    ctx: typer.Context, recipe: Architecture, *, kv_heads: int | None, hidden: int | None, **sizes: Any
) -> jostle.Config:
    """The configuration of a new model."""
    if recipe is Architecture.llama:
        # SwiGLU has three matrices. With two thirds of the width they have as many elements as GELU's two.
        hidden = -(-8 * sizes["width"] // 96) * 32 if hidden is None else hidden
        return jostle.Config.llama(kv_heads=kv_heads, hidden=hidden, **sizes)
    if kv_heads is not None:
        raise typer.BadParameter("needs --recipe llama", ctx, param_hint="--kv-heads")
    return jostle.Config(hidden=hidden, **sizes)
