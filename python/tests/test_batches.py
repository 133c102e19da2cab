"""Training on batches of the caller's: the loss, the bits, the position, and what is refused."""

import copy
import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from common import bits, random_tokens
from hypothesis import given
from hypothesis import strategies as st

import jostle
from jostle import _positions

CONFIG = jostle.Config(vocab=27, context=12, layers=2, heads=3, width=21, dropout=0.2)


def batch(number, sequences=4, length=12):
    """A batch whose sequences count unlike numbers of targets."""
    tokens = random_tokens(CONFIG, (sequences, length), number)
    counted = np.arange(length) >= (np.arange(sequences)[:, None] * 5 + number) % length
    return tokens, np.where(counted, np.roll(tokens, -1, 1), -1)


class Numbered:
    """Batches that know their position."""

    def __init__(self, first=0):
        self.next = first

    def __iter__(self):
        while True:
            self.next += 1
            yield batch(self.next - 1)

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


def make(train, threads=1, **options):
    model = jostle.Model(CONFIG, 3, threads)
    return jostle.Trainer(
        model, jostle.AdamW(model, 3e-3), train=train, **{"batch": 4, "steps": 20, **options}
    )


def parts(cuts):
    """The batches in micro-batches."""
    for number in itertools.count():
        tokens, targets = batch(number)
        yield from zip(np.split(tokens, cuts), np.split(targets, cuts), strict=True)


@pytest.fixture(scope="module")
def expected():
    trainer = make(Numbered())
    return [(report.loss, report.gradient_norm) for report in trainer], bits(trainer.model.parameters)


@pytest.mark.parametrize("cuts", [[2], [1], [1, 2, 3]])
def test_micro_batches_of_unlike_counts_have_the_bits_of_one_batch(cuts, expected):
    counts = [(targets != -1).sum() for _, targets in itertools.islice(parts(cuts), len(cuts) + 1)]
    assert len(set(counts)) > 1
    trainer = make(parts(cuts), accumulate=len(cuts) + 1, threads=2)
    reports = [(report.loss, report.gradient_norm) for report in trainer]
    assert reports == expected[0]
    assert bits(trainer.model.parameters) == expected[1]


def test_the_loss_is_the_mean_over_all_targets_that_count():
    micro_batches = [batch(1), batch(2, 3, 7)]
    trainer = make(micro_batches, accumulate=2)
    model = trainer.model
    counts = [(targets != -1).sum() for _, targets in micro_batches]
    mean = np.dot([model.loss(*one) for one in micro_batches], counts) / sum(counts)
    assert trainer.evaluate(micro_batches) == pytest.approx(mean, rel=1e-6)
    report = next(iter(trainer))
    assert report.tokens == 48 + 21
    assert report.loss == pytest.approx(mean, rel=0.1), "the same, but for dropout"


def test_batches_of_windows_have_the_bits_of_the_text():
    """A text with a single window."""
    text = random_tokens(CONFIG, (13,))
    windows = itertools.repeat((np.tile(text[:-1], (4, 1)), np.tile(text[1:], (4, 1))))
    assert bits_after(make(windows)) == bits_after(make(text))


def bits_after(trainer):
    for _ in trainer:
        pass
    return bits(trainer.model.parameters)


def test_batches_begin_again_when_they_end():
    pair = [batch(0), batch(1)]
    assert bits_after(make(pair)) == bits_after(make(itertools.cycle(pair)))
    trainer = make(iter(pair))
    with pytest.raises(ValueError, match="train has no more batches, after 2"):
        list(trainer)
    assert trainer.step == 2
    with pytest.raises(ValueError, match="no more batches, after 0"):
        make(iter([])).advance()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_training_resumes_at_the_position_of_the_batches(accumulate, tmp_path):
    whole, first = make(Numbered(), accumulate=accumulate), make(Numbered(), accumulate=accumulate)
    for _ in range(7):
        first.advance()
    first.save(tmp_path / "checkpoint")
    again = jostle.Trainer.resume(tmp_path / "checkpoint", train=Numbered(99), threads=2)
    assert again.train.next == 7 * accumulate
    assert bits_after(again) == bits_after(whole)


