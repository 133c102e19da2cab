"""Training on a text: batches, schedule, evaluation, saving and resuming."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jostle import _arguments, _arrays, _files, _native, optimizers, schedules
from jostle.model import Model
from jostle.optimizers import Optimizer
from jostle.schedules import Constant, Schedule
from jostle.tokenizers import Tokenizer

_SETTLED = frozenset(
    ("model", "optimizer", "batch", "steps", "schedule", "clip", "accumulate", "seed", "recompute", "fused")
)
"""A trainer's settings that cannot change after it was made."""


@dataclass(frozen=True)
class Report:
    """The results of one step."""

    step: int
    """The number of steps done, this one included."""
    loss: float
    """The mean loss of the step's batch before the update, dropout included, in nats."""
    learning_rate: float
    """The learning rate that was used."""
    gradient_norm: float
    """The gradient's global norm before clipping."""
    tokens_per_second: float
    """Tokens per second, in this step alone."""
    validation_loss: float | None = None
    """The mean loss on the whole validation text after the step, without dropout; None if not evaluated."""


class Trainer:
    """Trains a model on random windows of a text. Iterate over it to take the steps.

    train, validation: texts of tokens (length,). uint8, uint16 and int32 are used without a copy.
    batch: sequences in a micro-batch, each as long as the model's context. steps: the number of steps in all.
    schedule: the learning rate's course; its peak is the optimizer's learning rate. clip: the largest norm of the
    gradient; None for no clipping. accumulate: micro-batches in a step. evaluate_every: steps between evaluations on
    `validation`, which is also evaluated after the last step.

    recompute: activation recomputation in the backward pass. It needs less memory and more work, and gives the same
    bits.

    fused: update within the backward pass, without memory for all gradients. It gives the same bits, but needs clip=None
    and accumulate=1. A gradient that is not finite then raises FloatingPointError after some parameters have already
    changed: continue from the last checkpoint.

    A step's windows and dropout masks are a function of the seed and the step. Ctrl-C takes effect between steps, and
    loses at most the last report. Iterate on, or save and resume: training continues with the bits of a run that was
    never interrupted.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        *,
        train: Any,
        validation: Any = None,
        batch: int = 12,
        steps: int = 2000,
        schedule: Schedule | None = None,
        clip: float | None = 1.0,
        accumulate: int = 1,
        seed: int = 1337,
        evaluate_every: int = 250,
        recompute: bool = False,
        fused: bool = False,
    ) -> None:
        self.model = _arguments.instance("model", model, Model)
        self.optimizer = _arguments.instance("optimizer", optimizer, Optimizer)
        if optimizer.model is not model:
            raise ValueError("the optimizer is of another model")
        self.train = _arrays.text("train", train)
        self.validation = None if validation is None else _arrays.text("validation", validation)
        if len(self.train) <= model.config.context:
            wanted = model.config.context + 1
            raise ValueError(f"train has {len(self.train)} tokens; at least {wanted} are needed")
        if self.validation is not None and len(self.validation) < 2:
            raise ValueError(f"validation has {len(self.validation)} tokens; at least 2 are needed")
        self.batch = _arguments.size("batch", batch)
        self.steps = _arguments.count("steps", steps)
        self.clip = _arguments.clip(clip)
        self.accumulate = _arguments.size("accumulate", accumulate)
        self.seed = _arguments.seed("seed", seed)
        self.evaluate_every = _arguments.size("evaluate_every", evaluate_every)
        self.recompute = _arguments.instance("recompute", recompute, bool)
        self.fused = _arguments.instance("fused", fused, bool)
        self.schedule = (
            Constant() if schedule is None else _arguments.instance("schedule", schedule, Schedule)
        )
        self._peak = optimizer.learning_rate
        self._training = self._native_training()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTLED and hasattr(self, "_training"):
            raise AttributeError(f"{name} is settled when a trainer is made")
        super().__setattr__(name, value)

    def _native_training(self) -> _native.Training:
        return _native.Training(
            self.model._engine,
            self.optimizer._state,
            self.optimizer._name,
            list(self.optimizer._numbers.values()),
            (self.batch, self.recompute, self.fused),
            self.schedule._native(self._peak, self.steps),
            self.clip,
            self.accumulate,
            self.seed,
        )

    @property
    def tokens_per_step(self) -> int:
        """The tokens that a step trains on."""
        return self.batch * self.model.config.context * self.accumulate

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self.optimizer.steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Report]:
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> Report:
        """Takes one step, even beyond the last."""
        begin = time.perf_counter()
        loss, rate, norm = self._training.step(self.train)
        elapsed = time.perf_counter() - begin
        validation_loss = None
        due = self.step % self.evaluate_every == 0 or self.step == self.steps
        if self.validation is not None and due:
            validation_loss = self.evaluate(self.validation)
        return Report(self.step, loss, rate, norm, self.tokens_per_step / elapsed, validation_loss)

    def evaluate(self, text: Any) -> float:
        """The mean loss on a whole text, without dropout: every token but the first is predicted once."""
        return self._training.evaluate(_arrays.text("text", text))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything that `resume` needs, except the texts. The file appears complete or not at all."""
        settings = {
            "batch": self.batch,
            "steps": self.steps,
            "clip": self.clip,
            "accumulate": self.accumulate,
            "evaluate_every": self.evaluate_every,
            "recompute": self.recompute,
            "fused": self.fused,
            "frozen": self.model.frozen,
            "schedule": self.schedule._settings(),
            "optimizer": {**self.optimizer._settings(), "learning_rate": self._peak},
        }
        metadata = [*self.model._metadata(), ("trainer", json.dumps(settings))]
        state = (self.optimizer._kind, self.optimizer._state)
        _files.write(path, _native.write_checkpoint(self.model._engine, state, self.seed, metadata))

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        *,
        train: Any,
        validation: Any = None,
        threads: int | None = None,
        instruction_set: str | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> Trainer:
        """Continues from `save`, with the bits of a run that was never interrupted. For checkpoints that C and Rust
        programs write, see `Optimizer.load`.

        tokenizer: as for `Model.load`.
        """
        data = Path(path).read_bytes()
        metadata = dict(_native.checkpoint_metadata(data))
        settings = json.loads(metadata.get("trainer", "{}"))
        frozen = settings.pop("frozen", ())
        model = Model._from_bytes(data, metadata, None, threads, instruction_set, frozen, tokenizer)
        if not settings:
            raise ValueError(
                f"{os.fspath(path)} holds a model, but no training to resume; expected what Trainer.save wrote"
            )
        schedule = schedules.from_settings(settings.pop("schedule"))
        optimizer = optimizers.from_settings(model, settings.pop("optimizer"))
        state = (optimizer._kind, optimizer._state)
        seed = _native.read_checkpoint(data, model._engine, state)
        assert seed is not None, "a training's checkpoint has its progress"
        return cls(
            model, optimizer, train=train, validation=validation, schedule=schedule, seed=seed, **settings
        )

    def __repr__(self) -> str:
        return f"Trainer({self.optimizer}, {self.step} of {self.steps} steps)"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_training"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._training = self._native_training()
