"""Training steps of jostle and PyTorch, taking turns: a table of medians over several rounds.

    cargo build --release -p jostle-benches
    python benches/pytorch/compare.py target/release/step --threads 2 --dropout 0 0.1 --compile

PyTorch runs in the interpreter that runs this script. Each round starts each contender once, so that a busy or
throttled machine slows all of them alike; the ratio is the median of the rounds' ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

# V, T, L, H, C, B, and how many steps each contender does in each round.
CONFIGURATIONS = {
    "tiny": ("65,32,2,2,32,8", 200),
    "small": ("65,64,4,4,128,12", 30),
    "medium": ("65,256,6,6,384,16", 3),
    "gpt2": ("50257,64,12,12,768,4", 3),
}


def run(command: list[str]) -> float:
    """The median of the contender's steps, in milliseconds."""
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(output, end="", file=sys.stderr)
    return json.loads(output.splitlines()[-1])["median_ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="the built Rust binary `step`")
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--dropout", nargs="+", type=float, default=[0.0, 0.1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="instead of the configuration's own number")
    parser.add_argument("--compile", action="store_true", help="torch.compile as a third contender")
    arguments = parser.parse_args()

    script = str(Path(__file__).with_name("step.py"))
    contenders = {"jostle": [arguments.binary], "PyTorch": [sys.executable, script]}
    if arguments.compile:
        contenders["torch.compile"] = [sys.executable, script, "--compile"]

    print(f"{arguments.threads} threads, medians of {arguments.rounds} rounds in ms (fastest to slowest round)\n")
    others = list(contenders)[1:]
    ratios = "".join(f" {name} / jostle |" for name in others)
    print("| configuration | dropout | " + " | ".join(contenders) + " |" + ratios)
    print("|---|---:|" + "---:|" * (len(contenders) + len(others)), flush=True)
    for name in arguments.configurations:
        sizes, steps = CONFIGURATIONS[name]
        for dropout in arguments.dropout:
            common = ["--sizes", sizes, "--dropout", str(dropout), "--threads", str(arguments.threads)]
            common += ["--steps", str(arguments.steps or steps)]
            times: dict[str, list[float]] = {contender: [] for contender in contenders}
            for _ in range(arguments.rounds):
                for contender, command in contenders.items():
                    times[contender].append(run(command + common))
            cells = [
                f"{statistics.median(t):.2f} ({min(t):.2f} to {max(t):.2f})" for t in times.values()
            ]
            for other in others:
                pairs = zip(times[other], times["jostle"], strict=True)
                cells.append(f"{statistics.median(theirs / ours for theirs, ours in pairs):.2f}")
            print(f"| {name} ({sizes}) | {dropout} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
