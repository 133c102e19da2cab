"""The results of `steps.py`, as Markdown."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from configurations import Cell
from machine import header
from report import by_threads, digits, percent, table

OURS, PEAK = "jostle", "peak"
PEERS = ("pytorch", "compile", "jax")
CONTENDERS = {
    OURS: "jostle",
    "matrixmultiply": "jostle with matrixmultiply",
    "pytorch": "PyTorch",
    "compile": "torch.compile",
    "jax": "JAX",
}

# Configurations whose memory is reported. In the smaller ones the libraries' own memory outweighs the model's.
MEMORY = ("gpt2", (OURS, "pytorch"))

INTRODUCTION = """\
A step is a random batch, forward, loss, backward, clipping by global norm 1 and AdamW. Contenders take turns,
{rounds} each, on the same processors, and are stopped while it is not their turn. Configurations are V, T, L, H, C, B:
vocabulary, context, layers, heads, width, batch. PyTorch is nanoGPT's model with fused AdamW, eager and through
torch.compile; JAX is one jitted function. Dropout is on embeddings, attention weights and both residual branches.
The best peer of a configuration is the one of PyTorch, torch.compile and JAX with the lowest median.
"""


@dataclass
class Steps(Cell):
    """The measurements of one configuration, number of threads and dropout rate."""

    dropout: float
    # By contender, the reason for missing times.
    not_run: dict[str, str]
    # By contender, each turn's median in milliseconds.
    times: dict[str, list[float]] = field(default_factory=dict)
    # By contender, what jostle's programs report about their steps: `operations` and `parameters`.
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    # By contender, bytes before the model was built, and the most there ever were; None where not known.
    memory: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)

    def milliseconds(self, name: str) -> str:
        times = self.times[name]
        return f"{digits(statistics.median(times))} ({digits(min(times))} to {digits(max(times))})"

    def tokens_a_second(self, name: str) -> str:
        return f"{self.sizes.B * self.sizes.T / statistics.median(self.times[name]) * 1e3:,.0f}"

    def peaks(self) -> list[float]:
        """Of each round, in operations a millisecond."""
        return [self.about[PEAK]["operations"] / time for time in self.times[PEAK]]

    def share_of_peak(self, name: str) -> str:
        speed = self.about[OURS]["operations"] / statistics.median(self.times[name])
        # The best of the rounds, since other processes can only lower it. 0 if unknown.
        return percent(speed, max(self.peaks()))

    def best_peer(self) -> str:
        """Its time as a multiple of jostle's time, and its name."""
        peers = [name for name in PEERS if name in self.times]
        if not peers:
            return "none"
        best = min(peers, key=lambda name: statistics.median(self.times[name]))
        pairs = zip(self.times[best], self.times[OURS], strict=True)
        return f"{statistics.median(theirs / ours for theirs, ours in pairs):.2f} ({CONTENDERS[best]})"


def document(cells: list[Steps], differences: dict[str, dict[str, float]], rounds: int) -> str:
    """The tables with what is needed to read them. `differences` are the check's, by peer and configuration."""
    lines = [header("Training steps", ["torch", "jax"]), "", INTRODUCTION.format(rounds=rounds)]
    for peer, found in differences.items():
        told = ", ".join(f"{configuration} {x:.0e}" for configuration, x in found.items())
        lines += [
            f"{CONTENDERS[peer]}'s gradients and losses were compared with jostle's; largest difference: {told}."
        ]
    for heading, here in by_threads(cells):
        lines += ["", heading, "", *of_threads(here)]
    lines += memory(cells)
    lines += not_run(cells)
    return "\n".join(lines) + "\n"


def of_threads(cells: list[Steps]) -> Iterator[str]:
    names = [name for name in CONTENDERS if any(name in cell.times or name in cell.not_run for cell in cells)]
    peaks = [peak / 1e6 for cell in cells for peak in cell.peaks()]
    yield f"Peak: {max(peaks):.1f} GFLOP/s (median of the rounds {statistics.median(peaks):.1f})."
    yield from ("", "Milliseconds a step, median of the rounds (fastest to slowest):", "")
    yield from by_contender(cells, names, Steps.milliseconds, [("best peer / jostle", Steps.best_peer)])
    yield from ("", "Tokens a second:", "")
    yield from by_contender(cells, names, Steps.tokens_a_second)
    yield from (
        "",
        "Share of the peak, of operations that no engine can do without (`benches/src/operations.rs`):",
        "",
    )
    yield from by_contender(cells, names, Steps.share_of_peak)


def by_contender(
    cells: list[Steps],
    names: list[str],
    value: Callable[[Steps, str], str],
    further: Sequence[tuple[str, Callable[[Steps], str]]] = (),
) -> Iterator[str]:
    def row(cell: Steps) -> list[str]:
        values = [value(cell, name) if name in cell.times else "not run" for name in names]
        return [cell.name(), str(cell.dropout), *values, *(column(cell) for _, column in further)]

    headings = ["configuration", "dropout", *(CONTENDERS[name] for name in names)]
    headings += [heading for heading, _ in further]
    return table(headings, map(row, cells))


def memory(cells: list[Steps]) -> Iterator[str]:
    configuration, names = MEMORY
    cells = [cell for cell in cells if cell.configuration == configuration]
    if not cells:
        return
    yield from ("", f"## Memory of {configuration}", "")
    yield "Peak resident memory in MB, without the memory of the process before it built the model, and without parameters, gradients"
    yield "and AdamW's moments (16 bytes a parameter). It is the memory of activations and scratch."
    yield ""
    rows = []
    for cell in cells:
        for name in names:
            before, peak = cell.memory.get(name, (None, None))
            if before is None or peak is None:
                continue
            beyond = peak - before - 16 * cell.about[OURS]["parameters"]
            sizes = [f"{size / 1e6:,.0f}" for size in (before, peak, beyond)]
            rows.append([str(cell.threads), str(cell.dropout), CONTENDERS[name], *sizes])
    headings = ["threads", "dropout", "contender", "before", "peak", "beyond parameters, gradients, moments"]
    yield from table(headings, rows, left=(2,))


def not_run(cells: list[Steps]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        for name, reason in cell.not_run.items():
            where = f"{cell.configuration}, dropout {cell.dropout}, threads {cell.threads}"
            reasons.setdefault(f"{CONTENDERS[name]}: {reason}", []).append(where)
    if reasons:
        yield from ("", "## Not run", "")
    for reason, places in reasons.items():
        yield f"- {reason} ({'; '.join(places) if len(places) < len(cells) else 'everywhere'})"
