"""jostle plan: the memory that training takes."""

from __future__ import annotations

import enum
import re
import shlex
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import jostle
from jostle.cli import options

EXAMPLE = "jostle plan --vocab 96 --context 32 --layers 2 --width 32 --heads 2 --fit 256K"


class Optimizer(str, enum.Enum):
    """The optimizer, which decides what is kept between steps."""

    adamw = "adamw"
    momentum = "momentum"
    none = "none"


def parse_bytes(given: str) -> int:
    """Bytes, as a number or with K, M or G for powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)", given, re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(
            f"{given!r} is not a valid size; expected for example 256K, 1.5M, 2G or plain bytes"
        )
    return int(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))


def command(
    ctx: typer.Context,
    vocab: Annotated[
        int,
        typer.Option(min=1, rich_help_panel=options.MODEL, help="The number of different tokens."),
    ] = 65,
    context: options.Context = 64,
    recipe: options.Recipe = options.Architecture.gpt2,
    layers: options.Layers = 4,
    heads: options.Heads = 4,
    kv_heads: options.KvHeads = None,
    width: options.Width = 128,
    hidden: options.Hidden = None,
    tied: options.Tied = False,
    dropout: options.Dropout = 0.0,
    batch: options.Batch = 12,
    threads: Annotated[int, typer.Option(min=1, help="The number of threads.")] = 1,
    optimizer: Annotated[
        Optimizer, typer.Option(help="AdamW, SGD with momentum, or plain SGD.")
    ] = Optimizer.adamw,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Make each block's activations again in the backward pass."),
    ] = False,
    fused: Annotated[
        bool,
        typer.Option("--fused", help="Update in the backward pass: no clipping, one pass a step."),
    ] = False,
    head_rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="The rows of logits that exist at a time, instead of all.", show_default=False
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A parameter that is not trained, by name or by a pattern like 'h.0.*'. May be repeated.",
            show_default=False,
        ),
    ] = None,
    fit: Annotated[
        int | None,
        typer.Option(
            parser=parse_bytes,
            metavar="BYTES",
            help="A budget, like 256K, 1.5M, 2G: finds the fastest training that takes no more, with at most the"
            " batch and threads given: recomputes where that helps; where nothing else does, fuses the update.",
        ),
    ] = None,
    defines: Annotated[
        bool, typer.Option("--defines", help="Print a C header of #defines instead, for static arrays.")
    ] = False,
    device: Annotated[
        bool,
        typer.Option("--device", help="With --defines: the sizes on a microcontroller, not on this machine."),
    ] = False,
    prefix: Annotated[str, typer.Option(help="With --defines: the prefix of all macros.")] = "MODEL",
) -> None:
    """Show the memory that training takes, without taking it."""
    config = options.config(
        ctx,
        recipe,
        vocab=vocab,
        context=context,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        width=width,
        hidden=hidden,
        tied=tied,
        dropout=dropout,
    )
    plan = jostle.plan(
        config,
        batch,
        threads,
        optimizer.value,
        recompute=recompute,
        fused=fused,
        frozen=freeze or (),
        budget=fit,
        head_rows=head_rows,
    )
    if defines:
        command = shlex.join(["jostle", *sys.argv[1:]])
        print(plan.defines(device=device, prefix=prefix, command=command), end="")
        return
    table = Table("region", box=None)
    table.add_column("bytes", justify="right")
    table.add_column("of training", justify="right")
    besides = [region for region in ("generation", "frozen") if region in plan]
    for region in plan:
        if region not in besides:
            table.add_row(region, f"{plan[region]:,}", f"{plan[region] / plan.training:.1%}")
    table.add_section()
    table.add_row("training", f"{plan.training:,}", "", style="bold")
    for region in besides:
        table.add_row(region, f"{plan[region]:,}", "")
    console = Console()
    console.print(table)
    if plan.recomputed:
        console.print(f"recomputes {plan.recomputed:,} multiply-adds a pass", highlight=False)
    if plan.fused:
        console.print("updates in the backward pass: no clipping, one pass a step", highlight=False)
    if fit is not None:
        console.print(
            f"fits {fit:,} bytes with batch {plan.batch} and threads {plan.threads}", highlight=False
        )
