"""The names that are fixed, as the README and the issue of the package write them, and what they promise."""

import copy
import dataclasses
import gc
import pickle
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import safetensors.numpy
from common import SMALL, bits, flat, random_tokens, run_python, text
from hypothesis import given
from hypothesis import strategies as st

import jostle

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture
def model():
    return jostle.Model(SMALL, seed=3, threads=1)


@pytest.fixture
def trained():
    """A model and its optimizer after a few steps, in the middle of another one."""
    config = jostle.Config(vocab=13, context=8, layers=2, heads=2, width=8, dropout=0.1)
    model = jostle.Model(config, seed=3, threads=1)
    optimizer = jostle.AdamW(model, learning_rate=0.01)
    for _ in range(3):
        go_on(model, optimizer)
    model.backward(*batch(1))
    return model, optimizer


def batch(seed=0, shape=(3, 8)):
    tokens = random_tokens(SMALL, shape, seed)
    return tokens, np.roll(tokens, -1, axis=1)


def go_on(model, optimizer):
    """The rest of a step, which begins as it begins the next."""
    model.backward(*batch())
    optimizer.step()
    model.zero_gradients()


def test_every_name_as_it_is_written_down(tmp_path):
    config = jostle.Config(
        vocab=65, context=64, layers=4, heads=4, width=128, hidden=None, dropout=0.1,
        activation="gelu", bias=True, tied=True, norm_epsilon=1e-5,
    )  # fmt: skip
    assert config.hidden == 512
    jostle.Config(
        vocab=65, context=64, layers=4, heads=4, width=128,
        embedding_dropout=0.1, attention_dropout=0.2, residual_dropout=0.3, activation="gelu_tanh",
    )  # fmt: skip
    config = jostle.Config(vocab=65, context=16, layers=2, heads=2, width=16, dropout=0.1)
    model = jostle.Model(config, seed=1337, threads=None)
    tokens = random_tokens(config, (2, 16))
    targets = np.where(np.arange(16) < 3, -1, tokens)

    assert isinstance(model.parameters, Mapping) and isinstance(model.gradients, Mapping)
    logits = model.logits(tokens)
    assert logits.shape == (2, 16, 65) and logits.dtype == np.float32
    loss = model.loss(tokens, targets)
    assert isinstance(loss, float) and loss == model.loss(tokens, targets)
    assert isinstance(model.backward(tokens, targets), float)
    assert flat(model.gradients).any()
    model.zero_gradients()
    assert not flat(model.gradients).any()
    assert model.attention(tokens).shape == (2, 2, 2, 16, 16)

    optimizer = jostle.AdamW(model, learning_rate=1e-3, betas=(0.9, 0.99), epsilon=1e-8, weight_decay=0.1)
    model.backward(tokens, targets)
    norm = optimizer.step(clip=1.0)
    assert norm == pytest.approx(np.linalg.norm(flat(model.gradients).astype(float)), rel=1e-5)
    jostle.SGD(model, 0.1, momentum=0.0)
    jostle.SGD(model, learning_rate=0.1)
    optimizer = jostle.AdamW(model)

    trainer = jostle.Trainer(
        model, optimizer, train=tokens.ravel(), validation=tokens.ravel(), batch=12, steps=2,
        schedule=jostle.Cosine(warmup=1, final=1e-4), clip=1.0, accumulate=1, seed=1337,
    )  # fmt: skip
    reports = list(trainer)
    assert [report.step for report in reports] == [1, 2]
    assert reports[0].validation_loss is None
    last = reports[1]
    assert last.validation_loss == pytest.approx(trainer.evaluate(tokens.ravel()))
    for number in (last.loss, last.learning_rate, last.gradient_norm, last.tokens_per_second):
        assert isinstance(number, float) and number > 0
    trainer.save(tmp_path / "trainer")
    again = jostle.Trainer.resume(str(tmp_path / "trainer"), train=tokens.ravel(), validation=tokens.ravel())
    assert again.step == 2 and list(again) == []
    assert bits(again.model.parameters) == bits(model.parameters)

    made = model.generate(tokens[0], 5, temperature=1.0, top_k=None, top_p=None, min_p=None, seed=0)
    assert made.shape == (5,) and np.issubdtype(made.dtype, np.integer)
    assert isinstance(model.generate(tokens[0], 5, stream=True), Iterator)
    model.save(tmp_path / "model")
    assert bits(jostle.Model.load(tmp_path / "model").parameters) == bits(model.parameters)

    characters = jostle.CharTokenizer.from_text("abc")
    assert characters.decode(characters.encode("cab")) == "cab"
    words = jostle.WordTokenizer.from_text("one two")
    assert words.decode(words.encode("two one")) == "two one"
    assert jostle.ByteTokenizer().decode(jostle.ByteTokenizer().encode("é")) == "é"
    assert jostle.plan(config, batch=12)["parameters"] == 4 * model.parameter_count
    for name in ("matmul", "softmax", "attention", "layer_norm", "gelu", "dropout", "cross_entropy"):
        assert callable(getattr(jostle.ops, name)) and callable(getattr(jostle.ops, f"{name}_backward"))


