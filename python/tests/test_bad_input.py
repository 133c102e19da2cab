"""Bad input raises an exception that names the problem. It changes no state and causes no panic."""

import contextlib
import math

import numpy as np
import pytest
from common import SMALL, bits, flat, random_tokens, run_python, text
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import jostle
from jostle import ops

REFUSALS = (TypeError, ValueError, IndexError, FloatingPointError)
FINE = random_tokens(SMALL, (2, 5))
MODEL = jostle.Model(SMALL, seed=1, threads=2)


@contextlib.contextmanager
def refused_or_fine():
    """Accepts success, or an exception with a reason. pyo3's PanicException is not an Exception, so it fails the test."""
    try:
        yield
    except REFUSALS as error:
        # hypothesis' own exception for an assumption that does not hold.
        assert str(error)


def floats(*shape):
    return np.ones(shape, np.float32)


# Each call, the exception that it raises, and the words that its message must contain.
REFUSED = {
    # Arrays of tokens.
    "float tokens": (lambda: MODEL.logits([[1.0]]), TypeError, "tokens is of float64; expected integers"),
    "bool tokens": (lambda: MODEL.logits([[True]]), TypeError, "tokens is of bool"),
    "text for tokens": (lambda: MODEL.logits("abc"), TypeError, "tokens is of <U3"),
    "None for tokens": (lambda: MODEL.logits(None), TypeError, "tokens is of object"),
    "flat tokens": (lambda: MODEL.logits([1, 2]), ValueError, r"tokens has the shape \(2,\); expected \(B, T\)"),
    "no tokens": (lambda: MODEL.logits(np.zeros((0, 3), int)), ValueError, r"tokens has the shape \(0, 3\)"),
    "ragged tokens": (lambda: MODEL.logits([[1, 2], [3]]), ValueError, "inhomogeneous"),
    "token too large": (lambda: MODEL.logits([[1, 13]]), IndexError, "token 13 at index 1 .* vocabulary of 13"),
    "token negative": (lambda: MODEL.logits([[1, -1]]), IndexError, "token -1 at index 1"),
    "token of 64 bits": (lambda: MODEL.logits([[1, 2**32 + 1]]), IndexError, "tokens holds 4294967297 at index 1"),
    "token far below": (lambda: MODEL.logits(np.array([[1, 2], [-(2**32), 3]]).T), IndexError, "-4294967296 at index 1"),
    "times": (lambda: MODEL.logits(np.ones((1, 1), "m8[s]")), TypeError, r"tokens is of timedelta64\[s\]"),
    "token of 100 bits": (lambda: MODEL.logits([[2**100]]), TypeError, "tokens is of object"),
    "too many tokens": (lambda: MODEL.logits([[0] * 9]), ValueError, "9 positions exceed the context of 8"),
    "other shape of targets": (lambda: MODEL.loss([[1, 2]], [[1]]), ValueError, r"\(1, 1\); expected .*\(1, 2\)"),
    "target too large": (lambda: MODEL.loss([[1]], [[13]]), IndexError, "13"),
    "target too small": (
        lambda: MODEL.backward([[1, 1]], [[1, -100]]), IndexError, "target -100 at index 1; use -1 for ignored targets"
    ),
    "float targets": (lambda: MODEL.backward([[1]], [[0.5]]), TypeError, "targets is of float64"),
    "no counted": (lambda: MODEL.backward(FINE, FINE, counted=0), ValueError, "counted is 0; expected at least 1"),
    "attention of too much": (lambda: MODEL.attention([[0] * 9]), ValueError, "context of 8"),
    "qkv of a token": (lambda: MODEL.qkv([[99]]), IndexError, "99"),
    # Generation.
    "nothing to go on": (lambda: MODEL.generate([], 3), ValueError, "tokens"),
    "no such token": (lambda: MODEL.generate([13], 3), IndexError, "13"),
    "negative count": (lambda: MODEL.generate([1], -1), ValueError, "count is -1; expected at least 0"),
    "half a count": (lambda: MODEL.generate([1], 0.5), TypeError, "count is 0.5; expected an integer"),
    "temperature below 0": (lambda: MODEL.generate([1], 1, temperature=-1), ValueError, "temperature is -1"),
    "temperature NaN": (lambda: MODEL.generate([1], 1, temperature=math.nan), ValueError, "temperature is NaN"),
    "temperature as text": (lambda: MODEL.generate([1], 1, temperature="1"), TypeError, "temperature is '1'"),
    "top_k 0": (lambda: MODEL.generate([1], 1, top_k=0), ValueError, "top_k is 0"),
    "top_p 0": (lambda: MODEL.generate([1], 1, top_p=0), ValueError, "top_p is 0"),
    "min_p 2": (lambda: MODEL.generate([1], 1, min_p=2, stream=True), ValueError, "min_p is 2"),
    "negative seed": (lambda: MODEL.generate([1], 1, seed=-1), ValueError, "seed is -1; expected at least 0"),
    # Configurations.
    "no layers": (lambda: config(layers=0), ValueError, "layers is 0"),
    "negative width": (lambda: config(width=-4), ValueError, "width is -4"),
    "uneven heads": (lambda: config(heads=3), ValueError, "4.*3 heads|heads.*3"),
    "float width": (lambda: config(width=4.0), TypeError, "width is 4.0; expected an integer"),
    "bool layers": (lambda: config(layers=True), TypeError, "layers is True; expected an integer"),
    "dropout 1": (lambda: config(dropout=1), ValueError, "dropout"),
    "dropout NaN": (lambda: config(attention_dropout=math.nan), ValueError, "attention_dropout is nan"),
    "dropout as text": (lambda: config(dropout="a"), TypeError, "^dropout is 'a'; expected a number"),
    "other activation": (lambda: config(activation="relu"), ValueError, 'activation is "relu"; expected \'gelu\''),
    "number for activation": (lambda: config(activation=3), TypeError, "activation is 3"),
    "bias 1": (lambda: config(bias=1), TypeError, "bias is 1; expected True or False"),
    "epsilon 0": (lambda: config(norm_epsilon=0), ValueError, "norm_epsilon is 0"),
    "too large": (lambda: config(vocab=2**31 - 1, width=2**31 - 2), ValueError, "2147483646|8589934584"),
    # Models and what trains them.
    "no configuration": (lambda: jostle.Model({"vocab": 3}), TypeError, "config is of dict; expected jostle.Config"),
    "model's seed": (lambda: jostle.Model(SMALL, 2**64), ValueError, r"seed is 18446744073709551616"),
    "no threads": (lambda: jostle.Model(SMALL, threads=0), ValueError, "threads is 0; expected at least 1"),
    "many threads": (lambda: jostle.Model(SMALL, threads=10**9), ValueError, "threads is 1000000000"),
    "other instructions": (lambda: jostle.Model(SMALL, instruction_set="mmx"), ValueError, '"mmx".*"portable"'),
    "no tokenizer": (lambda: jostle.Model(SMALL, tokenizer=len), TypeError, "tokenizer is of builtin"),
    "another's tokenizer": (
        lambda: jostle.Model(SMALL, tokenizer=jostle.ByteTokenizer()), ValueError, "256 tokens, .* 13"
    ),
    "frozen text": (lambda: jostle.Model(SMALL, frozen="w*"), TypeError, "frozen is of str; .* list of names"),
    "frozen number": (lambda: jostle.Model(SMALL, frozen=[0]), TypeError, "frozen is of int; expected str"),
    "frozen None": (lambda: jostle.Model(SMALL, frozen=None), TypeError, "frozen is of NoneType; .* list of names"),
    "frozen nothing": (
        lambda: jostle.Model(SMALL, frozen=["w*", "h.2.*"]), ValueError, r"frozen has 'h.2.\*'; .* \"wte.weight\""
    ),
    "frozen everything": (lambda: jostle.Model(SMALL, frozen=["*.weight", "*.bias"]), ValueError, "trained parameters"),
    "frozen head": (lambda: jostle.Model(SMALL, frozen=["lm_head.weight"]), ValueError, "'lm_head.weight'"),
    "optimizer of nothing": (lambda: jostle.AdamW(None), TypeError, "model is of NoneType; expected jostle.Model"),
    "rate below 0": (lambda: jostle.SGD(MODEL, -1), ValueError, "learning_rate is -1.0; expected finite"),
    "rate NaN": (lambda: jostle.AdamW(MODEL, math.nan), ValueError, "learning_rate is nan"),
    "rate beyond float32": (lambda: jostle.AdamW(MODEL, 1e39), ValueError, r"learning_rate is 1e\+39"),
    "rate as text": (lambda: jostle.AdamW(MODEL, "fast"), TypeError, "learning_rate is 'fast'"),
    "one beta": (lambda: jostle.AdamW(MODEL, betas=(0.9,)), TypeError, r"betas is \(0.9,\); expected two"),
    "beta 1": (lambda: jostle.AdamW(MODEL, betas=(0.9, 1)), ValueError, "beta2 is 1"),
    "epsilon negative": (lambda: jostle.AdamW(MODEL, epsilon=-1), ValueError, "epsilon is -1"),
    "decay NaN": (lambda: jostle.AdamW(MODEL, weight_decay=math.nan), ValueError, "weight_decay is NaN"),
    "momentum 1": (lambda: jostle.SGD(MODEL, 0.1, 1), ValueError, "momentum is 1"),
    "clip 0": (lambda: jostle.SGD(MODEL, 0.1).step(clip=0), ValueError, "clip is 0.0; expected more than 0"),
    "clip as text": (lambda: jostle.SGD(MODEL, 0.1).step(clip="1"), TypeError, "clip is '1'"),
    "no optimizer": (lambda: trainer(optimizer=None), TypeError, "optimizer is of NoneType"),
    "another's optimizer": (
        lambda: trainer(optimizer=jostle.SGD(jostle.Model(SMALL), 1)), ValueError, "another model"
    ),
    "short text": (lambda: trainer(train=[1] * 8), ValueError, "train has 8 tokens; at least 9"),
    "short validation": (lambda: trainer(validation=[1]), ValueError, "validation has 1 tokens; at least 2"),
    "two-dimensional text": (lambda: trainer(train=FINE), ValueError, r"train has the shape \(2, 5\)"),
    "float text": (lambda: trainer(train=np.ones(99)), TypeError, "train is of float64"),
    "batch 0": (lambda: trainer(batch=0), ValueError, "batch is 0; expected at least 1"),
    "batch of billions": (lambda: trainer(batch=2**31 - 1), ValueError, "too large for this machine"),
    "steps below 0": (lambda: trainer(steps=-1), ValueError, "steps is -1"),
    "accumulate 0": (lambda: trainer(accumulate=0), ValueError, "accumulate is 0"),
    "a head by 0 rows": (lambda: trainer(head_rows=0), ValueError, "head_rows is 0; expected at least 1"),
    "recomputing 1": (lambda: trainer(recompute=1), TypeError, "recompute is of int"),
    "clipping a fused update": (lambda: trainer(fused=True), ValueError, "clip is not possible"),
    "accumulating for one": (
        lambda: trainer(fused=True, clip=None, accumulate=2), ValueError, "accumulate is not possible",
    ),
    "clip below 0": (lambda: trainer(clip=-1), ValueError, "clip is -1.0"),
    "trainer's seed": (lambda: trainer(seed=-1), ValueError, "seed is -1"),
    "evaluations": (lambda: trainer(evaluate_every=0), ValueError, "evaluate_every is 0"),
    "no schedule": (lambda: trainer(schedule=1e-3), TypeError, "schedule is of float; expected jostle.Schedule"),
    "warmup below 0": (lambda: jostle.Cosine(warmup=-1), ValueError, "warmup is -1"),
    "final NaN": (lambda: jostle.Linear(final=math.nan), ValueError, "final is nan"),
    "final above the rate": (lambda: trainer(schedule=jostle.Linear(final=1)), ValueError, "last is 1"),
    "long warmup": (lambda: trainer(schedule=jostle.Linear(9), steps=8), ValueError, "warmup is 9|9"),
    "text with others' tokens": (lambda: trainer(train=[13] * 99).advance(), IndexError, "13"),
    "evaluation of one token": (lambda: trainer().evaluate([1]), ValueError, "1"),
    # Plans.
    "plan of nothing": (lambda: jostle.plan(None), TypeError, "config is of NoneType"),
    "plan for no batch": (lambda: jostle.plan(SMALL, 0), ValueError, "batch is 0"),
    "plan for threads": (lambda: jostle.plan(SMALL, threads=-1), ValueError, "threads is -1"),
    "plan for sgd": (lambda: jostle.plan(SMALL, optimizer="sgd"), ValueError, "optimizer is .*; expected 'none'"),
    "plan that may recompute": (lambda: jostle.plan(SMALL, recompute=1), TypeError, "recompute is of int"),
    "plan that may be fused": (lambda: jostle.plan(SMALL, fused=1), TypeError, "fused is of int"),
    "plan that freezes a text": (lambda: jostle.plan(SMALL, frozen="wte"), TypeError, "frozen is of str; .* list"),
    "plan that freezes nothing": (lambda: jostle.plan(SMALL, frozen=["wte"]), ValueError, "frozen has 'wte'"),
    "plan for a budget": (lambda: jostle.plan(SMALL, budget=-1), ValueError, "budget is -1"),
    "plan for a small one": (lambda: jostle.plan(SMALL, budget=1), ValueError, "1 "),
    # Operations.
    "list": (lambda: ops.softmax([1.0]), TypeError, "x is list; expected a NumPy array"),
    "float64": (lambda: ops.gelu(np.ones(3)), TypeError, "x is of float64; expected float32"),
    "other bytes": (lambda: ops.gelu(np.ones(3, ">f4")), TypeError, "x is of >f4; expected float32"),
    "columns": (lambda: ops.softmax(floats(4, 6)[:, ::2]), ValueError, "x is not contiguous"),
    "transposed": (lambda: ops.softmax(floats(4, 6).T), ValueError, "x is not contiguous"),
    "unaligned": (
        lambda: ops.softmax(np.frombuffer(bytes(13), np.float32, offset=1)), ValueError, "x is not aligned"
    ),
    "empty": (lambda: ops.softmax(floats(0, 3)), ValueError, r"x has the shape \(0, 3\)"),
    "scalar": (lambda: ops.gelu(np.array(1, np.float32)), ValueError, r"x has the shape \(\)"),
    "vectors": (lambda: ops.matmul(floats(3), floats(3, 3)), ValueError, "a has 1 dimensions; expected 2"),
    "factors": (lambda: ops.matmul(floats(2, 3), floats(2, 3)), ValueError, r"\(2, 3\), b \(2, 3\)"),
    "d_c": (
        lambda: ops.matmul_backward(floats(2, 2), floats(2, 3), floats(3, 4)), ValueError, r"d_c .*\(2, 2\).*\(2, 4\)"
    ),
    "d_y": (lambda: ops.gelu_backward(floats(2), floats(3)), ValueError, r"d_y has the shape \(2,\); expected \(3,\)"),
    "form": (lambda: ops.gelu(floats(3), "relu"), ValueError, "relu"),
    "no form": (lambda: ops.gelu(floats(3), None), TypeError, "form is of NoneType; expected str"),
    "rate": (lambda: ops.dropout(floats(3), 1.0), ValueError, "dropout rate is 1"),
    "rate's kind": (lambda: ops.dropout(floats(3), "0"), TypeError, "rate is '0'"),
    "mask's step": (lambda: ops.dropout(floats(3), 0.5, step=-1), ValueError, "step is -1"),
    "heads": (lambda: ops.attention(floats(3, 12), 3), ValueError, "qkv has 12 columns; .* 9"),
    "kv_heads": (lambda: ops.attention(floats(3, 24), 4, kv_heads=3), ValueError, "kv_heads is 3; .* heads = 4"),
    "no kv_heads": (lambda: ops.attention(floats(3, 24), 4, kv_heads=0), ValueError, "kv_heads is 0"),
    "grouped columns": (lambda: ops.attention(floats(3, 20), 4, kv_heads=2), ValueError, "qkv has 20 columns; .* = 8"),
    "no heads": (lambda: ops.attention(floats(3, 12), 0), ValueError, "heads is 0"),
    "mask's layer": (lambda: ops.attention(floats(3, 12), 2, layer=2**64), ValueError, "layer is 18446744073"),
    "stats": (
        lambda: ops.attention_backward(floats(3, 4), floats(3, 12), floats(3, 4), floats(3, 2), 2),
        ValueError, r"stats has the shape \(3, 2\); expected \(2, 3, 2\)",
    ),
    "weight": (lambda: ops.layer_norm(floats(2, 3), floats(2)), ValueError, r"weight .*\(2,\); expected \(3,\)"),
    "epsilon": (lambda: ops.layer_norm(floats(2, 3), floats(3), epsilon=-1), ValueError, "epsilon is -1"),
    "mean": (
        lambda: ops.layer_norm_backward(floats(2, 3), floats(2, 3), floats(3), floats(2), floats(3)),
        ValueError, r"mean has the shape \(3,\); expected \(2,\)",
    ),
    "strided mean": (
        lambda: ops.layer_norm_backward(floats(2, 3), floats(2, 3), floats(4)[::2], floats(2), floats(3)),
        ValueError, "mean is not contiguous",
    ),
    "weight of rms_norm": (
        lambda: ops.rms_norm(floats(2, 3), floats(2)), ValueError, r"weight .*\(2,\); expected \(3,\)"
    ),
    "epsilon of rms_norm": (lambda: ops.rms_norm(floats(2, 3), floats(3), -1), ValueError, "epsilon is -1"),
    "rstd of rms_norm": (
        lambda: ops.rms_norm_backward(floats(2, 3), floats(2, 3), floats(3), floats(3)),
        ValueError, r"rstd has the shape \(3,\); expected \(2,\)",
    ),
    "up": (lambda: ops.swiglu(floats(3), floats(2)), ValueError, r"up has the shape \(2,\); expected \(3,\)"),
    "d_y of swiglu": (lambda: ops.swiglu_backward(floats(2), floats(3), floats(3)), ValueError, r"d_y .*\(2,\)"),
    "odd heads": (lambda: ops.rotary_table(3, 5), ValueError, "head_width is 5; expected an even number"),
    "no head width": (lambda: ops.rotary_table(3, 0), ValueError, "head_width is 0"),
    "no positions": (lambda: ops.rotary_table(0, 4), ValueError, "length is 0"),
    "positions": (lambda: ops.rotary_table(2**20 + 1, 2), ValueError, "1048577 positions exceed"),
    "theta": (lambda: ops.rotary_table(3, 4, -1.0), ValueError, "theta is -1; expected finite and at least 1"),
    "infinite theta": (lambda: ops.rotary_table(3, 4, math.inf), ValueError, "theta is inf"),
    "theta's kind": (lambda: ops.rotary_table(3, 4, "1"), TypeError, "theta is '1'; expected a number"),
    "scaling": (lambda: ops.rotary_table(3, 4, scaling=8.0), TypeError, r"scaling is 8.0; expected \(factor, low"),
    "factor": (lambda: ops.rotary_table(3, 4, scaling=(0.5, 1, 4, 8)), ValueError, "factor is 0.5"),
    "low": (lambda: ops.rotary_table(3, 4, scaling=(8, 0, 4, 8)), ValueError, "low is 0; expected finite"),
    "high": (lambda: ops.rotary_table(3, 4, scaling=(8, 4, 4, 8)), ValueError, "high is 4; expected .* more than low"),
    "original": (lambda: ops.rotary_table(3, 4, scaling=(8, 1, 4, 0)), ValueError, "original is 0"),
    "odd heads of x": (
        lambda: ops.rotary(floats(2, 3, 5), floats(2, 2), floats(2, 2)), ValueError, r"x .*\(2, 3, 5\).*an even width"
    ),
    "cosines": (
        lambda: ops.rotary(floats(2, 3, 4), floats(3, 2), floats(2, 2)), ValueError, r"cos .*\(3, 2\).*\(2, 2\)"
    ),
    "sines": (
        lambda: ops.rotary_backward(floats(2, 3, 4), floats(2, 2), floats(2)), ValueError, r"sin .*\(2,\).*\(2, 2\)"
    ),
    "logits": (lambda: ops.cross_entropy(floats(2, 3), [1, 3]), IndexError, "token 3 at index 1"),
    "shape of targets": (lambda: ops.cross_entropy(floats(2, 3), [1]), ValueError, r"targets .*\(1,\); expected \(2,\)"),
    "counted": (lambda: ops.cross_entropy_backward(floats(2, 3), [1, 1], 0), ValueError, "counted is 0"),
    "a result of terabytes": (
        lambda: ops.matmul(floats(2**20, 1), floats(1, 2**20)), ValueError, "too large for this machine"
    ),
    # Tokenizers.
    "bytes of a number": (lambda: jostle.ByteTokenizer().encode(5), TypeError, "text is of int; expected str"),
    "text of a number": (lambda: jostle.ByteTokenizer().decode(5), TypeError, "int"),
    "characters of bytes": (lambda: jostle.CharTokenizer.from_text(b"a"), TypeError, "text is of bytes"),
    "words of None": (lambda: jostle.WordTokenizer.from_text(None), TypeError, "text is of NoneType"),
    "no characters": (lambda: jostle.CharTokenizer.from_text(""), ValueError, "at least one"),
    "half a token": (lambda: jostle.CharTokenizer("ab").decode([0.5]), TypeError, "float"),
}  # fmt: skip


