"""Compares with Transformers, where it is installed: scripts/test/python/transformers.sh installs versions 4 and 5."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from common import random_tokens

import jostle

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = jostle.Config(vocab=97, context=24, layers=3, heads=3, width=36, activation="gelu_tanh")


def reference(tied, activation="gelu_new"):
    """A random model of Transformers, larger than it initialises them, so that every part counts."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=97,
        n_positions=24,
        n_embd=36,
        n_layer=3,
        n_head=3,
        activation_function=activation,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.float().numpy()


def assert_same_logits(ours, theirs):
    tokens = random_tokens(CONFIG, (2, 24))
    wanted = logits(theirs, tokens)
    assert np.abs(ours.logits(tokens) - wanted).max() <= 2e-6 * np.abs(wanted).max()


def load(folder):
    """The model of Transformers in a folder, which has exactly the tensors that it wants."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, dtype="auto"
        )
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_their_models_are_read(tied, activation, tmp_path):
    theirs = reference(tied, activation)
    theirs.save_pretrained(tmp_path)
    ours = jostle.Model.from_pretrained(tmp_path)
    assert ours.config.tied == tied
    state = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    for name, array in ours.parameters.items():
        assert np.array_equal(array.view(np.uint32), state[name].numpy().view(np.uint32)), name
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_their_narrow_shards_are_read(dtype, tmp_path):
    theirs = reference(False).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = jostle.Model.from_pretrained(tmp_path)
    state = theirs.state_dict()
    for name, array in ours.parameters.items():
        name = name if name in state else f"transformer.{name}"
        assert np.array_equal(array, state[name].float().numpy()), name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu"])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_they_read_our_models(tied, activation, dtype, tmp_path, caplog):
    ours = jostle.Model(dataclasses.replace(CONFIG, tied=tied, activation=activation))
    random = np.random.default_rng(0)
    for array in ours.parameters.values():
        array += 0.3 * random.standard_normal(array.shape)
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()
    ours.save_pretrained(tmp_path, dtype=dtype)
    theirs = load(tmp_path)
    assert not caplog.records
    assert theirs.dtype == {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    assert_same_logits(jostle.Model.from_pretrained(tmp_path), theirs.float())
    assert theirs.config.eos_token_id is None


def test_configurations_survive(tmp_path):
    config = jostle.Config(
        vocab=5,
        context=7,
        layers=2,
        heads=2,
        width=6,
        hidden=9,
        residual_dropout=0.25,
        tied=False,
        norm_epsilon=1e-3,
    )
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config.to_hugging_face()))
    transformers.AutoConfig.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert jostle.Config.from_pretrained(tmp_path / "theirs") == config


def test_their_tokenizer_is_ours(tmp_path):
    text = "Wo die Zitronen blühn, im dunkeln Laub die Goldorangen glühn 🍋 " * 20
    tokenizer = jostle.PretrainedTokenizer.from_text(text, 300)
    config = dataclasses.replace(CONFIG, vocab=304)
    jostle.Model(config, tokenizer=tokenizer).save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    sample = text[17:90] + "日本 \n\n x"
    tokens = tokenizer.encode(sample)
    assert theirs(sample)["input_ids"] == tokens.tolist()
    assert theirs.decode(tokens) == tokenizer.decode(tokens) == sample
    template = "{{ bos_token }}{% for m in messages %}\n<{{ m.role }}>{{ m.content | tojson }}{{ eos_token }}\n{% endfor %}\n{% if add_generation_prompt %}<assistant>{% endif %}"
    settings = {"chat_template": template, "bos_token": "<s>", "eos_token": "</s>"}
    ours = jostle.PretrainedTokenizer(tokenizer.state()["json"], settings)
    theirs.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    theirs.chat_template = template
    messages = [{"role": "user", "content": "<é>"}, {"role": "assistant", "content": "'"}]
    for answer in (False, True):
        wanted = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer)
        assert ours.chat(messages, answer=answer) == wanted
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "config.json").rename(tmp_path / "theirs" / "config.json")
    (tmp_path / "model.safetensors").rename(tmp_path / "theirs" / "model.safetensors")
    loaded = jostle.Model.from_pretrained(tmp_path / "theirs").tokenizer
    assert np.array_equal(loaded.encode(sample), tokens)
    assert loaded.chat(messages) == wanted


@pytest.mark.parametrize("kind", ["char", "word", "byte"])
def test_our_own_tokenizers_are_theirs(kind, tmp_path):
    text = "Wo die Zitronen blühn , im dunkeln's Laub\n\n x_y 12 ½ 日本🍋."
    tokenizer = jostle.runs.make_tokenizer(kind, text)
    config = dataclasses.replace(CONFIG, vocab=tokenizer.vocab)
    jostle.Model(config, tokenizer=tokenizer).save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer.encode(text).tolist()
    assert theirs(text)["input_ids"] == tokens and theirs.decode(tokens) == text


SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILY = {
    "llama": ("Llama", {"num_key_value_heads": 2}),
    "llama_tied": ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama_biased": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 10}),
    "llama_3": ("Llama", {"rope_theta": 500_000.0, "rope_scaling": SCALING}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2, "rope_theta": 1_000_000.0}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True}),
}
"""Each model's family in Transformers, and the keys of its configuration."""


