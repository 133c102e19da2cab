"""Low-rank adapters: settings, files and refusals. test_peft.py compares them with PEFT."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
import safetensors.numpy
from common import bits

import jostle

GPT2 = jostle.Config(vocab=40, context=12, layers=2, heads=2, width=16, activation="gelu_tanh")
LLAMA = jostle.Config.llama(vocab=40, context=12, layers=3, heads=4, kv_heads=2, width=16, hidden=24)
TEXT = np.arange(600) ** 2 % 37
LORA = jostle.LoRA(rank=2, alpha=4, targets="all-linear")


@pytest.fixture(params=[GPT2, LLAMA], ids=["gpt2", "llama"])
def base(request, tmp_path):
    """A folder with a random model."""
    model = jostle.Model(request.param, seed=5, threads=1)
    random = np.random.default_rng(0)
    for array in model.parameters.values():
        array += 0.3 * random.standard_normal(array.shape)
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def llama(tmp_path):
    jostle.Model(LLAMA, seed=5, threads=1).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def trained(base, adapter=LORA):
    model = jostle.Model.from_pretrained(base, adapter=adapter)
    list(jostle.Trainer(model, jostle.AdamW(model, 1e-2), train=TEXT, batch=4, steps=8))
    return model


def read(base, adapter):
    return jostle.Model.from_pretrained(base, adapter=adapter)


def test_new_adapters_change_nothing_and_training_changes_only_them(base):
    plain, model = jostle.Model.from_pretrained(base), trained(base)
    fresh = jostle.Model.from_pretrained(base, adapter=LORA)
    tokens = TEXT[:24].reshape(2, 12)
    assert np.array_equal(fresh.logits(tokens), plain.logits(tokens))
    assert set(model.frozen) == set(plain.parameters)
    assert all(".lora_" in name for name in model.gradients)
    for name, array in model.parameters.items():
        assert np.array_equal(array, fresh.parameters[name]) == (".lora_" not in name), name
    assert model.loss(tokens, TEXT[1:25].reshape(2, 12)) < plain.loss(tokens, TEXT[1:25].reshape(2, 12))


def test_adapters_survive_files_copies_and_merging(base, tmp_path):
    model = trained(base, dataclasses.replace(LORA, rslora=True, dropout=0.25))
    model.save_adapter(tmp_path / "adapter")
    model.save(tmp_path / "whole.safetensors")
    tokens = TEXT[:12]
    for other in (
        read(base, tmp_path / "adapter"),
        jostle.Model.load(tmp_path / "whole.safetensors"),
        pickle.loads(pickle.dumps(model)),
    ):
        assert other.config == model.config
        assert bits(other.parameters) == bits(model.parameters)
        assert other.generate(tokens, 9, 0.0).tolist() == model.generate(tokens, 9, 0.0).tolist()
    merged, wanted = model.merge_adapter(), model.logits(tokens[None])
    assert np.abs(merged.logits(tokens[None]) - wanted).max() <= 2e-6 * np.abs(wanted).max()
    merged.save_pretrained(tmp_path / "merged")
    assert jostle.Model.from_pretrained(tmp_path / "merged").config == jostle.Config.from_pretrained(base)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["fan_in_fan_out"] == (
        model.config.is_gpt2
    )


def test_targets_are_ends_of_names():
    def ranks(config, *targets):
        return jostle.adapters.ranks(jostle.LoRA(rank=3, targets=targets).on(config))

    assert ranks(LLAMA, "q_proj", "v_proj") == {"q": 3, "v": 3}
    assert ranks(LLAMA, "mlp.gate_proj", "o_proj") == {"o": 3, "gate": 3}
    assert ranks(GPT2, "c_attn") == {"qkv": 3}
    assert ranks(GPT2, "c_proj") == {"o": 3, "down": 3}
    assert ranks(GPT2, "mlp.c_proj", "c_fc") == {"up": 3, "down": 3}
    plain = dataclasses.replace(LLAMA, activation="gelu")
    assert list(jostle.adapters.ranks(LORA.on(plain))) == ["q", "k", "v", "o", "up", "down"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"targets": "q_proj"}, "targets is 'q_proj'"),
        ({"targets": ()}, "targets is ()"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises((ValueError, TypeError), match=message.replace("(", r"\(").replace(")", r"\)")):
        jostle.LoRA(**settings)


def test_settings_that_do_not_fit_the_model_are_refused(llama):
    for adapter, message in (
        (jostle.LoRA(targets=("c_attn",)), "targets has 'c_attn', which matches no matrix"),
        (jostle.LoRA(targets=("lm_head",)), "targets has 'lm_head', which matches no matrix"),
        (jostle.LoRA(rank=17), "lora_q_rank is 17"),
    ):
        with pytest.raises(ValueError, match=message):
            jostle.Model.from_pretrained(llama, adapter=adapter)
    with pytest.raises(TypeError, match="frozen is given beside adapter"):
        jostle.Model.from_pretrained(llama, adapter=LORA, frozen=["*norm*"])
    plain = jostle.Model.from_pretrained(llama)
    with pytest.raises(ValueError, match="no adapters to save"):
        plain.save_adapter(llama)
    with pytest.raises(ValueError, match="no adapters to merge"):
        plain.merge_adapter()
    model = jostle.Model.from_pretrained(llama, adapter=LORA)
    with pytest.raises(ValueError, match="the model has adapters; save_adapter"):
        model.save_pretrained(llama / "again")
    mixed = jostle.Model(LORA.on(LLAMA), frozen=["*proj*"])
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight is trained too"):
        mixed.save_adapter(llama / "mixed")


def change(folder, change_keys=None, change_tensors=None):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (change_keys or {})))
    if change_tensors:
        tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
        change_tensors(tensors)
        safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")


FIRST = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight"


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"peft_type": "LOHA"}, None, "peft_type is 'LOHA'"),
        ({"use_dora": True}, None, "use_dora is True; DoRA"),
        ({"bias": "all"}, None, "bias is 'all'"),
        ({"modules_to_save": ["lm_head"]}, None, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, None, "'pissa', which changes the base"),
        ({"lora_alpha": -1}, None, "lora_alpha is -1"),
        ({"lora_dropout": 2}, None, "lora_dropout is 2"),
        ({"alpha_pattern": {"(": 4}}, None, r"alpha_pattern has '\('"),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 4}}, None, "is the end of no matrix's name"),
        ({"layers_to_transform": [7]}, None, "layers_to_transform is 7"),
        ({}, lambda t: t.pop(A), "q_proj.lora_A.weight is missing"),
        ({}, lambda t: t.pop(B), "q_proj.lora_B.weight is missing"),
        ({}, lambda t: t.update({A: t[A][:, :8]}), r"shape \[2, 8\]; the base makes it \[2, 16\]"),
        ({}, lambda t: t.update({A: t[A][:1]}), r"ranks \[1, 2\]"),
        ({}, lambda t: t.update({A: t[A].astype(np.float64)}), "is 'F64'"),
        ({}, lambda t: t.update({f"{FIRST}.lora_magnitude_vector": t[A][0]}), "DoRA is not supported"),
        ({}, lambda t: t.update({"base_model.model.lm_head.lora_A.weight": t[A]}), "adapters of the head"),
        (
            {},
            lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": t[A]}),
            "adapters of embeddings",
        ),
        ({}, lambda t: t.update({A.replace("layers.0", "layers.9"): t[A]}), "does not have model.layers.9"),
        ({}, lambda t: [t.pop(name) for name in list(t)], "no matrix for the adapters"),
    ],
)
def test_files_that_do_not_fit_are_refused(keys, tensors, message, llama, tmp_path):
    jostle.Model.from_pretrained(llama, adapter=LORA).save_adapter(tmp_path / "adapter")
    change(tmp_path / "adapter", keys, tensors)
    with pytest.raises(ValueError, match=message):
        read(llama, tmp_path / "adapter")


def test_an_adapter_of_another_base_is_refused(llama, tmp_path):
    jostle.Model(GPT2).save_pretrained(tmp_path / "gpt2")
    trained(tmp_path / "gpt2").save_adapter(tmp_path / "adapter")
    with pytest.raises(ValueError, match="no matrix for the adapters"):
        read(llama, tmp_path / "adapter")


def test_layers_without_adapters_have_no_effect(llama, tmp_path):
    trained(llama).save_adapter(tmp_path / "adapter")
    change(
        tmp_path / "adapter",
        {"layers_to_transform": [1, 2]},
        lambda t: [t.pop(name) for name in list(t) if "layers.0" in name],
    )
    model = read(llama, tmp_path / "adapter")
    assert not any(
        array.any() for name, array in model.parameters.items() if "layers.0" in name and "lora" in name
    )


def test_adapters_of_mlx_are_read(llama, tmp_path):
    model = trained(llama, jostle.LoRA(rank=2, alpha=6, targets=("q_proj", "down_proj")))
    tensors = {}
    for name, array in model.parameters.items():
        if ".lora_" in name and "layers.0." not in name:
            short = name.removesuffix(".weight").replace("lora_A", "lora_a").replace("lora_B", "lora_b")
            tensors[short] = np.ascontiguousarray(array.T)
        elif ".lora_" in name:
            array[...] = 0
    folder = tmp_path / "mlx"
    folder.mkdir()
    safetensors.numpy.save_file(tensors, folder / "adapters.safetensors")
    keys = {
        "fine_tune_type": "lora",
        "num_layers": 2,
        "lora_parameters": {"rank": 2, "scale": 3.0, "dropout": 0.0},
    }
    (folder / "adapter_config.json").write_text(json.dumps(keys))
    other = read(llama, folder)
    assert other.config == model.config
    assert bits(other.parameters) == bits(model.parameters)
    (folder / "adapter_config.json").write_text(json.dumps(keys | {"fine_tune_type": "dora"}))
    with pytest.raises(ValueError, match="fine_tune_type is 'dora'"):
        read(llama, folder)