def config(**changes):
    return jostle.Config(**{"vocab": 5, "context": 4, "layers": 1, "heads": 1, "width": 4, **changes})


def trainer(**changes):
    return jostle.Trainer(
        MODEL, **{"optimizer": jostle.AdamW(MODEL), "train": text(13), "batch": 2, **changes}
    )


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_named(what):
    call, kind, message = REFUSED[what]
    before = bits(MODEL.parameters)
    with pytest.raises(REFUSALS, match=message) as caught:
        call()
    assert type(caught.value) is kind
    assert bits(MODEL.parameters) == before


# Arbitrary values.

NUMBERS = st.one_of(
    st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.integers(-3, 3),
    st.integers(-(2**70), 2**70), st.sampled_from([2**31, 2**32, 2**63, 2**64 - 1, 2**64, 10**400]),
    st.floats(width=32).map(np.float32), st.integers(-(2**63), 2**63 - 1).map(np.int64),
)  # fmt: skip
ARRAYS = st.one_of(
    arrays.arrays(
        st.one_of(arrays.integer_dtypes(endianness="?"), arrays.unsigned_integer_dtypes(), arrays.boolean_dtypes(),
                  arrays.floating_dtypes(), arrays.complex_number_dtypes(), arrays.unicode_string_dtypes()),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
    ),
    st.lists(st.lists(st.integers(-2, 14), max_size=9), max_size=3),
    NUMBERS,
)  # fmt: skip
TOKENS = arrays.arrays(
    arrays.integer_dtypes(sizes=(8, 64)),
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(-1, 13),
)


