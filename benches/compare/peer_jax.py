"""Training steps of a GPT-2 in JAX on request: the whole step is one jitted function that owns its buffers.

It is the model of `peer_torch.py`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

import peer
from configurations import Sizes
from peer import Arrays

Parameters = dict[str, jax.Array]


class State(NamedTuple):
    parameters: Parameters
    first_moments: Parameters
    second_moments: Parameters
    steps: jax.Array


def begin(parameters: Parameters) -> State:
    def zeros() -> Parameters:
        return {name: jnp.zeros_like(x) for name, x in parameters.items()}

    return State(parameters, zeros(), zeros(), jnp.zeros((), jnp.int32))


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    V, T, L, _, C, *_ = sizes
    found: dict[str, tuple[int, ...]] = {"wte.weight": (V, C), "wpe.weight": (T, C)}
    for i in range(L):
        for norm in ("ln_1", "ln_2"):
            found |= {f"h.{i}.{norm}.weight": (C,), f"h.{i}.{norm}.bias": (C,)}
        for linear, rows, columns in (
            ("attn.c_attn", C, 3 * C),
            ("attn.c_proj", C, C),
            ("mlp.c_fc", C, 4 * C),
            ("mlp.c_proj", 4 * C, C),
        ):
            found |= {f"h.{i}.{linear}.weight": (rows, columns), f"h.{i}.{linear}.bias": (columns,)}
    return found | {"ln_f.weight": (C,), "ln_f.bias": (C,)}


def initial(sizes: Sizes, key: jax.Array) -> Parameters:
    parameters = {}
    for i, (name, shape) in enumerate(shapes(sizes).items()):
        if len(shape) == 2:
            parameters[name] = 0.02 * random.normal(random.fold_in(key, i), shape)
        else:
            parameters[name] = jnp.full(shape, float(name.endswith("weight")))
    return parameters


def mean_loss(
    p: Parameters, tokens: jax.Array, targets: jax.Array, key: jax.Array, sizes: Sizes, rate: float
) -> jax.Array:
    _, T, L, H, C, B = sizes
    keys = iter(random.split(key, 1 + 3 * L))

    def dropout(x: jax.Array) -> jax.Array:
        if rate == 0.0:
            return x
        return jnp.where(random.bernoulli(next(keys), 1 - rate, x.shape), x / (1 - rate), 0.0)

    def norm(x: jax.Array, name: str) -> jax.Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
        return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x: jax.Array, name: str) -> jax.Array:
        return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

    causal = jnp.tril(jnp.ones((T, T), bool))
    x = dropout(p["wte.weight"][tokens] + p["wpe.weight"])
    for i in range(L):
        qkv = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
        q, k, v = (part.reshape(B, T, H, C // H).swapaxes(1, 2) for part in jnp.split(qkv, 3, axis=2))
        scores = q @ k.swapaxes(2, 3) / np.sqrt(C // H).astype(np.float32)
        weights = dropout(jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=3))
        attended = (weights @ v).swapaxes(1, 2).reshape(B, T, C)
        x = x + dropout(linear(attended, f"h.{i}.attn.c_proj"))
        hidden = jax.nn.gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate=False)
        x = x + dropout(linear(hidden, f"h.{i}.mlp.c_proj"))
    logits = norm(x, "ln_f") @ p["wte.weight"].T
    target = jnp.take_along_axis(logits, targets[..., None], axis=2)[..., 0]
    return (jax.nn.logsumexp(logits, axis=2) - target).mean()


def adamw(state: State, gradients: Parameters) -> State:
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients.values()))
    factor = jnp.minimum(1.0, peer.CLIP / (norm + 1e-6))
    steps = state.steps + 1
    beta1, beta2 = peer.BETAS
    correction1, correction2 = 1 - beta1**steps, 1 - beta2**steps
    parameters, first, second = {}, {}, {}
    for name, x in state.parameters.items():
        g = gradients[name] * factor
        m = first[name] = beta1 * state.first_moments[name] + (1 - beta1) * g
        v = second[name] = beta2 * state.second_moments[name] + (1 - beta2) * jnp.square(g)
        change = m / correction1 / (jnp.sqrt(v / correction2) + peer.EPSILON)
        decay = peer.WEIGHT_DECAY if x.ndim == 2 else 0.0
        parameters[name] = x * (1 - peer.LEARNING_RATE * decay) - peer.LEARNING_RATE * change
    return State(parameters, first, second, steps)


class Jax:
    def __init__(self, sizes: Sizes, dropout: float) -> None:
        self.key = random.key(1)
        self.text = random.randint(self.key, (peer.TEXT,), 0, sizes.V)
        self.state = begin(initial(sizes, self.key))
        self.loss_and_gradients = jax.value_and_grad(functools.partial(mean_loss, sizes=sizes, rate=dropout))

        def train(
            state: State, tokens: jax.Array, targets: jax.Array, key: jax.Array
        ) -> tuple[State, jax.Array]:
            loss, gradients = self.loss_and_gradients(state.parameters, tokens, targets, key)
            return adamw(state, gradients), loss

        def step(state: State, text: jax.Array, key: jax.Array) -> tuple[State, jax.Array]:
            batch_key, dropout_key = random.split(random.fold_in(key, state.steps))
            first = random.randint(batch_key, (sizes.B, 1), 0, peer.TEXT - sizes.T)
            windows = text[first + jnp.arange(sizes.T + 1)]
            return train(state, windows[:, :-1], windows[:, 1:], dropout_key)

        self.train, self.jitted = (jax.jit(function, donate_argnums=0) for function in (train, step))

    def step(self) -> None:
        self.state, _ = jax.block_until_ready(self.jitted(self.state, self.text, self.key))

    def load(self, parameters: Arrays) -> None:
        self.state = begin({name: jnp.array(x) for name, x in parameters.items()})

    def gradients(self, tokens: np.ndarray, targets: np.ndarray) -> Arrays:
        _, gradients = jax.jit(self.loss_and_gradients)(self.state.parameters, tokens, targets, self.key)
        return {name: np.asarray(x) for name, x in gradients.items()}

    def update(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        self.state, loss = self.train(self.state, tokens, targets, self.key)
        return float(loss)


def main() -> None:
    parser = peer.arguments(__doc__)
    options = parser.parse_args()
    if options.llama:
        parser.error("there is no Llama in JAX here")
    peer.main(options, lambda sizes: Jax(sizes, options.dropout))


if __name__ == "__main__":
    main()
