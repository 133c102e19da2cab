"""Writes the golden files in its folder: PyTorch's results for small models of odd shapes.

    pip install torch safetensors numpy
    python core/tests/golden/make.py

Each `<case>.safetensors` holds a model's parameters, a batch, its logits, loss and gradients. It also holds the loss
and the global norm of the gradients before each of twenty updates. Its metadata are the configuration.

The inputs (parameters, learning rate, betas, ...) are f32. Everything is then computed in f64, AdamW included, and
rounded to f32 once, when stored. So the reference has no error of its own: a difference is the tested engine's rounding
or its mistake. For comparison, the script computes everything in f32 too, and prints the error of PyTorch's f32.

There are two models, both with pre-norm blocks. Without bias, neither products nor norms have one.

GPT-2 is as nanoGPT trains it, with learned positions. Query, key and value are one product, in this order, each with its
heads side by side. Names and shapes follow Hugging Face's GPT-2, whose matrices are `[in, out]` (nanoGPT has the
transpose).

The files `lora_*` have adapters as PEFT computes them (Hu et al. 2021). The base is frozen: gradients and updates are those
of the adapters alone. Metadata name the ranks, the alphas and the switch of rsLoRA.

The files `llama_*` have the Llama family, with the names and shapes `[out, in]` of Hugging Face's Llama, Qwen2 and
Qwen3. Their settings are switches: any that differs from GPT-2's makes a model with these names. Metadata name only the
settings of the family that differ.

`operations/<operation>.safetensors` holds inputs, results and gradients of the Llama family's single
operations.
B batch, T length, C width, F hidden, V vocabulary, L layers, H heads, K key/value heads, D width of a head.
"""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch.nn import functional as F

STEPS = 20
IGNORED = -1


@dataclass
class Case:
    vocab: int
    context: int
    layers: int
    heads: int
    width: int
    hidden: int
    batch: int
    length: int
    clip: float  # below some of the twenty norms and above others
    activation: str = "gelu"
    bias: bool = True
    tied: bool = True
    norm_epsilon: float = 1e-5
    learning_rate: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    ignored: float = 0.0  # the share of targets that do not count
    llama: "Llama | None" = None
    lora: "dict[str, tuple[int, float]] | None" = None  # rank and alpha of each matrix, by its short name
    rslora: bool = False


@dataclass
class Llama:
    """The settings of the Llama family. Each default is GPT-2's value."""

    kv_heads: int = 0  # 0: as many as heads
    head_width: int = 0  # 0: width / heads
    norm: str = "layer"  # or "rms", which never has a bias
    positions: str = "learned"  # or "rotary"
    rope_theta: float = 10000.0
    rope_factor: float = 1.0  # from here on Llama 3's scaling; 1: none
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_context: int = 8192
    qkv_bias: bool = False
    qk_norm: bool = False  # RMS over D before rotation


# The purpose of each case. The hyperparameters differ too, so that no default passes for one of them.
CASES = {
    # One position: attention has one key, and the rest of the context is unused.
    "one_token": Case(11, 4, 1, 1, 8, 32, batch=3, length=1, clip=3.0),
    # As in GPT-2 but small: two heads, hidden 4C, the whole context.
    "gpt2": Case(27, 16, 2, 2, 16, 64, batch=2, length=16, clip=1.9, beta2=0.999),
    # Heads of five, the tanh GELU, targets that do not count, T shorter than the context.
    "three_heads": Case(
        33, 12, 1, 3, 15, 60, batch=3, length=9, clip=1.9, activation="gelu_tanh", ignored=0.3, epsilon=1e-3
    ),
    # No biases and an untied head; V and C are multiples of 16.
    "no_bias_untied": Case(
        48, 10, 1, 4, 16, 64, batch=2, length=10, clip=2.4, bias=False, tied=False, beta2=0.95, norm_epsilon=1e-3
    ),
    # An MLP that is not four times as wide; in the next case, it is narrower than the residual stream.
    "hidden": Case(23, 8, 2, 2, 12, 37, batch=4, length=7, clip=1.7, beta1=0.8, weight_decay=1.0),
    # Three layers of one head each.
    "three_layers": Case(
        17, 9, 3, 1, 10, 7, batch=2, length=8, clip=1.4, activation="gelu_tanh", tied=False, epsilon=1e-4
    ),
    # More tokens than a byte has values.
    "large_vocab": Case(307, 8, 1, 2, 18, 40, batch=2, length=6, clip=3.8, ignored=0.2),
    # Attention's tiles of 32 rows: a second one that is not full, and a third.
    "two_tiles": Case(
        19, 37, 2, 3, 21, 50, batch=2, length=37, clip=2.9,
        activation="gelu_tanh", bias=False, ignored=0.4, weight_decay=0.5
    ),
    "three_tiles": Case(29, 80, 1, 2, 14, 56, batch=2, length=70, clip=0.9, norm_epsilon=1e-4),
}  # fmt: skip