def test_a_step_that_is_taken_again_takes_the_same_batches(tmp_path, monkeypatch, expected):
    trainer = make(Numbered())
    for _ in range(5):
        trainer.advance()
    native = trainer._training

    class Interrupted:
        def step_on(self, batches):
            raise KeyboardInterrupt

        def __getattr__(self, name):
            return getattr(native, name)

    object.__setattr__(trainer, "_training", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        trainer.advance()
    trainer.save(tmp_path / "checkpoint")
    object.__setattr__(trainer, "_training", native)
    assert bits_after(trainer) == expected[1]
    assert bits_after(jostle.Trainer.resume(tmp_path / "checkpoint", train=Numbered())) == expected[1]


def test_batches_without_a_position_are_said_to_have_none(tmp_path):
    trainer = make(map(batch, itertools.count()))
    for _ in range(3):
        trainer.advance()
    trainer.save(tmp_path / "checkpoint")
    with pytest.warns(RuntimeWarning, match="no position to continue from.*; 3 were drawn before"):
        again = jostle.Trainer.resume(tmp_path / "checkpoint", train=map(batch, itertools.count(3)))
    assert bits_after(again) == bits_after(make(Numbered()))

    class Torn(Numbered):
        def state_dict(self):
            return {"next": object()}

    trainer = make(Torn())
    with pytest.warns(RuntimeWarning, match="position of train is not kept: it has a value of object"):
        trainer.save(tmp_path / "checkpoint")
    text = random_tokens(CONFIG, (99,))
    with pytest.raises(ValueError, match="train is a text; the training was on batches"):
        jostle.Trainer.resume(tmp_path / "checkpoint", train=text)
    make(text).save(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="train is batches; the training was on a text"):
        jostle.Trainer.resume(tmp_path / "checkpoint", train=Numbered())


def test_a_step_that_diverges_is_left_out_with_its_batch():
    trainer = make(Numbered(), on_divergence="skip")
    trainer.model.parameters["wte.weight"][0] = np.nan
    with pytest.warns(RuntimeWarning, match="skipped"), pytest.raises(FloatingPointError):
        trainer.advance()
    assert trainer.train.next == 101


def test_a_copy_takes_the_same_batches():
    trainer = make([batch(0), batch(1), batch(2)])
    assert bits_after(copy.deepcopy(trainer)) == bits_after(trainer)


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        (5, TypeError, "a batch is 5; expected a pair (tokens, targets)"),
        (([[1]], [[1]], [[1]]), TypeError, "expected a pair (tokens, targets)"),
        (([1], [1]), ValueError, "tokens has the shape (1,); expected (B, T)"),
        (([[1, 2]], [[1]]), ValueError, "targets have the shape (1, 1); expected the shape of the tokens, (1, 2)"),
        (([[27]], [[1]]), IndexError, "token 27 is outside the vocabulary; expected tokens below 27"),
        (([[1]], [[-2]]), IndexError, "target -2 is outside the vocabulary; expected tokens below 27, or -1"),
        (([[1]], [[-1]]), ValueError, "no target of the step's batches counts"),
        (([[1]] * 5, [[1]] * 5), ValueError, "a batch has the shape (5, 1); expected at most batch, 4, sequences"),
        (([[1] * 13], [[1] * 13]), ValueError, "a batch has the shape (1, 13); expected at most batch, 4"),
        (([["a"]], [[1]]), TypeError, "tokens is of <U1; expected integers"),
    ],
)  # fmt: skip
def test_batches_that_are_refused(given, error, sentence):
    trainer = make(itertools.chain([given], map(batch, itertools.count())))
    with pytest.raises(error, match=re.escape(sentence)):
        trainer.advance()
    assert trainer.step == 0
    trainer.advance()


