"""The results of `step_profile.py`, as Markdown."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from configurations import Cell
from machine import header
from report import by_threads, digits, percent, table
from stacks import ELSE, KINDS, OPERATIONS, PACKING, PRODUCT

INTRODUCTION = """\
The steps are the ones of `results/steps.md`, in programs with frame pointers. A step's time is the median of turns
without samples. `perf` samples each thread about every millisecond. With two threads, the times of an operation are
summed over the threads.

Shares of the peak count only the multiply-adds that every engine needs (`benches/src/operations.rs`). The peak is the best
one that was measured in the same turns. The table's "alone" means the same products with the packing of their operands,
in a program that computes nothing besides, on operands that stay in place (`benches/src/bin/products.rs`). In a step they
are hardly faster. Threads share them as in the step, data-parallel or work-sharing. Data-parallel workers
add to gradients of their own there, whole weights at once.

Attention's products are counted without softmax. Work that attention does twice, or above the diagonal, does not count, so
that its share is low.

"Waiting" is the time of idle threads: where the workers synchronise, behind another worker that
adds to the same gradients, or asleep.
"""

BOUNDS = """\
For steps with dropout {rate}: the share of the peak, and its bounds. The bounds assume that only products and their
packing take time, that products are as fast as alone, or both. If parameters don't fit into a cache, optimizer and norm of
gradients cannot be free. The last column therefore adds these two, at the speed of memory, to the column before it.
"""

# Whose parameters, gradients and moments no cache of the machines that were measured holds.
FROM_MEMORY = ("medium", "gpt2")
# Bytes of each parameter, and how: it and two moments are updated by its gradient, which the norm reads.
PASSES = {"AdamW": (28, "updating"), "norm of gradients": (4, "reading")}
# Fewer samples say little.
ENOUGH = 100


@dataclass
class Profile:
    # Milliseconds.
    step: float
    # The milliseconds of a thread in a step that a sample stands for.
    each: float
    # By operation and, of products and packing, kind.
    samples: Counter[tuple[str, str]]

    def operation(self, name: str) -> float:
        """Milliseconds of all threads' time in a step."""
        return self.each * sum(count for (operation, _), count in self.samples.items() if operation == name)

    def kind(self, name: str) -> float:
        """The same for a kind of products, with the packing of their operands."""
        return self.each * sum(count for (_, kind), count in self.samples.items() if kind == name)

    def products(self) -> float:
        return self.operation(PRODUCT) + self.operation(PACKING)


@dataclass
class Profiles(Cell):
    """The measurements of one configuration and number of threads."""

    parameters: int
    # By kind of product, of one step.
    multiply_adds: dict[str, int]
    # Operations a millisecond.
    peak: float
    # Bytes a millisecond, of memory that is read and that is updated.
    bandwidth: dict[str, float]
    alone: Profile
    # By rate of dropout.
    steps: dict[float, Profile]

    def first(self) -> Profile:
        return next(iter(self.steps.values()))

    def of_peak(self, multiply_adds: int, thread_time: float) -> str:
        return percent(2 * multiply_adds, thread_time / self.threads * self.peak)

    def kind_of_peak(self, profile: Profile, kind: str) -> str:
        time = profile.kind(kind)
        return (
            self.of_peak(self.multiply_adds[kind], time) if time >= ENOUGH * profile.each else "few samples"
        )

    def step_of_peak(self, thread_time: float) -> str:
        """The share of the peak that a step of this time reaches."""
        return self.of_peak(sum(self.multiply_adds.values()), thread_time)

    def thread_time(self, profile: Profile) -> float:
        return profile.step * self.threads


def document(cells: list[Profiles]) -> str:
    lines = [header("Profile of training steps"), "", INTRODUCTION]
    for heading, here in by_threads(cells):
        lines += [heading, "", f"Peak: {max(cell.peak for cell in here) / 1e6:.1f} GFLOP/s.", ""]
        for part in (bounds, operations, products, memory):
            lines += [*part(here), ""]
    return "\n".join(lines).rstrip() + "\n"


