"""Callbacks for `Trainer.on_report`: logs of a training's reports."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import TracebackType

from jostle.training import Report


class Log:
    """The base class of logs: callables, and context managers that close them."""

    def __call__(self, report: Report) -> None:
        """Writes a report."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the log."""

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class JsonLines(Log):
    """Appends a JSON object to a file for each report, with the fields of `Report`. Each line is in the file at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, report: Report) -> None:
        self._file.write(json.dumps(dataclasses.asdict(report)) + "\n")

    def close(self) -> None:
        self._file.close()


class TensorBoard(Log):
    """Writes reports into a folder for TensorBoard. Needs the extra jostle[tensorboard]."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise ImportError(
                "this needs the package tensorboardX: pip install 'jostle[tensorboard]'"
            ) from error
        self._writer = tensorboardX.SummaryWriter(os.fspath(folder))

    def __call__(self, report: Report) -> None:
        for name, number in dataclasses.asdict(report).items():
            if name != "step" and number is not None:
                self._writer.add_scalar(name, number, report.step)

    def close(self) -> None:
        self._writer.close()
