"""The command line, a file per command. It holds no arithmetic: the package computes everything."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated

import typer

import jostle
from jostle.cli import chat, generate, plan, plot, predict, tokenize, train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"jostle {jostle.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """This program trains small transformer language models, generates text with them, and draws pictures of them."""


for module in (train, tokenize, generate, chat, predict, plan, plot):
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=f"Example: {module.EXAMPLE}")(module.command)


def run() -> None:
    """Runs the command line. An error of the package becomes one line on stderr and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        # A sample's characters that the terminal lacks must not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        app(prog_name="jostle")
    except OSError as error:
        name = "" if error.filename is None else f"{error.filename}: "
        _refuse(f"{name}{error.strerror or error}")
    except (ValueError, IndexError, ArithmeticError, MemoryError, ImportError) as error:
        _refuse(str(error) or type(error).__name__)


def _refuse(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1)
