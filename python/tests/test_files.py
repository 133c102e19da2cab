"""Saving, loading and resuming."""

import concurrent.futures
import dataclasses
import errno
import json
import os
import sys
import unittest.mock

import numpy as np
import pytest
import safetensors.numpy
from common import SMALL, batch, bits, run_python, text

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
    given = dataclasses.replace(SMALL, activation="gelu")
    assert bits(jostle.Model.load(path, config=given).parameters) == bits(model.parameters)
    with pytest.warns(UserWarning, match="'gelu_tanh'"):
        jostle.Model.load(path, config=jostle.Config(vocab=13, context=8, layers=2, heads=2, width=8))
    for change, sentence in (
        ({"width": 16}, r"h.0.attn.c_attn.bias has shape \[24\]; expected float32 \[48\]"),
        ({"hidden": 9}, r"h.0.mlp.c_fc.bias has shape \[32\]; expected float32 \[9\]"),
        ({"layers": 3}, r"h.2.ln_1.weight is missing; expected float32 \[8\]"),
    ):
        with pytest.raises(ValueError, match=f"^checkpoint: {sentence}$"):
            jostle.Model.load(path, config=dataclasses.replace(given, **change))
    with pytest.raises(ValueError, match="no training to resume"):
        jostle.Trainer.resume(path, train=text(13))


def test_tensors_that_nothing_would_use_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    config = dataclasses.replace(SMALL, tied=False)
    model = jostle.Model(config)
    tensors = {name: array.copy() for name, array in model.parameters.items()}
    tensors["h.0.attn.bias"] = np.tri(8, dtype=np.uint8)
    safetensors.numpy.save_file(tensors, path)
    assert bits(jostle.Model.load(path, config=config).parameters) == bits(model.parameters)
    for change, names in (
        ({"tied": True}, "lm_head.weight;"),
        ({"bias": False}, r"(\S+\.bias, ){7}\S+\.bias and 5 more;"),
        ({"layers": 1}, r"h\.1\..* and 4 more;"),
    ):
        with pytest.raises(
            ValueError, match=f"^checkpoint: the file has tensors that the model lacks: {names}"
        ):
            jostle.Model.load(path, config=dataclasses.replace(config, **change))
    tensors["lm_head.weight"] = tensors["wte.weight"]
    safetensors.numpy.save_file(tensors, path)
    tied = jostle.Model.load(path, config=dataclasses.replace(config, tied=True))
    assert np.array_equal(tied.parameters["wte.weight"], tensors["wte.weight"])


def test_two_threads_save_to_one_path(tmp_path):
    path = tmp_path / "model"
    models = [jostle.Model(dataclasses.replace(SMALL, width=64), seed=seed) for seed in range(3)]
    whole = set()
    for model in models:
        model.save(path)
        whole.add(path.read_bytes())

    def save(model):
        for _ in range(30):
            model.save(path)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        saving = [pool.submit(save, model) for model in models]
        while not all(future.done() for future in saving):
            assert path.read_bytes() in whole
    for future in saving:
        future.result()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links and permissions")
