"""What scripts/device-table.sh measured, as Markdown.

table.py FIGURES TARGET...
"""

import subprocess
import sys
from collections import defaultdict

# Bytes that all must fit in, by the beginning of a model's name.
BUDGETS = {"4k, SGD in backward": 40 * 1024, "4k": 88 * 1024, "14k": 256 * 1024, "50k": 256 * 1024}

# model -> target -> what -> name -> number; what a program prints twice is a maximum.
figures: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(int))))
for line in open(sys.argv[1]):
    model, target, what, name, number = line.rstrip("\n").split("\t")
    kept = figures[model][target][what]
    kept[name] = max(kept[name], int(number))
targets = sys.argv[2:]
flash = figures.pop("")


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def table(head: list[str], rows: list[list[str]], left: int) -> str:
    rule = ["---" if i < left else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows]).replace("| --- ", "|---").replace(
        " ---: ", "---:"
    )


def multiply_accumulates(plan: dict, measured: dict, accumulate: int) -> int:
    """Forward, and twice as many backward: projections, the MLP and the head; attention at all earlier positions."""
    t, c, f = plan["CONTEXT"], plan["WIDTH"], plan["HIDDEN"]
    block = 4 * c * c + 2 * c * f + c * (t + 1)
    rows = plan["BATCH"] * t
    return accumulate * (3 * rows * (plan["LAYERS"] * block + c * plan["VOCAB"]) + measured["recomputed"])


memory, steps = [], []
for model, by_target in figures.items():
    measured = [by_target[target] for target in targets]
    plan, program = measured[0]["plan"], measured[0]["3"]
    parts = [plan[f"{name}_SIZE"] for name in ("PARAMETERS", "GRADIENTS", "OPTIMIZER")]
    parts += [program["activations"], program["scratch"], plan["BATCH_SIZE"]]
    stack = max(one[level]["stack"] for one in measured for level in ("3", "s"))
    static = max(one[level][".bss"] + one[level][".data"] for one in measured for level in ("3", "s"))
    total = static + stack
    if model != "14k, 4 micro-batches":
        budget = next(bytes for name, bytes in BUDGETS.items() if model.startswith(name))
        within = "yes" if total <= budget else "**no**"
        row = [model, program["parameters"], *parts, static - sum(parts), stack, total]
        memory.append([*(f"{cell:,}" if isinstance(cell, int) else cell for cell in row), f"{budget // 1024} KB: {within}"])
    for target, one in zip(targets, measured, strict=True):
        work = multiply_accumulates(plan, program, 4 if "4 micro" in model else 1)
        ours, small, plain = one["3"]["instructions"], one["s"]["instructions"], one["plain"]["instructions"]
        steps.append([
            model, target, f"{work:,}", f"{ours:,}", f"{ours / work:.2f}", f"{small / work:.2f}",
            *((f"{plain:,}", f"{plain / ours:.2f}", f"{one['plain']['memory']:,}") if plain else ("", "", "")),
            f"{one['3']['piece']:,}", f"{one['3']['stack']:,}",
        ])  # fmt: skip

print(f"""# Devices

- jostle: {run("git", "describe", "--always", "--dirty")}
- compilers: {run("arm-none-eabi-gcc", "--version")}; {run("riscv64-unknown-elf-gcc", "--version")}
- emulator: {run("qemu-system-arm", "--version")}
- command: `scripts/device-table.sh`

Counted by an emulator (`-icount shift=0`), which proves function and counts instructions. **It times nothing**: how many
cycles an instruction takes depends on the processor, its flash and its caches. On Arm the counter goes by 40 or 50.

Models of GPT-2's form with vocabulary 27, 4 heads and one sequence in a pass:

- `4k`: 1 layer of width 16, context 16, a head of its own: 4,192 parameters without norms and biases. AdamW with clipping.
- `14k`: the largest of width 32 that trains with AdamW in 256 KB: 1 layer, context 8.
- `50k`: 4 layers of width 32, context 16; plain gradient descent within backward, activations made again.

## Memory

Bytes of RAM for training, evaluating and generating (a generator works in the workspace or the gradients: between steps they are free). Other:
the library's handles, a generator's window, what the program has besides. Stack: the most that any of the targets had
in use, painted beforehand and looked at afterwards.
""")
print(table(
    ["model", "parameters", "their bytes", "gradients", "optimizer", "activations", "scratch", "batch", "other", "stack",
     "in all", "within"], memory, 1))  # fmt: skip
print("""
## Instructions

Of one training step with everything that belongs to it: batch, forward, loss, backward, clipping, update. Multiply-
accumulates are those of the products, three times forward's, and what is made again. The plain implementation
(`benches/device/plain.c`) takes the same step, with the same dropout masks, in straightforward loops over arrays whose
sizes the compiler knows: `-O3 -ffast-math`. It keeps all activations: its bytes of RAM stand beside it. The largest piece
is the most instructions between two calls of `jostle_trainer_poll`.
""")
print(table(
    ["model", "target", "multiply-accumulates", "instructions", "each", 'each at "s"', "plain C", "plain C / jostle",
     "bytes of plain C", "largest piece", "stack"], steps, 2))  # fmt: skip
print("""
## Flash

Bytes of code and constants of the library, and of the compiler's own where it calls it, in a program that initialises,
trains, evaluates and generates, by `opt-level`.
""")
print(table(["target", '"s"', "3"], [[t, f"{flash[t]['s']['flash']:,}", f"{flash[t]['3']['flash']:,}"] for t in targets], 1))
