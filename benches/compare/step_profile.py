"""Where the time of jostle's training steps goes, and what share of the peak its products could reach: Markdown tables.

    python benches/compare/step_profile.py --output benches/results/profile.md

Needs Linux, `perf` and `addr2line`. Builds jostle with frame pointers in a folder of its own. For each configuration and
number of threads, `perf` samples the stacks of training steps, and of the same products alone, in turns.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import profile_report
import stacks
from machine import write
from profile_report import Cell, Profile
from programs import build, target
from steps import CONFIGURATIONS
from turns import Contender

TIMEOUT = 600  # seconds
YARDSTICKS = {"peak": ["peak"], "reading": ["bandwidth"], "updating": ["bandwidth", "--update"]}
TURN = 200  # milliseconds of a yardstick's turn, and of the one before a turn that is sampled
# How many times as long as the shortest a turn's steps may take.
QUIET = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--dropout", nargs="+", type=float, default=[0.0, 0.1], metavar="RATE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="how long each program is sampled in a round"
    )
    parser.add_argument("--output", type=Path, help="a file for the tables")
    options = parser.parse_args()
    programs = build("frame-pointers", flags="-C force-frame-pointers=yes")
    cells = [
        measure(configuration, threads, options, programs)
        for threads in options.threads
        for configuration in options.configurations
    ]
    report = profile_report.document(cells)
    print(report, end="")
    write(report, options.output)


def measure(configuration: str, threads: int, options: argparse.Namespace, programs: Path) -> Cell:
    sizes = CONFIGURATIONS[configuration]
    commands = {"alone": ["alone"]} | {rate: ["step", "--dropout", str(rate)] for rate in options.dropout}
    # By name, the shortest turn's median: whatever else runs on the machine can only lengthen it.
    best = dict.fromkeys(YARDSTICKS, float("inf"))
    recordings: dict[str | float, list[Recording]] = {name: [] for name in commands}
    with contextlib.ExitStack() as stack:

        def start(program: str, *arguments: str) -> Contender:
            command = [str(programs / program), "--threads", str(threads), *arguments]
            contender = Contender(command, dict(os.environ), threads, TIMEOUT)
            stack.callback(contender.close)
            contender.warm_up(TURN)
            return contender

        yardsticks = {name: start(*command) for name, command in YARDSTICKS.items()}
        model = ["--sizes", ",".join(map(str, sizes))]
        contenders = {name: start(*command, *model) for name, command in commands.items()}
        for number in range(options.rounds):
            print(f"{configuration}, threads {threads}, round {number + 1}", file=sys.stderr)
            for name, yardstick in yardsticks.items():
                best[name] = min(best[name], yardstick.turn(TURN))
            for name, contender in contenders.items():
                program = programs / commands[name][0]
                recordings[name].append(record(contender, program, threads, options.seconds))
    profiles = {name: profile(found, threads) for name, found in recordings.items()}
    return Cell(
        configuration,
        sizes,
        threads,
        parameters=contenders[options.dropout[0]].about["parameters"],
        multiply_adds=contenders["alone"].about["multiply_adds"],
        peak=yardsticks["peak"].about["operations"] / best["peak"],
        bandwidth={name: yardsticks[name].about["bytes"] / best[name] for name in ("reading", "updating")},
        alone=profiles.pop("alone"),
        steps=profiles,
    )


@dataclass
class Recording:
    """A turn that was sampled."""

    # The median of the turn before, without samples, in milliseconds.
    step: float
    # The mean with them.
    sampled_step: float
    # How many there would be if all threads computed all the time.
    most: float
    samples: Counter[tuple[str, str]]


def record(contender: Contender, program: Path, threads: int, seconds: float) -> Recording:
    # A turn is handed the time of the next one.
    step = contender.turn(seconds * 1e3)
    steps = contender.steps
    with tempfile.TemporaryDirectory(dir=target()) as directory:
        file = Path(directory) / "perf.data"
        with stacks.recorded(contender.process.pid, file):
            start = time.perf_counter()
            contender.turn(TURN)
            elapsed = (time.perf_counter() - start) * 1e3
        samples = stacks.samples(file, program)
    return Recording(step, elapsed / steps, elapsed * threads / stacks.PERIOD, samples)


def profile(recordings: list[Recording], threads: int) -> Profile:
    """Of those that nothing has disturbed: about as short as the shortest."""
    shortest = min(recording.sampled_step for recording in recordings)
    quiet = [recording for recording in recordings if recording.sampled_step < QUIET * shortest]
    samples = sum((recording.samples for recording in quiet), Counter())
    # A thread that is asleep has no samples. One alone has nothing to wait for.
    every = samples.total() if threads == 1 else sum(recording.most for recording in quiet)
    samples[stacks.WAITING, ""] += max(0, round(every - samples.total()))
    # Of a step that is not sampled: sampling costs time, and takes it from all operations alike.
    step = statistics.median(recording.step for recording in quiet)
    return Profile(step, step * threads / every, samples)


if __name__ == "__main__":
    main()
