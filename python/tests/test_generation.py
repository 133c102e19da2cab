"""Generation."""

import numpy as np
import pytest
from common import SMALL, random_tokens


def test_a_stream_gives_the_tokens_of_the_array(model):
    for count in (0, 1, 20):
        made = model.generate([1, 2], count, seed=5)
        assert list(model.generate([1, 2], count, seed=5, stream=True)) == made.tolist()
        assert made.shape == (count,)


def test_the_same_seed_writes_the_same_text(model):
    texts = [tuple(model.generate([1, 2], 20, seed=seed).tolist()) for seed in (0, 0, 1, 2, 3)]
    assert texts[0] == texts[1] and len(set(texts)) == 4


@pytest.mark.parametrize("threads", [1, 2])
def test_greedy_text_is_the_most_probable_also_beyond_the_context(model, threads):
    model.parameters["wpe.weight"][:] *= 20  # a text that is not one token again and again
    given = [1, 2, 3]
    made = model.generate(given, 3 * SMALL.context, temperature=0)
    assert len(set(made.tolist())) > 1
    seen = list(given)
    for token in made.tolist():
        logits = model.logits([seen[-SMALL.context :]])[0, -1]
        assert token == logits.argmax()
        seen.append(token)


def test_a_prompt_longer_than_the_context(model):
    prompt = random_tokens(SMALL, (30,))
    assert model.generate(prompt, 9, seed=1).tolist() == model.generate(prompt[-8:], 9, seed=1).tolist()


def test_probabilities(model):
    tokens = random_tokens(SMALL, (30,))
    logits = model.logits([tokens[-8:]])[0, -1].astype(float)
    wanted = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(model.probabilities(tokens), wanted, rtol=1e-5)


def test_tokens_are_drawn_as_often_as_they_are_probable(model):
    model.parameters["wte.weight"][:] *= 20
    count = 2000
    drawn = [int(model.generate([1], 1, seed=seed)[0]) for seed in range(count)]
    wanted = model.probabilities([1])
    found = np.bincount(drawn, minlength=13) / count
    # Five standard deviations.
    assert (abs(found - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / count) + 1e-9).all()
    best = set(np.argsort(wanted)[-2:].tolist())
    assert {int(model.generate([1], 1, seed=seed, top_k=2)[0]) for seed in range(100)} == best
    only = int(wanted.argmax())
    for setting in ({"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}, {"temperature": 0}, {"temperature": 1e-6}):
        assert model.generate([1], 1, seed=9, **setting).tolist() == [only], setting
