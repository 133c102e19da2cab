"""Hugging Face's model families: what the keys of their config.json mean here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jostle import _arguments, _native
from jostle._arrays import Float
from jostle.config import Config


class Family(NamedTuple):
    """A family."""

    kind: str
    """Its model_type in config.json."""
    architectures: tuple[str, ...]
    """Its classes in Transformers. Files have the names of the first one's tensors."""
    prefix: str
    """What that class puts before the names of all tensors but the head's."""
    embedding: str
    """The name of the token embedding, without the prefix."""
    layers: str
    """The key of the number of blocks."""
    needless: re.Pattern[str]
    """The names of tensors that files may have beside the parameters."""
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]]
    """The arguments of `Config`, from the keys of config.json. ValueError for what is not supported."""
    keys: Callable[[Config], dict[str, Any]]
    """The reverse."""
    arrays: Callable[[Config, Mapping[str, Float]], Iterable[tuple[str, Float]]]
    """The arrays of a file, from a model's parameters."""


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
    embedding="wte.weight",
    layers="n_layer",
    needless=re.compile(r"h\.[0-9]+\.attn\.(bias|masked_bias)"),
    arguments=_gpt2_arguments,
    keys=_gpt2_keys,
    arrays=_gpt2_arrays,
)

_FAMILIES = {family.kind: family for family in (_GPT2,)}


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
    return _GPT2


def keys(config: Config) -> dict[str, Any]:
    """The keys of config.json, for Transformers 4 and 5."""
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
