"""The folder of a training run.

- run.json: the model, the recipe, the tokenizer's kind, the text's files and the seed. Older runs have it as config.json.
- metrics.csv: a row per step.
- checkpoint.safetensors: the newest checkpoint, to resume from.
- checkpoints/step-NNNNNN.safetensors: the parameters during training.
- sample.txt: text from the trained model.
- tokenizer.json: the tokenizer, if it was trained on the text or given.
- stdin.txt: the text, if it came from standard input.
- model: after fine-tuning, the model as a Hugging Face folder.
- lock: held by the process that trains.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jostle import _arguments, _files, _metrics
from jostle._checkpoint import json_object, understood
from jostle._lock import NAME as LOCK
from jostle._lock import Lock
from jostle._metrics import COLUMNS, Metrics
from jostle._run_data import (
    GIVEN,
    KINDS,
    STANDARD_INPUT,
    Text,
    Tokens,
    describe,
    is_as_before,
    is_token_file,
    make_tokenizer,
    read_examples,
    read_tokens,
    split,
)
from jostle.model import Model
from jostle.tokenizers import PretrainedTokenizer, Tokenizer
from jostle.training import Trainer

__all__ = [
    "COLUMNS",
    "GIVEN",
    "KINDS",
    "MODEL",
    "STANDARD_INPUT",
    "Metrics",
    "Occupied",
    "Run",
    "Snapshot",
    "Text",
    "Tokens",
    "describe",
    "is_token_file",
    "load",
    "make_tokenizer",
    "read_examples",
    "read_tokens",
    "split",
]


class Snapshot(NamedTuple):
    """The parameters after a number of steps, in a file that `Model.load` reads."""

    step: int
    path: Path


class Run:
    """A run's folder. Raises FileNotFoundError if it does not exist, ValueError if it is something else.

    Everything is read on demand, so that a run can be inspected while it trains.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(2, "No such run folder", str(self.path))
        if not self._config_path.is_file():
            raise ValueError(f"{self.path} is not a run's folder: it has no {_CONFIG}")
        self._lock: Lock | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def _config_path(self) -> Path:
        path, older = self.path / _CONFIG, self.path / "config.json"
        return older if older.is_file() and not path.is_file() else path

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        trainer: Trainer,
        own: Mapping[str, bytes] | None = None,
    ) -> Run:
        """Begins a run in a folder, which may exist already, and holds its lock. `Occupied` if there is anything in it,
        except what a process left that was killed before it had begun a run.

        own: as of `Text`.
        """
        path = Path(path)
        is_new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        if not _is_free(path):
            raise Occupied(f"{path} is not empty")
        lock = Lock(path)
        run = cls.__new__(cls)
        run.path, run._lock = path, lock
        try:
            if not _is_free(path):
                raise Occupied(f"{path} is not empty")
            _clear(path)
            (path / _MARK).touch()
            (path / "checkpoints").mkdir()
            _files.write(path / "metrics.csv", (",".join(COLUMNS) + "\n").encode())
            tokenizer = trainer.model.tokenizer
            if tokenizer is not None and config["tokenizer"] == GIVEN:
                tokenizer.save(path / _TOKENIZER)
            elif isinstance(tokenizer, PretrainedTokenizer):
                _files.write(path / _TOKENIZER, tokenizer.files()[_TOKENIZER].encode())
            for name, contents in (own or {}).items():
                _files.write(path / name, contents)
            run.save(trainer, snapshot=True)
            # With it, the folder is a run's.
            _write_json(path / _CONFIG, config)
            (path / _MARK).unlink()
        except Occupied:
            raise
        except BaseException:
            _clear(path)
            lock.release()
            with contextlib.suppress(OSError):
                (path / LOCK).unlink()
                if is_new:
                    path.rmdir()
            raise
        return run

    @classmethod
    def create_numbered(
        cls,
        parent: str | os.PathLike[str],
        name: str,
        config: Mapping[str, Any],
        trainer: Trainer,
        own: Mapping[str, bytes] | None = None,
    ) -> Run:
        """Begins a run in the folder parent/name-NUMBER, with the first number that is free."""
        for number in itertools.count(1):
            with contextlib.suppress(Occupied, BlockingIOError):
                return cls.create(Path(parent) / f"{name}-{number}", config, trainer, own)
        raise AssertionError("numbers don't end")

    def lock(self) -> None:
        """Takes the lock of the run until this object is gone, and removes what killed processes have left.

        BlockingIOError, which names the process, if another one has it.
        """
        if self._lock is None:
            self._lock = Lock(self.path)
            for folder in (self.path, self.path / "checkpoints"):
                _files.remove_partials(folder)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of run.json: "jostle" (the version), "files", "tokenizer", "model" (the arguments of
        `jostle.Config`), "recipe", "seed"."""
        path = self._config_path
        with understood(os.fspath(path)):
            config = json_object(path.read_text(encoding="utf-8"))
            kinds: dict[str, type] = {"files": list, "tokenizer": str, "model": dict, "recipe": dict}
            for key, kind in kinds.items():
                _arguments.instance(key, config[key], kind)
            kinds = {"path": str, "size": int, "sha256": str}
            for file in config["files"]:
                for key, kind in kinds.items():
                    _arguments.instance(key, _arguments.instance("files", file, dict)[key], kind)
            for key in ("context", "vocab"):
                _arguments.size(key, config["model"][key])
            _arguments.size("checkpoint_every", config["recipe"]["checkpoint_every"])
        return config

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint, to resume from."""
        return self.path / "checkpoint.safetensors"

    @property
    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """The columns of metrics.csv by name, each (steps,); losses are in nats, validation_loss is NaN where
        it was not evaluated."""
        return _metrics.read(self.path / "metrics.csv")

    @property
    def snapshots(self) -> list[Snapshot]:
        """The saved parameters by step, from the initial ones on."""
        paths = (self.path / "checkpoints").glob("step-*.safetensors")
        steps = ((path.stem.removeprefix("step-"), path) for path in paths)
        return sorted(Snapshot(int(step), path) for step, path in steps if step.isascii() and step.isdigit())

    def model(self, threads: int | None = None) -> Model:
        """The model of the newest checkpoint."""
        return load(self.checkpoint, threads)

    def text(self, files: Sequence[str | os.PathLike[str]] | None = None) -> str:
        """The text, read again, from `files` if the run's own are elsewhere. OSError if a file is gone, ValueError if it
        was changed.

        A file that is not where it was is looked for by its name in the run's folder and the two above.
        """
        paths = self._files(files)
        read = Text.read(paths)
        self._check_files(paths, read.files)
        return read.text

    def _files(self, files: Sequence[str | os.PathLike[str]] | None) -> list[Path]:
        """The paths of the run's files, or `files`, which must be as many."""
        known = self.config["files"]
        if files is None:
            return [self._find(file) for file in known]
        if len(files) != len(known):
            raise ValueError(f"{len(files)} texts are given; {self.path} was trained on {len(known)}")
        return [Path(file) for file in files]

    def _check_files(self, paths: Iterable[Path], now: Iterable[Mapping[str, Any]]) -> None:
        """ValueError for a file that was changed."""
        for path, file, found in zip(paths, self.config["files"], now, strict=True):
            if (file["size"], file["sha256"]) != (found["size"], found["sha256"]):
                raise ValueError(f"{path} was changed since {self.path} was trained on it")

    def _find(self, file: Mapping[str, Any]) -> Path:
        path = Path(file["path"])
        here = self.path.resolve()
        for place in (path, *(folder / path.name for folder in (here, *list(here.parents)[:2]))):
            if is_as_before(place, file):
                return place
        return path

    def tokens(self, files: Sequence[str | os.PathLike[str]] | None = None) -> tuple[Tokens, Tokens]:
        """Tokens (length,) for training and for validation, with the errors of `text`."""
        length = self._length
        if any(is_token_file(file["path"]) for file in self.config["files"]):
            paths = self._files(files)
            self._check_files(paths, map(describe, paths))
            return split(read_tokens(paths[0], self.config["model"]["vocab"]), length)
        text = self.text(files)
        return split(self._tokenizer(text).encode(text), length)

    def _data(self, files: Sequence[str | os.PathLike[str]] | None) -> tuple[Any, Any]:
        """Texts or batches for training and for validation."""
        if not any(Path(file["path"]).suffix == ".jsonl" for file in self.config["files"]):
            return self.tokens(files)
        paths = self._files(files)
        self._check_files(paths, map(describe, paths))
        with understood(os.fspath(self._config_path)):
            sizes = self._length, self.config["recipe"]["batch"], self.config["seed"]
        return read_examples(paths, self._tokenizer(""), *sizes)

    @property
    def _length(self) -> int:
        """The longest sequence that training sees."""
        return _arguments.size("length", self.config["recipe"].get("length", self.config["model"]["context"]))

    def _tokenizer(self, text: str) -> Tokenizer:
        path = self.path / _TOKENIZER
        if not path.exists():
            return make_tokenizer(self.config["tokenizer"], text)
        # Another version of the package might train another one.
        return Tokenizer.load(path)

    def trainer(
        self,
        threads: int | None = None,
        *,
        files: Sequence[str | os.PathLike[str]] | None = None,
        learning_rate: float | None = None,
    ) -> Trainer:
        """A trainer from the newest checkpoint. It continues bit for bit. `files` as for `text`, the others as for
        `Trainer.resume`."""
        train, validation = self._data(files)
        with _named(self.checkpoint):
            return Trainer.resume(
                self.checkpoint,
                train=train,
                validation=validation,
                threads=threads,
                learning_rate=learning_rate,
            )

    def note_change(self, step: int, change: Mapping[str, Any]) -> None:
        """Adds a change of the recipe from a step on to run.json, as an item of "changes"."""
        changes = [*self.config.get("changes", []), {"step": step, **change}]
        _write_json(self._config_path, {**self.config, "changes": changes})
        del self.config

    def save(self, trainer: Trainer, *, snapshot: bool, keep: int | None = None) -> None:
        """Writes the newest checkpoint and, with `snapshot`, a copy of the parameters. Only the newest `keep`
        copies stay."""
        if snapshot:
            trainer.model.save(self.path / "checkpoints" / f"step-{trainer.step:06}.safetensors")
        trainer.save(self.checkpoint)
        if keep is not None:
            for _, path in self.snapshots[:-keep]:
                path.unlink()


