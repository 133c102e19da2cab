"""The public names, as the README uses them, and their promises."""

import dataclasses
import os
import pickle
import pydoc
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from common import SMALL, bits, flat, random_tokens, run_python, text

import jostle
from jostle import _native


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


def test_parameters_can_be_set(model):
    name, parameters = "wte.weight", model.parameters
    before = parameters[name].copy()
    parameters[name] -= np.float32(1)
    assert np.array_equal(model.parameters[name], before - np.float32(1))
    parameters[name] = before.T.copy().T
    assert np.array_equal(model.parameters[name], before)
    for wrong in (before.T, before.astype(float), 0, before[:-1]):
        with pytest.raises(ValueError, match=f"{name} is set to .*; expected float32 of "):
            parameters[name] = wrong
    with pytest.raises(KeyError, match="'wte' is not a tensor of the model"):
        parameters["wte"] = before
    assert np.array_equal(model.parameters[name], before)


def test_what_a_model_is_cannot_be_changed(model):
    for name in ("config", "seed", "frozen", "threads", "instruction_set", "parameters", "gradients"):
        with pytest.raises(AttributeError):
            setattr(model, name, getattr(model, name))
    with pytest.raises(AttributeError):
        jostle.AdamW(model).model = model
    for wrong, kind in ((42, TypeError), (jostle.ByteTokenizer(), ValueError)):
        with pytest.raises(kind):
            model.tokenizer = wrong
    model.tokenizer = jostle.CharTokenizer("abcdefghijklm")
    assert model.tokenizer.vocab == 13
    model.tokenizer = None


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

    # `dropout` and `residual_dropout` are not fields, and must have an effect.
    config = jostle.Config(**sizes, dropout=0.1)
    assert config.dropout is None and config.residual_dropout is None
    assert dataclasses.replace(config, attention_dropout=0.5).attention_dropout == 0.5
    for name in ("dropout", "residual_dropout"):
        with pytest.raises(TypeError, match=f"^{name} is 0.5 and sets nothing"):
            dataclasses.replace(config, **{name: 0.5})


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
    chunked_head = jostle.plan(SMALL, head_rows=1)
    assert chunked_head["activations"] < least["activations"] and chunked_head.recomputed > 0
    assert "_RECOMPUTE 1u" in again.defines() and "_RECOMPUTE 0u" in least.defines()
    fused = jostle.plan(SMALL, fused=True)
    assert fused["gradients"] < least["gradients"] and (fused.fused, least.fused) == (True, False)
    # A norm's gradient [T, C] shares memory with other numbers.
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
    for name, wrong in (
        ("evaluate_every", 0), ("train", [1, 2]), ("train", [0.5] * 99), ("train", [13] * 99), ("train", None),
        ("validation", [1]), ("validation", [-1, 2]),
    ):  # fmt: skip
        before = getattr(trainer, name)
        with pytest.raises((ValueError, TypeError, IndexError), match=name):
            setattr(trainer, name, wrong)
        assert getattr(trainer, name) is before
    assert len(trainer) == 2
    trainer.advance()
    assert len(trainer) == 1
    assert len(list(pickle.loads(pickle.dumps(trainer)))) == 1


def test_threads_are_as_many_as_the_process_may_use(monkeypatch):
    monkeypatch.delenv("JOSTLE_THREADS", raising=False)
    if hasattr(os, "sched_setaffinity"):
        run_python("""
import os, jostle
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
assert jostle.Model(jostle.Config(vocab=2, context=2, layers=1, heads=1, width=2)).threads == 1
""")
    assert 1 <= jostle.Model(SMALL).threads <= os.cpu_count()
    monkeypatch.setenv("JOSTLE_THREADS", "3")
    assert jostle.Model(SMALL).threads == 3 and jostle.Model(SMALL, threads=1).threads == 1
    for wrong in ("x", "0", "-1", "1.5"):
        monkeypatch.setenv("JOSTLE_THREADS", wrong)
        with pytest.raises(ValueError, match=f"JOSTLE_THREADS is '?{wrong}'?; expected"):
            jostle.Model(SMALL)


def test_help_tells_what_the_fields_are():
    for thing, words in (
        (jostle.Config, "the longest sequence"),
        (jostle.Config, "the hidden width of the MLP"),
        (jostle.Report, "before clipping"),
        (jostle.Report, "in nats per token"),
    ):
        assert words in pydoc.render_doc(thing)


def test_representations(model):
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), steps=2)
    for thing in (model, trainer, jostle.AdamW(model), jostle.SGD(model, 0.1), SMALL, jostle.ByteTokenizer()):
        assert repr(thing).startswith(type(thing).__name__)
    assert repr(trainer).endswith("0 of 2 steps)")
    assert jostle.__version__.count(".") == 2
    assert all(hasattr(jostle, name) for name in jostle.__all__)


def test_a_configuration_has_the_fields_of_the_core(tmp_path):
    jostle.Model(SMALL, seed=1).save(tmp_path / "model")
    core = _native.Checkpoint((tmp_path / "model").read_bytes()).config()
    assert sorted(core) == sorted(field.name for field in dataclasses.fields(jostle.Config))
    assert jostle.Config(**core) == SMALL
