"""Hugging Face's model families: what the keys of their config.json mean here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jostle import _arguments, _native
from jostle._arrays import Float
from jostle.config import MODULES, Config


class Family(NamedTuple):
    """A family."""

    kind: str
    """Its model_type in config.json."""
    architectures: tuple[str, ...]
    """Its classes in Transformers. Files have the names of the first one's tensors."""
    prefix: str
    """What that class puts before the names of all tensors but the head's."""
    own_prefix: str
    """The prefix of the model's own names."""
    embedding: str
    """The model's own name of the token embedding."""
    layers: str
    """The key of the number of blocks."""
    needless: re.Pattern[str]
    """The names of tensors that files may have beside the parameters."""
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]]
    """The arguments of `Config`, from the keys of config.json. ValueError for what is not supported."""
    keys: Callable[[Config], dict[str, Any]]
    """The reverse."""
    arrays: Callable[[Config, Mapping[str, Float]], Iterable[tuple[str, Float]]]
    """The arrays of a file by the model's own names, from its parameters."""

    def own_name(self, name: str) -> str:
        """The model's own name of a tensor in a file, which may lack the prefix."""
        bare = name.removeprefix(self.prefix)
        return bare if bare == "lm_head.weight" else self.own_prefix + bare

    def file_name(self, name: str) -> str:
        """The name in a file of a tensor of the model."""
        return name if name == "lm_head.weight" else self.prefix + name.removeprefix(self.own_prefix)


def _size(given: Mapping[str, Any], key: str) -> int:
    return _arguments.size(key, given[key])


def _flag(given: Mapping[str, Any], key: str, default: bool) -> bool:
    return _arguments.instance(key, given.get(key, default), bool)


def _refuse(given: Mapping[str, Any], supported: Mapping[str, Any]) -> None:
    """Refuses keys with another value than the supported one, which they also have if they are missing or null."""
    for key, wanted in supported.items():
        value = given.get(key)
        # An empty list or object means the same as none.
        if value is not None and value != wanted and not (wanted is None and not value):
            raise ValueError(f"{key} is {_arguments.brief(value)}; only {wanted!r} is supported")


_GELU = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
"""Hugging Face's names of activations, and the names that `Config` has for them."""


def _gpt2_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    _refuse(
        given,
        {
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False,
            "add_cross_attention": False,
        },
    )
    activation = given.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in _GELU:
        raise ValueError(
            f"activation_function is {_arguments.brief(activation)}; expected one of {list(_GELU)}"
        )
    heads, width = _size(given, "n_head"), _size(given, "n_embd")
    if width % heads:
        raise ValueError(f"n_head is {heads}; expected a divisor of n_embd, {width}")
    return {
        "vocab": _size(given, "vocab_size"),
        "context": _size(given, "n_positions"),
        "layers": _size(given, "n_layer"),
        "heads": heads,
        "width": width,
        "hidden": None if given.get("n_inner") is None else _size(given, "n_inner"),
        "embedding_dropout": _arguments.rate("embd_pdrop", given.get("embd_pdrop", 0.1)),
        "attention_dropout": _arguments.rate("attn_pdrop", given.get("attn_pdrop", 0.1)),
        "residual_dropout": _arguments.rate("resid_pdrop", given.get("resid_pdrop", 0.1)),
        "activation": _GELU[activation],
        "bias": True,
        "tied": _flag(given, "tie_word_embeddings", True),
        "norm_epsilon": _arguments.amount("layer_norm_epsilon", given.get("layer_norm_epsilon", 1e-5)),
    }


def _gpt2_keys(config: Config) -> dict[str, Any]:
    if config.attention_projection_dropout != config.mlp_projection_dropout:
        raise ValueError(
            "attention_projection_dropout and mlp_projection_dropout differ; Hugging Face's GPT-2 has one rate for both"
        )
    return {
        "vocab_size": config.vocab,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.hidden,
        "activation_function": "gelu_new" if config.activation == "gelu_tanh" else "gelu",
        "embd_pdrop": config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "resid_pdrop": config.mlp_projection_dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
    }


