"""What the package costs."""

import statistics
import time

import numpy as np
from common import random_tokens, run_python

import jostle

TINY = jostle.Config(vocab=65, context=32, layers=2, heads=2, width=32)


def test_importing_takes_at_most_100_ms_beyond_numpy():
    # Processor time, which other processes do not disturb.
    code = "import time, numpy; t = time.thread_time(); import jostle; print(time.thread_time() - t)"
    assert min(float(run_python(code).stdout) for _ in range(3)) <= 0.1


def test_nothing_but_numpy_is_imported():
    code = """
import sys, numpy
before = set(sys.modules)
import jostle
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    imported = set(run_python(code).stdout.split())
    assert "jostle" in imported
    assert not imported & {"typer", "rich", "click", "matplotlib", "safetensors", "torch"}


class Timed:
    """An engine whose last `backward` took so many seconds."""

    def __init__(self, engine):
        self._backward = engine.backward
        self.seconds = 0.0

    def backward(self, *given):
        begin = time.perf_counter()
        done = self._backward(*given)
        self.seconds = time.perf_counter() - begin
        return done


def test_backward_costs_at_most_5_percent_over_the_rust_call():
    """The package's layer, plus the cost of a call on a model so small that it hardly computes.

    Each is compared with the step of its turn, and half of the turns may be disturbed.
    """
    model = jostle.Model(TINY, threads=1)
    tokens, targets = random_tokens(TINY, (8, 32), 0), random_tokens(TINY, (8, 32), 1)
    timed = model._engine = Timed(model._engine)
    least = jostle.Model(jostle.Config(vocab=1, context=1, layers=1, heads=1, width=1), threads=1)
    one = np.zeros((1, 1), np.int32)
    turns = []
    for _ in range(500):
        begin = time.perf_counter()
        model.backward(tokens, targets)
        between = time.perf_counter()
        least._engine.backward(one, one, None, 1)
        end = time.perf_counter()
        turns.append((end - between, between - begin - timed.seconds, timed.seconds))
    share = statistics.median((call + layer) / step for call, layer, step in turns)
    call, layer, step = (statistics.median(part) * 1e6 for part in zip(*turns, strict=True))
    assert share <= 0.05, f"{share:.1%}: {call:.1f} + {layer:.1f} us beside {step:.0f} us"
