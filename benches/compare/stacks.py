"""Attributes the stacks that Linux's `perf` samples to the operations of a training step."""

import contextlib
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from machine import ROOT

# Milliseconds of a thread's processor time between samples, for several clocks. A single clock may always find steps of
# some length at the same places.
CLOCKS = (4.103, 4.663, 5.297, 5.953, 6.701)
# For all clocks together. Sampling twice as often takes 5 % of a virtual machine's time.
PERIOD = 1 / sum(1 / clock for clock in CLOCKS)

PRODUCT, PACKING, WAITING, ELSE = "products", "packing for products", "waiting", "all else"

# The purpose of a function, by the first pattern that matches the beginning of its file and name, with or without its
# module. In a stack, the innermost function with a match counts.
OPERATIONS = {
    PACKING: r"core/src/matmul/packed.rs pack_",
    PRODUCT: r"core/src/matmul/",
    "GELU": r"core/src/ops/gelu|core/src/simd/slices.rs .*multiply",
    "softmax": r"core/src/ops/attention",
    "norms": r"core/src/ops/layer_norm",
    "loss": r"core/src/ops/cross_entropy",
    "residual sums, dropout": r"core/src/ops/dropout|core/src/model/backward.rs .*drop_gradient",
    "embeddings": r"core/src/ops/embedding",
    "gradients of biases": r"core/src/ops/linear",
    "norm of gradients": r"core/src/optimizer.rs .*(gradient_norm|squares)",
    "AdamW": r"core/src/optimizer.rs .*(adamw|apply|update)",
    WAITING: r"core/pool/|core/src/parallel/relay.rs",
    ELSE: r"core/src/(model|trainer|parallel|data)|benches/",
}

# Whose a product or its packing is, likewise: in the binary `step`, then in `products`. Named as in `operations.rs`.
KINDS = {
    "attention": r"core/src/ops/attention",
    "head, gradients of the weight": r".*\b(token_gradient|head_gradients)\b",
    "head, forward and gradients of activations": r"core/src/model/\w+.rs .*\blogits(_backward)?\b"
    r"|benches/src/bin/products.rs .*\bhead\b",
    "linear, gradients of weights": r".*\b(gradient_rows|gradients_in_turn)\b|benches/src/bin/products.rs .*\bgradients\b",
    "linear, gradients of activations": r".*\b(mlp_backward_\w+|attention_backward)\b|benches/src/bin/products.rs .*\bbackward\b",
    "linear, forward": r".*\b(mlp|attention)_branch\b|benches/src/bin/products.rs .*\bforward\b",
}

# A product that all threads share. Only the stack of the calling thread tells its kind.
SHARED = r".*\bmatmul_parallel\b"

# The largest share of samples whose products have no kind. With more, kinds would seem faster than they are.
MOST_LOST = 0.05


@contextlib.contextmanager
def recorded(process: int, file: Path) -> Iterator[None]:
    """Samples all threads of a process while the context is open."""
    control, ours = os.pipe()
    acknowledged, theirs = os.pipe()
    clocks = ",".join(f"cpu-clock/period={clock * 1e6:.0f}/" for clock in CLOCKS)
    command = ["perf", "record", "--quiet", "--event", clocks, "--call-graph", "fp", "--output", str(file)]
    command += ["--pid", str(process), "--delay", "-1", "--control", f"fd:{control},{theirs}"]
    perf = subprocess.Popen(command, pass_fds=(control, theirs))
    os.close(control)
    os.close(theirs)
    try:
        os.write(ours, b"enable\n")
        if not os.read(acknowledged, 64).startswith(b"ack"):
            raise RuntimeError("perf does not record")
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()
        os.close(ours)
        os.close(acknowledged)


def samples(file: Path, program: Path) -> Counter[tuple[str, str]]:
    """The number of samples of each operation and, of products and their packing, kind.

    Other threads' samples of shared products are attributed in the proportions of the calling thread.
    """
    # A frame is (symbol, offset), a stack begins with the innermost.
    stacks: Counter[tuple[tuple[str, int], ...]] = Counter()
    script = output("perf", "script", "--input", str(file), "--no-demangle", "-F", "ip,sym,symoff")
    for sample in script.split("\n\n"):
        frames = re.findall(r"^\s*[0-9a-f]+ (\S+)\+0x([0-9a-f]+)$", sample, re.MULTILINE)
        if sample.strip():
            stacks[tuple((symbol, int(offset, 16)) for symbol, offset in frames)] += 1
    names = functions(program, {frame for stack in stacks for frame in stack})
    found: Counter[tuple[str, str]] = Counter()
    shared: Counter[tuple[str, str]] = Counter()
    for stack, count in stacks.items():
        inlined = [name for frame in stack for name in names.get(frame, [])]
        operation = first(OPERATIONS, inlined)
        kind = first(KINDS, inlined) if operation in (PRODUCT, PACKING) else ""
        found[operation, kind] += count
        if kind and any(re.match(SHARED, name) for name in inlined):
            shared[operation, kind] += count
    for operation in (PRODUCT, PACKING):
        of_caller = {
            kind: count for (what, kind), count in shared.items() if what == operation and kind != ELSE
        }
        of_others = shared[operation, ELSE]
        for kind, count in of_caller.items():
            moved = round(of_others * count / sum(of_caller.values()))
            found[operation, kind] += moved
            found[operation, ELSE] -= moved
    lost = found[PRODUCT, ELSE] + found[PACKING, ELSE]
    if lost > MOST_LOST * found.total():
        raise RuntimeError(f"{program.name}: {lost} of {found.total()} samples are of products of no kind")
    return found


def functions(program: Path, frames: set[tuple[str, int]]) -> dict[tuple[str, int], list[str]]:
    """The functions of a frame, with inlined ones; the innermost is first."""
    symbols = {}
    for line in output("nm", "--defined-only", str(program)).splitlines():
        address, _, name = line.split(maxsplit=2)
        symbols[name] = int(address, 16)
    addresses = {frame: symbols[frame[0]] + frame[1] for frame in sorted(frames) if frame[0] in symbols}
    told = "\n".join(f"{address:#x}" for address in addresses.values())
    command = ["addr2line", "--addresses", "--functions", "--inlines", "--demangle", "--exe", str(program)]
    found = subprocess.run(command, input=told, check=True, capture_output=True, text=True).stdout
    # After each address, pairs of lines: a function and a place in a file.
    blocks = re.split(r"^0x[0-9a-f]+\n", found, flags=re.MULTILINE)[1:]
    return {frame: places(block.splitlines()) for frame, block in zip(addresses, blocks, strict=True)}


def places(lines: list[str]) -> list[str]:
    """`file name` of functions of this project, from addr2line's pairs of lines: a function's name, and a place in a file."""
    pairs = zip(lines[::2], lines[1::2], strict=True)
    root = f"{ROOT}/"
    return [
        f"{where.removeprefix(root).split(':')[0]} {name}" for name, where in pairs if where.startswith(root)
    ]


def first(patterns: dict[str, str], names: list[str]) -> str:
    """The label of the innermost name that a pattern is found in."""
    for name in names:
        for label, pattern in patterns.items():
            if re.match(pattern, name):
                return label
    return ELSE


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
