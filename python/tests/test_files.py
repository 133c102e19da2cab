"""Saving, loading and resuming."""

import dataclasses
import errno
import os
import unittest.mock

import numpy as np
import pytest
import safetensors.numpy
from common import SMALL, batch, bits, text

import jostle


def test_a_saved_model_is_safetensors(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert set(tensors) == set(model.parameters)
    for name, array in model.parameters.items():
        assert tensors[name].shape == array.shape and tensors[name].tobytes() == array.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_loaded_model_is_the_same(trained, tmp_path):
    model, _ = trained
    model.zero_gradients()
    model.save(tmp_path / "model")
    loaded = jostle.Model.load(tmp_path / "model", threads=2)
    assert loaded.config == model.config and loaded.seed == model.seed and loaded.threads == 2
    assert bits(loaded.parameters) == bits(model.parameters)
    # Dropout masks continue too.
    assert loaded.backward(*batch()) == model.backward(*batch())


def test_files_of_others_need_their_configuration(model, tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({name: array.copy() for name, array in model.parameters.items()}, path)
    with pytest.raises(ValueError, match="config="):
        jostle.Model.load(path)
    assert bits(jostle.Model.load(path, config=SMALL).parameters) == bits(model.parameters)
    for change, sentence in (
        ({"width": 16}, r"wte.weight has another type or shape; expected float32 \[13, 16\]"),
        ({"hidden": 9}, r"h.0.mlp.c_fc.weight has another type or shape; expected float32 \[8, 9\]"),
        ({"layers": 3}, r"h.2.ln_1.weight is missing; expected float32 \[8\]"),
    ):
        with pytest.raises(ValueError, match=f"^checkpoint: {sentence}$"):
            jostle.Model.load(path, config=dataclasses.replace(SMALL, **change))
    with pytest.raises(ValueError, match="a checkpoint of jostle's"):
        jostle.Trainer.resume(path, train=text(13))


def test_a_model_is_no_training(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="no training"):
        jostle.Trainer.resume(tmp_path / "model", train=text(13))
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), steps=1, batch=1)
    trainer.save(tmp_path / "trainer")
    assert bits(jostle.Model.load(tmp_path / "trainer").parameters) == bits(model.parameters)


def test_an_altered_file_is_refused(model, tmp_path):
    path = tmp_path / "model"
    model.save(path)
    data = path.read_bytes()
    for altered in (b"", data[:7], data[:-1], data + b"\0", data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]):
        path.write_bytes(altered)
        with pytest.raises(ValueError):
            jostle.Model.load(path)


def test_saving_fails_whole(model, tmp_path):
    model.save(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="/folder'$"):
        model.save(tmp_path / "folder")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "folder"}
    with pytest.raises(FileNotFoundError, match="/absent/model'$"):
        model.save(tmp_path / "absent" / "model")
    full = unittest.mock.patch("os.fsync", side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with full, pytest.raises(OSError, match="No space left on device: .*/model'$"):
        model.save(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        jostle.Model.load(tmp_path / "absent")
    assert (tmp_path / "model").read_bytes() == before


def test_settings_from_numpy_can_be_saved(model, tmp_path):
    schedule = jostle.Cosine(warmup=np.int64(1), final=np.float32(1e-4))
    optimizer = jostle.AdamW(model, np.float32(1e-3), betas=np.array([0.9, 0.99]))
    trainer = jostle.Trainer(
        model, optimizer, train=text(13), batch=np.int32(2), steps=np.uint8(2), clip=np.float32(1),
        accumulate=np.int64(1), seed=np.uint64(2**64 - 1), evaluate_every=np.int8(1), schedule=schedule,
    )  # fmt: skip
    trainer.advance()
    trainer.save(tmp_path / "trainer")
    again = jostle.Trainer.resume(tmp_path / "trainer", train=text(13))
    assert again.seed == 2**64 - 1 and again.schedule == schedule
    assert list(again)[0].loss == list(trainer)[0].loss


def test_a_resumed_training_keeps_the_rate_that_it_began_with(model, tmp_path):
    trainer = jostle.Trainer(model, jostle.AdamW(model, 1e-3), train=text(13), batch=2, steps=2)
    trainer.optimizer.learning_rate = 0.5
    trainer.advance()
    trainer.save(tmp_path / "trainer")
    again = jostle.Trainer.resume(tmp_path / "trainer", train=text(13))
    assert trainer.advance().learning_rate == again.advance().learning_rate == np.float32(1e-3)


@pytest.mark.parametrize("make", [lambda m: jostle.SGD(m, 0.1), lambda m: jostle.SGD(m, 0.1, 0.9)])
@pytest.mark.parametrize(
    "schedule", [jostle.Constant(2), jostle.Linear(1, 0.01), jostle.WarmupStableDecay(1, 2, 0.01)], ids=repr
)
def test_every_optimizer_and_schedule_resumes(model, tmp_path, make, schedule):
    trainer = jostle.Trainer(model, make(model), train=text(13), batch=2, steps=6, schedule=schedule)
    for _ in range(3):
        trainer.advance()
    trainer.save(tmp_path / "trainer")
    again = jostle.Trainer.resume(tmp_path / "trainer", train=text(13))
    rest, other = list(trainer), list(again)
    assert [(r.loss, r.learning_rate) for r in rest] == [(r.loss, r.learning_rate) for r in other]
    assert bits(again.model.parameters) == bits(model.parameters)


@pytest.mark.parametrize("frozen", [(), ("wpe.weight", "h.0.*")])
def test_optimizers_load_what_names_no_trainer(frozen, tmp_path):
    """A checkpoint as C and Rust write it: with the optimizer's state, without the trainer's settings."""
    path, config = tmp_path / "checkpoint", dataclasses.replace(SMALL, attention_dropout=0.1)

    def train(model, optimizer):
        return list(jostle.Trainer(model, optimizer, train=text(13), steps=6, seed=model.seed, clip=0.5))

    model = jostle.Model(config, seed=9, frozen=frozen)
    optimizer = jostle.AdamW(model, 0.01)
    list(jostle.Trainer(model, optimizer, train=text(13), steps=3, seed=9, clip=0.5))
    state = (optimizer._kind, optimizer._state)
    path.write_bytes(jostle._native.write_checkpoint(model._engine, state, 9, []))
    train(model, optimizer)

    with pytest.raises(ValueError, match="no training to resume"):
        jostle.Trainer.resume(path, train=text(13))
    again = jostle.Model.load(path, frozen=frozen)
    loaded = jostle.AdamW(again, 0.01)
    loaded.load(path)
    assert loaded.steps == 3
    assert [report.step for report in train(again, loaded)] == [4, 5, 6]
    assert bits(again.parameters) == bits(model.parameters)

    model.save(path)
    other = jostle.Model(config, seed=1)
    for optimizer in (jostle.AdamW(other), jostle.SGD(other, 0.1, momentum=0.9)):
        before = bits(other.parameters)
        with pytest.raises(ValueError, match="the optimizer's state of wte.weight is missing"):
            optimizer.load(path)
        assert bits(other.parameters) == before and optimizer.steps == 0