MODEL = "model"
"""The Hugging Face folder in the folder of a run that fine-tuned a model."""

ADAPTER = "adapter"
"""The folder of adapters in PEFT's format, if it trained adapters."""

_CONFIG = "run.json"
_TOKENIZER = "tokenizer.json"

_BEGINNING = frozenset(
    (LOCK, "checkpoints", "metrics.csv", "checkpoint.safetensors", _TOKENIZER, STANDARD_INPUT)
)
"""A run's files that are written before run.json."""
_MARK = f"beginning{_files.PARTIAL}"
"""The first file of a run that begins: all others beside it may be removed until run.json is there."""


class Occupied(ValueError):
    """The folder for a new run is not empty."""


def _write_json(path: Path, value: Any) -> None:
    _files.write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _is_free(folder: Path) -> bool:
    """Whether a folder is empty, or has only the files of a run that was killed before it had begun."""
    names = {path.name for path in folder.iterdir()} - {LOCK}
    own = all(name in _BEGINNING or name.endswith(_files.PARTIAL) for name in names)
    return not names or (_MARK in names and own)


def _clear(folder: Path) -> None:
    """Removes the files of a run that has not begun, except its lock."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors within name the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def load(path: str | os.PathLike[str], threads: int | None = None) -> Model:
    """The model in a checkpoint file, in a run's folder or in a Hugging Face folder."""
    if (Path(path) / "model.safetensors").exists() or (Path(path) / "model.safetensors.index.json").exists():
        return Model.from_pretrained(path, threads=threads)
    if Path(path).is_dir():
        return Run(path).model(threads)
    with _named(path):
        return Model.load(path, threads=threads)
