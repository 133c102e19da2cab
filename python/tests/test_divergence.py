"""Steps that are not finite, and loss spikes: nothing changes, the error says where, and training can go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jostle

CONFIG = jostle.Config(vocab=11, context=8, layers=1, heads=2, width=16)
CALM = np.tile(np.arange(3, dtype=np.uint8), 100)
WILD = np.full(300, 9, dtype=np.uint8)


def trainer(**settings: object) -> jostle.Trainer:
    model = jostle.Model(CONFIG, seed=1, threads=1)
    optimizer = jostle.AdamW(model, learning_rate=1e-2)
    return jostle.Trainer(model, optimizer, train=CALM, batch=2, steps=1000, **settings)


def trained(**settings: object) -> jostle.Trainer:
    """A trainer whose loss has settled."""
    made = trainer(**settings)
    for _ in range(400):
        made.advance()
    return made


def parameters(made: jostle.Trainer) -> bytes:
    return b"".join(values.tobytes() for values in made.model.parameters.values())


def test_an_error_names_the_step_and_the_tensor() -> None:
    made = trainer()
    made.advance()
    made.model.parameters["h.0.mlp.c_fc.bias"][3] = np.nan
    before = parameters(made)
    with pytest.raises(FloatingPointError, match=r"step 2: loss is NaN; .* values .* h\.0\.mlp\.c_fc\.bias"):
        made.advance()
    assert made.step == 1 and parameters(made) == before


def test_a_step_is_skipped_on_request() -> None:
    made = trained(spike_limit=6.0, on_divergence="skip")
    before = parameters(made)
    made.train = WILD
    with (
        pytest.warns(RuntimeWarning, match=r"step (4\d\d|500): loss .* is a spike of .*; skipped"),
        pytest.raises(FloatingPointError, match="step 501"),
    ):
        made.advance()
    assert made.step == 500 and parameters(made) == before
    made.train = CALM
    assert made.advance().step == 501


def test_a_trainer_stops_unless_it_is_told_otherwise() -> None:
    made = trained(spike_limit=6.0)
    made.train = WILD
    with pytest.raises(FloatingPointError, match="step 401: loss .* is a spike"):
        made.advance()
    made.skip()
    made.train = CALM
    assert made.advance().step == 402


def test_training_goes_back_to_a_checkpoint(tmp_path: Path) -> None:
    made = trainer()
    for _ in range(3):
        made.advance()
    made.save(tmp_path / "good.safetensors")
    good = parameters(made)
    for _ in range(4):
        made.advance()
    made.roll_back(tmp_path / "good.safetensors")
    assert parameters(made) == good
    assert made.advance().step == 9


def test_a_guard_is_saved_with_the_training(tmp_path: Path) -> None:
    whole = trained(spike_limit=6.0)
    whole.save(tmp_path / "run.safetensors")
    again = jostle.Trainer.resume(tmp_path / "run.safetensors", train=CALM)
    assert again.spike_limit == 6.0
    for made in (whole, again):
        made.train = WILD
        with pytest.raises(FloatingPointError, match="step 401: loss .* is a spike"):
            made.advance()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spike_limit": 0}, "spike_limit must be more than 0"),
        ({"spike_limit": 6, "fused": True, "clip": None}, "spike_limit needs fused=False"),
        ({"on_divergence": "ignore"}, "on_divergence is 'ignore'; expected 'stop' or 'skip'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(**settings)