def of_family(kind, length=64, **more):
    """A random model of the Llama family, larger than Transformers initialises it."""
    torch.manual_seed(0)
    family, keys = FAMILY[kind]
    config = getattr(transformers, f"{family}Config")(
        vocab_size=97,
        max_position_embeddings=length,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        **({"num_key_value_heads": 4} | keys | more),
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def largest_difference(ours, theirs, length):
    """Of logits, over the largest logit."""
    tokens = random_tokens(ours.config, (1, length))
    wanted = logits(theirs, tokens)
    return np.abs(ours.logits(tokens) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("kind", FAMILY)
def test_their_llamas_are_read_and_ours_are_theirs(kind, tmp_path):
    theirs = of_family(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = jostle.Model.from_pretrained(tmp_path / "theirs")
    state = theirs.state_dict()
    for name, array in ours.parameters.items():
        assert np.array_equal(array.view(np.uint32), state[name].numpy().view(np.uint32)), name
    assert largest_difference(ours, theirs, 64) <= 2e-6
    for dtype in ("f32", "bf16"):
        ours.save_pretrained(tmp_path / dtype, dtype=dtype)
        again = load(tmp_path / dtype)
        assert type(again) is type(theirs)
        assert largest_difference(jostle.Model.from_pretrained(tmp_path / dtype), again.float(), 64) <= 2e-6
    again.config.save_pretrained(tmp_path / "again")
    assert jostle.Config.from_pretrained(tmp_path / "again") == ours.config


@pytest.mark.parametrize("kind", ["llama_3", "qwen3"])
def test_long_llamas_agree(kind):
    theirs = of_family(kind, 2048)
    config = jostle._families._FAMILIES[theirs.config.model_type].arguments(theirs.config.to_dict())
    ours = jostle.Model(jostle.Config(**config))
    state = theirs.state_dict()
    for name, array in ours.parameters.items():
        array[...] = state[name].numpy()
    assert largest_difference(ours, theirs, 2048) <= 1e-4


@pytest.mark.parametrize("kind", FAMILY)
def test_twenty_steps_of_fine_tuning_have_their_losses(kind, tmp_path):
    theirs = of_family(kind).train()
    theirs.save_pretrained(tmp_path)
    ours = jostle.Model.from_pretrained(tmp_path)
    adam = torch.optim.AdamW(theirs.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    optimizer = jostle.AdamW(ours, 1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(20):
        tokens = random_tokens(ours.config, (2, 64), seed=step)
        wanted = theirs(torch.from_numpy(tokens), labels=torch.from_numpy(tokens).long()).loss
        adam.zero_grad()
        wanted.backward()
        adam.step()
        ours.zero_gradients()
        loss = ours.backward(tokens[:, :-1], tokens[:, 1:])
        optimizer.step(clip=None)
        assert abs(loss - wanted.item()) <= 1e-5 * wanted.item(), step
