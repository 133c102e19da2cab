"""The results of scripts/device-table.sh, as Markdown on the standard output.

table.py FIGURES [--summary docs/performance.md | --check PAGE]

--summary puts the summary between its marks in that file instead. --check fails if a figure is more than 5 % above the
same figure of an earlier page.
"""

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Bytes that a model must fit in, by the beginning of its name.
BUDGETS = {
    "4k, SGD in backward": 40 * 1024,
    "4k": 88 * 1024,
    "14k": 256 * 1024,
    "50k": 256 * 1024,
    "15k-llama": 256 * 1024,
}
MARKS = ("<!-- scripts/device-table.sh writes this -->\n", "<!-- to here -->\n")

# Model, target, and a program's opt-level or "plan"; then name and number.
Figures = dict[str, dict[str, dict[str, dict[str, int]]]]


def read(path: Path) -> Figures:
    """The lines of the script. If a program prints a figure twice, as the stack, the maximum counts."""
    figures: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(int))))
    for line in path.read_text().splitlines():
        model, target, what, name, number = line.split("\t")
        kept = figures[model][target][what]
        kept[name] = max(kept[name], int(number))
    return figures


def version(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(head: list[str], rows: Iterable[Iterable[object]], names: int = 1) -> str:
    """The first `names` columns are not numbers."""
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * names + "---:|" * (len(head) - names), *lines[1:]])