def test_names_and_shapes_of_parameters(model):
    c, f = SMALL.width, SMALL.hidden
    wanted = {"wte.weight": (13, c), "wpe.weight": (8, c), "ln_f.weight": (c,), "ln_f.bias": (c,)}
    for i in range(SMALL.layers):
        for name, shape in {
            "ln_1": (c,), "attn.c_attn": (c, 3 * c), "attn.c_proj": (c, c),
            "ln_2": (c,), "mlp.c_fc": (c, f), "mlp.c_proj": (f, c),
        }.items():  # fmt: skip
            wanted[f"h.{i}.{name}.weight"] = shape
            wanted[f"h.{i}.{name}.bias"] = shape[-1:]
    for views in (model.parameters, model.gradients):
        assert {name: array.shape for name, array in views.items()} == wanted
        assert all(array.dtype == np.float32 for array in views.values())
    with pytest.raises(TypeError):
        model.parameters["wte.weight"] = np.zeros((13, c), np.float32)


def test_rates_of_dropout():
    sizes = {"vocab": 5, "context": 4, "layers": 1, "heads": 1, "width": 4}

    def rates(**given):
        config = jostle.Config(**sizes, **given)
        return (
            config.embedding_dropout, config.attention_dropout,
            config.attention_projection_dropout, config.mlp_projection_dropout,
        )  # fmt: skip

    assert rates() == (0, 0, 0, 0)
    assert rates(dropout=0.1) == (0.1, 0.1, 0.1, 0.1)
    assert rates(dropout=0.1, residual_dropout=0.0) == (0.1, 0.1, 0, 0)
    assert rates(residual_dropout=0.3) == (0, 0, 0.3, 0.3)
    assert rates(embedding_dropout=0.1, attention_dropout=0.2) == (0.1, 0.2, 0, 0)

    # What sets the rates is neither told as one of them nor without effect.
    config = jostle.Config(**sizes, dropout=0.1)
    assert config.dropout is None and config.residual_dropout is None
    assert dataclasses.replace(config, attention_dropout=0.5).attention_dropout == 0.5
    for name in ("dropout", "residual_dropout"):
        with pytest.raises(TypeError, match=f"^{name} is 0.5 and sets nothing"):
            dataclasses.replace(config, **{name: 0.5})


# Views.


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
    """Where vectors straddle two, steps take longer."""
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
    # Whatever took the memory would show.
    others = [np.full(view.size, np.nan, np.float32) for view in views for _ in range(100)]
    for view, copied in zip(views, wanted, strict=True):
        assert np.array_equal(view, copied)
        view[:] = 7
        assert (view == 7).all()
    assert np.isnan(others[0]).all()


def test_memory_is_given_back():
    """Forty models of 8 MB each, one after the other, whose views are in a cycle with them."""
    run_python("""
import gc, resource, jostle
config = jostle.Config(vocab=1000, context=8, layers=1, heads=1, width=256)
def make():
    model = jostle.Model(config, threads=1)
    model.myself = [model, model.parameters["wte.weight"]]
for _ in range(10):
    make()
gc.collect()
# Not the peak, which is at least that of the process that started this one.
def resident():
    return int(open("/proc/self/statm", "rb").read().split()[1]) * resource.getpagesize()
before = resident()
for _ in range(40):
    make()
    gc.collect()
after = resident()
assert after < before + 100_000_000, (before, after)
""")


# Copies.


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles(trained, protocol):
    model, optimizer = trained
    # The model's own copy and the optimizer's are one: pickle keeps identity.
    copied, other = pickle.loads(pickle.dumps((model, optimizer), protocol))
    check_copy(trained, (copied, other))


def test_deep_copies(trained):
    model, optimizer = trained
    copied = copy.deepcopy(optimizer)
    check_copy(trained, (copied.model, copied))


