"""How the time of jostle's training step grows with context, width, batch and threads: Markdown tables.

python benches/compare/growth.py --output benches/results/growth.md
"""

import subprocess

import report
from machine import header
from programs import build


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    options = parser.parse_args()
    command = [str(build() / "growth"), "--rounds", str(options.rounds)]
    tables = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    report.publish(f"{header('Growth')}\n\n{tables}", options.output)


if __name__ == "__main__":
    main()