def _gpt2_arrays(config: Config, parameters: Mapping[str, Float]) -> Iterable[tuple[str, Float]]:
    # Hugging Face's GPT-2 always has biases.
    for name, shape in _native.tensors(dataclasses.replace(config, bias=True)):
        yield name, parameters[name] if name in parameters else np.zeros(shape, np.float32)


_GPT2 = Family(
    kind="gpt2",
    architectures=("GPT2LMHeadModel", "GPT2Model"),
    prefix="transformer.",
    own_prefix="",
    embedding="wte.weight",
    layers="n_layer",
    needless=re.compile(r"h\.[0-9]+\.attn\.(bias|masked_bias)"),
    arguments=_gpt2_arguments,
    keys=_gpt2_keys,
    arrays=_gpt2_arrays,
)


def _rope(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary positions of a config.json of Transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters)."""
    key = "rope_parameters" if given.get("rope_parameters") else "rope_scaling"
    rope = given.get(key)
    scaling = _arguments.rope_scaling(key, rope or None)
    theta = given.get("rope_theta")
    if isinstance(rope, Mapping):
        theta = rope.get("rope_theta", theta)
        _refuse(rope, {"partial_rotary_factor": 1.0, "mrope_section": None})
    return {"rope_theta": _arguments.amount("rope_theta", 10_000.0 if theta is None else theta), **scaling}


def _llama_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    layers = _size(given, "num_hidden_layers")
    _refuse(
        given,
        {
            "hidden_act": "silu",
            "partial_rotary_factor": 1.0,
            "use_sliding_window": False,
            "pretraining_tp": 1,
            "num_experts": None,
            "layer_types": given.get("layer_types") and ["full_attention"] * layers,
        },
    )
    heads, width = _size(given, "num_attention_heads"), _size(given, "hidden_size")
    if given.get("head_dim") is None and width % heads:
        raise ValueError(f"num_attention_heads is {heads}; expected a divisor of hidden_size, {width}")
    attention_bias, mlp_bias = (_flag(given, key, False) for key in ("attention_bias", "mlp_bias"))
    if attention_bias != mlp_bias:
        raise ValueError(
            f"attention_bias is {attention_bias} and mlp_bias is {mlp_bias}; only the same value for both is supported"
        )
    kv_heads = given.get("num_key_value_heads")
    head_width = None if given.get("head_dim") is None else _size(given, "head_dim")
    return {
        "vocab": _size(given, "vocab_size"),
        "context": _size(given, "max_position_embeddings"),
        "layers": layers,
        "heads": heads,
        "width": width,
        "hidden": _size(given, "intermediate_size"),
        "kv_heads": None if kv_heads is None else _arguments.size("num_key_value_heads", kv_heads),
        "head_width": None if head_width == width / heads else head_width,
        "attention_dropout": _arguments.rate("attention_dropout", given.get("attention_dropout") or 0.0),
        "norm": "rms",
        "positions": "rotary",
        "activation": "swiglu",
        "bias": attention_bias,
        "tied": _flag(given, "tie_word_embeddings", False),
        "norm_epsilon": _arguments.amount("rms_norm_eps", given.get("rms_norm_eps", 1e-6)),
        "initial_std": _arguments.amount("initializer_range", given.get("initializer_range", 0.02)),
        **_rope(given),
    }


def _qwen2_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    # Queries, keys and values always have biases, and no key says so.
    _refuse(given, {"attention_bias": None, "mlp_bias": None})
    return {**_llama_arguments(given), "qkv_bias": True}


def _qwen3_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    # The biases would be those of all four products of attention.
    _refuse(given, {"attention_bias": False, "mlp_bias": None})
    return {**_llama_arguments({"head_dim": 128, **given}), "qk_norm": True}


def _llama_keys(config: Config) -> dict[str, Any]:
    wanted = {"norm": "rms", "positions": "rotary", "activation": "swiglu"}
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(f"{name} is {getattr(config, name)!r}; Hugging Face's Llama has {value!r}")
    scaling = {key: getattr(config, argument) for argument, key in _arguments.ROPE_SCALING.items()}
    return {
        "vocab_size": config.vocab,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "head_dim": config.head_width or config.width // config.heads,
        "hidden_act": "silu",
        "attention_dropout": config.attention_dropout,
        "rms_norm_eps": config.norm_epsilon,
        "initializer_range": config.initial_std,
        "rope_theta": config.rope_theta,
        "rope_scaling": {"rope_type": "llama3", **scaling} if config.rope_factor != 1 else None,
    }


def _plain_llama_keys(config: Config) -> dict[str, Any]:
    return {**_llama_keys(config), "attention_bias": config.bias, "mlp_bias": config.bias}


def _qwen2_keys(config: Config) -> dict[str, Any]:
    keys = _llama_keys(config)
    if keys["head_dim"] * config.heads != config.width:
        raise ValueError(f"head_width is {config.head_width}; Hugging Face's Qwen2 has width / heads")
    return {**keys, "use_sliding_window": False}


def _qwen3_keys(config: Config) -> dict[str, Any]:
    if config.bias or config.qkv_bias:
        raise ValueError("qk_norm and biases; Hugging Face's Qwen3 has no biases")
    return {**_llama_keys(config), "attention_bias": False, "use_sliding_window": False}


def _llama_arrays(config: Config, parameters: Mapping[str, Float]) -> Iterable[tuple[str, Float]]:
    return parameters.items()


_LLAMA = Family(
    kind="llama",
    architectures=("LlamaForCausalLM", "LlamaModel"),
    prefix="model.",
    own_prefix="model.",
    embedding="model.embed_tokens.weight",
    layers="num_hidden_layers",
    needless=re.compile(r"model\.(layers\.[0-9]+\.self_attn\.)?rotary_emb\.inv_freq"),
    arguments=_llama_arguments,
    keys=_plain_llama_keys,
    arrays=_llama_arrays,
)
_QWEN2 = _LLAMA._replace(
    kind="qwen2",
    architectures=("Qwen2ForCausalLM", "Qwen2Model"),
    arguments=_qwen2_arguments,
    keys=_qwen2_keys,
)
_QWEN3 = _LLAMA._replace(
    kind="qwen3",
    architectures=("Qwen3ForCausalLM", "Qwen3Model"),
    arguments=_qwen3_arguments,
    keys=_qwen3_keys,
)
_FAMILIES = {family.kind: family for family in (_GPT2, _LLAMA, _QWEN2, _QWEN3)}


def family_of(given: Mapping[str, Any]) -> Family:
    """The family that a config.json belongs to. ValueError if it is not supported."""
    kind = given["model_type"]
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ValueError(f"model_type is {_arguments.brief(kind)}; expected one of {list(_FAMILIES)}")
    for name in given.get("architectures") or family.architectures:
        if name not in family.architectures:
            raise ValueError(
                f"architectures has {_arguments.brief(name)}; expected one of {list(family.architectures)}"
            )
    _refuse(given, {"quantization_config": None, "pruned_heads": None, "is_encoder_decoder": False})
    return family


def family_for(config: Config) -> Family:
    """The family of a configuration."""
    if config.is_gpt2:
        return _GPT2
    if config.qk_norm:
        return _QWEN3
    return _QWEN2 if config.qkv_bias and not config.bias else _LLAMA


def keys(config: Config) -> dict[str, Any]:
    """The keys of config.json, for Transformers 4 and 5."""
    if any(getattr(config, f"lora_{name}_rank") for name in MODULES):
        raise ValueError(
            "the model has adapters; save_adapter writes those, and merge_adapter makes a model without"
        )
    family = family_for(config)
    return {
        "architectures": [family.architectures[0]],
        "model_type": family.kind,
        **family.keys(config),
        # Always written: its default depends on the version.
        "tie_word_embeddings": config.tied,
        # The defaults would be tokens of GPT-2's own vocabulary.
        "bos_token_id": None,
        "eos_token_id": None,
    }