def check_copy(trained, copied):
    (model, optimizer), (model_2, optimizer_2) = trained, copied
    assert optimizer_2.model is model_2 and type(optimizer_2) is type(optimizer)
    assert model_2.config == model.config and model_2.threads == model.threads
    assert model_2.instruction_set == model.instruction_set
    for name, array in model.parameters.items():
        assert not np.shares_memory(array, model_2.parameters[name])
    assert bits(model_2.gradients) == bits(model.gradients)
    for _ in range(3):
        go_on(model, optimizer)
        go_on(model_2, optimizer_2)
    assert optimizer_2.steps == optimizer.steps == 6
    assert bits(model_2.parameters) == bits(model.parameters)
    assert optimizer_2.state.tobytes() == optimizer.state.tobytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_of_a_model_alone(model, protocol):
    model.tokenizer = jostle.CharTokenizer("abcdefghijklm")
    copied = pickle.loads(pickle.dumps(model, protocol))
    assert bits(copied.parameters) == bits(model.parameters)
    assert copied.tokenizer == model.tokenizer


@pytest.mark.parametrize("make", [lambda m: jostle.SGD(m, 0.1), lambda m: jostle.SGD(m, 0.1, 0.9)])
def test_pickles_of_other_optimizers(model, make):
    optimizer = make(model)
    go_on(model, optimizer)
    copied = pickle.loads(pickle.dumps(optimizer))
    go_on(model, optimizer)
    go_on(copied.model, copied)
    assert bits(copied.model.parameters) == bits(model.parameters)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_of_trainers(model, protocol):
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), batch=2, steps=6)
    for _ in range(3):
        trainer.advance()
    copied = pickle.loads(pickle.dumps(trainer, protocol))
    rest, other = list(trainer), list(copied)
    assert [report.loss for report in rest] == [report.loss for report in other]
    assert bits(copied.model.parameters) == bits(model.parameters)


@pytest.mark.parametrize(
    "thing",
    [SMALL, jostle.Cosine(3, 0.1), jostle.WarmupStableDecay(decay=3), jostle.CharTokenizer("ab"),
     jostle.WordTokenizer(["a", " "]), jostle.ByteTokenizer()],
    ids=repr,
)  # fmt: skip
def test_values_are_equal_to_their_copies(thing):
    assert pickle.loads(pickle.dumps(thing)) == copy.deepcopy(thing) == thing
    assert hash(copy.deepcopy(thing)) == hash(thing)


# Files.


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
    # The masks go on too.
    assert loaded.backward(*batch()) == model.backward(*batch())


def test_files_of_others_need_their_configuration(model, tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({name: array.copy() for name, array in model.parameters.items()}, path)
    with pytest.raises(ValueError, match="config="):
        jostle.Model.load(path)
    assert bits(jostle.Model.load(path, config=SMALL).parameters) == bits(model.parameters)
    wider = jostle.Config(vocab=13, context=8, layers=2, heads=2, width=16)
    with pytest.raises(ValueError, match="tensor"):
        jostle.Model.load(path, config=wider)
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
    with pytest.raises(OSError):
        model.save(tmp_path / "folder")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "folder"}
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "absent" / "model")
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
    """As C and Rust write it: with the optimizer's state, but not how training goes on."""
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
        with pytest.raises(ValueError):
            optimizer.load(path)
        assert bits(other.parameters) == before and optimizer.steps == 0


# Tokenizers.


@given(st.text(min_size=1))
def test_tokenizers_lose_nothing(some):
    tokenizers = [jostle.CharTokenizer.from_text(some), jostle.WordTokenizer.from_text(some)]
    if not any("\ud800" <= character <= "\udfff" for character in some):
        tokenizers.append(jostle.ByteTokenizer())
    for tokenizer in tokenizers:
        tokens = tokenizer.encode(some)
        assert tokens.ndim == 1 and tokens.max() < tokenizer.vocab
        for kind in (tokens.dtype, np.int32, np.int64):
            assert tokenizer.decode(tokens.astype(kind)) == some
        assert tokenizer.decode(iter(tokens.tolist())) == some
        assert jostle.Tokenizer.from_state(tokenizer.state()) == tokenizer


def test_tokens_are_as_narrow_as_training_takes_them():
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    assert jostle.CharTokenizer.from_text(characters[:256]).encode(characters[:9]).dtype == np.uint8
    assert jostle.CharTokenizer.from_text(characters).encode(characters).dtype == np.uint16


