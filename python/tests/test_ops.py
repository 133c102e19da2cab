"""Single operations: forward against NumPy in float64, backward against finite differences of the NumPy version."""

import math

import numpy as np
import pytest
from common import relative_error

from jostle import ops

erf = np.vectorize(math.erf)
SHAPES = [(1,), (7,), (3, 16), (5, 33), (2, 3, 19)]


def random(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, weight, bias, epsilon=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


def rms_norm(x, weight, epsilon=1e-5):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight


def rotary(x, cos, sin):
    a, b = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def swiglu(gate, up):
    return gate / (1 + np.exp(-gate)) * up


def gelu(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


def gelu_tanh(x):
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def attention(qkv, heads, kv_heads=None):
    kv_heads = kv_heads or heads
    length, head_width = len(qkv), qkv.shape[1] // (heads + 2 * kv_heads)
    width = heads * head_width
    parts = qkv.reshape(length, -1, head_width).swapaxes(0, 1)
    q, k, v = np.split(parts, [heads, heads + kv_heads])
    k, v = (np.repeat(part, heads // kv_heads, axis=0) for part in (k, v))
    scores = q @ k.swapaxes(1, 2) / math.sqrt(head_width)
    later = np.triu(np.ones((length, length), bool), 1)
    return (softmax(np.where(later, -np.inf, scores)) @ v).swapaxes(0, 1).reshape(length, width)


def cross_entropy(logits, targets):
    rows, flat = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    probability = softmax(rows)[np.arange(len(flat)), flat]
    return np.where(flat == -1, 0, -np.log(probability)).reshape(targets.shape)


def gradients(function, d_y, *inputs):
    """The expected result of backward: central differences in float64 of the sum of d_y times the output."""
    inputs = [np.array(x, np.float64) for x in inputs]
    found = []
    for x in inputs:
        d_x = np.empty_like(x)
        for index in np.ndindex(x.shape):
            kept, h = x[index], 1e-5
            x[index] = kept + h
            above = (d_y * function(*inputs)).sum()
            x[index] = kept - h
            below = (d_y * function(*inputs)).sum()
            x[index] = kept
            d_x[index] = (above - below) / (2 * h)
        found.append(d_x)
    return found


def check(given, wanted, tolerance=1e-6):
    assert given.dtype == np.float32 and given.flags.c_contiguous
    assert relative_error(given, wanted) <= tolerance


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 7), (17, 33, 50), (64, 64, 64)])
def test_matmul(m, k, n):
    a, b, d_c = random((m, k)), random((k, n), 1), random((m, n), 2)
    check(ops.matmul(a, b), a.astype(float) @ b)
    d_a, d_b = ops.matmul_backward(d_c, a, b)
    check(d_a, d_c.astype(float) @ b.T)
    check(d_b, a.T.astype(float) @ d_c)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_softmax(shape):
    x, d_y = 3 * random(shape), random(shape, 1)
    y = ops.softmax(x)
    check(y, softmax(x.astype(float)))
    assert np.allclose(y.sum(-1), 1, atol=1e-6)
    check(ops.softmax_backward(d_y, y), gradients(softmax, d_y, x)[0], 1e-5)


def test_softmax_of_one_and_of_large_numbers():
    assert ops.softmax(np.array([5], np.float32)).tolist() == [1]
    assert ops.softmax(np.array([1e30, 0, 1e30], np.float32)).tolist() == [0.5, 0, 0.5]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("form", "exact"), [("gelu", gelu), ("gelu_tanh", gelu_tanh)])
def test_gelu(shape, form, exact):
    x, d_y = 2 * random(shape), random(shape, 1)
    check(ops.gelu(x, form), exact(x.astype(float)))
    check(ops.gelu_backward(d_y, x, form), gradients(exact, d_y, x)[0])