def llama(vocab, context, layers, heads, width, hidden, batch, length, clip, *, norm="rms", positions="rotary", **rest):
    """A case of the Llama family, with Llama's values where no others are given."""
    switches = {name: rest.pop(name) for name in list(rest) if name in vars(Llama())}
    settings = {"activation": "swiglu", "bias": False} | rest
    family = Llama(norm=norm, positions=positions, **switches)
    return Case(vocab, context, layers, heads, width, hidden, batch, length, clip, **settings, llama=family)


# In order after the cases above, because the place selects the random numbers.
CASES |= {
    # Llama: every query head has its own keys and values.
    "llama_mha": llama(27, 16, 2, 2, 16, 43, batch=2, length=16, clip=3.9, beta2=0.999),
    # Six query heads, two key/value heads.
    "llama_gqa": llama(33, 14, 2, 6, 24, 40, batch=2, length=11, clip=6.4, kv_heads=2, ignored=0.3, epsilon=1e-3),
    # One key/value head for all.
    "llama_one_kv_head": llama(23, 12, 1, 4, 24, 37, batch=3, length=12, clip=3.4, kv_heads=1, rope_theta=5e5),
    # Heads that are wider than C / H, and heads that are narrower.
    "llama_wide_heads": llama(31, 12, 1, 3, 15, 29, batch=2, length=10, clip=2.9, head_width=8, tied=False),
    "llama_narrow_heads": llama(21, 9, 2, 4, 20, 33, batch=3, length=9, clip=4.2, head_width=2, kv_heads=2, beta1=0.8),
    # Qwen3: norms of queries and keys, untied.
    "llama_qk_norm": llama(
        29, 13, 2, 4, 20, 31, batch=2, length=13, clip=4.3,
        kv_heads=2, head_width=6, qk_norm=True, rope_theta=1e6, tied=False, norm_epsilon=1e-3
    ),
    # Qwen2: biases of query, key and value alone.
    "llama_qkv_bias": llama(
        25, 15, 2, 6, 24, 28, batch=2, length=14, clip=4.4, kv_heads=2, qkv_bias=True, rope_theta=1e6, norm_epsilon=1e-6
    ),
    # Llama 3's scaling, with frequencies in all of its three ranges.
    "llama_scaling": llama(
        22, 50, 1, 2, 28, 30, batch=2, length=30, clip=2.9, head_width=16, beta2=0.95, weight_decay=1.0,
        rope_factor=8.0, rope_low_freq_factor=1.5, rope_high_freq_factor=5.0, rope_original_context=100
    ),
    # Three layers, untied.
    "llama_untied": llama(17, 9, 3, 1, 10, 7, batch=2, length=8, clip=2.8, tied=False, epsilon=1e-4),
    # Attention's tiles of 32 rows: a second one that is not full, and a third.
    "llama_two_tiles": llama(
        19, 37, 2, 3, 18, 25, batch=2, length=37, clip=2.7, kv_heads=1, ignored=0.4, weight_decay=0.5
    ),
    "llama_three_tiles": llama(29, 80, 1, 4, 16, 24, batch=2, length=70, clip=1.4, kv_heads=2, norm_epsilon=1e-4),
    # Mixed with GPT-2: rotary with GELU, LayerNorm and biases; RMS with learned positions.
    "llama_rotary_gelu": llama(
        26, 10, 2, 4, 16, 45, batch=2, length=10, clip=2.5, kv_heads=2, norm="layer", activation="gelu", bias=True
    ),
    "llama_learned": llama(24, 11, 2, 2, 14, 19, batch=3, length=8, clip=3.7, positions="learned", ignored=0.2),
    # SwiGLU with every bias: RMS with learned positions, LayerNorm with rotary ones. Queries and keys are normed.
    "llama_biases": llama(
        20, 12, 1, 4, 16, 21, batch=2, length=12, clip=2.7,
        kv_heads=2, bias=True, qk_norm=True, positions="learned"
    ),
    "llama_layer_swiglu": llama(
        18, 10, 1, 3, 18, 20, batch=3, length=10, clip=2.4,
        head_width=4, bias=True, norm="layer", qk_norm=True
    ),
}  # fmt: skip