def test_tokenizers_refuse_what_they_do_not_know():
    tokenizer = jostle.CharTokenizer.from_text("abc")
    with pytest.raises(ValueError, match="'d'"):
        tokenizer.encode("bad")
    for refused in ([3], [-1], [0, 1, 99]):
        with pytest.raises(IndexError, match="vocabulary of 3"):
            tokenizer.decode(refused)
    for refused in ([256], [-1]):
        with pytest.raises(IndexError, match="vocabulary of 256"):
            jostle.ByteTokenizer().decode(refused)
    assert jostle.ByteTokenizer().decode([0xFF]) == "\ufffd"
    for refused in (["ab", "c"], ["", "c"]):
        with pytest.raises(ValueError, match="wanted: single characters"):
            jostle.CharTokenizer(refused)


@pytest.mark.parametrize(
    "tokenizer",
    [jostle.CharTokenizer.from_text("né\n\"\\日\0\ud800"), jostle.WordTokenizer.from_text("né à, 日\n 12"),
     jostle.ByteTokenizer()],
    ids=repr,
)  # fmt: skip
def test_checkpoints_keep_the_tokenizer(tokenizer, tmp_path):
    config = jostle.Config(vocab=tokenizer.vocab, context=4, layers=1, heads=1, width=4)
    model = jostle.Model(config, tokenizer=tokenizer)
    model.save(tmp_path / "model")
    loaded = jostle.Model.load(tmp_path / "model")
    assert loaded.tokenizer == tokenizer and type(loaded.tokenizer) is type(tokenizer)
    jostle.Trainer(model, jostle.SGD(model, 0.1), train=np.zeros(9, int), steps=0).save(tmp_path / "trainer")
    assert jostle.Trainer.resume(tmp_path / "trainer", train=np.zeros(9, int)).model.tokenizer == tokenizer


class Digits(jostle.Tokenizer):
    """A user's own tokenizer."""

    vocab = 10

    def encode(self, text):
        return np.array([int(character) for character in text])

    def decode(self, tokens):
        return "".join(map(str, tokens))


def test_a_tokenizer_of_ones_own(tmp_path):
    path, tokenizer = tmp_path / "checkpoint", Digits()
    config = jostle.Config(vocab=10, context=4, layers=1, heads=1, width=4)
    model = jostle.Model(config, tokenizer=tokenizer)
    train = tokenizer.encode("0123456789")
    jostle.Trainer(model, jostle.SGD(model, 0.1), train=train, steps=1).save(path)
    for load in (jostle.Model.load, lambda path: jostle.Trainer.resume(path, train=train)):
        with pytest.raises(ValueError, match="'Digits' is not known; wanted: it, as tokenizer="):
            load(path)
    assert jostle.Model.load(path, tokenizer=tokenizer).tokenizer is tokenizer
    resumed = jostle.Trainer.resume(path, train=train, tokenizer=tokenizer)
    assert len(list(resumed)) == 1 and resumed.model.tokenizer is tokenizer
    with pytest.raises(ValueError, match="the tokenizer has 256 tokens, the configuration 10"):
        jostle.Model.load(path, tokenizer=jostle.ByteTokenizer())


# Text.


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


# Looking at the model.


def test_attention_weights(model):
    tokens = random_tokens(SMALL, (3, 8))
    weights, qkv = model.attention(tokens), model.qkv(tokens)
    assert weights.shape == (2, 3, 2, 8, 8) and qkv.shape == (2, 3, 8, 24)
    later = np.triu(np.ones((8, 8), bool), 1)
    assert (weights[..., later] == 0).all() and (weights[..., ~later] > 0).all()
    assert np.allclose(weights.sum(-1), 1, atol=1e-6)
    q, k, _ = (part.reshape(2, 3, 8, 2, 4).transpose(0, 1, 3, 2, 4) for part in np.split(qkv, 3, axis=-1))
    scores = q.astype(float) @ k.transpose(0, 1, 2, 4, 3) / 2
    wanted = np.exp(np.where(later, -np.inf, scores))
    assert np.allclose(weights, wanted / wanted.sum(-1, keepdims=True), atol=1e-6)


