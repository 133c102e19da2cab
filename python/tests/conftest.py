"""Fixtures, and settings: hypothesis tries the same examples in every run, and leaves no folder beside the tests. Ctrl-C
works."""

import signal

import pytest
from common import SMALL, batch, go_on
from hypothesis import settings

import jostle

settings.register_profile("jostle", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("jostle")

# Shells start background jobs with SIGINT ignored. The processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def model():
    return jostle.Model(SMALL, seed=3, threads=1)


@pytest.fixture
def trained():
    """A model and its optimizer after a few steps, in the middle of the next one."""
    config = jostle.Config(vocab=13, context=8, layers=2, heads=2, width=8, dropout=0.1)
    model = jostle.Model(config, seed=3, threads=1)
    optimizer = jostle.AdamW(model, learning_rate=0.01)
    for _ in range(3):
        go_on(model, optimizer)
    model.backward(*batch(1))
    return model, optimizer
