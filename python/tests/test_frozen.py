"""Frozen parameters keep their values. The others get the bits of a training that restores the frozen ones after every
step. The expected bits are those in core/tests/contract."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import safetensors.numpy
from common import GOLDEN, bits, random_tokens, text

import jostle

CONFIG = jostle.Config(vocab=27, context=35, layers=2, heads=3, width=21, dropout=0.2)
FROZEN = ["w*", "h.0.*", "h.1.ln_1.bias"]
"""Patterns and a name, chosen so that the backward pass ends with the second block."""
OPTIMIZERS = [jostle.AdamW, lambda model: jostle.SGD(model, 0.05, 0.9), lambda model: jostle.SGD(model, 0.05)]


def make(frozen=(), threads=1, optimizer=jostle.AdamW, batch=4, **settings):
    model = jostle.Model(CONFIG, 1337, threads, frozen=frozen)
    return jostle.Trainer(
        model, optimizer(model), train=text(CONFIG.vocab), batch=batch, steps=20, **{"clip": None, **settings}
    )


def put_back(optimizer, steps):
    """Trains all parameters without clipping, and restores the old values of some after each step."""
    trainer = make(optimizer=optimizer)
    parameters = trainer.model.parameters
    kept = {name: parameters[name].copy() for name in make(FROZEN).model.frozen}
    for _ in range(steps):
        trainer.advance()
        for name, values in kept.items():
            parameters[name][:] = values
    return parameters


def train(trainer, steps):
    for _ in range(steps):
        trainer.advance()
    return trainer


def test_names_and_patterns():
    model = jostle.Model(CONFIG, frozen=FROZEN)
    names = list(model.parameters)
    assert names == list(jostle.Model(CONFIG).parameters)
    wanted = [name for name in names if name[0] == "w" or "h.0." in name or name == "h.1.ln_1.bias"]
    assert list(model.frozen) == wanted
    assert list(model.gradients) == [name for name in names if name not in wanted]
    assert jostle.Model(CONFIG, frozen=iter(wanted)).frozen == model.frozen
    assert jostle.Model(CONFIG).frozen == ()
    for pattern, name in {"h.[1-9].*_1.bias": "h.1.ln_1.bias", "*ln_f.bias": "ln_f.bias"}.items():
        assert jostle.Model(CONFIG, frozen=[pattern, pattern]).frozen == (name,)


def test_memory_is_that_of_the_plan():
    model = jostle.Model(CONFIG, frozen=FROZEN)
    trained, left = (
        [a.size for n, a in model.parameters.items() if (n in model.frozen) is is_in]
        for is_in in (False, True)
    )
    plan = jostle.plan(CONFIG, frozen=FROZEN)
    assert plan.frozen == model.frozen
    assert (plan["parameters"], plan["frozen"]) == (4 * sum(trained), 4 * sum(left))
    assert model.parameter_count == sum(trained) + sum(left)
    assert jostle.AdamW(model).state.size == 2 * sum(trained)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "how", [{}, {"threads": 2, "recompute": True}, {"fused": True}, {"batch": 2, "accumulate": 2}]
)
def test_training_has_the_bits_of_putting_them_back(optimizer, how):
    trainer = make(FROZEN, optimizer=optimizer, **how)
    before = {name: trainer.model.parameters[name].copy() for name in trainer.model.frozen}
    wanted = put_back(optimizer, 6)
    train(trainer, 6)
    for name, array in trainer.model.parameters.items():
        assert array.tobytes() == wanted[name].tobytes(), name
        assert (array.tobytes() == before[name].tobytes()) if name in before else array.any()


def test_gradients_are_those_of_a_model_that_trains_all():
    some, all_ = jostle.Model(CONFIG, frozen=FROZEN), jostle.Model(CONFIG)
    tokens = random_tokens(CONFIG, (3, 20))
    for _ in range(2):
        assert some.backward(tokens, tokens) == all_.backward(tokens, tokens)
    for name, gradient in some.gradients.items():
        assert gradient.any() and gradient.tobytes() == all_.gradients[name].tobytes(), name
    optimizer = jostle.SGD(some, 0.1)
    kept = {name: some.parameters[name].copy() for name in some.parameters}
    norm = optimizer.step(clip=None)
    assert norm == pytest.approx(
        np.sqrt(sum(np.square(g.astype(float)).sum() for g in some.gradients.values()))
    )
    for name, array in some.parameters.items():
        assert (array.tobytes() == kept[name].tobytes()) == (name in some.frozen), name


def test_what_is_frozen_does_not_show_in_use(tmp_path):
    some, all_ = jostle.Model(CONFIG, 5, frozen=FROZEN), jostle.Model(CONFIG, 5)
    tokens = random_tokens(CONFIG, (2, 9))
    assert bits(some.parameters) == bits(all_.parameters)
    for look in ("logits", "attention", "qkv"):
        assert getattr(some, look)(tokens).tobytes() == getattr(all_, look)(tokens).tobytes()
    assert some.loss(tokens, tokens) == all_.loss(tokens, tokens)
    assert some.generate(tokens[0], 50).tolist() == all_.generate(tokens[0], 50).tolist()
    assert some.probabilities(tokens[0]).tobytes() == all_.probabilities(tokens[0]).tobytes()
    some.save(tmp_path / "some")
    all_.save(tmp_path / "all")
    assert (tmp_path / "some").read_bytes() == (tmp_path / "all").read_bytes()


def test_views_of_frozen_parameters_are_writable():
    model = jostle.Model(CONFIG, frozen=FROZEN)
    tokens = random_tokens(CONFIG, (1, 9))
    before = model.logits(tokens)
    model.parameters["h.0.ln_1.weight"][:] *= 2
    assert not np.array_equal(model.logits(tokens), before)


def test_the_checkpoint_that_was_written_down(tmp_path):
    """C, Rust and Python write the same bytes, so each can read the others' files."""
    model = jostle.Model(CONFIG, 1337, threads=2, frozen=FROZEN)
    optimizer = jostle.AdamW(model, learning_rate=3e-3)
    trainer = jostle.Trainer(
        model, optimizer, train=text(27), batch=4, steps=60, schedule=jostle.Cosine(warmup=5, final=1e-4)
    )
    train(trainer, 20)
    optimizer.save(tmp_path / "file")
    file = (tmp_path / "file").read_bytes()
    total = 0xCBF29CE484222325
    for byte in file:
        total = (total ^ byte) * 0x100000001B3 % 2**64
    assert f"{total:016x}" == (GOLDEN / "frozen_checkpoint.txt").read_text().strip()

    state = [name for name in safetensors.numpy.load(file) if name.startswith("optimizer.first_moment.")]
    assert [name.removeprefix("optimizer.first_moment.") for name in sorted(state)] == sorted(model.gradients)
    for frozen in (FROZEN, ["ln_f.*"], []):
        assert bits(jostle.Model.load(tmp_path / "file", frozen=frozen).parameters) == bits(model.parameters)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_training(optimizer, tmp_path):
    whole = train(make(FROZEN, optimizer=optimizer), 9)
    first = train(make(FROZEN, optimizer=optimizer), 5)
    first.save(tmp_path / "trainer")
    again = jostle.Trainer.resume(tmp_path / "trainer", train=text(CONFIG.vocab), threads=2)
    assert again.step == 5 and again.model.frozen == first.model.frozen
    train(again, 4)
    assert bits(again.model.parameters) == bits(whole.model.parameters)
    assert again.optimizer.state.tobytes() == whole.optimizer.state.tobytes()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))])
