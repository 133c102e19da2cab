"""Shared by the commands that make reports: arguments, Markdown tables, and the format of figures."""

import argparse
import itertools
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from configurations import CONFIGURATIONS, Cell

AnyCell = TypeVar("AnyCell", bound=Cell)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The common arguments."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the report there")
    return parser


def add_configurations(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))


def add_cells(parser: argparse.ArgumentParser) -> None:
    """Arguments whose combinations are all measured."""
    add_configurations(parser)
    parser.add_argument("--dropout", nargs="+", type=float, default=[0.0, 0.1], metavar="RATE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")


def write(report: str, output: Path | None) -> None:
    """Writes to a file, if one is named, and makes its folder."""
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(report)


def publish(report: str, output: Path | None) -> None:
    print(report, end="")
    write(report, output)


def by_threads(cells: Iterable[AnyCell]) -> Iterator[tuple[str, list[AnyCell]]]:
    """A heading for each number of threads, with its cells."""
    for threads, found in itertools.groupby(cells, lambda cell: cell.threads):
        yield f"## {threads} thread{'s' if threads > 1 else ''}", list(found)


def table(
    headings: Sequence[str], rows: Iterable[Iterable[str]], left: Container[int] = (0,)
) -> Iterator[str]:
    """Its lines. Columns are numbers, aligned right, except those at the places `left`."""
    yield row(headings)
    yield f"|{'|'.join('---' if place in left else '---:' for place in range(len(headings)))}|"
    yield from map(row, rows)


def row(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def percent(part: float, whole: float, places: int = 0) -> str:
    return f"{100 * part / whole:.{places}f} %" if whole else "unknown"


def digits(milliseconds: float) -> str:
    """Three significant digits, or all before the point."""
    return f"{milliseconds:.{2 if milliseconds < 10 else 1 if milliseconds < 100 else 0}f}"
