"""The cost of each of jostle's operations: runs the benchmark and makes a Markdown table of criterion's results.

python benches/compare/operations.py --output benches/results/operations.md
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import report
from machine import ROOT, header
from programs import target

INTRODUCTION = """\
One thread, medians. Products have their floating-point operations a second, the others the bytes of their
operands, each read or written once."""


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="N", help="how long each benchmark is measured"
    )
    options = parser.parse_args()
    command = ["cargo", "bench", "--locked", "--package", "jostle-benches", "--no-default-features"]
    command += ["--bench", "operations", "--", "--quiet", "--noplot"]
    command += ["--warm-up-time", "0.5", "--measurement-time", str(options.seconds)]
    # A folder of its own, because criterion keeps the results of benchmarks that were removed.
    with tempfile.TemporaryDirectory(dir=target()) as results:
        environment = os.environ | {"CRITERION_HOME": results}
        subprocess.run(command, cwd=ROOT, check=True, env=environment)
        files = sorted(Path(results).glob("operations/*/*/new/benchmark.json"))
        rows = [row(file.parent) for file in files]
    headings = ("operation", "configuration", "time", "95 % confidence", "throughput")
    table = report.table(headings, rows, left=(0, 1))
    report.publish("\n".join([header("Operations"), "", INTRODUCTION, "", *table, ""]), options.output)


def row(folder: Path) -> tuple[str, ...]:
    benchmark = json.loads((folder / "benchmark.json").read_text())
    median = json.loads((folder / "estimates.json").read_text())["median"]
    nanoseconds, interval = median["point_estimate"], median["confidence_interval"]
    ((kind, count),) = benchmark["throughput"].items()
    unit = {"Elements": "GFLOP/s", "Bytes": "GB/s"}[kind]
    return (
        benchmark["function_id"],
        benchmark["value_str"],
        f"{microseconds(nanoseconds)} µs",
        f"{microseconds(interval['lower_bound'])} to {microseconds(interval['upper_bound'])}",
        f"{count / nanoseconds:.1f} {unit}",
    )


def microseconds(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e3:,.1f}"


if __name__ == "__main__":
    main()
