"""The table of a run's metrics: a row per step."""

from __future__ import annotations

import contextlib
import csv
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jostle import _files
from jostle._checkpoint import understood
from jostle.training import Report

if TYPE_CHECKING:
    from jostle.runs import Run

COLUMNS = (
    "step",
    "loss",
    "validation_loss",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "seconds",
)
"""The columns of metrics.csv: the fields of `Report`, and the seconds of training so far, evaluation included."""


def lines(path: Path) -> list[str]:
    """The lines of a table, without one that is being written."""
    with understood(os.fspath(path)):
        text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines(keepends=True)


def read(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """The columns of a table by name, each (steps,). ValueError, which names the line, for a row that is not one."""
    table = []
    for number, row in enumerate(csv.reader(lines(path)[1:]), start=2):
        with understood(f"{path}, line {number}"):
            if len(row) != len(COLUMNS):
                raise ValueError(f"{len(row)} columns; expected {len(COLUMNS)}")
            table.append([float(field) if field else np.nan for field in row])
    columns = np.array(table, dtype=np.float64).reshape(-1, len(COLUMNS)).T
    return dict(zip(COLUMNS, columns, strict=True))


class Metrics:
    """Appends to a run's metrics.csv, after removing the rows of steps that come after the checkpoint.

    A context manager. Rows are in the file when it ends, or when `sync` was called.
    """

    def __init__(self, run: Run, step: int) -> None:
        rows = {}
        for line in lines(run.path / "metrics.csv")[1:]:
            number = line.partition(",")[0]
            if (
                number.isascii()
                and number.isdigit()
                and 1 <= int(number) <= step
                and line.count(",") + 1 == len(COLUMNS)
            ):
                rows[int(number)] = line
        if len(rows) != step:
            warnings.warn(
                f"{run.path / 'metrics.csv'} lacks the rows of {step - len(rows)} of {step} steps",
                stacklevel=2,
            )
        path = run.path / "metrics.csv"
        _files.write(path, "".join([",".join(COLUMNS) + "\n", *(rows[i] for i in sorted(rows))]).encode())
        last = rows[max(rows)].strip().rpartition(",")[2] if rows else "0"
        with understood(os.fspath(path)):
            self._before = float(last)
        self._begin = self._flushed = time.monotonic()
        self._path = path
        self._file = path.open("a", encoding="utf-8", newline="")

    def add(self, report: Report) -> None:
        """The row of a step."""
        now = time.monotonic()
        row: Sequence[str] = (
            str(report.step),
            _shortest(report.loss),
            "" if report.validation_loss is None else _shortest(report.validation_loss),
            _shortest(report.learning_rate),
            _shortest(report.gradient_norm),
            f"{report.tokens_per_second:.1f}",
            f"{self._before + now - self._begin:.3f}",
        )
        with self._named():
            self._file.write(",".join(row) + "\n")
            if now - self._flushed > 1:
                self._flushed = now
                self._file.flush()

    def sync(self) -> None:
        """Makes sure that all rows are on the disk."""
        with self._named():
            self._file.flush()
            os.fsync(self._file.fileno())

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors within name the file, which the system does not if the disk is full."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fspath(self._path)) from None

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        # A full disk refuses the same rows again. The error was already raised.
        with contextlib.suppress(OSError):
            self._file.close()


def _shortest(number: float) -> str:
    """The fewest digits that identify this float32."""
    return str(np.float32(number))