def test_the_forms_of_gelu_differ():
    x = random((1000,))
    assert relative_error(ops.gelu(x), gelu_tanh(x)) > 1e-5 > 1e-6 > relative_error(ops.gelu(x), gelu(x))


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm(shape, biased):
    width = shape[-1]
    x, weight, d_y = 2 * random(shape) + 1, 1 + random(width, 1) / 4, random(shape, 2)
    bias = random(width, 3) if biased else None
    y, mean, rstd = ops.layer_norm(x, weight, bias, epsilon=1e-3)
    used = bias if biased else np.zeros(width)
    check(y, layer_norm(x.astype(float), weight, used, 1e-3))
    check(mean, x.astype(float).mean(-1), 1e-5)
    check(rstd, 1 / np.sqrt(x.astype(float).var(-1) + 1e-3))
    wanted = gradients(lambda *inputs: layer_norm(*inputs, epsilon=1e-3), d_y, x, weight, used)
    for found, exact in zip(ops.layer_norm_backward(d_y, x, mean, rstd, weight), wanted, strict=True):
        check(found, exact, 1e-5)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_rms_norm(shape):
    x, weight, d_y = 2 * random(shape) + 1, 1 + random(shape[-1], 1) / 4, random(shape, 2)
    y, rstd = ops.rms_norm(x, weight, epsilon=1e-3)
    check(y, rms_norm(x.astype(float), weight, 1e-3))
    check(rstd, 1 / np.sqrt((x.astype(float) ** 2).mean(-1) + 1e-3))
    wanted = gradients(lambda *inputs: rms_norm(*inputs, epsilon=1e-3), d_y, x, weight)
    for found, exact in zip(ops.rms_norm_backward(d_y, x, rstd, weight), wanted, strict=True):
        check(found, exact, 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_swiglu(shape):
    gate, up, d_y = 3 * random(shape), random(shape, 1), random(shape, 2)
    check(ops.swiglu(gate, up), swiglu(gate.astype(float), up))
    wanted = gradients(swiglu, d_y, gate, up)
    for found, exact in zip(ops.swiglu_backward(d_y, gate, up), wanted, strict=True):
        check(found, exact)


@pytest.mark.parametrize(("length", "heads", "head_width"), [(1, 1, 2), (5, 3, 8), (40, 2, 34)])
def test_rotary(length, heads, head_width):
    cos, sin = ops.rotary_table(length, head_width, theta=500.0)
    frequency = 500.0 ** (-np.arange(0, head_width, 2) / head_width)
    angles = np.arange(length)[:, None] * frequency
    check(cos, np.cos(angles), 1e-5)
    assert np.allclose(sin, np.sin(angles), atol=1e-5)
    x, d_y = random((length, heads, head_width)), random((length, heads, head_width), 1)
    check(ops.rotary(x, cos, sin), rotary(x.astype(float), cos, sin))
    check(ops.rotary_backward(d_y, cos, sin), gradients(lambda x: rotary(x, cos, sin), d_y, x)[0])
    later = ops.rotary(x[2:], cos[2:], sin[2:]) if length > 2 else x[2:]
    assert later.tobytes() == ops.rotary(x, cos, sin)[2:].tobytes()


def test_llama_3s_scaling_slows_slow_rotations_down():
    length, head_width, theta = 9, 64, 500_000.0
    scaled = ops.rotary_table(length, head_width, theta, scaling=(32.0, 1.0, 4.0, 8192))
    plain = ops.rotary_table(length, head_width, theta)
    # The first pairs make more than four turns in 8192 positions, the last less than one.
    for found, kept in zip(scaled, plain, strict=True):
        assert found[:, :14].tobytes() == kept[:, :14].tobytes()
    ratio = plain[1][1, 18:] / scaled[1][1, 18:]
    assert np.allclose(ratio, 32, rtol=1e-5)


@pytest.mark.parametrize(("length", "heads", "width"), [(1, 1, 2), (5, 2, 8), (9, 3, 15), (40, 1, 4)])
def test_attention(length, heads, width):
    qkv, d_out = random((length, 3 * width)), random((length, width), 1)
    out, stats = ops.attention(qkv, heads)
    assert stats.shape == (heads, length, 2)
    check(out, attention(qkv.astype(float), heads))
    d_qkv = ops.attention_backward(d_out, qkv, out, stats, heads)
    check(d_qkv, gradients(lambda x: attention(x, heads), d_out, qkv)[0], 1e-5)


@pytest.mark.parametrize(
    ("length", "heads", "kv_heads", "head_width"), [(5, 4, 2, 3), (40, 3, 1, 2), (9, 6, 3, 4)]
)
def test_attention_with_shared_keys_and_values(length, heads, kv_heads, head_width):
    columns = (heads + 2 * kv_heads) * head_width
    qkv, d_out = random((length, columns)), random((length, heads * head_width), 1)
    out, stats = ops.attention(qkv, heads, kv_heads=kv_heads)
    check(out, attention(qkv.astype(float), heads, kv_heads))
    d_qkv = ops.attention_backward(d_out, qkv, out, stats, heads, kv_heads=kv_heads)
    check(d_qkv, gradients(lambda x: attention(x, heads, kv_heads), d_out, qkv)[0], 1e-5)


def test_attention_looks_at_nothing_later():
    qkv = random((40, 24))
    out, _ = ops.attention(qkv, 2)
    for position in range(1, 40):
        changed = qkv.copy()
        changed[position] += 1
        found, _ = ops.attention(changed, 2)
        assert found[:position].tobytes() == out[:position].tobytes()
        assert (found[position] != out[position]).all()


def test_dropout_of_attention_has_a_mask_of_its_own_and_its_backward_the_same():
    """With values that are rows of the identity, outputs are the weights themselves."""
    length = 32
    qkv = np.concatenate([random((length, 2 * length)) / 8, np.eye(length, dtype=np.float32)], axis=1)
    kept, _ = ops.attention(qkv, 1)
    places = {"seed": 1, "step": 2, "layer": 3, "sequence": 4}
    out, stats = ops.attention(qkv, 1, dropout=0.4, **places)
    below = np.tril(np.ones((length, length), bool))
    survived = out[below] != 0
    count = below.sum()
    assert abs(survived.mean() - 0.6) <= 5 * math.sqrt(0.4 * 0.6 / count)
    assert np.allclose(out[below][survived], kept[below][survived] / 0.6, rtol=1e-5)
    assert (out[~below] == 0).all()
    d_out = random((length, length), 5)
    d_qkv = ops.attention_backward(d_out, qkv, out, stats, 1, dropout=0.4, **places)
    wanted = (out.T.astype(float)) @ d_out
    check(d_qkv[:, 2 * length :].copy(), wanted, 1e-5)
    for place in places:
        other, _ = ops.attention(qkv, 1, dropout=0.4, **{**places, place: 9})
        assert ((other == 0) != (out == 0)).any(), place


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout(rate):
    shape, count = (300, 400), 120_000
    x = np.ones(shape, np.float32)
    y = ops.dropout(x, rate, seed=3, step=4)
    assert np.isin(y, np.array([0, 1 / (1 - np.float32(rate))], np.float32)).all()
    # The share of zeros, and with it the mean, within five standard deviations.
    assert abs((y == 0).mean() - rate) <= 5 * math.sqrt(rate * (1 - rate) / count)
    assert abs(y.mean(dtype=float) - 1) <= 5 * math.sqrt(rate / (1 - rate) / count) + 1e-6
    # The same for each row and each column. The greatest of 700 deviations is within six.
    for axis in (0, 1):
        shares = (y == 0).mean(axis)
        assert abs(shares - rate).max() <= 6 * math.sqrt(rate * (1 - rate) / shape[axis])
    d_y = random(shape)
    assert np.array_equal(ops.dropout_backward(d_y, rate, seed=3, step=4), d_y * y)
    if rate:
        assert not np.array_equal(ops.dropout(x, rate, seed=4, step=4), y)
        assert not np.array_equal(ops.dropout(x, rate, seed=3, step=5), y)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_cross_entropy(shape):
    logits = 3 * random(shape)
    targets = np.random.default_rng(1).integers(0, shape[-1], shape[:-1])
    if targets.size > 2:
        targets.flat[1] = -1
    counted = int((targets != -1).sum())
    check(ops.cross_entropy(logits, targets), cross_entropy(logits.astype(float), targets))
    losses, d_logits = ops.cross_entropy_backward(logits, targets)
    assert losses.tobytes() == ops.cross_entropy(logits, targets).tobytes()
    wanted = gradients(lambda x: cross_entropy(x, targets) / counted, np.ones(targets.shape), logits)[0]
    check(d_logits, wanted, 1e-5)
    check(ops.cross_entropy_backward(logits, targets, counted=2 * counted)[1], wanted / 2, 1e-5)


def test_nothing_is_written_into_what_was_given():
    inputs = [random((4, 12)), random((4, 12), 1), random(12)]
    for array in inputs:
        array.flags.writeable = False
    x, d_y, weight = inputs
    _, mean, rstd = ops.layer_norm(x, weight, weight)
    out, stats = ops.attention(x, 2)
    results = [
        ops.softmax(x), ops.softmax_backward(d_y, x), ops.gelu(x), ops.gelu_backward(d_y, x),
        ops.dropout(x, 0.5), *ops.layer_norm_backward(d_y, x, mean, rstd, weight),
        *ops.rms_norm(x, weight), *ops.rms_norm_backward(d_y, x, rstd, weight),
        ops.swiglu(x, d_y), *ops.swiglu_backward(x, d_y, x),
        ops.rotary(x.reshape(4, 3, 4), x[:, :2].copy(), x[:, 2:4].copy()),
        ops.attention_backward(out, x, out, stats, 2), *ops.cross_entropy_backward(x, [1, 2, 3, 4]),
    ]  # fmt: skip
    for result in results:
        assert result.flags.writeable and not any(np.shares_memory(result, given) for given in inputs)