def bounds(cells: list[Profiles]) -> Iterator[str]:
    """The bounds of each configuration."""
    yield from ("### Bounds", "", BOUNDS.format(rate=next(iter(cells[0].steps))))
    headings = ("reached", "no time but for products", "products as alone", "both", "both, and memory")
    rows = []
    for cell in cells:
        step, alone = cell.first(), cell.alone.products()
        whole = cell.thread_time(step)
        limits = (whole, step.products(), whole - step.products() + alone, alone)
        passes = sum(each * cell.parameters / cell.bandwidth[how] for each, how in PASSES.values())
        memory = cell.step_of_peak(alone + passes * cell.threads) if cell.configuration in FROM_MEMORY else ""
        rows.append([cell.name(), *map(cell.step_of_peak, limits), memory])
    yield from table(("configuration", *headings), rows)
    yield ""
    for cell in cells:
        step = cell.first()
        whole, products = cell.thread_time(step), step.products()
        rest = {name: step.operation(name) for name in OPERATIONS if name not in (PRODUCT, PACKING)}
        most = sorted(rest, key=lambda name: -rest[name])[:4]
        yield (
            f"- {cell.configuration}: {percent(whole - products, whole)} of the time is not products: "
            f"{', '.join(f'{name} {percent(rest[name], whole)}' for name in most)}. Products take "
            f"{products / cell.alone.products():.2f} times as long as alone, where they reach "
            f"{cell.step_of_peak(cell.alone.products())} of the peak."
        )


def operations(cells: list[Profiles]) -> Iterator[str]:
    yield from ("### Operations", "", "Thread-milliseconds of a step, and their share of it:", "")
    columns = [(cell, rate, step) for cell in cells for rate, step in cell.steps.items()]
    headings = ["", *(f"{cell.configuration}, dropout {rate}" for cell, rate, _ in columns)]
    rows = [["a step", *(three(cell.thread_time(step)) for cell, _, step in columns)]]
    for name in [PRODUCT, *(name for name in OPERATIONS if name not in (PRODUCT, ELSE)), ELSE]:
        found = ((step.operation(name), cell.thread_time(step)) for cell, _, step in columns)
        rows.append([name, *(f"{three(time)} ({percent(time, whole, 1)})" for time, whole in found)])
    yield from table(headings, rows)


def products(cells: list[Profiles]) -> Iterator[str]:
    rate = next(iter(cells[0].steps))
    yield from ("### Products", "", f"Of steps with dropout {rate}, with the packing of operands:", "")
    headings = ("configuration", "products", "million multiply-adds", "thread-ms")
    shares = ("of it packing", "of the step", "of the peak", "alone of the peak")
    rows = []
    for cell in cells:
        step = cell.first()
        for kind in reversed(KINDS):
            time, count = step.kind(kind), cell.multiply_adds[kind]
            found = (
                cell.configuration,
                kind,
                f"{count / 1e6:,.{0 if count >= 1e8 else 2}f}",
                three(time),
                percent(step.each * step.samples[PACKING, kind], time),
                percent(time, cell.thread_time(step), 1),
                cell.kind_of_peak(step, kind),
                cell.kind_of_peak(cell.alone, kind),
            )
            rows.append(found)
    yield from table((*headings, *shares), rows, left=(0, 1))


def memory(cells: list[Profiles]) -> Iterator[str]:
    """The operations that read or change every parameter once."""
    cells = [cell for cell in cells if cell.configuration in FROM_MEMORY]
    if not cells:
        return
    yield from (
        "### Memory",
        "",
        "Bytes read and written, compared with as many threads that only read memory, or only update three buffers by a fourth:",
        "",
    )
    headings = ("configuration", "operation", "MB", "ms", "GB/s", "of memory, GB/s", "share")
    rows = []
    for cell in cells:
        for name, (each, how) in PASSES.items():
            count, time = each * cell.parameters, cell.first().operation(name) / cell.threads
            if not time:
                continue  # too short a step, or too few of them: it was never sampled
            bandwidth = cell.bandwidth[how]
            speeds = [f"{count / time / 1e6:.1f}", f"{bandwidth / 1e6:.1f} ({how})"]
            share = percent(count / time, bandwidth)
            rows.append([cell.configuration, name, f"{count / 1e6:,.0f}", three(time), *speeds, share])
    yield from table(headings, rows, left=(0, 1))


def three(milliseconds: float) -> str:
    """Three significant digits, also for parts of short steps."""
    return digits(milliseconds) if milliseconds >= 1 else f"{milliseconds:.3g}"
