"""How much memory training takes, computed before any is allocated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from jostle import _arguments, _native
from jostle.config import Config

_BESIDES = ("generation", "frozen")


class Plan(Mapping[str, int]):
    """Bytes by region: parameters, gradients, optimizer, activations, scratch, batch. Two regions do not count as
    training memory: generation, and frozen parameters, if any, which are only read.

    `recomputed` is the number of multiply-adds that `recompute` and `head_rows` add to a pass over a full batch. If `fused` is
    true, a step is one pass, without clipping.
    """

    def __init__(
        self,
        config: Config,
        batch: int,
        threads: int,
        optimizer: str,
        recompute: bool = False,
        fused: bool = False,
        frozen: Iterable[str] = (),
        budget: int | None = None,
        head_rows: int | None = None,
    ) -> None:
        self.config = _arguments.instance("config", config, Config)
        self.optimizer = _arguments.instance("optimizer", optimizer, str)
        batch, threads = _arguments.size("batch", batch), _arguments.size("threads", threads)
        if budget is not None:
            budget = _arguments.count("budget", budget)
        recompute = _arguments.instance("recompute", recompute, bool)
        fused = _arguments.instance("fused", fused, bool)
        self.head_rows = _arguments.head_rows(head_rows)
        self.frozen = _arguments.tensors("frozen", frozen, config)
        self.batch, self.threads, self.recompute, self.recomputed, self.fused, self._bytes = _native.plan(
            config, batch, threads, optimizer, recompute, fused, self.head_rows or 0, self.frozen, budget
        )

    @property
    def training(self) -> int:
        """The bytes of all training memory."""
        return sum(size for region, size in self.items() if region not in _BESIDES)

    def defines(self, *, device: bool = False, prefix: str = "MODEL", command: str = "jostle.plan") -> str:
        """A C header of #defines for static arrays: the model, and the bytes of each buffer.

        device: sizes as on a microcontroller. prefix: the beginning of every name. command: the command that the
        header names as its origin.
        """
        if not (_arguments.instance("prefix", prefix, str).isascii() and prefix.isidentifier()):
            raise ValueError(
                f"prefix is {prefix!r}; expected letters, digits and underscores, no digit first"
            )
        return _native.defines(
            self.config,
            self.batch,
            self.threads,
            self.optimizer,
            self.recompute,
            self.fused,
            self.head_rows or 0,
            self.frozen,
            device,
            prefix,
            command,
        )

    def __getitem__(self, region: str) -> int:
        return self._bytes[region]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bytes)

    def __len__(self) -> int:
        return len(self._bytes)

    def _rows(self) -> list[tuple[str, int]]:
        rows = [(region, size) for region, size in self.items() if region not in _BESIDES]
        besides = [(region, size) for region, size in self.items() if region in _BESIDES]
        return [*rows, ("training", self.training), *besides]

    def __str__(self) -> str:
        return "\n".join(f"{region:<12}{size:>16,} bytes" for region, size in self._rows())

    def __repr__(self) -> str:
        return f"Plan(training={self.training})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{region}</th><td style="text-align:right">{size:,}</td></tr>'
            for region, size in self._rows()
        )
        return f"<table><thead><tr><th>region</th><th>bytes</th></tr></thead><tbody>{rows}</tbody></table>"


def plan(
    config: Config,
    batch: int = 1,
    threads: int = 1,
    optimizer: str = "adamw",
    *,
    recompute: bool = False,
    fused: bool = False,
    frozen: Iterable[str] = (),
    budget: int | None = None,
    head_rows: int | None = None,
) -> Plan:
    """The memory that training `config` takes with batches of so many sequences.

    optimizer: "adamw", "momentum" (SGD with momentum) or "none" (SGD). recompute, fused, head_rows: as for
    `Trainer`.
    frozen: as for `Model`.

    budget: bytes. The plan is then the fastest that fits, with at most the given batch and threads. It recomputes
    if more threads can then work, or if one sequence fits only so. If no such plan fits, the update is fused, with
    the whole batch in one pass. Raises ValueError if that does not fit either.
    """
    return Plan(config, batch, threads, optimizer, recompute, fused, frozen, budget, head_rows)
