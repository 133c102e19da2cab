"""Fine-tuning compared with Transformers' models and PyTorch's AdamW, where they are installed."""

import numpy as np
import pytest

import jostle

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

STEPS = 20
GPT2 = {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
        "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
LLAMA = {"vocab_size": 61, "max_position_embeddings": 16, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "tie_word_embeddings": False}  # fmt: skip
SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
MODELS = {
    "gpt2": ("GPT2", GPT2),
    "llama": ("Llama", LLAMA),
    "llama, tied": ("Llama", {**LLAMA, "tie_word_embeddings": True}),
    "llama 3": ("Llama", {**LLAMA, "rope_scaling": SCALING, "rope_theta": 5e5}),
    "qwen2": ("Qwen2", {key: value for key, value in LLAMA.items() if key != "head_dim"}),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 8}),
}  # fmt: skip
"""The six tiny models: the name of their classes, and the keys of their configuration."""


def batches():
    """Pairs of micro-batches of unlike shapes, and unlike numbers of targets that count."""
    random = np.random.default_rng(3)
    # Few texts, so that there is something to learn.
    tokens = random.integers(0, 61, (3, 17))
    for _ in range(STEPS):
        for rows, length in ((2, 16), (1, 9)):
            chosen = tokens[random.integers(0, 3, rows), : length + 1]
            counted = random.random((rows, length)) < random.uniform(0.2, 0.9)
            counted[0, 0] = True
            yield chosen[:, :-1], np.where(counted, chosen[:, 1:], -1)


def theirs(name):
    kind, keys = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**keys)
    config._attn_implementation = "eager"
    kind = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    model = getattr(transformers, kind)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.train()


@pytest.mark.parametrize("name", MODELS)
def test_twenty_steps_have_their_losses(name, tmp_path):
    other = theirs(name)
    other.save_pretrained(tmp_path)
    model = jostle.Model.from_pretrained(tmp_path)
    optimizer = jostle.AdamW(model, 2e-3, betas=(0.9, 0.999), weight_decay=0.1)
    trainer = jostle.Trainer(model, optimizer, train=batches(), batch=2, accumulate=2, steps=STEPS)
    reports = list(trainer)

    parameters = list(other.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.999), eps=1e-8)
    drawn = batches()
    for report in reports:
        pairs = [next(drawn), next(drawn)]
        counted = sum((targets != -1).sum() for _, targets in pairs)
        adam.zero_grad()
        loss = 0.0
        for tokens, targets in pairs:
            logits = other(torch.from_numpy(tokens)).logits
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), torch.from_numpy(targets).flatten(), ignore_index=-1, reduction="sum"
            )
            (losses / int(counted)).backward()
            loss += losses.item() / counted
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
        adam.step()
        assert abs(report.loss - loss) <= 1e-5, report.step
        assert report.gradient_norm == pytest.approx(norm, rel=1e-4), report.step
    assert reports[-1].loss < 0.8 * reports[0].loss
