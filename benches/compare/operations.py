"""What each of jostle's operations costs: runs the benchmark and makes a Markdown table of criterion's results.

python benches/compare/operations.py --output benches/results/operations.md
"""

import argparse
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from machine import ROOT, header, write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each benchmark is measured")
    parser.add_argument("--output", type=Path, help="a file for the table")
    options = parser.parse_args()
    bench = [
        "cargo",
        "bench",
        "--locked",
        "-p",
        "jostle-benches",
        "--no-default-features",
        "--bench",
        "operations",
    ]
    settings = ["--quiet", "--noplot", "--warm-up-time", "0.5", "--measurement-time", str(options.seconds)]
    # A folder of its own: criterion keeps the results of benchmarks that are no more.
    results = ROOT / "target" / "operations"
    subprocess.run(
        [*bench, "--", *settings], cwd=ROOT, check=True, env=os.environ | {"CRITERION_HOME": str(results)}
    )
    lines = [
        "# Operations",
        "",
        header(),
        "",
        "One thread, medians. Products have their floating-point operations a second, the others the bytes of their",
        "operands, each read or written once.",
        "",
        "| operation | configuration | time | 95 % confidence | throughput |",
        "|---|---|---:|---:|---:|",
    ]
    found = [row(folder.parent) for folder in sorted(results.glob("operations/*/*/new/benchmark.json"))]
    report = "\n".join([*lines, *found])
    print(report)
    write(report + "\n", options.output)


def row(folder: Path) -> str:
    benchmark: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    median = json.loads((folder / "estimates.json").read_text())["median"]
    nanoseconds, interval = median["point_estimate"], median["confidence_interval"]
    ((kind, count),) = benchmark["throughput"].items()
    unit = {"Elements": "GFLOP/s", "Bytes": "GB/s"}[kind]
    bounds = f"{microseconds(interval['lower_bound'])} to {microseconds(interval['upper_bound'])}"
    name, size = benchmark["function_id"], benchmark["value_str"]
    return (
        f"| {name} | {size} | {microseconds(nanoseconds)} µs | {bounds} | {count / nanoseconds:.1f} {unit} |"
    )


def microseconds(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e3:,.1f}"


if __name__ == "__main__":
    main()