def test_plans(model):
    plan = jostle.plan(SMALL, batch=12, threads=2, optimizer="adamw")
    assert plan["parameters"] == plan["gradients"] == 4 * model.parameter_count
    assert plan["optimizer"] == 2 * plan["parameters"]
    assert plan.training == sum(plan[region] for region in plan if region != "generation")
    assert set(plan) == {
        "parameters", "gradients", "optimizer", "activations", "scratch", "batch", "generation",
    }  # fmt: skip
    table = str(plan).splitlines()
    assert len(table) == len(plan) + 1 and len({len(line) for line in table}) == 1
    html = plan._repr_html_()
    for region, size in [*plan.items(), ("training", plan.training)]:
        assert f"{region}" in html and f"{size:,}" in html
        assert any(line.startswith(region) and f" {size:,} bytes" in line for line in table)
    assert html.count("<tr>") == html.count("</tr>") == len(plan) + 2
    assert jostle.plan(SMALL)["activations"] < plan["activations"]
    assert jostle.plan(SMALL, optimizer="none")["optimizer"] == 0
    fitted = jostle.plan(SMALL, batch=12, threads=2, budget=plan.training - 1)
    assert fitted.training < plan.training and (fitted.batch, fitted.threads) < (12, 2)
    least, again = jostle.plan(SMALL), jostle.plan(SMALL, recompute=True)
    assert again["activations"] < least["activations"] and again.recomputed > least.recomputed == 0
    assert {**again, "activations": 0} == {**least, "activations": 0}
    assert jostle.plan(SMALL, batch=12, budget=least.training - 1).recompute
    assert "_RECOMPUTE 1u" in again.defines() and "_RECOMPUTE 0u" in least.defines()
    fused = jostle.plan(SMALL, fused=True)
    assert fused["gradients"] < least["gradients"] and (fused.fused, least.fused) == (True, False)
    # A norm's gradient [T, C] has the place of other numbers.
    assert least["scratch"] - fused["scratch"] == 4 * SMALL.context * SMALL.width
    assert {**fused, "gradients": 0, "scratch": 0} == {**least, "gradients": 0, "scratch": 0}
    assert jostle.plan(SMALL, budget=again.training - 1).fused
    assert "_FUSED 1u" in fused.defines() and "_FUSED 0u" in least.defines()
    some = jostle.plan(SMALL, frozen=["wte.weight", "wpe.weight"])
    assert some["parameters"] + some["frozen"] == least["parameters"] and some.training < least.training
    assert "wpe.weight" in some.defines() and str(some).endswith(f" {some['frozen']:,} bytes")
    with pytest.raises(ValueError):
        jostle.plan(SMALL, budget=1000)


def test_what_a_trainer_has_settled_cannot_be_set(model):
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), steps=2)
    for name in ("optimizer", "batch", "steps", "schedule", "clip", "seed"):
        with pytest.raises(AttributeError, match=f"^{name} is settled"):
            setattr(trainer, name, None)
    trainer.evaluate_every = 1
    trainer.train = text(7)
    assert len(list(pickle.loads(pickle.dumps(trainer)))) == 2


def test_representations(model):
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), steps=2)
    for thing in (model, trainer, jostle.AdamW(model), jostle.SGD(model, 0.1), SMALL, jostle.ByteTokenizer()):
        assert repr(thing).startswith(type(thing).__name__)
    assert repr(trainer).endswith("0 of 2 steps)")
    assert jostle.__version__.count(".") == 2
    assert all(hasattr(jostle, name) for name in jostle.__all__)


# Processes.


def test_a_forked_child_can_use_and_drop_the_model():
    done = run_python("""
import gc, os, sys, warnings
import jostle
# Later Pythons warn of any fork while there are threads.
warnings.simplefilter("ignore", DeprecationWarning)
config = jostle.Config(vocab=65, context=64, layers=2, heads=2, width=64)
model = jostle.Model(config, threads=2)
tokens = [list(range(64))] * 4
loss = model.backward(tokens, tokens)
child = os.fork()
if child == 0:
    code = 1
    try:
        model.zero_gradients()
        assert model.backward(tokens, tokens) == loss
        del model
        gc.collect()
        assert jostle.Model(config, threads=2).loss(tokens, tokens) == loss
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
assert model.loss(tokens, tokens) == loss
print("both")
""")
    assert done.stdout == "both\n"


def test_a_model_goes_to_other_processes():
    run_python("""
import multiprocessing
import jostle
def loss(model):
    return model.loss([[1, 2, 3]], [[2, 3, 4]])
if __name__ == "__main__":
    model = jostle.Model(jostle.Config(vocab=5, context=4, layers=1, heads=1, width=4), threads=2)
    import pickle, sys, subprocess
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).loss([[1, 2, 3]], [[2, 3, 4]]))"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(model), capture_output=True)
    assert float(done.stdout) == loss(model), done.stderr
""")