@given(st.one_of(ARRAYS, TOKENS), st.one_of(ARRAYS, TOKENS), NUMBERS)
def test_any_arrays(tokens, targets, counted):
    for call in (
        lambda: MODEL.logits(tokens), lambda: MODEL.attention(tokens), lambda: MODEL.qkv(tokens),
        lambda: MODEL.probabilities(tokens), lambda: MODEL.generate(tokens, 2),
        lambda: MODEL.loss(tokens, targets), lambda: MODEL.loss(tokens, tokens),
        lambda: MODEL.backward(tokens, targets), lambda: MODEL.backward(tokens, tokens, counted=counted),
        lambda: trainer(train=tokens, validation=targets, steps=1).advance(), lambda: trainer().evaluate(tokens),
        lambda: ops.cross_entropy(floats(3, 5), tokens),
        lambda: ops.cross_entropy_backward(floats(3, 5), tokens, counted),
        lambda: jostle.ByteTokenizer().decode(tokens), lambda: jostle.CharTokenizer("ab").decode(tokens),
    ):  # fmt: skip
        with refused_or_fine():
            call()
    MODEL.zero_gradients()


@given(*[NUMBERS] * 6)
def test_any_sampling(count, temperature, top_k, top_p, min_p, seed):
    assume(not (isinstance(count, (int, np.integer)) and count > 100))
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    with refused_or_fine():
        MODEL.generate([1], count, **settings)
    for name, setting in settings.items():
        with refused_or_fine():
            list(MODEL.generate([1], 2, **{name: setting}, stream=True))


