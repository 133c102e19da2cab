"""How the time of jostle's training step grows with context, width, batch and threads: Markdown tables.

python benches/compare/growth.py --output benches/results/growth.md
"""

import argparse
import subprocess
from pathlib import Path

from machine import ROOT, header, write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="a file for the tables")
    options = parser.parse_args()
    cargo = ["cargo", "run", "--locked", "--release", "-p", "jostle-benches", "--no-default-features"]
    command = [*cargo, "--bin", "growth", "--", "--rounds", str(options.rounds)]
    tables = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    report = f"# Growth\n\n{header()}\n\n{tables}"
    print(report, end="")
    write(report, options.output)


if __name__ == "__main__":
    main()
