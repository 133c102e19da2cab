"""Arrays that are views of a model's memory."""

import gc

import numpy as np
from common import SMALL, batch, run_python, text

import jostle


def test_views_are_writable_and_no_copies(model):
    tokens, targets = batch()
    for name in model.parameters:
        for views in ("parameters", "gradients"):
            first, second = getattr(model, views)[name], getattr(model, views)[name]
            assert np.shares_memory(first, second)
            assert first.flags.writeable and first.flags.c_contiguous and first.flags.aligned
        assert not np.shares_memory(model.parameters[name], model.gradients[name])
    before = model.logits(tokens)
    view = model.parameters["wte.weight"]
    view[:] *= 2
    assert not np.array_equal(model.logits(tokens), before)
    gradient = model.gradients["ln_f.weight"]
    model.backward(tokens, targets)
    assert gradient.any()
    optimizer = jostle.SGD(model, 0.1)
    kept = view.copy()
    optimizer.step()
    assert not np.array_equal(view, kept)


def test_numbers_begin_with_a_cache_line(model):
    """Buffers begin at a cache line: steps take longer if vectors straddle two."""
    for views in (model.parameters, model.gradients):
        assert next(iter(views.values())).ctypes.data % 64 == 0


def test_views_outlive_everything_else():
    model = jostle.Model(SMALL, seed=3, threads=2)
    optimizer = jostle.AdamW(model)
    trainer = jostle.Trainer(model, optimizer, train=text(13), batch=2, steps=1)
    list(trainer)
    views = [model.parameters["wte.weight"], model.gradients["ln_f.bias"], optimizer.state]
    wanted = [view.copy() for view in views]
    del model, optimizer, trainer
    gc.collect()
    # If the memory were reused, this would show.
    others = [np.full(view.size, np.nan, np.float32) for view in views for _ in range(100)]
    for view, copied in zip(views, wanted, strict=True):
        assert np.array_equal(view, copied)
        view[:] = 7
        assert (view == 7).all()
    assert np.isnan(others[0]).all()


def test_memory_is_given_back():
    """Forty models of 8 MB, one after the other, each in a reference cycle with its views."""
    run_python("""
import gc, resource, jostle
config = jostle.Config(vocab=1000, context=8, layers=1, heads=1, width=256)
def make():
    model = jostle.Model(config, threads=1)
    model.myself = [model, model.parameters["wte.weight"]]
for _ in range(10):
    make()
gc.collect()
# Not the peak, which is inherited from the parent process.
def resident():
    return int(open("/proc/self/statm", "rb").read().split()[1]) * resource.getpagesize()
before = resident()
for _ in range(40):
    make()
    gc.collect()
after = resident()
assert after < before + 100_000_000, (before, after)
""")