SIZES = ("vocab", "context", "layers", "heads", "width", "hidden")
RATES = ("dropout", "residual_dropout", "embedding_dropout", "attention_dropout", "norm_epsilon")


@given(st.dictionaries(st.sampled_from([*SIZES, *RATES, "bias", "tied", "activation"]), NUMBERS))
def test_any_configuration(changes):
    with refused_or_fine():
        made = config(**changes)
        jostle.plan(made)
        assert made == jostle.Config(
            **{
                name: getattr(made, name)
                for name in made.__dataclass_fields__
                if hasattr(made, name) and name not in ("dropout", "residual_dropout")
            }
        )
        # The plan tells how much memory the model would take.
        if jostle.plan(made).training < 10**6:
            jostle.Model(made, threads=1)


@given(*[NUMBERS] * 6)
def test_any_optimizer(rate, beta1, beta2, epsilon, decay, momentum):
    for call in (
        lambda: jostle.AdamW(MODEL, rate, (beta1, beta2), epsilon, decay), lambda: jostle.AdamW(MODEL, rate),
        lambda: jostle.AdamW(MODEL, betas=beta1), lambda: jostle.AdamW(MODEL, betas=(beta1, beta2)),
        lambda: jostle.AdamW(MODEL, epsilon=epsilon), lambda: jostle.AdamW(MODEL, weight_decay=decay),
        lambda: jostle.SGD(MODEL, rate, momentum), lambda: jostle.SGD(MODEL, 0.1, momentum),
        lambda: jostle.SGD(MODEL, 0.0).step(clip=rate),
    ):  # fmt: skip
        with refused_or_fine():
            call()