def test_copies(copied):
    trainer = train(make(FROZEN), 3)
    other = copied(trainer)
    assert other.model.frozen == trainer.model.frozen
    assert bits(train(other, 3).model.parameters) == bits(train(trainer, 3).model.parameters)


def test_fine_tuning(tmp_path):
    """A model that counts by fours learns to count by fives while its first block and all embeddings are frozen."""
    path = tmp_path / "fours.safetensors"

    def learn(model, stride):
        train = np.arange(600) * stride % CONFIG.vocab
        trainer = jostle.Trainer(model, jostle.AdamW(model, 1e-2), train=train, batch=8, steps=40)
        before = trainer.evaluate(train)
        list(trainer)
        return before, trainer.evaluate(train)

    fours = jostle.Model(CONFIG)
    assert learn(fours, 4)[1] < 0.2
    # A file of another program.
    safetensors.numpy.save_file({name: array.copy() for name, array in fours.parameters.items()}, path)
    fives = jostle.Model.load(
        path, config=dataclasses.replace(CONFIG, activation="gelu"), frozen=["w*", "h.0.*"]
    )
    assert bits(fives.parameters) == bits(fours.parameters)
    before, after = learn(fives, 5)
    assert before > 3 and after < 0.25
    for name, array in fives.parameters.items():
        assert np.array_equal(array, fours.parameters[name]) == (name in fives.frozen), name
