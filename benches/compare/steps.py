"""Whole training steps of jostle, PyTorch and JAX, taking turns: Markdown tables.

    pip install -r benches/compare/requirements.txt
    python benches/compare/steps.py --configurations tiny small --rounds 5

Builds jostle, checks that the peers compute the same gradients and losses, then measures. The peers run in the
interpreter that runs this script. In each round each contender does steps for a while, one after the other, so that
a busy or throttled machine slows all of them alike; ratios are taken within rounds.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import steps_report
from machine import write
from programs import build, target
from steps_report import CONTENDERS, OURS, PEAK, PEERS, Cell
from turns import Contender, NotRun, last_words

# V, T, L, H, C, B, as in `benches/src/session.rs`.
CONFIGURATIONS = {
    "tiny": (65, 32, 2, 2, 32, 8),
    "small": (65, 64, 4, 4, 128, 12),
    "medium": (65, 256, 6, 6, 384, 16),
    "gpt2": (50257, 64, 12, 12, 768, 4),
}

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
    for threads in options.threads:
        for configuration in options.configurations:
            for dropout in options.dropout:
                cell = Cell(configuration, CONFIGURATIONS[configuration], dropout, threads, dict(not_run))
                measure(cell, options, commands)
                cells.append(cell)
                report = steps_report.document(cells, differences, options.rounds)
                # After each, so that what hours have measured outlives an interruption.
                write(report, options.output)
    print(report, end="")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--dropout", nargs="+", type=float, default=[0.0, 0.1], metavar="RATE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    others = [name for name in CONTENDERS if name != OURS]
    parser.add_argument(
        "--contenders", nargs="+", choices=others, default=others, help="beside jostle itself"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument(
        "--turn", type=float, default=0.5, metavar="SECONDS", help="a turn's length, of two steps at least"
    )
    parser.add_argument(
        "--timeout", type=float, default=900.0, metavar="SECONDS", help="for a turn, compiling included"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the tables there")
    return parser.parse_args()


def check(
    options: argparse.Namespace, commands: dict[str, list[str]]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """The largest differences by peer and configuration, and why a peer could not be checked, and so is not run.

    Ends the program where a peer computes something else. torch.compile runs the model that is checked as PyTorch's.
    """
    found: dict[str, dict[str, float]] = {}
    not_run: dict[str, str] = {}
    checked = {"pytorch" if name == "compile" else name for name in options.contenders if name in PEERS}
    for configuration in options.configurations:
        with tempfile.TemporaryDirectory(dir=target()) as directory:
            file = f"{directory}/reference.safetensors"
            common = ["--sizes", ",".join(map(str, CONFIGURATIONS[configuration]))]
            common += ["--threads", str(max(options.threads))]
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
    """What keeps the peers to the processor, and to these threads where their own settings don't."""
    variables = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    if threads:
        variables["OMP_NUM_THREADS"] = str(threads)
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return os.environ | variables


def measure(cell: Cell, options: argparse.Namespace, commands: dict[str, list[str]]) -> None:
    """Fills the cell: all rounds of its contenders."""
    budget = options.turn * 1e3
    common = ["--threads", str(cell.threads)]
    model = ["--sizes", ",".join(map(str, cell.sizes)), "--dropout", str(cell.dropout)]
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
                running[name] = Contender(command, environment(cell.threads), cell.threads, options.timeout)
                stack.callback(running[name].close)
                running[name].warm_up(budget)
            except NotRun as error:
                give_up(name, error)
        for number in range(options.rounds):
            # Whoever begins comes last in the next round.
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
