"""Helpers that several test files share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import jostle

GOLDEN = Path(__file__).parents[2] / "core" / "tests" / "golden"


def shared(name: str) -> Path:
    """A file of llama2.c beside this checkout. Without it, the test is skipped, but fails in CI."""
    path = GOLDEN.parents[3] / "shared" / "data" / name
    if not path.exists() and "CI" not in os.environ:
        pytest.skip(f"NOT RUN: {path} is missing")
    return path


SMALL = jostle.Config(vocab=13, context=8, layers=2, heads=2, width=8)


def random_tokens(config: jostle.Config, shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.int64]:
    """Tokens of the configuration's vocabulary."""
    return np.random.default_rng(seed).integers(0, config.vocab, shape)


def batch(seed: int = 0, shape: tuple[int, int] = (3, 8)) -> tuple[Any, Any]:
    """Tokens for a model of the configuration above, and their targets."""
    tokens = random_tokens(SMALL, shape, seed)
    return tokens, np.roll(tokens, -1, axis=1)


def go_on(model: jostle.Model, optimizer: Any) -> None:
    """Ends the current step and begins the next one."""
    model.backward(*batch())
    optimizer.step()
    model.zero_gradients()


def text(vocab: int) -> npt.NDArray[np.uint8]:
    """The structured text of core/tests/contract: its stride changes slowly."""
    i = np.arange(2000)
    return ((i * i // 97 + 5 * i) % vocab).astype(np.uint8)


def flat(arrays: Any) -> npt.NDArray[np.float32]:
    """All numbers of parameters or gradients, in order."""
    return np.concatenate([array.ravel() for array in arrays.values()])


def bits(arrays: Any) -> bytes:
    """All numbers of parameters or gradients, as they lie in memory."""
    return flat(arrays).tobytes()


def relative_error(given: Any, wanted: Any) -> float:
    """The relative error: the norm of the difference over the norm of the wanted values. NaN if any value is NaN."""
    given, wanted = np.asarray(given, np.float64), np.asarray(wanted, np.float64)
    assert given.shape == wanted.shape
    size = np.linalg.norm(wanted)
    assert size > 0, "the reference is zero: nothing can be wrong about it"
    return float(np.linalg.norm(given - wanted) / size)


def run_python(code: str, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program with this interpreter and this package. If it fails, fails too and shows its output."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return done


def instruction_sets() -> list[str]:
    """The instruction sets that JOSTLE_INSTRUCTION_SETS lists, which must all be available; by default, all available."""
    found = jostle._native.instruction_sets()
    wanted = os.environ.get("JOSTLE_INSTRUCTION_SETS")
    if wanted is None:
        return found
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    assert names and set(names) <= set(found), f"expected {names}; here: {found}"
    return names
