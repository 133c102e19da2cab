"""Learning-rate schedules: a linear warm-up to the optimizer's rate, then a decay to a final rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jostle import _arguments


@dataclass(frozen=True)
class Schedule:
    """The base class of all schedules. Lengths are in steps."""

    warmup: int = 0

    _name = ""

    def __post_init__(self) -> None:
        for name, given in asdict(self).items():
            check = _arguments.amount if name == "final" else _arguments.count
            object.__setattr__(self, name, check(name, given))

    def _native(self, peak: float, steps: int) -> tuple[str, float, int, int, int, float]:
        """The tuple that the native module takes: name, peak, warmup, steps, decay_steps, last."""
        return (self._name, peak, self.warmup, steps, getattr(self, "decay", 0), getattr(self, "final", 0.0))

    def _scaled(self, factor: float) -> Schedule:
        """This schedule, with the final rate multiplied by `factor`."""
        fields = asdict(self)
        if "final" in fields:
            fields["final"] *= factor
        return type(self)(**fields)

    def _settings(self) -> dict[str, Any]:
        return {"name": self._name, **asdict(self)}


@dataclass(frozen=True)
class Constant(Schedule):
    """The optimizer's rate for ever, after the warm-up."""

    _name = "constant"


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from the end of the warm-up to the last step."""

    final: float = 0.0
    _name = "linear"


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from the end of the warm-up to the last step (nanoGPT's get_lr)."""

    final: float = 0.0
    _name = "cosine"


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """The optimizer's rate until `decay` steps before the last, then a straight line (Hu et al. 2024)."""

    decay: int = 0
    final: float = 0.0
    _name = "warmup_stable_decay"


def from_settings(settings: dict[str, Any]) -> Schedule:
    """The schedule that `_settings` described."""
    settings = dict(settings)
    name = settings.pop("name")
    for kind in (Constant, Linear, Cosine, WarmupStableDecay):
        if kind._name == name:
            return kind(**settings)
    raise ValueError(f"the checkpoint names the schedule {name!r}, which is not a schedule")