def test_permissions_and_links_stay(model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "model", tmp_path / "link"
    model.save(target)
    target.chmod(0o640)
    link.symlink_to(target)
    before = target.read_bytes()
    jostle.Model(SMALL, seed=4).save(link)
    assert link.is_symlink() and target.read_bytes() != before
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_file_that_states_a_large_model_costs_no_memory(model, tmp_path):
    """Shapes are compared before memory for the model is allocated."""
    path = tmp_path / "small"
    safetensors.numpy.save_file({name: array.copy() for name, array in model.parameters.items()}, path)
    large = jostle.Config(vocab=13, context=8, layers=2, heads=2, width=1 << 20, activation="gelu")
    with pytest.raises(ValueError, match="has shape"):
        jostle.Model.load(path, config=large)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_saving_and_generating_take_no_second_copy(tmp_path):
    done = run_python(f"""
import re, jostle
def peak(what="VmHWM"):
    return int(re.search(rf"{{what}}:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
model = jostle.Model(jostle.Config(vocab=4000, context=8, layers=1, heads=1, width=1024), threads=1)
size = 4 * model.parameter_count
before = peak()
model.save({str(tmp_path / "file")!r})
print((peak() - before) / size)
del model
before = peak("VmRSS")
model = jostle.Model.load({str(tmp_path / "file")!r}, threads=1)
model.generate([1], 5)
print((peak("VmRSS") - before) / size)
""")
    saving, generating = map(float, done.stdout.split())
    assert saving < 0.2 and generating < 1.5, done.stdout


def test_metadata_that_anybody_may_have_written(tmp_path):
    """Anybody can compute a right checksum, so metadata may hold anything. The error is a ValueError."""
    path = tmp_path / "file"
    settings = json.loads(whole_training(tmp_path / "whole")["trainer"])
    change = lambda **changes: json.dumps({**settings, **changes})  # noqa: E731
    tokenizers = (
        "[1]", "{}", "null", '"byte"', "[" * 100_000, '{"kind": "char"}', '{"kind": "char", "characters": [1]}',
        '{"kind": "word", "words": [0, 1]}', '{"kind": "word", "words": 5}', '{"kind": ["char"]}', "{",
        '{"kind": "word", "words": [null, {}, "a"]}', '{"kind": "word", "words": {"a": 1}}',
    )  # fmt: skip
    trainers = (
        "null", "[]", "{}", '"x"', "[" * 100_000, change(schedule=None), change(schedule={}), change(optimizer=[1]),
        change(optimizer={"name": "adamw"}), change(unknown=1), change(batch="12"), change(batch=-1),
        change(steps=[]), change(clip="x"), change(frozen=3), change(frozen="w*"), change(fused=1), change(train=7),
        change(schedule={"name": "cosine", "final": "x", "warmup": 0}), change(evaluate_every=1e999),
    )  # fmt: skip
    for key, values in (("tokenizer", tokenizers), ("trainer", trainers)):
        for value in values:
            write_own_metadata(path, {"trainer": json.dumps(settings), key: value})
            with pytest.raises(ValueError, match=f"^checkpoint: metadata '{key}'|differs|another text"):
                jostle.Trainer.resume(path, train=text(13))
            if key == "tokenizer":
                with pytest.raises(ValueError):
                    jostle.Model.load(path)


def whole_training(path):
    """The metadata of a checkpoint."""
    model = jostle.Model(SMALL)
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), batch=1, steps=1)
    trainer.save(path)
    return dict(jostle._native.Checkpoint(path.read_bytes()).metadata())


def write_own_metadata(path, metadata):
    """A checkpoint with this metadata, and with a right checksum."""
    path.touch()
    model = jostle.Model(SMALL)
    optimizer = jostle.AdamW(model)
    state = (optimizer._kind, optimizer._state)
    jostle._native.write_checkpoint(str(path), model._engine, state, 1, list(metadata.items()))


def test_a_training_resumes_on_its_own_text_only(model, tmp_path):
    train = text(13)
    jostle.Trainer(model, jostle.AdamW(model), train=train, steps=2, batch=1).save(tmp_path / "trainer")
    for same in (train, train.astype(np.int64), list(train)):
        assert len(list(jostle.Trainer.resume(tmp_path / "trainer", train=same))) == 2
    other = train.copy()
    other[5] = (other[5] + 1) % 13
    for text_ in (train[:-1], other):
        with pytest.raises(ValueError, match="another text than the training's 2000 tokens"):
            jostle.Trainer.resume(tmp_path / "trainer", train=text_)


def test_a_resumed_training_may_have_another_rate(model, tmp_path):
    cosine = jostle.Cosine(final=1e-4)
    trainer = jostle.Trainer(
        model, jostle.AdamW(model, 1e-3), train=text(13), batch=1, steps=2, schedule=cosine
    )
    trainer.save(tmp_path / "trainer")
    again = jostle.Trainer.resume(tmp_path / "trainer", train=text(13), learning_rate=1e-2)
    assert again.schedule == jostle.Cosine(final=1e-3)
    assert again.advance().learning_rate == np.float32(1e-2)


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
    full = OSError(errno.ENOSPC, "as the system says it")
    with (
        unittest.mock.patch("jostle._native.write_checkpoint", side_effect=full),
        pytest.raises(OSError, match="No space left on device: .*/model'$"),
    ):
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


def test_the_rate_belongs_to_the_trainer(model):
    optimizer = jostle.AdamW(model, 1e-3)
    trainer = jostle.Trainer(model, optimizer, train=text(13), batch=2, steps=1)
    with pytest.raises(AttributeError, match="learning_rate is settled"):
        optimizer.learning_rate = 0.5
    assert trainer.advance().learning_rate == np.float32(1e-3)
    # The trainer has no steps left, and another one continues.
    optimizer.learning_rate = 0.5
    trainer = jostle.Trainer(model, optimizer, train=text(13), batch=2, steps=2)
    assert trainer.advance().learning_rate == 0.5


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
    optimizer.save(path)
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