# The adapters' matrices: their short names, and their names in a block.
MODULES = {"qkv": "attn.c_attn", "o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
LLAMA_MODULES = {name: f"self_attn.{name}_proj" for name in "qkvo"} | {
    name: f"mlp.{name}_proj" for name in ("gate", "up", "down")
}


def adapted(case, base, **ranks):
    """A case with adapters of these ranks and alphas."""
    rslora = ranks.pop("rslora", False)
    return dataclasses.replace(base, lora=ranks, rslora=rslora, **case)


CASES |= {
    # All matrices, each with its own rank and alpha.
    "lora_gpt2": adapted(
        {"clip": 1.9}, CASES["gpt2"], qkv=(3, 5.0), o=(2, 16.0), up=(5, 4.0), down=(4, 10.0)
    ),
    # Grouped keys and values, divided by the root of the rank.
    "lora_gqa": adapted(
        {"clip": 5.0}, CASES["llama_gqa"],
        q=(4, 3.0), k=(2, 1.0), v=(8, 6.0), o=(3, 2.0), gate=(5, 1.5), up=(1, 2.5), down=(7, 4.0), rslora=True
    ),
    # Some matrices of Qwen2.
    "lora_qwen2": adapted({"clip": 2.0}, CASES["llama_qkv_bias"], v=(3, 9.0), up=(2, 4.0)),
}  # fmt: skip


def activate(case, x):
    return F.gelu(x, approximate="tanh" if case.activation == "gelu_tanh" else "none")


def attend(q, k, v):
    """Causal attention of q, k and v [B, H, T, D], as [B, T, H D]."""
    T, D = q.shape[2:]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    scores = q @ k.transpose(2, 3) / math.sqrt(D)
    weights = scores.masked_fill(later, -math.inf).softmax(dim=3)  # [B, H, T, T]
    return (weights @ v).transpose(1, 2).flatten(2)


def adapter(case, p, x, name):
    """What the adapter of a matrix adds to its product with x; `name` is the matrix's."""
    if f"{name}.lora_A.weight" not in p:
        return 0.0
    short = {module: short for short, module in (LLAMA_MODULES if case.llama else MODULES).items()}
    rank, alpha = case.lora[short[name.split(".", 3 if case.llama else 2)[-1]]]
    scale = as_f32(as_f32(alpha) / (math.sqrt(rank) if case.rslora else rank))
    return scale * F.linear(F.linear(x, p[f"{name}.lora_A.weight"]), p[f"{name}.lora_B.weight"])


def forward(case, p, tokens):
    """Logits [B, T, V] of tokens [B, T]; p holds the parameters by name."""
    return (llama_forward if case.llama else gpt2_forward)(case, p, tokens)


def llama_forward(case, p, tokens):
    family, T, H = case.llama, tokens.shape[1], case.heads
    K, D = family.kv_heads or H, family.head_width or case.width // H
    epsilon = as_f32(case.norm_epsilon)

    def norm(x, name):
        weight = p[f"{name}.weight"]
        if family.norm == "rms":
            return F.rms_norm(x, weight.shape, weight, epsilon)
        return F.layer_norm(x, weight.shape, weight, p.get(f"{name}.bias"), epsilon)

    def linear(x, name):
        return F.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias")) + adapter(case, p, x, name)

    x = F.embedding(tokens, p["model.embed_tokens.weight"])
    if family.positions == "learned":
        x = x + p["model.embed_positions.weight"][:T]
    else:
        cos, sin = (table.to(x.dtype) for table in rotary_table(T, D, as_f32(family.rope_theta), scaling(family)))
    for i in range(case.layers):
        block = f"model.layers.{i}"
        normed = norm(x, f"{block}.input_layernorm")
        q, k, v = (linear(normed, f"{block}.self_attn.{z}_proj").unflatten(2, (-1, D)) for z in "qkv")  # [B, T, H, D]
        if family.qk_norm:
            q, k = (
                F.rms_norm(z, (D,), p[f"{block}.self_attn.{name}_norm.weight"], epsilon)
                for z, name in ((q, "q"), (k, "k"))
            )
        if family.positions == "rotary":
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = k.repeat_interleave(H // K, 2), v.repeat_interleave(H // K, 2)
        attended = attend(*(z.transpose(1, 2) for z in (q, k, v)))
        x = x + linear(attended, f"{block}.self_attn.o_proj")
        normed = norm(x, f"{block}.post_attention_layernorm")
        hidden = linear(normed, f"{block}.mlp.up_proj")
        if case.activation == "swiglu":
            hidden = swiglu(linear(normed, f"{block}.mlp.gate_proj"), hidden)
        else:
            hidden = activate(case, hidden)
        x = x + linear(hidden, f"{block}.mlp.down_proj")
    return norm(x, "model.norm") @ p["model.embed_tokens.weight" if case.tied else "lm_head.weight"].T


def scaling(family):
    if family.rope_factor == 1:
        return None
    low, high = as_f32(family.rope_low_freq_factor), as_f32(family.rope_high_freq_factor)
    return as_f32(family.rope_factor), low, high, family.rope_original_context


def gpt2_forward(case, p, tokens):
    (B, T), C, H = tokens.shape, case.width, case.heads

    def norm(x, name):
        return F.layer_norm(x, (C,), p[f"{name}.weight"], p.get(f"{name}.bias"), as_f32(case.norm_epsilon))

    def linear(x, name):
        y = x @ p[f"{name}.weight"] + adapter(case, p, x, name)
        return y + p[f"{name}.bias"] if case.bias else y

    x = F.embedding(tokens, p["wte.weight"]) + p["wpe.weight"][:T]
    for i in range(case.layers):
        qkv = linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(C, dim=2)
        q, k, v = (z.view(B, T, H, C // H).transpose(1, 2) for z in qkv)  # [B, H, T, C / H]
        x = x + linear(attend(q, k, v), f"h.{i}.attn.c_proj")
        hidden = activate(case, linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"))
        x = x + linear(hidden, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ p["wte.weight" if case.tied else "lm_head.weight"].T


def mean_loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def reference(case, parameters, tokens, targets, train_tokens, train_targets, dtype):
    """One batch's logits, loss and gradients, then twenty steps of training, all computed in `dtype`."""
    p = {name: value.to(dtype) for name, value in parameters.items()}
    trained = {name: x.requires_grad_() for name, x in p.items() if case.lora is None or ".lora_" in name}
    logits = forward(case, p, tokens)
    loss = mean_loss(logits, targets)
    loss.backward()
    out = {"logits": logits.detach(), "loss": loss.detach().view(1)}
    out |= {f"grad.{name}": value.grad for name, value in trained.items()}

    # Matrices decay, embeddings included; biases and norms do not.
    decay = [
        {"params": [x for x in trained.values() if x.dim() == 2], "weight_decay": as_f32(case.weight_decay)},
        {"params": [x for x in trained.values() if x.dim() != 2], "weight_decay": 0.0},
    ]
    betas = (as_f32(case.beta1), as_f32(case.beta2))
    optimizer = torch.optim.AdamW(decay, as_f32(case.learning_rate), betas, as_f32(case.epsilon), foreach=False)
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = mean_loss(forward(case, p, train_tokens[step]), train_targets[step])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained.values(), as_f32(case.clip)))
        losses.append(loss.detach())
        optimizer.step()
    return out | {"losses": torch.stack(losses), "norms": torch.stack(norms)}


def as_f32(x):
    """The number that an engine in f32 is given."""
    return float(np.float32(x))


def random_parameters(case, random):
    """Unlike a fresh model's: nothing is 0 or 1, so that every gradient says something."""
    shapes = llama_shapes(case) if case.llama else gpt2_shapes(case)
    for name, (rank, _) in (case.lora or {}).items():
        module = (LLAMA_MODULES if case.llama else MODULES)[name]
        for i in range(case.layers):
            block = f"model.layers.{i}.{module}" if case.llama else f"h.{i}.{module}"
            outputs, inputs = shapes[f"{block}.weight"] if case.llama else reversed(shapes[f"{block}.weight"])
            shapes |= {f"{block}.lora_A.weight": (rank, inputs), f"{block}.lora_B.weight": (outputs, rank)}

    def draw(name, shape):
        is_norm_weight = name.endswith("weight") and len(shape) == 1
        centre, deviation = (1.0, 0.2) if is_norm_weight else (0.0, 0.3)
        return torch.from_numpy((centre + deviation * random.standard_normal(shape)).astype(np.float32))

    return {name: draw(name, shape) for name, shape in shapes.items()}


def llama_shapes(case):
    """In the engine's order."""
    V, C, F, H, family = case.vocab, case.width, case.hidden, case.heads, case.llama
    K, D = family.kv_heads or H, family.head_width or C // H
    shapes = {"model.embed_tokens.weight": (V, C)}
    if family.positions == "learned":
        shapes["model.embed_positions.weight"] = (case.context, C)

    def norm(name):
        shapes[f"{name}.weight"] = (C,)
        if case.bias and family.norm == "layer":
            shapes[f"{name}.bias"] = (C,)

    def linear(bias, inputs, outputs):
        """Products of the same inputs lie side by side, so that they are one."""
        shapes.update({f"{name}.weight": (width, inputs) for name, width in outputs.items()})
        if bias:
            shapes.update({f"{name}.bias": (width,) for name, width in outputs.items()})

    for i in range(case.layers):
        block = f"model.layers.{i}"
        attention, mlp = f"{block}.self_attn", f"{block}.mlp"
        norm(f"{block}.input_layernorm")
        heads = {f"{attention}.{z}_proj": n * D for z, n in (("q", H), ("k", K), ("v", K))}
        linear(case.bias or family.qkv_bias, C, heads)
        if family.qk_norm:
            shapes |= {f"{attention}.{z}_norm.weight": (D,) for z in "qk"}
        linear(case.bias, H * D, {f"{attention}.o_proj": C})
        norm(f"{block}.post_attention_layernorm")
        names = ("gate_proj", "up_proj") if case.activation == "swiglu" else ("up_proj",)
        linear(case.bias, C, {f"{mlp}.{name}": F for name in names})
        linear(case.bias, F, {f"{mlp}.down_proj": C})
    norm("model.norm")
    if not case.tied:
        shapes["lm_head.weight"] = (V, C)
    return shapes


def gpt2_shapes(case):
    V, C, F, L = case.vocab, case.width, case.hidden, case.layers
    shapes = {"wte.weight": (V, C), "wpe.weight": (case.context, C)}
    for i in range(L):
        shapes |= {f"h.{i}.ln_1.weight": (C,), f"h.{i}.ln_1.bias": (C,)}
        shapes |= {f"h.{i}.attn.c_attn.weight": (C, 3 * C), f"h.{i}.attn.c_attn.bias": (3 * C,)}
        shapes |= {f"h.{i}.attn.c_proj.weight": (C, C), f"h.{i}.attn.c_proj.bias": (C,)}
        shapes |= {f"h.{i}.ln_2.weight": (C,), f"h.{i}.ln_2.bias": (C,)}
        shapes |= {f"h.{i}.mlp.c_fc.weight": (C, F), f"h.{i}.mlp.c_fc.bias": (F,)}
        shapes |= {f"h.{i}.mlp.c_proj.weight": (F, C), f"h.{i}.mlp.c_proj.bias": (C,)}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,), "lm_head.weight": (V, C)}
    if case.tied:
        del shapes["lm_head.weight"]
    if not case.bias:
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("bias")}
    return shapes


def random_batches(case, random, count):
    """Tokens and targets [count, B, T]. A target is the sum of the last two tokens, so attention has work."""
    tokens = random.randint(0, case.vocab, (count, case.batch, case.length + 1))
    targets = (tokens[:, :, 1:] + tokens[:, :, :-1]) % case.vocab
    targets[random.random_sample(targets.shape) < case.ignored] = IGNORED
    return torch.from_numpy(tokens[:, :, 1:].copy()), torch.from_numpy(targets)


def relative_error(key, x, exact):
    """Of the worst step for what has steps, else of the whole in norm."""
    if key in ("losses", "norms"):
        return ((x - exact) / exact).abs().max().item()
    return ((x - exact).norm() / exact.norm()).item()


def metadata(case):
    """The case as strings; numbers read as the f32 that was used."""
    fields = {name: value for name, value in vars(case).items() if name not in ("ignored", "llama", "lora", "rslora")}
    if case.llama:
        gpt2s = vars(Llama())
        fields |= {name: value for name, value in vars(case.llama).items() if value != gpt2s[name]}
    if case.lora:
        fields |= {f"lora_{name}_rank": rank for name, (rank, _) in case.lora.items()}
        fields |= {f"lora_{name}_alpha": alpha for name, (_, alpha) in case.lora.items()}
        fields["lora_rslora"] = case.rslora
    return {name: str(value).lower() for name, value in fields.items()}


def save(path, tensors, strings):
    """A safetensors file whose metadata are in order, so that the same numbers make the same bytes."""
    data = safetensors.torch.save(tensors)
    size = int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": strings} | json.loads(data[8 : 8 + size]), separators=(",", ":"))
    header += " " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + data[8 + size :])


