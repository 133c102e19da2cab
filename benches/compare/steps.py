"""Whole training steps of jostle, PyTorch and JAX, taking turns: Markdown tables.

    pip install -r benches/compare/requirements.txt
    python benches/compare/steps.py --configurations tiny small --rounds 5

Builds jostle, checks that the peers compute the same gradients and losses, then measures. The peers run in the
interpreter that runs this script. In each round the contenders take turns, each for a while, so that a busy or
throttled machine slows all of them alike. Ratios are taken within rounds.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import report
import steps_report
from configurations import CONFIGURATIONS, words
from programs import build, target
from steps_report import CONTENDERS, OURS, PEAK, PEERS, Steps
from turns import TIMEOUT, Contender, NotRun, last_words

SCRIPTS = {
    "pytorch": ["peer_torch.py"],
    "compile": ["peer_torch.py", "--compile"],
    "jax": ["peer_jax.py"],
}

# The largest difference of a gradient over its largest element, or of a loss. Rounding makes some 1e-6.
TOLERANCE = 1e-4


def main() -> None:
    options = parse()
    programs = build()
    commands = {OURS: [str(programs / "step")], PEAK: [str(programs / "peak")]}
    if "matrixmultiply" in options.contenders:
        # With `products`, the crate has its default features, by which it finds the processor's vector instructions.
        programs = build("matrixmultiply", "matrixmultiply,products")
        commands["matrixmultiply"] = [str(programs / "step")]
    for name, (script, *arguments) in SCRIPTS.items():
        commands[name] = [sys.executable, str(Path(__file__).with_name(script)), *arguments]

    differences, not_run = check(options, commands)
    cells = []
    document = ""
    for threads, configuration, dropout in itertools.product(
        options.threads, options.configurations, options.dropout
    ):
        cell = Steps(configuration, threads, dropout, dict(not_run))
        measure(cell, options, commands)
        cells.append(cell)
        document = steps_report.document(cells, differences, options.rounds)
        # After each one, so that an interruption does not lose hours of measurements.
        report.write(document, options.output)
    print(document, end="")


def parse() -> argparse.Namespace:
    parser = report.arguments(__doc__)
    report.add_cells(parser)
    others = [name for name in CONTENDERS if name != OURS]
    parser.add_argument(
        "--contenders", nargs="+", choices=others, default=others, help="beside jostle itself"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument(
        "--turn", type=float, default=0.5, metavar="SECONDS", help="a turn's length, of two steps at least"
    )
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="for a turn, compiling included"
    )
    return parser.parse_args()


def check(
    options: argparse.Namespace, commands: dict[str, list[str]]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """The largest differences by peer and configuration, and the reason if a peer could not be checked and is not run.

    Ends the program if a peer computes something else. torch.compile runs the same model as PyTorch, which is checked.
    """
    found: dict[str, dict[str, float]] = {}
    not_run: dict[str, str] = {}
    checked = {"pytorch" if name == "compile" else name for name in options.contenders if name in PEERS}
    for configuration in options.configurations:
        with tempfile.TemporaryDirectory(dir=target()) as directory:
            file = f"{directory}/reference.safetensors"
            common = [*words(CONFIGURATIONS[configuration]), "--threads", str(max(options.threads))]
            subprocess.run([*commands[OURS], *common, "--reference", file], check=True)
            for name in sorted(checked - not_run.keys()):
                print(f"{configuration}: checking {CONTENDERS[name]}", file=sys.stderr)
                command = [*commands[name], *common, "--check", file]
                result = subprocess.run(command, env=environment(), capture_output=True, text=True)
                if result.returncode != 0:
                    not_run[name] = last_words(result.stderr)
                    continue
                differences = json.loads(result.stdout)
                # Written so that NaN is wrong too.
                wrong = [f"{key} by {x:.1e}" for key, x in differences.items() if not x < TOLERANCE]
                if wrong:
                    sys.exit(f"{configuration}: {CONTENDERS[name]} differs from jostle in {', '.join(wrong)}")
                found.setdefault(name, {})[configuration] = max(differences.values())
    if "pytorch" in not_run:
        not_run["compile"] = not_run["pytorch"]
    return found, not_run


def environment(threads: int | None = None) -> dict[str, str]:
    """The environment that limits the peers to the processor and to these threads."""
    variables = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    if threads:
        variables["OMP_NUM_THREADS"] = str(threads)
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return os.environ | variables


def measure(cell: Steps, options: argparse.Namespace, commands: dict[str, list[str]]) -> None:
    """Fills the cell: all rounds of its contenders."""
    budget = options.turn * 1e3
    common = ["--threads", str(cell.threads)]
    model = [*words(cell.sizes), "--dropout", str(cell.dropout)]
    running: dict[str, Contender] = {}
    with contextlib.ExitStack() as stack:

        def give_up(name: str, error: NotRun) -> None:
            if name in (OURS, PEAK):
                sys.exit(f"{name}: {error}")
            cell.not_run[name] = str(error)
            cell.times.pop(name, None)
            if name in running:
                running.pop(name).close()

        print(f"{cell.configuration}, dropout {cell.dropout}, threads {cell.threads}", file=sys.stderr)
        for name in [PEAK, OURS, *options.contenders]:
            if name in cell.not_run:
                continue
            command = [*commands[name], *common, *(model if name != PEAK else [])]
            try:
                contender = Contender(command, cell.threads, options.timeout, environment(cell.threads))
                running[name] = stack.enter_context(contender)
                contender.warm_up(budget)
            except NotRun as error:
                give_up(name, error)
        for number in range(options.rounds):
            # The first of this round is the last of the next one.
            first = number % len(running)
            for name in [*list(running)[first:], *list(running)[:first]]:
                try:
                    time = running[name].turn(budget)
                except NotRun as error:
                    give_up(name, error)
                    continue
                cell.times.setdefault(name, []).append(time)
                print(f"  {name} {time:.3f} ms", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
        for name, contender in running.items():
            cell.about[name] = contender.about
            cell.memory[name] = (contender.memory_before, contender.memory("VmHWM"))


if __name__ == "__main__":
    main()
