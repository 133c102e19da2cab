"""Progress: a bar in a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from jostle.training import Report, Trainer

PAUSE = 5.0
"""Seconds between two lines without a terminal."""


class Display:
    """Shows the steps of a training, and a line for each evaluation."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._first = trainer.step
        self._tokens = 0
        self._begin = self._printed = time.perf_counter()
        self._bar: Progress | None = None
        console = Console(highlight=False)
        if sys.stdout.isatty() and console.is_interactive:
            columns = (BarColumn(24), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("", total=trainer.steps, completed=trainer.step)

    def show(self, report: Report) -> None:
        now = time.perf_counter()
        done, steps = report.step, self._trainer.steps
        self._tokens += report.tokens
        pace = (done - self._first) / (now - self._begin)
        left = round((steps - done) / pace)
        line = (
            f"step {done}/{steps}  loss {report.loss:.3f}"
            f"  {self._tokens / (now - self._begin):,.0f} tokens/s  {left // 60}:{left % 60:02} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=line)
        elif now - self._printed >= PAUSE or done == steps:
            self._printed = now
            print(line, flush=True)
        if report.validation_loss is not None:
            evaluation = f"step {done}  loss {report.loss:.3f}  validation loss {report.validation_loss:.4f}"
            if self._bar is not None:
                self._bar.console.print(evaluation)
            else:
                print(evaluation, flush=True)

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def of_bytes(size: int) -> Iterator[Callable[[str], None]]:
    """Shows how many of so many bytes are done."""
    columns = (BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    begin = printed = time.perf_counter()
    done = 0
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=size or None)

        def report(piece: str) -> None:
            nonlocal done, printed
            done += len(piece.encode(errors="replace"))
            now = time.perf_counter()
            line = (
                f"{done / 2**20:,.0f} of {size / 2**20:,.0f} MiB, {done / 2**20 / (now - begin):,.1f} MiB/s"
            )
            bar.update(task, completed=done, description=line)
            if bar.disable and now - printed >= PAUSE:
                printed = now
                print(line, flush=True)

        yield report
