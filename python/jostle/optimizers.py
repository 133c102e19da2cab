"""From gradients to new parameters."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jostle import _arguments, _native
from jostle._arrays import Float
from jostle._checkpoint import CheckpointFile
from jostle.model import Model

if TYPE_CHECKING:
    from jostle.training import Trainer


class Optimizer:
    """The base class of AdamW and SGD."""

    _name: str
    _kind: str

    def __init__(self, model: Model, learning_rate: float, numbers: dict[str, float]) -> None:
        self._model = _arguments.instance("model", model, Model)
        self._trainer: Callable[[], Trainer | None] = lambda: None
        self.learning_rate = learning_rate
        self._numbers = {name: _arguments.number(name, value) for name, value in numbers.items()}
        _native.check_optimizer(self._name, list(self._numbers.values()))
        self._state = _native.State(model._engine, self._kind)

    @property
    def model(self) -> Model:
        """The model. It cannot be changed."""
        return self._model

    def step(self, clip: float | None = 1.0) -> float:
        """Changes the parameters along the gradients; returns the gradients' global norm.

        clip: the largest norm; gradients are scaled down to it. None for no clipping. Raises FloatingPointError, and
        changes nothing, if the norm is not finite.
        """
        return self.model._engine.update(
            self._name, list(self._numbers.values()), self._state, self._learning_rate, _arguments.clip(clip)
        )

    @property
    def learning_rate(self) -> float:
        """The learning rate: finite, at least 0. It is the peak of a trainer's schedule, and cannot be set while the
        trainer has steps left."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float) -> None:
        trainer = self._trainer()
        if trainer is not None and trainer.step < trainer.steps:
            raise AttributeError(
                "learning_rate is settled when a trainer is made; its schedule changes the rate"
            )
        self._learning_rate = _arguments.amount("learning_rate", learning_rate)

    @property
    def steps(self) -> int:
        """The number of steps done."""
        return self._state.steps

    @property
    def state(self) -> Float:
        """The state of the trained parameters, as a writable view: for AdamW all first moments, then all second
        moments."""
        return self._state.numbers.array()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes parameters, state and the number of steps, for `load`, and for `Model.load` before it. The file appears
        complete or not at all."""
        self.model._save(path, (self._kind, self._state), self.model.seed, [])

    def load(self, path: str | os.PathLike[str]) -> None:
        """Reads parameters, state and the number of steps from a checkpoint of this model and kind of optimizer.

        For what `save` wrote, and for checkpoints that C and Rust programs write. They do not hold a trainer's
        settings. With the same
        settings, and the `Model.seed` that `Model.load` finds, a `Trainer` continues with the same bits. Raises
        ValueError, and changes nothing, for other files.
        """
        CheckpointFile.read(path).native.read(self.model._engine, (self._kind, self._state))

    def _settings(self) -> dict[str, Any]:
        return {"name": self._name, "learning_rate": self.learning_rate, **self._numbers}

    def __getstate__(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "learning_rate": self.learning_rate,
            "numbers": self._numbers,
            "kind": self._kind,
            "state": self.state.copy(),
            "steps": self.steps,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._kind = state["kind"]
        Optimizer.__init__(self, state["model"], state["learning_rate"], state["numbers"])
        self.state[:] = state["state"]
        self._state.steps = state["steps"]

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={value:g}" for name, value in self._numbers.items())
        return f"{type(self).__name__}(learning_rate={self.learning_rate:g}, {numbers})"


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), as PyTorch's. Only matrices decay."""

    _name = "adamw"
    _kind = "adamw"

    def __init__(
        self,
        model: Model,
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        epsilon: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        try:
            beta1, beta2 = betas
        except (TypeError, ValueError):
            raise TypeError(f"betas is {betas!r}; expected two numbers") from None
        numbers = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "weight_decay": weight_decay}
        super().__init__(model, learning_rate, numbers)


class SGD(Optimizer):
    """Stochastic gradient descent, as PyTorch's, with momentum unless that is 0."""

    _name = "sgd"

    def __init__(self, model: Model, learning_rate: float, momentum: float = 0.0) -> None:
        self._kind = "momentum" if momentum else "none"
        super().__init__(model, learning_rate, {"momentum": momentum})


def from_settings(model: Model, settings: dict[str, Any]) -> Optimizer:
    """The optimizer that `_settings` described."""
    settings = dict(settings)
    name = settings.pop("name")
    if name == "sgd":
        return SGD(model, **settings)
    if name == "adamw":
        betas = (settings.pop("beta1"), settings.pop("beta2"))
        return AdamW(model, betas=betas, **settings)
    raise ValueError(f"the checkpoint names the optimizer {name!r}; expected 'adamw' or 'sgd'")
