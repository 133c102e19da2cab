"""Generation of one text, on one thread, by jostle and PyTorch, and how near jostle comes to reading its parameters
once a token as fast as memory is read: a Markdown table.

    pip install -r benches/compare/requirements.txt
    python benches/compare/generation.py --output benches/results/generation.md

Each text goes from its first token until the context is full; both keep keys and values. The two and a program that
does nothing but read memory take turns; ratios and shares are taken within rounds.
"""

import argparse
import contextlib
import statistics
import sys
from pathlib import Path

from machine import header, write
from programs import build
from turns import Contender

# V, T, L, H, C, as in `benches/src/session.rs`.
CONFIGURATIONS = {
    "tiny": (65, 32, 2, 2, 32),
    "small": (65, 64, 4, 4, 128),
    "medium": (65, 256, 6, 6, 384),
    "gpt2": (50257, 64, 12, 12, 768),
}
TIMEOUT = 600  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.5, help="seconds that a turn takes, or two texts")
    parser.add_argument("--output", type=Path, help="a file for the table")
    options = parser.parse_args()
    programs = build()
    lines = [
        "# Generation",
        "",
        header(["torch"]),
        "",
        f"One text at a time, one thread, medians of {options.rounds} rounds (slowest to fastest round).",
        "",
        "| configuration | jostle, tokens/s | PyTorch, tokens/s | jostle / PyTorch | parameters read per token, MB "
        "| jostle reads, GB/s | memory, GB/s | share |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [row(name, programs, options.rounds, options.turn * 1e3) for name in options.configurations]
    report = "\n".join(lines)
    print(report)
    write(report + "\n", options.output)


def row(name: str, programs: Path, rounds: int, turn: float) -> str:
    sizes = ",".join(map(str, CONFIGURATIONS[name]))
    script = str(Path(__file__).with_name("generation_torch.py"))
    commands = [
        [str(programs / "generation"), "--sizes", sizes],
        [sys.executable, script, "--sizes", sizes],
        [str(programs / "bandwidth")],
    ]
    with contextlib.ExitStack() as stack:
        contenders = []
        for command in commands:
            contenders.append(Contender(command, {}, threads=1, timeout=TIMEOUT))
            stack.callback(contenders[-1].close)
        for contender in contenders:
            contender.warm_up(turn)
        # By contender, a number for each round: texts or passes over memory in a second.
        speeds = [
            [1e3 / milliseconds for milliseconds in times]
            for times in zip(*([c.turn(turn) for c in contenders] for _ in range(rounds)), strict=True)
        ]
        ours, _, memory = (contender.about for contender in contenders)
    texts, theirs, passes = speeds
    context = CONFIGURATIONS[name][1]
    read = ours["bytes_per_token"]
    reading = [text * context * read for text in texts]
    bandwidth = [speed * memory["bytes"] for speed in passes]
    cells = [
        f"{name} ({sizes})",
        spread([text * context for text in texts]),
        spread([text * context for text in theirs]),
        f"{ratio(texts, theirs):.2f}",
        f"{read / 1e6:.3g}",
        f"{statistics.median(reading) / 1e9:.1f}",
        f"{statistics.median(bandwidth) / 1e9:.1f}",
        f"{100 * ratio(reading, bandwidth):.0f} %",
    ]
    return f"| {' | '.join(cells)} |"


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