@given(st.dictionaries(st.sampled_from(["steps", "clip", "accumulate", "seed", "evaluate_every"]), NUMBERS),
       NUMBERS, NUMBERS, NUMBERS)  # fmt: skip
def test_any_training(settings, warmup, decay, final):
    with refused_or_fine():
        trainer(**settings)
    for make in (
        lambda: jostle.Constant(warmup), lambda: jostle.Linear(warmup, final), lambda: jostle.Cosine(warmup, final),
        lambda: jostle.WarmupStableDecay(warmup, decay, final),
    ):  # fmt: skip
        with refused_or_fine():
            made = trainer(schedule=make(), optimizer=jostle.SGD(MODEL, 0.0))
            assert 0 <= made.advance().learning_rate < math.inf


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_any_plan(batch, threads, optimizer, budget):
    for call in (
        lambda: jostle.plan(SMALL, batch, threads, optimizer, budget=budget), lambda: jostle.plan(SMALL, batch),
        lambda: jostle.plan(SMALL, threads=threads), lambda: jostle.plan(SMALL, 9, budget=budget),
    ):  # fmt: skip
        with refused_or_fine():
            assert call().training > 0


FLOATS = arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=7), elements=st.floats(width=32))


@given(*[st.one_of(FLOATS, ARRAYS)] * 3, *[NUMBERS] * 3)
# Numbers that are not finite are allowed here; NumPy would warn about them.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_operation(x, y, z, heads, rate, seed):
    for call in (
        lambda: ops.matmul(x, y), lambda: ops.matmul_backward(x, y, z), lambda: ops.softmax(x),
        lambda: ops.softmax_backward(x, y), lambda: ops.gelu(x, y), lambda: ops.gelu(x, "gelu_tanh"),
        lambda: ops.gelu_backward(x, y), lambda: ops.dropout(x, rate), lambda: ops.dropout(x, 0.5, seed=seed, step=rate),
        lambda: ops.layer_norm(x, y, z), lambda: ops.layer_norm(x, x, epsilon=rate),
        lambda: ops.layer_norm_backward(x, x, y, z, x), lambda: ops.layer_norm_backward(x, y, z, x, y),
        lambda: ops.rms_norm(x, y, rate), lambda: ops.rms_norm_backward(x, y, z, x), lambda: ops.swiglu(x, y),
        lambda: ops.swiglu_backward(x, y, z), lambda: ops.rotary(x, y, z), lambda: ops.rotary_table(heads, heads, rate, z),
        lambda: ops.attention(x, heads), lambda: ops.attention(x, 4, kv_heads=heads), lambda: ops.attention(x, 1, dropout=rate, seed=seed, layer=seed),
        lambda: ops.attention_backward(x, y, x, z, heads), lambda: ops.cross_entropy(x, y),
    ):  # fmt: skip
        with refused_or_fine():
            call()