def with_gradients(d_y, inputs, function):
    """A function's inputs, its result `y`, and the inputs' gradients, computed in f64 and stored as f32."""
    wide = {name: x.double().requires_grad_() for name, x in inputs.items()}
    y = function(**wide)
    y.backward(d_y.double())
    gradients = {f"d_{name}": x.grad.float() for name, x in wide.items()}
    return {**inputs, "d_y": d_y, "y": y.detach().float(), **gradients}


def rms_norm(x, weight):
    return F.rms_norm(x, x.shape[-1:], weight, as_f32(1e-5))


def swiglu(gate, up):
    return F.silu(gate) * up


def rotate(x, cos, sin):
    """x [..., T, H, D], cos and sin [T, D / 2]."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def rotary_table(length, head_width, theta, scaling=None):
    """Cosines and sines [T, D / 2] of angles that are f32, as in Transformers. A power is the nearest f32, which the
    power of PyTorch's f32 is not always."""
    exponent = torch.arange(0, head_width, 2).float() / head_width
    frequency = 1.0 / (theta ** exponent.double()).float()
    if scaling is not None:  # modeling_rope_utils.py, _compute_llama3_parameters
        factor, low, high, original = scaling
        wavelength = 2 * math.pi / frequency
        smooth = (original / wavelength - low) / (high - low)
        medium = (1 - smooth) * frequency / factor + smooth * frequency
        slow = torch.where(wavelength > original / low, frequency / factor, medium)
        frequency = torch.where(wavelength < original / high, frequency, slow)
    angles = torch.arange(length).float()[:, None] * frequency
    return angles.double().cos().float(), angles.double().sin().float()


