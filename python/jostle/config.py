"""The configuration of a model."""

from __future__ import annotations

import os
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jostle import _arguments, _native


@dataclass(frozen=True, kw_only=True)
class Config:
    """A GPT-2 as nanoGPT trains it: pre-norm blocks, fused QKV, learned positions.

    Dropout rates are probabilities in [0, 1) and act in training only. There are four: for the sum of the embeddings,
    the attention weights, and the outputs of the two projections into the residual stream. `dropout` sets all four,
    `residual_dropout` the last two. A rate given by its own name takes precedence. `dataclasses.replace` passes every
    rate by its own name, so change those.

    vocab: V, the number of different tokens.
    context: the longest sequence that the model can attend to.
    layers: L, the number of blocks.
    heads: H, the number of attention heads; divides the width.
    width: C, the width of the residual stream.
    hidden: F, the hidden width of the MLP; 4C by default. `dataclasses.replace` keeps it.
    activation: "gelu" (exact, the default) or "gelu_tanh" (the form of GPT-2 and of Hugging Face's files).
    bias: whether products and norms have biases.
    tied: whether the head's matrix is the token embedding.
    norm_epsilon: added to the variance in every norm.

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
        object.__setattr__(self, "norm_epsilon", _arguments.float32("norm_epsilon", self.norm_epsilon))
        if self.hidden is None:
            object.__setattr__(
                self, "hidden", 4 * _arguments.integer("width", self.width, 1, _arguments.MOST_SIZE // 4)
            )
        for name in ("vocab", "context", "layers", "heads", "width", "hidden"):
            object.__setattr__(self, name, _arguments.size(name, getattr(self, name)))
        for name in ("bias", "tied"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}; expected True or False")
        # A file of another program does not say its activation: a default is then a guess.
        object.__setattr__(self, "_activation_is_default", self.activation is None)
        if self.activation is None:
            object.__setattr__(self, "activation", "gelu")
        if not isinstance(self.activation, str):
            raise TypeError(f"activation is {self.activation!r}; expected 'gelu' or 'gelu_tanh'")
        _native.validate(self)

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
