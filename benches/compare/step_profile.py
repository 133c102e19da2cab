"""Where the time of jostle's training steps goes, and what share of the peak its products could reach: Markdown tables.

    python benches/compare/step_profile.py --output benches/results/profile.md

Needs Linux, `perf` and `addr2line`. Builds jostle with frame pointers in a folder of its own. For each configuration and
number of threads, `perf` samples the stacks of training steps, and of the same products alone, in turns.
"""

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import profile_report
import report
import stacks
from configurations import CONFIGURATIONS, words
from profile_report import Profile, Profiles
from programs import build, target
from turns import Contender

YARDSTICKS = {"peak": ["peak"], "reading": ["bandwidth"], "updating": ["bandwidth", "--update"]}
TURN = 200  # milliseconds of a yardstick's turn, and of the one before a turn that is sampled
# How many times as long as the shortest a turn's steps may take.
QUIET = 1.05


def main() -> None:
    parser = report.arguments(__doc__)
    report.add_cells(parser)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="N", help="how long a program is sampled in a round"
    )
    options = parser.parse_args()
    programs = build("frame-pointers", flags="-C force-frame-pointers=yes")
    cells = [
        measure(configuration, threads, options, programs)
        for threads, configuration in itertools.product(options.threads, options.configurations)
    ]
    report.publish(profile_report.document(cells), options.output)


def measure(configuration: str, threads: int, options: argparse.Namespace, programs: Path) -> Profiles:
    model = words(CONFIGURATIONS[configuration])
    with contextlib.ExitStack() as stack:

        def start(program: str, *arguments: str) -> Contender:
            command = [str(programs / program), "--threads", str(threads), *arguments]
            contender = stack.enter_context(Contender(command, threads))
            contender.warm_up(TURN)
            return contender

        yardsticks = {name: start(*command) for name, command in YARDSTICKS.items()}
        alone = start("products", *model)
        steps = {rate: start("step", *model, "--dropout", str(rate)) for rate in options.dropout}
        contenders = [alone, *steps.values()]
        # The median of the shortest turn, since other processes can only lengthen a turn.
        best = dict.fromkeys(YARDSTICKS, float("inf"))
        recordings: dict[Contender, list[Recording]] = {contender: [] for contender in contenders}
        for number in range(options.rounds):
            print(f"{configuration}, threads {threads}, round {number + 1}", file=sys.stderr)
            for name, yardstick in yardsticks.items():
                best[name] = min(best[name], yardstick.turn(TURN))
            for contender in contenders:
                recordings[contender].append(record(contender, options.seconds))
    return Profiles(
        configuration,
        threads,
        parameters=steps[options.dropout[0]].about["parameters"],
        multiply_adds=alone.about["multiply_adds"],
        peak=yardsticks["peak"].about["operations"] / best["peak"],
        bandwidth={name: yardsticks[name].about["bytes"] / best[name] for name in ("reading", "updating")},
        alone=profile(recordings[alone], threads),
        steps={rate: profile(recordings[step], threads) for rate, step in steps.items()},
    )


@dataclass
class Recording:
    """A turn that was sampled."""

    # The median of the turn before, without samples, in milliseconds.
    step: float
    # The mean with them.
    sampled_step: float
    # The number of samples if all threads computed all the time.
    most: float
    samples: Counter[tuple[str, str]]


def record(contender: Contender, seconds: float) -> Recording:
    # A turn is handed the time of the next one.
    step = contender.turn(seconds * 1e3)
    steps = contender.steps
    with tempfile.TemporaryDirectory(dir=target()) as directory:
        file = Path(directory) / "perf.data"
        with stacks.recorded(contender.process.pid, file):
            start = time.perf_counter()
            contender.turn(TURN)
            elapsed = (time.perf_counter() - start) * 1e3
        samples = stacks.samples(file, Path(contender.command[0]))
    return Recording(step, elapsed / steps, elapsed * contender.threads / stacks.PERIOD, samples)


def profile(recordings: list[Recording], threads: int) -> Profile:
    """The undisturbed turns, which are about as short as the shortest."""
    shortest = min(recording.sampled_step for recording in recordings)
    quiet = [recording for recording in recordings if recording.sampled_step < QUIET * shortest]
    samples = sum((recording.samples for recording in quiet), Counter())
    # A sleeping thread has no samples. A single thread never waits.
    every = samples.total() if threads == 1 else sum(recording.most for recording in quiet)
    samples[stacks.WAITING, ""] += max(0, round(every - samples.total()))
    # The time without samples: sampling costs time, in all operations alike.
    step = statistics.median(recording.step for recording in quiet)
    return Profile(step, step * threads / every, samples)


if __name__ == "__main__":
    main()
