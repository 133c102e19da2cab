"""jostle plot: pictures of runs."""

from __future__ import annotations

import enum
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jostle.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLE = "jostle plot runs/shakespeare-1 --kind attention --text 'O God, I have'"

LEGIBLE = 24
"""The number of validation tokens in a picture of attention: few enough to be legible."""


class Kind(str, enum.Enum):
    """The kind of picture."""

    loss = "loss"
    attention = "attention"
    surface = "surface"
    all = "all"


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.", show_default=False)],
    kind: Annotated[
        Kind,
        typer.Option(
            help="The loss of all runs in one picture; attention to a text, stage by stage; the surface of"
            " the loss around the trained parameters, with the path of training on it."
        ),
    ] = Kind.loss,
    text: Annotated[
        str | None,
        typer.Option(
            help="The text for attention.", show_default="the beginning of the run's validation text"
        ),
    ] = None,
    layer: Annotated[int, typer.Option(min=0, help="The layer for attention, from 0.")] = 0,
    head: Annotated[
        int | None, typer.Option(min=0, help="The head for attention, from 0.", show_default="all")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder for the pictures.",
            show_default="the run's folder; for the losses of several runs, this folder",
        ),
    ] = None,
) -> None:
    """Draw pictures of runs."""
    draw([Run(path) for path in runs], kind, text, layer, head, out)


def draw(
    runs: list[Run],
    kind: Kind,
    text: str | None = None,
    layer: int = 0,
    head: int | None = None,
    out: Path | None = None,
) -> None:
    """Saves the pictures, and prints their paths."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    drawn: set[Path] = set()
    for path, figure in _figures(runs, kind, text, layer, head):
        if out is not None:
            several = len(runs) > 1 and path.parent != Path()
            path = out / (f"{path.resolve().parent.name}-{path.name}" if several else path.name)
        # Folders in different places may have one name.
        path = next(place for place in _places(path) if place not in drawn)
        drawn.add(path)
        with warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            figure.savefig(path, dpi=150)
        print(path)


def _places(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_stem(f"{path.stem}-{number}")


def _figures(
    runs: list[Run], kind: Kind, text: str | None, layer: int, head: int | None
) -> Iterator[tuple[Path, Figure]]:
    """Pictures, and the folder that they are saved in by default."""
    try:
        from jostle import plot  # Imported here, since only pictures need matplotlib.
    except ImportError as error:
        raise ValueError(str(error)) from None

    if kind in (Kind.loss, Kind.all):
        folder = runs[0].path if len(runs) == 1 else Path()
        yield folder / "loss.png", plot.loss_curves(runs)
    for run in runs:
        if kind in (Kind.attention, Kind.all):
            model = run.model()
            # Tokens instead of text, since bytes that are cut within a character are not text.
            shown = run.tokens()[1][: min(model.config.context, LEGIBLE)] if text is None else text
            yield run.path / "attention.png", plot.attention_stages(model, shown, layer=layer, head=head)
        if kind in (Kind.surface, Kind.all):
            yield run.path / "surface.png", plot.loss_surface(run, run.tokens()[1])
