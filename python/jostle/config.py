"""The configuration of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jostle import _arguments, _native

# The matrices of a block that can have an adapter, by their names in a configuration.
MODULES = ("qkv", "q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A transformer of pre-norm blocks with causal attention. The defaults are a GPT-2's, as nanoGPT trains it; `Config.llama`
    has Llama's. Switches of both can be combined. The tensors of a GPT-2 have the names and shapes of Hugging Face's GPT-2,
    those of all other configurations Llama's.

    Dropout rates are probabilities in [0, 1) and act in training only. There are four: for the sum of the embeddings,
    the attention weights, and the outputs of the two projections into the residual stream. `dropout` sets all four,
    `residual_dropout` the last two. A rate given by its own name takes precedence. `dataclasses.replace` passes every
    rate by its own name, so change those.

    vocab: V, the number of different tokens.
    context: the longest sequence that the model can attend to.
    layers: L, the number of blocks.
    heads: H, the number of attention heads.
    width: C, the width of the residual stream.
    hidden: F, the hidden width of the MLP; 4C by default. `dataclasses.replace` keeps it.
    activation: "gelu" (exact, the default), "gelu_tanh" (the form of GPT-2 and of Hugging Face's files), or "swiglu"
    (Llama's gated MLP).
    bias: whether products and norms have biases.
    tied: whether the head's matrix is the token embedding.
    norm_epsilon: added to the variance in every norm.
    kv_heads: K, the number of heads of keys and values, each shared by H / K neighbouring query heads; None for H.
    head_width: D, the width of a head; None for C / H, which must be whole.
    norm: "layer" (GPT-2's), or "rms" (the root mean square, Llama's).
    positions: "learned" (a vector for each position), or "rotary" (queries and keys are rotated).
    rope_theta: the base of the wavelengths of rotary positions.
    rope_factor, rope_low_freq_factor, rope_high_freq_factor, rope_original_context: Llama 3's scaling of rotary positions.
    A factor of 1 scales nothing.
    qkv_bias: whether queries, keys and values have biases, even if no other product has (Qwen2).
    qk_norm: whether each head's queries and keys are normalised before the rotation (Qwen3).
    initial_std: the standard deviation of matrices before training.
    lora_q_rank, lora_q_alpha and so on: the adapters of matrices, of rank 0 if there is none; `jostle.LoRA` sets them.
    lora_rslora: whether alphas are divided by the root of the rank. lora_dropout: the rate on the inputs of adapters.

    Raises ValueError if the values do not describe a model. Raises TypeError for numbers of the wrong kind, and for a
    rate that has no effect.
    """

    vocab: int
    context: int
    layers: int
    heads: int
    width: int
    # The values below that are None when they are given are not None any more once the configuration is made.
    hidden: int = None  # type: ignore[assignment]
    dropout: InitVar[float | None] = None
    residual_dropout: InitVar[float | None] = None
    embedding_dropout: float = None  # type: ignore[assignment]
    attention_dropout: float = None  # type: ignore[assignment]
    attention_projection_dropout: float = None  # type: ignore[assignment]
    mlp_projection_dropout: float = None  # type: ignore[assignment]
    activation: str = None  # type: ignore[assignment]
    bias: bool = True
    tied: bool = True
    norm_epsilon: float = 1e-5
    kv_heads: int | None = None
    head_width: int | None = None
    norm: str = "layer"
    positions: str = "learned"
    rope_theta: float = 10_000.0
    rope_factor: float = 1.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_context: int = 8192
    qkv_bias: bool = False
    qk_norm: bool = False
    initial_std: float = 0.02
    lora_qkv_rank: int = 0
    lora_q_rank: int = 0
    lora_k_rank: int = 0
    lora_v_rank: int = 0
    lora_o_rank: int = 0
    lora_gate_rank: int = 0
    lora_up_rank: int = 0
    lora_down_rank: int = 0
    lora_qkv_alpha: float = 16.0
    lora_q_alpha: float = 16.0
    lora_k_alpha: float = 16.0
    lora_v_alpha: float = 16.0
    lora_o_alpha: float = 16.0
    lora_gate_alpha: float = 16.0
    lora_up_alpha: float = 16.0
    lora_down_alpha: float = 16.0
    lora_rslora: bool = False
    lora_dropout: float = 0.0

    if TYPE_CHECKING:
        _activation_is_default: ClassVar[bool]

        def __init__(
            self,
            *,
            vocab: int,
            context: int,
            layers: int,
            heads: int,
            width: int,
            hidden: int | None = None,
            dropout: float = 0.0,
            residual_dropout: float | None = None,
            embedding_dropout: float | None = None,
            attention_dropout: float | None = None,
            attention_projection_dropout: float | None = None,
            mlp_projection_dropout: float | None = None,
            activation: str = "gelu",
            bias: bool = True,
            tied: bool = True,
            norm_epsilon: float = 1e-5,
            kv_heads: int | None = None,
            head_width: int | None = None,
            norm: str = "layer",
            positions: str = "learned",
            rope_theta: float = 10_000.0,
            rope_factor: float = 1.0,
            rope_low_freq_factor: float = 1.0,
            rope_high_freq_factor: float = 4.0,
            rope_original_context: int = 8192,
            qkv_bias: bool = False,
            qk_norm: bool = False,
            initial_std: float = 0.02,
            lora_qkv_rank: int = 0,
            lora_q_rank: int = 0,
            lora_k_rank: int = 0,
            lora_v_rank: int = 0,
            lora_o_rank: int = 0,
            lora_gate_rank: int = 0,
            lora_up_rank: int = 0,
            lora_down_rank: int = 0,
            lora_qkv_alpha: float = 16.0,
            lora_q_alpha: float = 16.0,
            lora_k_alpha: float = 16.0,
            lora_v_alpha: float = 16.0,
            lora_o_alpha: float = 16.0,
            lora_gate_alpha: float = 16.0,
            lora_up_alpha: float = 16.0,
            lora_down_alpha: float = 16.0,
            lora_rslora: bool = False,
            lora_dropout: float = 0.0,
        ) -> None: ...

    def __post_init__(self, dropout: float | None, residual_dropout: float | None) -> None:
        general = ("dropout", dropout)
        residual = general if residual_dropout is None else ("residual_dropout", residual_dropout)
        unused = dict([general, residual])
        for name, (source, default) in {
            "embedding_dropout": general,
            "attention_dropout": general,
            "attention_projection_dropout": residual,
            "mlp_projection_dropout": residual,
        }.items():
            rate = getattr(self, name)
            if rate is None:
                unused.pop(source, None)
                rate = 0.0 if default is None else default
            given_as = source if default is not None and getattr(self, name) is None else name
            object.__setattr__(self, name, _arguments.rate(given_as, rate))
        for source, given in unused.items():
            if given is not None:
                raise TypeError(f"{source} is {given!r} and sets nothing: every rate is named by itself")
        for name in (
            "norm_epsilon",
            "rope_theta",
            "rope_factor",
            "rope_low_freq_factor",
            "rope_high_freq_factor",
            "initial_std",
            *(f"lora_{module}_alpha" for module in MODULES),
        ):
            object.__setattr__(self, name, _arguments.float32(name, getattr(self, name)))
        if self.hidden is None:
            object.__setattr__(
                self, "hidden", 4 * _arguments.integer("width", self.width, 1, _arguments.MOST_SIZE // 4)
            )
        for name in ("vocab", "context", "layers", "heads", "width", "hidden", "rope_original_context"):
            object.__setattr__(self, name, _arguments.size(name, getattr(self, name)))
        for name in ("kv_heads", "head_width"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _arguments.size(name, getattr(self, name)))
        for name in (f"lora_{module}_rank" for module in MODULES):
            object.__setattr__(
                self, name, _arguments.integer(name, getattr(self, name), 0, _arguments.MOST_SIZE)
            )
        object.__setattr__(self, "lora_dropout", _arguments.rate("lora_dropout", self.lora_dropout))
        for name in ("bias", "tied", "qkv_bias", "qk_norm", "lora_rslora"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}; expected True or False")
        # A file of another program does not say its activation: a default is then a guess.
        object.__setattr__(self, "_activation_is_default", self.activation is None)
        if self.activation is None:
            object.__setattr__(self, "activation", "gelu")
        for name in ("activation", "norm", "positions"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is {getattr(self, name)!r}; expected a name")
        _native.validate(self)

    @classmethod
    def llama(
        cls,
        *,
        vocab: int,
        context: int,
        layers: int,
        heads: int,
        width: int,
        hidden: int,
        kv_heads: int | None = None,
        head_width: int | None = None,
        rope_theta: float = 10_000.0,
        rope_scaling: Mapping[str, Any] | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        tied: bool = True,
        norm_epsilon: float = 1e-5,
        dropout: float = 0.0,
    ) -> Config:
        """Llama's choices: RMS norm, rotary positions, grouped queries, SwiGLU, no biases (Touvron et al. 2023).

        rope_scaling: Llama 3's scaling, with the keys of Hugging Face's config.json: rope_type "llama3", factor,
        low_freq_factor, high_freq_factor, original_max_position_embeddings. None for no scaling.

        `Config` describes the other arguments.
        """
        return cls(
            vocab=vocab,
            context=context,
            layers=layers,
            heads=heads,
            width=width,
            hidden=hidden,
            kv_heads=kv_heads,
            head_width=head_width,
            norm="rms",
            positions="rotary",
            activation="swiglu",
            bias=False,
            rope_theta=rope_theta,
            **_arguments.rope_scaling("rope_scaling", rope_scaling),
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            tied=tied,
            norm_epsilon=norm_epsilon,
            dropout=dropout,
        )

    @property
    def is_gpt2(self) -> bool:
        """Whether tensors have the names, shapes and order of Hugging Face's GPT-2. Otherwise they have Llama's."""
        return _native.is_gpt2(self)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Config:
        """The configuration in the config.json of a Hugging Face folder. ValueError, which names the key and its value, for
        a model that is not supported."""
        from jostle import _pretrained

        return _pretrained.read_config(Path(folder))[1]

    def to_hugging_face(self) -> dict[str, Any]:
        """The keys of config.json, as Transformers 4 and 5 read them. ValueError for what Hugging Face's models lack.

        A model without biases gets zeros as biases there.
        """
        from jostle import _families

        return _families.keys(self)