def multiply_accumulates(model: str, plan: dict[str, int], program: dict[str, int]) -> int:
    """Forward, and twice as many backward: projections, the MLP and the head; attention at all earlier positions."""
    t, c, f, heads = plan["CONTEXT"], plan["WIDTH"], plan["HIDDEN"], plan["HEADS"]
    queries = (plan["HEAD_WIDTH"] or c // heads) * heads
    keys = queries // heads * (plan["KV_HEADS"] or heads)
    mlp = 3 if model.startswith("15k-llama") else 2
    block = 2 * c * (queries + keys) + mlp * c * f + queries * (t + 1)
    a_pass = 3 * plan["BATCH"] * t * (plan["LAYERS"] * block + c * plan["VOCAB"]) + program["recomputed"]
    return a_pass * (4 if "4 micro-batches" in model else 1)


def memory(figures: Figures) -> Iterable[list[object]]:
    for model, targets in figures.items():
        plan = next(iter(targets.values()))["plan"]
        programs = [target[level] for target in targets.values() for level in ("3", "s")]
        parts = [plan[f"{name}_SIZE"] for name in ("PARAMETERS", "GRADIENTS", "OPTIMIZER")]
        parts += [
            programs[0]["activations"],
            programs[0]["scratch"],
            plan["BATCH_SIZE"],
        ]
        stack = max(program["stack"] for program in programs)
        static = max(program[".bss"] + program[".data"] for program in programs)
        budget = next(most for name, most in BUDGETS.items() if model.startswith(name))
        within = f"{budget // 1024} KB: {'yes' if static + stack <= budget else '**no**'}"
        yield [
            model,
            programs[0]["parameters"],
            *parts,
            static - sum(parts),
            stack,
            static + stack,
            within,
        ]


def steps(figures: Figures) -> Iterable[list[object]]:
    for model, targets in figures.items():
        for target, what in targets.items():
            work = multiply_accumulates(model, what["plan"], what["3"])
            ours = what["3"]["instructions"]
            plain: list[object] = [""] * 4
            if "plain" in what:
                taken, unrolled = (what[name]["instructions"] for name in ("plain", "plain-funroll-loops"))
                plain = [
                    taken,
                    f"{taken / ours:.2f}",
                    f"{unrolled / ours:.2f}",
                    what["plain"]["memory"],
                ]
            each = [f"{what[level]['instructions'] / work:.2f}" for level in ("3", "s")]
            yield [
                model,
                target,
                work,
                ours,
                *each,
                *plain,
                what["3"]["piece"],
                what["3"]["stack"],
            ]


def summary(figures: Figures) -> Iterable[list[object]]:
    by_model = defaultdict(list)
    for model, _, _, ours, each, _, _, ratio, *_ in steps(figures):
        by_model[model].append(f"{int(str(ours)) / 1e6:.2f} M, {each}{ratio and f', {ratio}'}")
    for model, parameters, *_, total, _ in memory(figures):
        yield [model, parameters, total, *by_model[str(model)]]


def flash(engine: dict[str, dict[str, dict[str, int]]]) -> str:
    return table(
        [
            "target",
            'training, "s"',
            "training, 3",
            'and checkpoints, "s"',
            "and checkpoints, 3",
        ],
        [
            [
                name,
                *(levels[level][program] for program in ("training", "firmware") for level in ("s", "3")),
            ]
            for name, levels in engine.items()
        ],
    )


def stories(programs: dict[str, dict[str, dict[str, int]]]) -> str:
    """The rows of stories260K. A program's figures are those at opt-level 3."""
    rows = []
    for name, what in programs.items():
        program = what["3"]
        memory = program[".bss"] + program[".data"]
        rows.append([name, program["flash"], memory, program["stack"], program["instructions"]])
    return table(
        ["work", "bytes of weights in flash", "bytes of RAM", "stack", "instructions of a token or step"],
        rows,
    )


PAGE = """\
# Devices

- jostle: {jostle}
- compilers: {compilers}
- emulator: {emulator}
- command: `scripts/device-table.sh`

Counted by an emulator (`-icount shift=0`), which proves function and counts instructions. **It times nothing**: how many
cycles an instruction takes depends on the processor, its flash and its caches. On Arm the counter advances in steps of 40 or 50.

The models have vocabulary 27, 4 heads and one sequence in a pass. The first ones are GPT-2s:

- `4k`: 1 layer of width 16, context 16, a head of its own: 4,192 parameters without norms and biases. AdamW with
  clipping; AdamW within backward, which cannot clip; or plain gradient descent within backward.
- `14k`: the largest of width 32 that trains with AdamW in 256 KB: 1 layer, context {context}. With AdamW
  within backward, which needs hardly any memory for gradients: context {fused_context}, the longest that is a multiple of 4.
- `50k`: 4 layers of width 32, context 12; plain gradient descent within backward, with activation recomputation.
- `15k-llama`: a Llama with 2 layers of width 24, hidden width 72, and 2 heads of keys and values. It trains with AdamW in 256 KB,
  with context {llama_context} and activation recomputation. With AdamW within backward: context {fused_llama_context}.

## Memory

Bytes of RAM for training, evaluating and generating. A generator works in the workspace or in the gradients, which are
free between steps. Other: the library's handles, a generator's window, and the program's own variables. Stack: the peak
over all targets and both `opt-level`s, measured with a painted stack.

{memory}

## Instructions

Instructions of one whole training step: batch, forward, loss, backward, clipping, update. Multiply-accumulates count the
products, three times the forward pass, and recomputation. The plain implementation (`benches/device/plain.c`) takes the
same step with the same dropout masks. It has simple loops over arrays whose sizes the compiler knows, compiled with
`-O3 -ffast-math`, and in another column with `-funroll-loops` too. It keeps all activations, so its bytes of RAM are
listed as well. The largest piece is the most instructions in one call of `jostle_trainer_poll`.

{steps}

## A real model

stories260K of llama2.c (260,032 parameters) on a Cortex-M7 with 4 MB of RAM, at `opt-level` 3 (`scripts/test/device/stories.sh`).
It writes 200 tokens of llama2.c's story, with context 256. Then it trains on that story, with context 64 and AdamW within backward,
and its parameters after 20 steps are those of a host. Weights that are not trained are used where they lie in flash. The whole
model trains with activation recomputation. RAM does not include the stack.

{stories}

## Flash

Bytes of code and constants, by `opt-level`. They count the library, and the functions of the compiler's own library that
it calls. One program initialises, trains, evaluates and generates. The other is the firmware of `ffi/examples/firmware`,
which also keeps checkpoints in two slots of flash memory.

{flash}
"""


def written(page: str) -> Iterable[dict[str, str]]:
    """The rows of a page's tables, by their columns."""
    head: list[str] = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif not line.startswith("|---"):
            yield dict(zip(head, cells, strict=True))


def changes(
    engine: dict[str, dict[str, dict[str, int]]], figures: Figures, page: str
) -> Iterable[tuple[str, int, int]]:
    """The figures at opt-level 3: name, value, and value on the page."""
    rows = list(written(page))

    def number(column: str, **where: str) -> int:
        (found,) = (row[column] for row in rows if column in row and where.items() <= row.items())
        return int(found.replace(",", ""))

    for model, targets in figures.items():
        (stack,) = (row["stack"] for row in rows if row.get("model") == model and "in all" in row)
        static = number("in all", model=model) - int(stack.replace(",", ""))
        for target, what in targets.items():
            program, name = what["3"], f"{target}, {model}"
            yield f"{name}, RAM", program[".bss"] + program[".data"], static
            for figure, column in (
                ("instructions", "instructions"),
                ("piece", "largest piece"),
                ("stack", "stack"),
            ):
                before = number(column, model=model, target=target)
                yield f"{name}, {column}", program[figure], before
    for target, levels in engine.items():
        for figure, column in (
            ("training", "training, 3"),
            ("firmware", "and checkpoints, 3"),
        ):
            before = number(column, target=target)
            yield f"{target}, flash, {column}", levels["3"][figure], before


def check(found: list[tuple[str, int, int]]) -> bool:
    """Prints large changes. Returns whether every figure has grown by at most 5 %."""
    passed = True
    for what, now, before in found:
        grown, fallen = now * 100 > before * 105, now * 100 < before * 95
        passed = passed and not grown
        if grown or fallen:
            how = "FAILED" if grown else "renew scripts/device-table.sh's table"
            print(f"{how}: {what}: {now:,}, {now / before - 1:+.1%} from {before:,}")
    largest = max(now / before - 1 for _, now, before in found)
    print(f"table of devices: {len(found)} figures, at most {largest:+.1%}")
    return passed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("figures", type=Path)
    parser.add_argument("--summary", type=Path)
    parser.add_argument("--check", type=Path)
    arguments = parser.parse_args()
    figures = read(arguments.figures)
    engine = figures.pop("")
    real = figures.pop("stories260K", {})
    targets = list(engine)
    if arguments.check:
        page = arguments.check.read_text()
        sys.exit(not check(list(changes(engine, figures, page))))
    if arguments.summary:
        before, rest = arguments.summary.read_text().split(MARKS[0])
        models = table(["model", "parameters", "bytes of RAM in all", *targets], summary(figures))
        after = rest.split(MARKS[1])[1]
        arguments.summary.write_text(f"{before}{MARKS[0]}{models}\n\n{flash(engine)}\n{MARKS[1]}{after}")
        return
    compilers = [version(name, "--version") for name in ("arm-none-eabi-gcc", "riscv64-unknown-elf-gcc")]
    plain = ["plain C", "plain C / jostle", "and unrolled", "bytes of plain C"]
    work = [
        "multiply-accumulates",
        "instructions",
        "each",
        'each at "s"',
        *plain,
        "largest piece",
        "stack",
    ]
    parts = [
        "their bytes",
        "gradients",
        "optimizer",
        "activations",
        "scratch",
        "batch",
        "other",
        "stack",
    ]

    def context(model: str) -> int:
        return figures[model][targets[0]]["plan"]["CONTEXT"]

    print(
        PAGE.format(
            jostle=version("git", "describe", "--always", "--dirty"),
            compilers="; ".join(compilers),
            emulator=version("qemu-system-arm", "--version"),
            context=context("14k"),
            fused_context=context("14k, AdamW in backward"),
            llama_context=context("15k-llama"),
            fused_llama_context=context("15k-llama, AdamW in backward"),
            memory=table(["model", "parameters", *parts, "in all", "within"], memory(figures)),
            steps=table(["model", "target", *work], steps(figures), names=2),
            stories=stories(real),
            flash=flash(engine),
        ),
        end="",
    )


if __name__ == "__main__":
    main()