TABLES = {
    "plain": (64, 8, 1e4, None),
    "odd": (37, 6, 1e5, None),
    "wide": (20, 80, 1e6, None),
    "llama3": (40, 64, 5e5, (32.0, 1.0, 4.0, 8192)),
    "steep": (25, 34, 1e4, (3.5, 2.0, 2.5, 100)),
}


def grouped_attention(qkv, kv_heads, head_width):
    """Rows of qkv hold the queries of all heads, then the keys and then the values of the key/value heads."""
    x = qkv.unflatten(1, (-1, head_width)).transpose(0, 1)
    heads = len(x) - 2 * kv_heads
    q, k, v = x.split([heads, kv_heads, kv_heads])
    k, v = (z.repeat_interleave(heads // kv_heads, 0) for z in (k, v))
    return attend(q[None], k[None], v[None])[0]


# Length, heads, key/value heads, width of a head.
ATTENTION = {"grouped": (37, 6, 2, 5), "shared": (70, 3, 1, 8), "pairs": (21, 4, 2, 16)}


def make_operations():
    random = np.random.RandomState(100)

    def normal(*shape):
        return torch.from_numpy(random.standard_normal(shape).astype(np.float32))

    def write(operation, tensors):
        path = Path(__file__).with_name("operations") / f"{operation}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save(path, {name: x.contiguous() for name, x in tensors.items()}, {})

    write("rms_norm", with_gradients(normal(7, 37), {"x": 2 * normal(7, 37), "weight": 1 + normal(37) / 4}, rms_norm))
    write("swiglu", with_gradients(normal(211), {"gate": 4 * normal(211), "up": normal(211)}, swiglu))
    tables = {name: rotary_table(*numbers) for name, numbers in TABLES.items()}
    for name, (cos, sin) in tables.items():
        length, half = cos.shape
        heads = 3 if half < 5 else 1
        x, d_y = normal(length, heads, 2 * half), normal(length, heads, 2 * half)
        rotated = with_gradients(d_y, {"x": x}, lambda x, cos=cos, sin=sin: rotate(x, cos.double(), sin.double()))
        write(f"rotary_{name}", {"cos": cos, "sin": sin, **rotated})
    for name, (length, heads, kv_heads, D) in ATTENTION.items():
        qkv, d_y = 1.5 * normal(length, (heads + 2 * kv_heads) * D), normal(length, heads * D)
        function = functools.partial(grouped_attention, kv_heads=kv_heads, head_width=D)
        write(f"attention_{name}", with_gradients(d_y, {"qkv": qkv}, function))


def main():
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    make_operations()
    print(f"{'case':<20}{'kB':>5}   losses          norms             PyTorch's f32 is off by")
    for seed, (name, case) in enumerate(CASES.items()):
        random = np.random.RandomState(seed)  # the one generator whose stream NumPy has frozen
        parameters = random_parameters(case, random)
        tokens, targets = random_batches(case, random, 1 + STEPS)
        batches = (tokens[0], targets[0], tokens[1:], targets[1:])
        exact = reference(case, parameters, *batches, torch.float64)
        losses, norms = exact["losses"], exact["norms"]
        assert norms.min() < 0.95 * case.clip and 1.05 * case.clip < norms.max(), f"{name}: {norms}"
        assert all(value.norm() > 0 for value in exact.values()), name

        integers = dict(zip(("tokens", "targets", "train_tokens", "train_targets"), batches, strict=True))
        tensors = parameters | {key: value.int() for key, value in integers.items()}
        tensors |= {key: value.float() for key, value in exact.items()}
        path = Path(__file__).with_name(f"{name}.safetensors")
        save(path, {key: value.contiguous() for key, value in tensors.items()}, metadata(case))

        single = reference(case, parameters, *batches, torch.float32)
        errors = {key: relative_error(key, single[key], exact[key]) for key in exact}
        gradient = max((key for key in errors if key.startswith("grad.")), key=errors.get)
        print(
            f"{name:<20}{path.stat().st_size // 1000:>5}   {losses[0]:.2f} to {losses[-1]:.2f}"
            f"    {norms.min():.2f} to {norms.max():.2f}      "
            + "".join(f"{key} {errors[key]:.0e}  " for key in ("logits", "losses", "norms", gradient))
        )


if __name__ == "__main__":
    main()
