"""What the package costs. Times are the least of many measurements: a busy machine only adds to them."""

import time
import timeit

import numpy as np
from common import random_tokens, run_python

import jostle

TINY = jostle.Config(vocab=65, context=32, layers=2, heads=2, width=32)


def test_importing_takes_at_most_100_ms_beyond_numpy():
    code = "import time, numpy; t = time.perf_counter(); import jostle; print(time.perf_counter() - t)"
    assert min(float(run_python(code).stdout) for _ in range(5)) <= 0.1


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


def test_backward_costs_at_most_5_percent_over_the_rust_call():
    """The package's layer, plus all that a call costs of a model so small that it computes next to nothing."""
    model = jostle.Model(TINY, threads=1)
    tokens, targets = random_tokens(TINY, (8, 32), 0), random_tokens(TINY, (8, 32), 1)
    given = (tokens.astype(np.int32), targets.astype(np.int32), None, model.seed)
    native, package = [], []
    for _ in range(500):
        begin = time.perf_counter()
        model._engine.backward(*given)
        between = time.perf_counter()
        model.backward(tokens, targets)
        package.append(time.perf_counter() - between)
        native.append(between - begin)
    least = jostle.Model(jostle.Config(vocab=1, context=1, layers=1, heads=1, width=1), threads=1)
    one = np.zeros((1, 1), np.int32)
    # The least of many turns, here and above: what a busy machine adds to some of them does not count.
    call = min(timeit.repeat(lambda: least._engine.backward(one, one, None, 1), number=20, repeat=250)) / 20
    step = min(native)
    layer = min(package) - step
    assert call + layer <= 0.05 * step, f"{call * 1e6:.1f} + {layer * 1e6:.1f} us of {step * 1e6:.0f} us"