def test_an_evaluation_needs_batches_that_can_be_read_again():
    with pytest.raises(TypeError, match="validation is an iterator, which ends after one evaluation"):
        make(Numbered(), validation=map(batch, range(3)))
    trainer = make(Numbered(), validation=[batch(1), batch(2)], evaluate_every=10)
    losses = [report.validation_loss for report in trainer]
    assert losses[9] is not None and losses[19] == trainer.evaluate([batch(1), batch(2)])
    with pytest.raises(ValueError, match="no target of the batches counts"):
        trainer.evaluate([(np.zeros((1, 2), int), np.full((1, 2), -1))])


ROTARY = jostle.Config(
    vocab=27, context=4096, layers=2, heads=2, width=16, norm="rms", positions="rotary", activation="swiglu",
    bias=False, attention_dropout=0.2,
)  # fmt: skip


def rotary(train, **options):
    model = jostle.Model(ROTARY, 3, 2)
    return jostle.Trainer(model, jostle.AdamW(model, 3e-3), train=train, batch=4, steps=5, **options)


def test_a_shorter_length_gives_the_same_bits_with_less_memory(tmp_path):
    whole, short = rotary(Numbered()), rotary(Numbered(), length=12)
    assert [report.loss for report in short] == [report.loss for report in whole]
    assert bits(short.model.parameters) == bits(whole.model.parameters)
    assert short.evaluate([batch(3)]) == whole.evaluate([batch(3)])
    with pytest.raises(
        ValueError, match=re.escape("expected at most batch, 4, sequences of at most 12 tokens")
    ):
        short.evaluate([batch(3, 4, 13)])
    short.save(tmp_path / "checkpoint")
    assert jostle.Trainer.resume(tmp_path / "checkpoint", train=Numbered()).length == 12


def test_windows_have_the_length():
    text = random_tokens(ROTARY, (300,))
    trainer = rotary(text, length=12)
    assert trainer.tokens_per_step == 48
    same = jostle.Model(dataclasses.replace(ROTARY, context=12), 3, 1)
    other = jostle.Trainer(same, jostle.AdamW(same, 3e-3), train=text, batch=4, steps=5)
    assert [report.loss for report in trainer] == [report.loss for report in other]
    with pytest.raises(ValueError, match="train has 12 tokens; at least 13 are needed"):
        rotary(text[:12], length=12)


def test_lengths_that_are_refused():
    with pytest.raises(
        ValueError, match="length is 11; expected the context, 12, because positions are learned"
    ):
        make(Numbered(), length=11)
    with pytest.raises(ValueError, match="length is 4097; expected at least 1 and at most 4096"):
        rotary(Numbered(), length=4097)
    assert make(Numbered(), length=12).length == 12


POSITIONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(POSITIONS)
def test_positions_survive_json(position):
    again = _positions.from_json(json.loads(json.dumps(_positions.to_json(position))))
    assert again == position and repr(again) == repr(position)


def test_positions_of_random_generators_survive_json():
    generator = np.random.RandomState(5)
    state = generator.get_state()
    again = _positions.from_json(json.loads(json.dumps(_positions.to_json(state))))
    wanted = generator.random(9)
    generator.set_state(again)
    assert np.array_equal(generator.random(9), wanted)
    for refused in (object(), {1: 2}, np.array([None]), {"a": {2}}, {"jostle.kind": "tuple"}):
        with pytest.raises(TypeError, match="it has a value of "):
            _positions.to_json(refused)


@pytest.mark.parametrize("changed", [{"dtype": "|O"}, {"shape": [9]}, {"data": "?"}, {"shape": None}])
def test_positions_that_anybody_may_have_written(changed):
    array = _positions.to_json(np.arange(4))
    with pytest.raises((ValueError, TypeError)):
        _positions.from_json({**array, **changed})
