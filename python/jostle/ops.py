"""The single operations of a transformer, each with its backward pass, on NumPy arrays of float32 in C order.

Results are new arrays, with the bits that the same operation has inside a model. `d_x` is the gradient of x.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jostle import _arguments, _native
from jostle._arrays import Float, floats, targets_like

__all__ = [
    "attention",
    "attention_backward",
    "attention_dropout",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "gelu",
    "gelu_backward",
    "layer_norm",
    "layer_norm_backward",
    "matmul",
    "matmul_backward",
    "rms_norm",
    "rms_norm_backward",
    "rotary",
    "rotary_backward",
    "rotary_table",
    "softmax",
    "softmax_backward",
    "swiglu",
    "swiglu_backward",
]


def matmul(a: Float, b: Float) -> Float:
    """a (M, K) times b (K, N): each element is one chain of fused multiply-adds in ascending order."""
    return _native.matmul(*_factors(a, b), False, False)


def matmul_backward(d_c: Float, a: Float, b: Float) -> tuple[Float, Float]:
    """The gradients of a and b, from the gradient of their product."""
    a, b = _factors(a, b)
    d_c = floats("d_c", d_c, shape=(a.shape[0], b.shape[1]))
    return _native.matmul(d_c, b, False, True), _native.matmul(a, d_c, True, False)


def _factors(a: Float, b: Float) -> tuple[Float, Float]:
    a, b = floats("a", a, 2), floats("b", b, 2)
    if a.shape[1] != b.shape[0]:
        raise ValueError(
            f"a has the shape {a.shape}, b {b.shape}; expected as many columns of a as rows of b"
        )
    return a, b


def softmax(x: Float) -> Float:
    """Softmax over the last dimension."""
    return _native.softmax(floats("x", x))


def softmax_backward(d_y: Float, y: Float) -> Float:
    """The gradient of x, from the gradient of y and y = softmax(x)."""
    y = floats("y", y)
    return _native.softmax_backward(floats("d_y", d_y, shape=y.shape), y)


def attention(
    qkv: Float,
    heads: int,
    *,
    kv_heads: int | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    step: int = 0,
    layer: int = 0,
    sequence: int = 0,
) -> tuple[Float, Float]:
    """Causal multi-head attention over one sequence (Vaswani et al. 2017): out (T, C) and stats (H, T, 2) from
    queries, keys and values side by side (T, 3C).

    With kv_heads, neighbouring query heads share keys and values (Ainslie et al. 2023): qkv has heads + 2 * kv_heads
    parts of one width. kv_heads divides heads.

    Dropout acts on the weights after the softmax. seed, step, layer and sequence select the mask.
    attention_backward computes the weights again from stats.
    """
    qkv, kv_heads, _ = _qkv(qkv, heads, kv_heads)
    return _native.attention(qkv, (heads, kv_heads), _mask(dropout, seed, step, layer, sequence))


def attention_backward(
    d_out: Float,
    qkv: Float,
    out: Float,
    stats: Float,
    heads: int,
    *,
    kv_heads: int | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    step: int = 0,
    layer: int = 0,
    sequence: int = 0,
) -> Float:
    """The gradient of qkv, with the same mask."""
    qkv, kv_heads, width = _qkv(qkv, heads, kv_heads)
    length = qkv.shape[0]
    d_out, out = floats("d_out", d_out, shape=(length, width)), floats("out", out, shape=(length, width))
    stats = floats("stats", stats, shape=(heads, length, 2))
    mask = _mask(dropout, seed, step, layer, sequence)
    return _native.attention_backward(d_out, qkv, out, stats, (heads, kv_heads), mask)


def _mask(rate: float, *numbers: int) -> tuple[float, int, int, int, int]:
    names = ("seed", "step", "layer", "sequence")
    seed, step, layer, sequence = map(_arguments.seed, names, numbers)
    return (_arguments.number("dropout", rate), seed, step, layer, sequence)


def attention_dropout(
    weights: Float, dropout: float, *, seed: int = 0, step: int = 0, layer: int = 0, sequence: int = 0
) -> Float:
    """Dropout of one sequence's weights (H, T, T), with the mask that attention uses for the same numbers. It is
    its own backward pass."""
    weights = floats("weights", weights, 3)
    heads, length, _ = weights.shape
    weights = floats("weights", weights, shape=(heads, length, length))
    return _native.attention_dropout(weights, (dropout, seed, step, layer, sequence))


def _qkv(qkv: Float, heads: int, kv_heads: int | None) -> tuple[Float, int, int]:
    """The array, the number of key/value heads, and the width of all queries."""
    qkv, heads = floats("qkv", qkv, 2), _arguments.size("heads", heads)
    if kv_heads is None:
        kv_heads, parts, wanted = heads, 3 * heads, "3 * heads"
    else:
        kv_heads = _arguments.size("kv_heads", kv_heads)
        if heads % kv_heads:
            raise ValueError(f"kv_heads is {kv_heads}; expected a divisor of heads = {heads}")
        parts, wanted = heads + 2 * kv_heads, "heads + 2 * kv_heads"
    if qkv.shape[1] % parts:
        raise ValueError(f"qkv has {qkv.shape[1]} columns; expected a multiple of {wanted} = {parts}")
    return qkv, kv_heads, qkv.shape[1] // parts * heads


def layer_norm(
    x: Float, weight: Float, bias: Float | None = None, epsilon: float = 1e-5
) -> tuple[Float, Float, Float]:
    """Layer normalisation over the last dimension (Ba, Kiros & Hinton 2016): y, and mean and one over the
    standard deviation of each row, for layer_norm_backward."""
    x = floats("x", x)
    weight = floats("weight", weight, shape=x.shape[-1:])
    epsilon = _arguments.amount("epsilon", epsilon)
    bias = np.empty(0, np.float32) if bias is None else floats("bias", bias, shape=x.shape[-1:])
    return _native.layer_norm(x, weight, bias, epsilon)


def layer_norm_backward(
    d_y: Float, x: Float, mean: Float, rstd: Float, weight: Float
) -> tuple[Float, Float, Float]:
    """The gradients of x, weight and bias."""
    x = floats("x", x)
    rows = x.shape[:-1]
    d_y, weight = floats("d_y", d_y, shape=x.shape), floats("weight", weight, shape=x.shape[-1:])
    mean, rstd = floats("mean", mean, shape=rows), floats("rstd", rstd, shape=rows)
    return _native.layer_norm_backward(d_y, x, mean, rstd, weight)


def rms_norm(x: Float, weight: Float, epsilon: float = 1e-5) -> tuple[Float, Float]:
    """Root mean square normalisation over the last dimension (Zhang & Sennrich 2019): y, and one over the root mean
    square of each row, for rms_norm_backward."""
    x = floats("x", x)
    weight = floats("weight", weight, shape=x.shape[-1:])
    return _native.rms_norm(x, weight, _arguments.amount("epsilon", epsilon))


def rms_norm_backward(d_y: Float, x: Float, rstd: Float, weight: Float) -> tuple[Float, Float]:
    """The gradients of x and weight."""
    x = floats("x", x)
    d_y, weight = floats("d_y", d_y, shape=x.shape), floats("weight", weight, shape=x.shape[-1:])
    return _native.rms_norm_backward(d_y, x, floats("rstd", rstd, shape=x.shape[:-1]), weight)


def rotary_table(
    length: int,
    head_width: int,
    theta: float = 10000.0,
    scaling: tuple[float, float, float, int] | None = None,
) -> tuple[Float, Float]:
    """The cosines and sines (length, head_width / 2) of rotary positions (Su et al. 2021): pair i of position p has
    the angle p / theta**(2 * i / head_width).

    scaling is Llama 3's: factor, low, high and the original context. Frequencies with fewer than `low` turns in the
    original context are divided by the factor. Those with more than `high` turns stay.
    """
    length, head_width = _arguments.size("length", length), _arguments.size("head_width", head_width)
    if scaling is not None:
        if not isinstance(scaling, tuple) or len(scaling) != 4:
            raise TypeError(f"scaling is {scaling!r}; expected (factor, low, high, original) or None")
        factor, low, high = map(_arguments.number, ("factor", "low", "high"), scaling[:3])
        scaling = (factor, low, high, _arguments.size("original", scaling[3]))
    return _native.rotary_table(length, head_width, _arguments.number("theta", theta), scaling)


def rotary(x: Float, cos: Float, sin: Float) -> Float:
    """x (T, H, D), rotated: in each head, element i together with element i + D / 2. cos and sin (T, D / 2) are rows of
    rotary_table."""
    return _native.rotary(*_rotated("x", x, cos, sin), False)


def rotary_backward(d_y: Float, cos: Float, sin: Float) -> Float:
    """The gradient of x: the rotation back."""
    return _native.rotary(*_rotated("d_y", d_y, cos, sin), True)


def _rotated(name: str, x: Float, cos: Float, sin: Float) -> tuple[Float, Float, Float]:
    x = floats(name, x, 3)
    length, _, head_width = x.shape
    if head_width % 2:
        raise ValueError(f"{name} has the shape {x.shape}; expected heads of an even width")
    shape = (length, head_width // 2)
    return x, floats("cos", cos, shape=shape), floats("sin", sin, shape=shape)


def swiglu(gate: Float, up: Float) -> Float:
    """silu(gate) * up, with silu(x) = x / (1 + exp(-x)) (Shazeer 2020)."""
    gate = floats("gate", gate)
    return _native.swiglu(gate, floats("up", up, shape=gate.shape))


def swiglu_backward(d_y: Float, gate: Float, up: Float) -> tuple[Float, Float]:
    """The gradients of gate and up."""
    gate = floats("gate", gate)
    d_y, up = floats("d_y", d_y, shape=gate.shape), floats("up", up, shape=gate.shape)
    return _native.swiglu_backward(d_y, gate, up)


def gelu(x: Float, form: str = "gelu") -> Float:
    """GELU, exact, or with "gelu_tanh" GPT-2's approximation (Hendrycks & Gimpel 2016)."""
    return _native.gelu(floats("x", x), _arguments.instance("form", form, str))