@given(*[NUMBERS] * 3)
def test_any_model(seed, threads, other):
    assume(not (isinstance(threads, (int, np.integer)) and threads > 8))
    for call in (
        lambda: jostle.Model(SMALL, seed, threads), lambda: jostle.Model(SMALL, threads=1, tokenizer=other),
        lambda: jostle.Model(SMALL, threads=1, instruction_set=other), lambda: jostle.Model(other),
        lambda: jostle.Model(SMALL, threads=1, frozen=other), lambda: jostle.Model(SMALL, threads=1, frozen=[other]),
    ):  # fmt: skip
        with refused_or_fine():
            call()


@given(
    st.one_of(st.binary(), st.binary().map(lambda rest: len(rest).to_bytes(8, "little") + rest)),
    st.booleans(),
)
def test_any_file(tmp_path_factory, data, configured):
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError):
        jostle.Model.load(path, config=SMALL if configured else None)
    with pytest.raises(ValueError):
        jostle.Trainer.resume(path, train=text(13))


@given(st.data())
def test_any_damage_to_a_file(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("files") / "file"
    made = trainer()
    made.save(path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    # Two changes of one byte may undo each other.
    assume(whole != path.read_bytes())
    path.write_bytes(bytes(whole))
    with pytest.raises(REFUSALS):
        jostle.Trainer.resume(path, train=text(13))


# Numbers that are not finite.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [jostle.AdamW, lambda model: jostle.SGD(model, 0.1, 0.9)])
def test_parameters_that_are_not_finite_stop_training(bad, make):
    model = jostle.Model(SMALL, threads=1)
    optimizer = make(model)
    trainer = jostle.Trainer(model, optimizer, train=text(13), batch=2, steps=9, validation=text(13))
    trainer.advance()
    model.parameters["h.0.attn.c_attn.weight"][0, 0] = bad
    everything = (model.parameters, model.gradients, {"": optimizer.state})
    before = [bits(arrays) for arrays in everything]
    calls = (
        trainer.advance,
        lambda: model.backward(FINE, FINE),
        lambda: model.generate([1], 2),
        lambda: model.loss(FINE, FINE),
        lambda: trainer.evaluate(text(13)),
    )
    for call in calls:
        with pytest.raises(FloatingPointError, match="is NaN"):
            call()
    assert [bits(arrays) for arrays in everything] == before
    assert trainer.step == optimizer.steps == 1
    # The model works again once its parameters are finite again.
    model.parameters["h.0.attn.c_attn.weight"][0, 0] = 0
    trainer.advance()
    assert np.isfinite(flat(model.parameters)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_not_finite_change_nothing(bad):
    model = jostle.Model(SMALL, threads=1)
    optimizer = jostle.AdamW(model)
    model.backward(FINE, FINE)
    model.gradients["wte.weight"][3, 4] = bad
    before = bits(model.parameters)
    for clip in (None, 1.0):
        with pytest.raises(FloatingPointError, match="gradient norm"):
            optimizer.step(clip)
    assert bits(model.parameters) == before and not optimizer.state.any() and optimizer.steps == 0


def test_a_learning_rate_that_is_not_finite_is_refused_at_any_time():
    model = jostle.Model(SMALL, threads=1)
    optimizer = jostle.AdamW(model)
    for bad in (math.nan, math.inf, -1.0, 1e300, 10**400):
        with pytest.raises(ValueError, match="learning_rate"):
            optimizer.learning_rate = bad
    assert optimizer.learning_rate == 1e-3


def test_memory_that_cannot_be_had():
    """A process limited to 1 GB refuses calls that need more, and the model still works afterwards."""
    run_python("""
import os, resource
# OpenBLAS reserves 40 MB of addresses for each thread, by default one for each processor.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
import jostle

resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
config = jostle.Config(vocab=50, context=64, layers=2, heads=2, width=32)
model = jostle.Model(config, threads=1)

tokens = np.zeros((20_000, 64), np.int32)
train = np.zeros(100, np.uint8)
big = jostle.Config(vocab=10**6, context=64, layers=2, heads=2, width=1000)

calls = [
    lambda: model.logits(np.zeros((80_000, 64), np.int32)), lambda: model.attention(tokens), lambda: model.backward(tokens, tokens),

    lambda: jostle.Trainer(model, jostle.AdamW(model), train=train, batch=20_000, steps=1).advance(),
    lambda: jostle.Trainer(model, jostle.AdamW(model), train=train, batch=20_000_000, steps=1),

    lambda: jostle.ops.matmul(np.ones((20_000, 1), np.float32), np.ones((1, 20_000), np.float32)),
    lambda: jostle.Model(big, threads=1),
]
for number, call in enumerate(calls):
    try:
        call()
    except (ValueError, MemoryError) as error:
        assert str(error)
    else:
        raise AssertionError(number)
model.loss(tokens[:2], tokens[:2])
""")
