"""Generation of one text, on one thread, by jostle and PyTorch: a Markdown table. It also compares the rate at which
jostle reads its parameters, once a token, with the bandwidth of memory.

    pip install -r benches/compare/requirements.txt
    python benches/compare/generation.py --output benches/results/generation.md

A text starts with one token and ends when the context is full; both keep keys and values. The two take turns with a
program that only reads memory. Ratios and shares are taken within rounds.
"""

import contextlib
import statistics
import sys
from pathlib import Path

import report
from configurations import CONFIGURATIONS, words
from machine import header
from programs import build
from turns import Contender

HEADINGS = (
    "configuration",
    "jostle, tokens/s",
    "PyTorch, tokens/s",
    "jostle / PyTorch",
    "parameters read per token, MB",
    "jostle reads, GB/s",
    "memory, GB/s",
    "share",
)


def main() -> None:
    parser = report.arguments(__doc__)
    report.add_configurations(parser)
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument(
        "--turn", type=float, default=0.5, metavar="SECONDS", help="a turn's length, of two texts at least"
    )
    options = parser.parse_args()
    programs = build()
    introduction = (
        f"One text at a time, one thread, medians of {options.rounds} rounds (slowest to fastest round)."
    )
    rows = [measure(name, programs, options.rounds, options.turn * 1e3) for name in options.configurations]
    lines = [header("Generation", ["torch"]), "", introduction, "", *report.table(HEADINGS, rows), ""]
    report.publish("\n".join(lines), options.output)


def measure(name: str, programs: Path, rounds: int, turn: float) -> tuple[str, ...]:
    """A row of the table."""
    *model, _ = sizes = CONFIGURATIONS[name]
    script = Path(__file__).with_name("generation_torch.py")
    commands = [
        [str(programs / "generation"), *words(tuple(model))],
        [sys.executable, str(script), *words(tuple(model))],
        [str(programs / "bandwidth")],
    ]
    with contextlib.ExitStack() as stack:
        contenders = [stack.enter_context(Contender(command, threads=1)) for command in commands]
        for contender in contenders:
            contender.warm_up(turn)
        # By contender, a number for each round: texts, or passes over memory, in a second.
        texts, theirs, passes = (
            [1e3 / milliseconds for milliseconds in times]
            for times in zip(*([c.turn(turn) for c in contenders] for _ in range(rounds)), strict=True)
        )
        ours, _, memory = (contender.about for contender in contenders)
    read = ours["bytes_per_token"]
    reading = [text * sizes.T * read for text in texts]
    bandwidth = [speed * memory["bytes"] for speed in passes]
    return (
        f"{name} ({','.join(map(str, model))})",
        spread([text * sizes.T for text in texts]),
        spread([text * sizes.T for text in theirs]),
        f"{ratio(texts, theirs):.2f}",
        f"{read / 1e6:.3g}",
        f"{statistics.median(reading) / 1e9:.1f}",
        f"{statistics.median(bandwidth) / 1e9:.1f}",
        report.percent(ratio(reading, bandwidth), 1),
    )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