def gelu_backward(d_y: Float, x: Float, form: str = "gelu") -> Float:
    """The gradient of x."""
    x = floats("x", x)
    form = _arguments.instance("form", form, str)
    return _native.gelu_backward(floats("d_y", d_y, shape=x.shape), x, form)


def dropout(x: Float, rate: float, *, seed: int = 0, step: int = 0) -> Float:
    """Zeroes elements with probability `rate` and divides the others by the probability to survive (Srivastava et
    al. 2014). Which elements is a function of seed, step, row and column."""
    return _dropped(floats("x", x), rate, seed, step)


def dropout_backward(d_y: Float, rate: float, *, seed: int = 0, step: int = 0) -> Float:
    """The gradient of x, with the same mask."""
    return _dropped(floats("d_y", d_y), rate, seed, step)


def _dropped(x: Float, rate: float, seed: int, step: int) -> Float:
    rate, seed, step = (
        _arguments.number("rate", rate),
        _arguments.seed("seed", seed),
        _arguments.seed("step", step),
    )
    return _native.dropout(x, rate, seed, step)


def cross_entropy(logits: Float, targets: Any) -> Float:
    """Minus the logarithm of each target's probability: losses (...) of logits (..., V); 0 where the target is
    -1."""
    logits = floats("logits", logits)
    return _native.cross_entropy(logits, targets_like(targets, logits))


def cross_entropy_backward(logits: Float, targets: Any, counted: int | None = None) -> tuple[Float, Float]:
    """The losses, and the gradient of their sum divided by `counted`, by default the targets that are not -1."""
    logits = floats("logits", logits)
    targets = targets_like(targets, logits)
    if counted is None:
        counted = int(np.count_nonzero(targets != -1))
    else:
        counted = _arguments.size("counted", counted)
    return _native.cross_entropy_backward(logits, targets, counted)
