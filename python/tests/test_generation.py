"""Generation."""

import numpy as np
import pytest
from common import SMALL, random_tokens
from hypothesis import given
from hypothesis import strategies as st

import jostle
from jostle import _generation, _native


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


def test_stop_tokens_end_the_text_before_them(model):
    made = model.generate([1, 2], 40, seed=5).tolist()
    stop = made[7]
    assert model.generate([1, 2], 40, seed=5, stop=stop).tolist() == made[: made.index(stop)]
    assert list(model.generate([1, 2], 40, seed=5, stop=[99, stop], stream=True)) == made[: made.index(stop)]
    assert model.generate([1, 2], 40, seed=5, stop=[99]).tolist() == made


CHARACTERS = "abcdefghijklm"


def drawn(text, stop):
    """The text of the tokens that stay of a text."""
    tokenizer = jostle.ByteTokenizer()
    stops = _generation.Stops(stop, tokenizer)
    return tokenizer.decode(stops.cut(iter(tokenizer.encode(text).tolist())))


@pytest.mark.parametrize(
    ("text", "stop", "wanted"),
    [
        ("I like to ski", "to", "I like "), ("I like to ski", ["ski", "to"], "I like "), ("I like to ski", "snow", "I like to ski"),
        ("aaab", "aab", "a"), ("é – 日本 and", "本", "é – 日"), ("to", "to", ""), ("I like t", "to", "I like t"),
        ("one\n\ntwo", "\n\n", "one"), ("one\ntwo", "\n\n", "one\ntwo"), ("stop", ["stopped", "s"], ""),
    ],
)  # fmt: skip
def test_stop_strings_end_the_text_before_them(text, stop, wanted):
    assert drawn(text, stop) == wanted


@given(
    st.text("abé日", max_size=30), st.lists(st.text("abé日", min_size=1, max_size=4), min_size=1, max_size=3)
)
def test_any_stop_strings(text, stop):
    places = [text.find(string) for string in stop if string in text]
    assert drawn(text, stop) == (text[: min(places)] if places else text)


def test_tokens_wait_only_while_they_may_begin_a_stop_string(model):
    """As soon as a token cannot be part of a stop string any more, it is there."""
    tokenizer = jostle.ByteTokenizer()
    asked = []

    def tokens():
        for token in b"snow and snows":
            asked.append(token)
            yield token

    cut = _generation.Stops("ski", tokenizer).cut(tokens())
    for number in range(1, 10):
        next(cut)
        assert len(asked) <= number + 2


def test_stop_strings_of_a_model(model):
    tokenizer = jostle.CharTokenizer(CHARACTERS)
    with pytest.raises(ValueError, match="stop has strings, but the model has no tokenizer"):
        model.generate([1], 1, stop="a")
    model.tokenizer = tokenizer
    made = tokenizer.decode(model.generate([1, 2], 40, seed=5))
    cut = model.generate([1, 2], 40, seed=5, stop=[made[20:23]])
    assert tokenizer.decode(cut) == made[: made.index(made[20:23])]
    with pytest.raises(ValueError, match="stop has an empty string"):
        model.generate([1], 1, stop=["a", ""])
    with pytest.raises(TypeError, match="stop is 0.5"):
        model.generate([1], 1, stop=[0.5])


@pytest.mark.parametrize("penalty", [2.0, 0.5])
def test_a_repetition_penalty_has_the_formula_of_the_paper(model, penalty):
    model.parameters["wpe.weight"][:] *= 20  # a text that is not one token again and again
    seen, made = [1, 2], model.generate([1, 2], 20, temperature=0, repetition_penalty=penalty)
    for token in made.tolist():
        logits = model.logits([seen[-SMALL.context :]])[0, -1]
        for known in set(seen):
            logits[known] = logits[known] / penalty if logits[known] > 0 else logits[known] * penalty
        assert token == logits.argmax()
        seen.append(token)
    assert made.tolist() != model.generate([1, 2], 20, temperature=0).tolist()


def test_a_penalty_of_one_draws_the_same_tokens(model):
    generator = _native.Generator(model._engine)
    for setting in ({}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}, {"temperature": 0.0}):
        settings = _generation.Settings.checked(
            **{"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "seed": 3, **setting}
        )
        start = np.array([1, 2], np.int32)
        penalized = _generation.draw(generator, start, generator.feed(start), 20, settings, 1.0000001)
        assert list(penalized) == model.generate([1, 2], 20, **{"seed": 3, **setting}).tolist()
        generator = _native.Generator(model._engine)


def test_a_batch_of_prompts_is_each_prompt_alone(model):
    prompts = [[1], [2, 3, 4], random_tokens(SMALL, (12,)), [5]]
    for threads in (1, 3):
        same = jostle.Model(SMALL, seed=3, threads=threads)
        for count, settings in (
            (0, {}),
            (40, {"top_k": 5, "stop": 7}),
            (16, {"temperature": 0.0}),
            (33, {"stop": [99]}),
        ):
            made = same.generate_batch(prompts, count, seed=4, **settings)
            for number, (prompt, tokens) in enumerate(zip(prompts, made, strict=True)):
                wanted = model.generate(prompt, count, seed=4 + number, **settings)
                assert tokens.tolist() == wanted.tolist() and tokens.dtype == wanted.dtype
    assert model.generate_batch([], 5) == []


def test_batches_of_prompts_that_are_refused(model):
    with pytest.raises(IndexError, match="13"):
        model.generate_batch([[1], [13]], 5)
    with pytest.raises(ValueError, match="at least one token"):
        model.generate_batch([[1], []], 5)
    with pytest.raises(ValueError, match="top_p is 2"):
        model.generate_batch([[1]], 5, top_p=2)
    with pytest.raises(ValueError, match="stop has strings"):
        model.generate_batch([[1]], 5, stop=["a"])
    model.parameters["ln_f.weight"][:] = np.nan
    with pytest.raises(ArithmeticError):
        model.generate_batch([[1], [2]], 5)


@pytest.mark.parametrize("length", [2, 8, 9, 30])
def test_log_probabilities_and_perplexity(model, length):
    tokens = random_tokens(SMALL, (length,))
    wanted = []
    for place in range(1, length):
        window = (place - 1) // SMALL.context * SMALL.context
        logits = model.logits([tokens[window:place]])[0, -1].astype(float)
        wanted.append(logits[tokens[place]] - np.log(np.exp(logits).sum()))
    found = model.log_probabilities(tokens)
    assert found.dtype == np.float32 and np.allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert model.perplexity(tokens) == pytest.approx(np.exp(-np.mean(wanted)), rel=1e-5)
    trainer = jostle.Trainer(model, jostle.SGD(model, 0.0), train=random_tokens(SMALL, (99,)), batch=2)
    assert model.perplexity(tokens) == pytest.approx(np.exp(trainer.evaluate(tokens)), rel=1e-6)
    with pytest.raises(ValueError, match="no tokenizer"):
        model.perplexity("abc")
    model.tokenizer = jostle.CharTokenizer(CHARACTERS)
    assert model.perplexity(model.tokenizer.decode(tokens)) == model.perplexity(tokens)
    for refused in (model.log_probabilities, model.perplexity):
        with pytest.raises(ValueError, match="1 tokens; at least 2 are needed"):
            refused([3])
