"""The folder of a training run.

- config.json: the model, the recipe, the tokenizer's kind, the text's files and the seed.
- metrics.csv: a row per step.
- checkpoint.safetensors: the newest checkpoint, to resume from.
- checkpoints/step-NNNNNN.safetensors: the parameters during training.
- sample.txt: text from the trained model.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jostle import _files
from jostle.model import Model
from jostle.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, WordTokenizer
from jostle.training import Report, Trainer

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

Tokens = npt.NDArray[Any]


class Snapshot(NamedTuple):
    """The parameters after a number of steps, in a file that `Model.load` reads."""

    step: int
    path: Path


class Text(NamedTuple):
    """Joined texts, and checksums that later show whether a file was changed."""

    text: str
    files: list[dict[str, Any]]
    """path (absolute), size in bytes and sha256 of each."""

    @classmethod
    def read(cls, paths: Iterable[str | os.PathLike[str]]) -> Text:
        """Raises OSError for a file that cannot be read, ValueError for one that is empty or not UTF-8. A byte order
        mark, which some editors write, is not part of the text."""
        texts, files = [], []
        for path in map(Path, paths):
            data = path.read_bytes()
            if not data:
                raise ValueError(f"{path} is empty")
            try:
                texts.append(data.removeprefix(codecs.BOM_UTF8).decode())
            except UnicodeDecodeError as error:
                raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from None
            digest = hashlib.sha256(data).hexdigest()
            files.append({"path": str(path.resolve()), "size": len(data), "sha256": digest})
        return cls("".join(texts), files)


def make_tokenizer(kind: str, text: str) -> Tokenizer:
    """The tokenizer of a text: "char", "word" or "byte"."""
    if kind == "char":
        return CharTokenizer.from_text(text)
    if kind == "word":
        return WordTokenizer.from_text(text)
    if kind == "byte":
        return ByteTokenizer()
    raise ValueError(f"tokenizer is {kind!r}; expected 'char', 'word' or 'byte'")


def split(tokens: Tokens, context: int) -> tuple[Tokens, Tokens]:
    """Tokens for training and, from the last tenth, for validation. ValueError if they are too few."""
    training = len(tokens) - -(-len(tokens) // 10)
    if training <= context:
        wanted = -(-(context + 1) * 10 // 9)
        raise ValueError(
            f"the text has {len(tokens)} tokens; at least {wanted} are needed for a context of {context}"
        )
    return tokens[:training], tokens[training:]


def new_folder(parent: str | os.PathLike[str], name: str) -> Path:
    """Makes the folder parent/name-NUMBER, with the first number that is free."""
    for number in itertools.count(1):
        path = Path(parent) / f"{name}-{number}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
    raise AssertionError("numbers don't end")


class Run:
    """A run's folder. Raises FileNotFoundError if it does not exist, ValueError if it is something else.

    Everything is read on demand, so that a run can be inspected while it trains.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(2, "No such run folder", str(self.path))
        if not (self.path / "config.json").is_file():
            raise ValueError(f"{self.path} is not a run's folder: it has no config.json")

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: Mapping[str, Any], trainer: Trainer) -> Run:
        """Begins a run in a folder, which may exist already. ValueError if it is not empty."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ValueError(f"{path} is not empty")
        (path / "checkpoints").mkdir()
        _files.write(path / "metrics.csv", (",".join(COLUMNS) + "\n").encode())
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        _files.write(path / "config.json", text.encode())
        run = cls(path)
        run.save(trainer, snapshot=True)
        return run

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of config.json: "jostle" (the version), "files", "tokenizer", "model" (the arguments of
        `jostle.Config`), "recipe", "seed"."""
        config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not config.keys() >= {"files", "tokenizer", "model", "recipe"}:
            raise ValueError(f"{self.path / 'config.json'} is not a run's configuration")
        return config

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint, to resume from."""
        return self.path / "checkpoint.safetensors"

    @property
    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """The columns of metrics.csv by name, each (steps,); losses are in nats, validation_loss is NaN where
        it was not evaluated."""
        rows = csv.reader(self._metrics_lines()[1:])
        table = [[float(field) if field else np.nan for field in row] for row in rows]
        columns = np.array(table, dtype=np.float64).reshape(-1, len(COLUMNS)).T
        return dict(zip(COLUMNS, columns, strict=True))

    def _metrics_lines(self) -> list[str]:
        """The lines of metrics.csv, without one that is being written."""
        text = (self.path / "metrics.csv").read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines(keepends=True)

    @property
    def snapshots(self) -> list[Snapshot]:
        """The saved parameters by step, from the initial ones on."""
        paths = (self.path / "checkpoints").glob("step-*.safetensors")
        return sorted(Snapshot(int(path.stem.removeprefix("step-")), path) for path in paths)

    def model(self, threads: int | None = None) -> Model:
        """The model of the newest checkpoint."""
        return load(self.checkpoint, threads)

    def text(self) -> str:
        """The text, read again. OSError if a file is gone, ValueError if it was changed."""
        read = Text.read(file["path"] for file in self.config["files"])
        for file, now in zip(self.config["files"], read.files, strict=True):
            if file != now:
                raise ValueError(f"{file['path']} was changed since {self.path} was trained on it")
        return read.text

    def tokens(self) -> tuple[Tokens, Tokens]:
        """Tokens (length,) for training and for validation, with the errors of `text`."""
        text = self.text()
        return split(
            make_tokenizer(self.config["tokenizer"], text).encode(text), self.config["model"]["context"]
        )

    def trainer(self, threads: int | None = None) -> Trainer:
        """A trainer from the newest checkpoint. It continues bit for bit."""
        train, validation = self.tokens()
        try:
            return Trainer.resume(self.checkpoint, train=train, validation=validation, threads=threads)
        except ValueError as error:
            raise ValueError(f"{self.checkpoint}: {error}") from None

    def save(self, trainer: Trainer, *, snapshot: bool) -> None:
        """Writes the newest checkpoint and, with `snapshot`, a copy of the parameters that is kept."""
        if snapshot:
            trainer.model.save(self.path / "checkpoints" / f"step-{trainer.step:06}.safetensors")
        trainer.save(self.checkpoint)


def load(path: str | os.PathLike[str], threads: int | None = None) -> Model:
    """The model in a checkpoint file or in a run's folder."""
    if Path(path).is_dir():
        return Run(path).model(threads)
    try:
        return Model.load(path, threads=threads)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


class Metrics:
    """Appends to a run's metrics.csv, after removing the rows of steps that come after the checkpoint.

    A context manager. Rows are in the file when it ends, or when `sync` was called.
    """

    def __init__(self, run: Run, step: int) -> None:
        lines = run._metrics_lines()[: step + 1]
        last = list(csv.reader(lines[-1:]))
        if len(lines) != step + 1 or (step and last[0][0] != str(step)):
            raise ValueError(f"{run.path / 'metrics.csv'} has no row for each of {step} steps")
        _files.write(run.path / "metrics.csv", "".join(lines).encode())
        self._before = float(last[0][-1]) if step else 0.0
        self._begin = self._flushed = time.monotonic()
        self._file = (run.path / "metrics.csv").open("a", encoding="utf-8", newline="")

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
        self._file.write(",".join(row) + "\n")
        if now - self._flushed > 1:
            self._flushed = now
            self._file.flush()

    def sync(self) -> None:
        """Makes sure that all rows are on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _shortest(number: float) -> str:
    """The fewest digits that identify this float32."""
    return str(np.float32(number))
