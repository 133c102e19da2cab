"""Compares with PyTorch if it is installed. The golden files have the same numbers for everyone."""

import math

import numpy as np
import pytest
from common import random_tokens, relative_error

import jostle

torch = pytest.importorskip("torch")


def forward(config, p, tokens):
    """Logits (B, T, V): GPT-2 with the names and shapes of Hugging Face."""
    (b, t), c, heads = tokens.shape, config.width, config.heads
    functional = torch.nn.functional
    approximate = "tanh" if config.activation == "gelu_tanh" else "none"

    def norm(x, name):
        return functional.layer_norm(x, (c,), p[f"{name}.weight"], p.get(f"{name}.bias"), config.norm_epsilon)

    def linear(x, name):
        y = x @ p[f"{name}.weight"]
        return y + p[f"{name}.bias"] if config.bias else y

    x = p["wte.weight"][tokens] + p["wpe.weight"][:t]
    later = torch.ones(t, t, dtype=torch.bool).triu(1)
    for i in range(config.layers):
        qkv = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(c, dim=2)
        q, k, v = (part.view(b, t, heads, -1).transpose(1, 2) for part in qkv)
        scores = (q @ k.transpose(2, 3) / math.sqrt(c // heads)).masked_fill(later, -math.inf)
        out = (scores.softmax(3) @ v).transpose(1, 2).reshape(b, t, c)
        x = x + linear(out, f"h.{i}.attn.c_proj")
        hidden = functional.gelu(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"), approximate=approximate)
        x = x + linear(hidden, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ p["wte.weight" if config.tied else "lm_head.weight"].T


@pytest.mark.parametrize("seed", range(8))
def test_a_random_model(seed):
    random = np.random.default_rng(seed)
    heads = int(random.integers(1, 5))
    config = jostle.Config(
        vocab=int(random.integers(2, 80)),
        context=int(random.integers(1, 70)),
        layers=int(random.integers(1, 4)),
        heads=heads,
        # The norm of one or two numbers leaves only their signs, and its gradient is only rounding.
        width=heads * int(random.integers(3, 12)),
        hidden=int(random.integers(1, 90)),
        activation=str(random.choice(["gelu", "gelu_tanh"])),
        bias=bool(random.integers(2)),
        tied=bool(random.integers(2)),
    )
    model = jostle.Model(config, threads=2)
    for array in model.parameters.values():
        array[:] = (array.ndim == 1) + 0.3 * random.standard_normal(array.shape)
    tokens = random_tokens(config, (3, int(random.integers(1, config.context + 1))), seed)
    targets = np.where(random.random(tokens.shape) < 0.2, -1, random_tokens(config, tokens.shape, seed + 100))
    targets[0, 0] = 0

    p = {name: torch.tensor(x.astype(float), requires_grad=True) for name, x in model.parameters.items()}
    logits = forward(config, p, torch.from_numpy(tokens))
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(targets).flatten(), ignore_index=-1
    )
    loss.backward()
    assert relative_error(model.logits(tokens), logits.detach().numpy()) <= 3e-6
    assert relative_error(model.loss(tokens, targets), loss.item()) <= 2e-6
    assert relative_error(model.backward(tokens, targets), loss.item()) <= 2e-6
    largest = max(np.linalg.norm(x.grad.numpy()) for x in p.values())
    for name, gradient in model.gradients.items():
        error = np.linalg.norm(gradient - p[name].grad.numpy())
        # The norm's own gradient may cancel to zero, and is then compared with the largest of all.
        assert error <= 1e-5 * np.linalg.norm(p[name].grad.numpy()) + 1e-7 * largest, name


def test_a_shuffled_loader_of_torchdata_resumes(tmp_path):
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    config = jostle.Config(vocab=13, context=8, layers=1, heads=2, width=8)
    examples = [tuple(random_tokens(config, (2, 8), number)) for number in range(40)]

    def loader():
        torch.manual_seed(5)
        return loaders.StatefulDataLoader(examples, batch_size=4, shuffle=True)

    def bits_after(trainer):
        losses = [report.loss for report in trainer]
        return losses[-1], [parameter.tobytes() for parameter in trainer.model.parameters.values()]

    model = jostle.Model(config, 3, 1)
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=loader(), batch=4, steps=25)
    for _ in range(13):
        trainer.advance()
    trainer.save(tmp_path / "checkpoint")
    again = jostle.Trainer.resume(tmp_path / "checkpoint", train=loader())
    assert bits_after(again) == bits_after(trainer)
