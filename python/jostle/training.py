"""Training on a text: batches, schedule, evaluation, saving and resuming."""

from __future__ import annotations

import json
import os
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from jostle import _arguments, _arrays, _native, optimizers, schedules
from jostle._batches import Batch, Feed, are_batches, checked
from jostle._checkpoint import CheckpointFile, understood
from jostle._examples import Batches
from jostle.model import Model
from jostle.optimizers import Optimizer
from jostle.schedules import Constant, Schedule
from jostle.tokenizers import Tokenizer

_SETTLED = frozenset(
    (
        "model",
        "optimizer",
        "batch",
        "steps",
        "schedule",
        "clip",
        "accumulate",
        "seed",
        "recompute",
        "fused",
        "head_rows",
        "length",
        "spike_limit",
    )
)
"""A trainer's settings that cannot change after it was made."""
_MOST_WINDOWS = 16
"""The windows of a mapped text after which its pages are returned to the system. Linux maps up to 2 MiB for each."""
_MOST_SKIPPED = 100
"""The most steps in a row that a trainer skips before it raises the error."""


@dataclass(frozen=True)
class Report:
    """The results of one step.

    step: the number of steps done, this one included.
    loss: the mean loss of the step's batch before the update, dropout included, in nats per token.
    learning_rate: the learning rate that was used.
    gradient_norm: the gradient's global norm before clipping.
    tokens_per_second: in this step alone.
    validation_loss: the mean loss on the whole validation text after the step, without dropout, in nats per token; None
    if it was not evaluated.
    tokens: the tokens of the step's batch, padding included.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    validation_loss: float | None = None
    tokens: int = 0


_Callback = TypeVar("_Callback", bound=Callable[[Report], object])


class Trainer:
    """Trains a model on random windows of a text, or on batches. Iterate over it to take the steps.

    train, validation: texts of tokens (length,). uint8, uint16, uint32 and int32 are used without a copy. A `numpy.memmap`,
    as `jostle.data.read_tokens` returns, need not fit into memory.
    Instead of a text, an iterable of batches: pairs of tokens and targets (B, T), at most `batch` sequences, at most as long
    as the context. A target of -1 does not count. A step takes `accumulate` batches, and its loss is the mean over all their
    targets that count. When `train` ends, it is iterated again.

    batch: sequences in a micro-batch, each as long as the model's context. steps: the number of steps in all.
    schedule: the learning rate's course; its peak is the optimizer's learning rate. clip: the largest norm of the
    gradient; None for no clipping. accumulate: micro-batches in a step. evaluate_every: steps between evaluations on
    `validation`, which is also evaluated after the last step.

    length: the longest sequence, instead of the context. It needs less memory, and works with rotary positions only: learned
    ones need the whole context.

    recompute: activation recomputation in the backward pass. It needs less memory and more work, and gives the same
    bits.

    fused: update within the backward pass, without memory for all gradients. It gives the same bits, but needs clip=None
    and accumulate=1. A gradient that is not finite then raises FloatingPointError after some parameters have already
    changed: continue from the last checkpoint.

    head_rows: the rows of logits that exist at a time, instead of all. The loss and its gradients are then made for so
    many rows at a time, which needs less memory and gives the same bits. It is more work if the head's matrix is trained.

    spike_limit: refuse the update of a step whose loss is more than this many standard deviations above the mean of the
    last 100 steps; 6 is usual. None for no guard; not with fused.

    on_divergence: what happens after a step whose loss or gradient is not finite, or whose loss is a spike. The step has
    changed nothing. "stop" raises FloatingPointError, which names the step and the first tensor that is not finite. "skip"
    warns and takes the next step. After 100 such steps in a row, it raises too. To return to a checkpoint, catch the error
    and call `roll_back`.

    A step's windows and dropout masks are a function of the seed and the step. Ctrl-C takes effect between steps, where it
    loses at most the last report, and between micro-batches, where the step is taken again later. Iterate on, or save and resume: training continues with the bits of a run that was
    never interrupted. For batches, that needs an iterable with `state_dict` and `load_state_dict`, such as
    `jostle.data.Batches` and torchdata's StatefulDataLoader; `resume` warns if it has none.
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
        length: int | None = None,
        recompute: bool = False,
        fused: bool = False,
        head_rows: int | None = None,
        spike_limit: float | None = None,
        on_divergence: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.model = _arguments.instance("model", model, Model)
        self.optimizer = _arguments.instance("optimizer", optimizer, Optimizer)
        if optimizer.model is not model:
            raise ValueError("the optimizer is of another model")
        self.length = self._checked_length(length)
        self.train = train
        self.validation = validation
        self.batch = _arguments.size("batch", batch)
        self.steps = _arguments.count("steps", steps)
        self.clip = _arguments.clip(clip)
        self.accumulate = _arguments.size("accumulate", accumulate)
        self.seed = _arguments.seed("seed", seed)
        self.evaluate_every = evaluate_every
        self.recompute = _arguments.instance("recompute", recompute, bool)
        self.fused = _arguments.instance("fused", fused, bool)
        self.head_rows = _arguments.head_rows(head_rows)
        if spike_limit is not None:
            spike_limit = _arguments.amount("spike_limit", spike_limit)
            if spike_limit == 0:
                raise ValueError("spike_limit must be more than 0")
            if self.fused:
                raise ValueError("spike_limit needs fused=False")
        self.spike_limit = spike_limit
        self.on_divergence = on_divergence
        self.schedule = (
            Constant() if schedule is None else _arguments.instance("schedule", schedule, Schedule)
        )
        self._peak = optimizer.learning_rate
        self._guard: tuple[float, float, float, int] | None = None
        self._callbacks: list[Callable[[Report], object]] = []
        self._begin()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTLED and hasattr(self, "_training"):
            raise AttributeError(f"{name} is settled when a trainer is made")
        super().__setattr__(name, value)

    @property
    def train(self) -> Any:
        """The text or the batches to train on. It can be set to another one."""
        return self._train if self._feed is None else self._feed.source

    @train.setter
    def train(self, train: Any) -> None:
        config = self.model.config
        feed, text = None, np.zeros(0, np.int32)
        if are_batches(train):
            feed = Feed(train)
        else:
            text = _arrays.text("train", train, config.vocab)
            if len(text) <= self.length:
                raise ValueError(f"train has {len(text)} tokens; at least {self.length + 1} are needed")
        self._feed, self._train = feed, text
        self._windows = 0
        self._digest: str | None = None

    @property
    def validation(self) -> Any:
        """The text or the batches to evaluate on. It can be set to another one, or to None."""
        return self._validation

    @validation.setter
    def validation(self, validation: Any) -> None:
        if are_batches(validation):
            if iter(validation) is validation:
                raise TypeError(
                    "validation is an iterator, which ends after one evaluation; expected for example a list"
                )
        elif validation is not None:
            validation = _arrays.text("validation", validation, self.model.config.vocab)
            if len(validation) < 2:
                raise ValueError(f"validation has {len(validation)} tokens; at least 2 are needed")
        self._validation = validation

    @property
    def on_divergence(self) -> str:
        """ "stop" or "skip". It can be set."""
        return self._on_divergence

    @on_divergence.setter
    def on_divergence(self, on_divergence: str) -> None:
        if on_divergence not in ("stop", "skip"):
            raise ValueError(f"on_divergence is {on_divergence!r}; expected 'stop' or 'skip'")
        self._on_divergence = on_divergence

    @property
    def evaluate_every(self) -> int:
        """The number of steps between evaluations. It can be set."""
        return self._evaluate_every

    @evaluate_every.setter
    def evaluate_every(self, evaluate_every: int) -> None:
        self._evaluate_every = _arguments.size("evaluate_every", evaluate_every)

    def _begin(self) -> None:
        self.optimizer._trainer = weakref.ref(self)
        self._training = _native.Training(
            self.model._engine,
            self.optimizer._state,
            self.optimizer._name,
            list(self.optimizer._numbers.values()),
            (self.batch, self.length, self.recompute, self.fused, self.head_rows or 0),
            self.schedule._native(self._peak, self.steps),
            self.clip,
            self.accumulate,
            self.seed,
        )

        if self.spike_limit is not None:
            self._training.guard = self._guard or (self.spike_limit, 0.0, 0.0, 0)

    def _checked_length(self, length: int | None) -> int:
        config = self.model.config
        if length is None:
            return config.context
        length = _arguments.integer("length", length, 1, config.context)
        if length < config.context and config.positions == "learned":
            raise ValueError(
                f"length is {length}; expected the context, {config.context}, because positions are learned"
            )
        return length

    @property
    def tokens_per_step(self) -> int:
        """The tokens that a step trains on; of batches, the most."""
        return self.batch * self.length * self.accumulate

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self.optimizer.steps

    def __len__(self) -> int:
        """The number of steps left, which iteration takes."""
        return max(self.steps - self.step, 0)

    def __iter__(self) -> Iterator[Report]:
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> Report:
        """Takes one step, even beyond the last."""
        begin = time.perf_counter()
        for left in reversed(range(_MOST_SKIPPED + 1)):
            try:
                (step, loss, rate, norm), tokens = self._step()
                break
            except FloatingPointError as error:
                # A fused step may have changed some parameters.
                if self.on_divergence == "stop" or self.fused or left == 0:
                    raise
                warnings.warn(f"{error}; skipped", RuntimeWarning, stacklevel=2)
                self.skip()
        elapsed = time.perf_counter() - begin
        validation_loss = None
        due = step % self.evaluate_every == 0 or step == self.steps
        if self.validation is not None and due:
            validation_loss = self.evaluate(self.validation)
        report = Report(step, loss, rate, norm, tokens / elapsed, validation_loss, tokens)
        for callback in self._callbacks:
            callback(report)
        return report

    def on_report(self, callback: _Callback) -> _Callback:
        """Has `callback` called with the report of each step, before the step's method returns it. Returns the callback, so
        that this can be a decorator. Neither `save` nor a copy of the trainer keeps callbacks.

        `jostle.callbacks` has logs in JSON lines and for TensorBoard.
        """
        if not callable(callback):
            raise TypeError(f"callback is of {type(callback).__name__}; expected a function of a report")
        self._callbacks.append(callback)
        return callback

    def _step(self) -> tuple[tuple[int, float, float, float], int]:
        """Takes the next step. Returns its numbers, and the tokens in it."""
        if self._feed is not None:
            batches = self._feed.draw(self.accumulate, self._checked)
            numbers = self._training.step_on(batches)
            self._feed.done()
            return numbers, sum(tokens.size for tokens, _ in batches)
        numbers = self._training.step(self._train)
        self._windows += self.batch * self.accumulate
        if self._windows >= _MOST_WINDOWS:
            self._windows = 0
            _arrays.release(self._train)
        return numbers, self.tokens_per_step

    def skip(self) -> None:
        """Leaves out the next step, for example after FloatingPointError: the one after it has other windows and other
        dropout, or other batches."""
        self._training.skip()
        if self._feed is not None:
            self._feed.done()

    def roll_back(self, path: str | os.PathLike[str]) -> None:
        """Takes parameters and the optimizer's state from `save`, and leaves out all steps up to the next one: for a step
        that diverged. Schedule, windows and dropout continue from the step after it."""
        file = CheckpointFile.read(path)
        file.native.check(self.model.config)
        step = self.step
        if file.native.read(self.model._engine, (self.optimizer._kind, self.optimizer._state)) is None:
            raise ValueError("the file holds no training; expected what Trainer.save wrote")
        self.optimizer._state.steps = step
        self.skip()

    def evaluate(self, text: Any) -> float:
        """The mean loss on a whole text, without dropout: every token but the first is predicted once. On batches, the mean
        over all targets that count."""
        if are_batches(text):
            return self._evaluate_batches(text)
        text = _arrays.text("text", text, self.model.config.vocab)
        loss = self._training.evaluate(text)
        _arrays.release(text)
        return loss

    def _checked(self, batch: Any) -> Batch:
        """A batch, which fits the trainer's memory."""
        return checked(batch, self.model.config.vocab, (self.batch, self.length))

    def _evaluate_batches(self, batches: Iterable[Any]) -> float:
        total, counted = 0.0, 0
        for given in batches.in_order() if isinstance(batches, Batches) else batches:
            part, here = self._training.loss(*self._checked(given))
            total, counted = total + part, counted + here
        if not counted:
            raise ValueError("no target of the batches counts; expected one that is not -1")
        return total / counted

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything that `resume` needs, except the texts. The file appears complete or not at all."""
        settings = {
            "batch": self.batch,
            "steps": self.steps,
            "clip": self.clip,
            "accumulate": self.accumulate,
            "evaluate_every": self.evaluate_every,
            "length": self.length,
            "recompute": self.recompute,
            "fused": self.fused,
            "head_rows": self.head_rows,
            "frozen": self.model.frozen,
            "schedule": self.schedule._settings(),
            "optimizer": {**self.optimizer._settings(), "learning_rate": self._peak},
            "spike_limit": self.spike_limit,
            "on_divergence": self.on_divergence,
            "guard": self._training.guard,
            "train": self._train_state(),
        }
        state = (self.optimizer._kind, self.optimizer._state)
        self.model._save(path, state, self.seed, [("trainer", json.dumps(settings))])

    def _train_state(self) -> dict[str, Any]:
        """What tells that training resumes on the same text, or where in the batches."""
        if self._feed is not None:
            return self._feed.state()
        if self._digest is None:
            self._digest = _arrays.digest(self._train)
        return {"tokens": len(self._train), "digest": self._digest}

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
        learning_rate: float | None = None,
    ) -> Trainer:
        """Continues from `save`, with the bits of a run that was never interrupted. For checkpoints that C and Rust
        programs write, see `Optimizer.load`.

        train: the same text. ValueError for another one; to train on that, make a new trainer after `Optimizer.load`.
        Batches continue from their position, if they have `load_state_dict`, and otherwise with their next one, with a
        RuntimeWarning.
        tokenizer: as for `Model.load`. learning_rate: another peak for the schedule. The final rate changes in
        proportion. The run then ends in other bits than without the change.
        """
        file = CheckpointFile.read(path)
        if "trainer" not in file.metadata:
            raise ValueError("the file holds no training to resume; expected what Trainer.save wrote")
        config = file.config()
        with file.parse("trainer") as settings:
            frozen = _arguments.tensors("frozen", settings.pop("frozen", ()), config)
            schedule = schedules.from_settings(settings.pop("schedule"))
            rule = dict(settings.pop("optimizer"))
            text = dict(settings.pop("train", {}))
            guard = settings.pop("guard", None)
            guard = guard and (float(guard[0]), float(guard[1]), float(guard[2]), int(guard[3]))
        model = Model._from_file(file, config, threads, instruction_set, frozen, tokenizer)
        with understood("checkpoint: metadata 'trainer'"):
            optimizer = optimizers.from_settings(model, rule)
        if learning_rate is not None:
            peak, learning_rate = optimizer.learning_rate, _arguments.amount("learning_rate", learning_rate)
            schedule = schedule._scaled(learning_rate / peak if peak else 1.0)
            optimizer.learning_rate = learning_rate
        seed = file.native.read(model._engine, (optimizer._kind, optimizer._state))
        assert seed is not None, "the file has a configuration, so it has its progress"
        model._seed = seed
        # Its own errors first: those below are of the file's settings.
        if are_batches(train) != ("batches" in text):
            kinds = ("a text", "batches")
            raise ValueError(
                f"train is {kinds[are_batches(train)]}; the training was on {kinds['batches' in text]}"
            )
        if not are_batches(train):
            train = _arrays.text("train", train, config.vocab)
            if text and (len(train), _arrays.digest(train)) != (text.get("tokens"), text.get("digest")):
                raise ValueError(
                    f"train has {len(train)} tokens, and is another text than the training's"
                    f" {text.get('tokens')} tokens"
                )
        if validation is not None and not are_batches(validation):
            validation = _arrays.text("validation", validation, config.vocab)
        with understood("checkpoint: metadata 'trainer'"):
            trainer = cls(
                model,
                optimizer,
                train=train,
                validation=validation,
                schedule=schedule,
                seed=seed,
                **settings,
            )
        if trainer._feed is not None:
            with understood("checkpoint: metadata 'trainer'"):
                trainer._feed.restore(text)
        if guard is not None and trainer.spike_limit is not None:
            trainer._training.guard = guard
        return trainer

    def __repr__(self) -> str:
        return f"Trainer({self.optimizer}, {self.step} of {self.steps} steps)"

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_training"}
        return {**state, "_guard": self._training.guard, "_callbacks": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()
