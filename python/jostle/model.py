"""A model: its parameters, its gradients, and everything computed with them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

import numpy as np

from jostle import _arguments, _arrays, _files, _native
from jostle._arrays import Float, Int
from jostle.config import Config
from jostle.tokenizers import Tokenizer

_MOST_THREADS = 1024


class Model:
    """A transformer. Its random initial values are a function of the seed alone.

    threads: how many threads compute; None for as many as the process may use. instruction_set: None for the fastest.
    Neither changes a bit of any result.

    frozen: parameters that are not trained, by name or by patterns like "h.0.*". They have no gradient and no optimizer
    state, and the backward pass ends at the first trained tensor. The other parameters get the same bits as in a
    training that restores the frozen values after every step. The set is fixed when the model is made; save and load
    the model to change it. The matrix of a tied head is "wte.weight".

    Several Python threads may use one model: their calls wait for each other. Different models compute in parallel.
    """

    def __init__(
        self,
        config: Config,
        seed: int = 1337,
        threads: int | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        instruction_set: str | None = None,
        frozen: Iterable[str] = (),
    ) -> None:
        self._make(config, seed, threads, tokenizer, instruction_set, frozen)
        self._engine.initialize(self.seed)

    def _make(
        self,
        config: Config,
        seed: int,
        threads: int | None,
        tokenizer: Tokenizer | None,
        instruction_set: str | None,
        frozen: Iterable[str],
    ) -> None:
        config = _arguments.instance("config", config, Config)
        if threads is None:
            threads = (
                len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            )
        threads = _arguments.integer("threads", threads, 1, _MOST_THREADS)
        if tokenizer is not None:
            vocab = _arguments.instance("tokenizer", tokenizer, Tokenizer).vocab
            if vocab != config.vocab:
                raise ValueError(f"the tokenizer has {vocab} tokens, the configuration {config.vocab}")
        if instruction_set is not None:
            _arguments.instance("instruction_set", instruction_set, str)
        self.config = config
        self.tokenizer = tokenizer
        self.seed = _arguments.seed("seed", seed)
        """The seed of initial values and of the dropout masks of `backward`."""
        self.frozen = _arguments.tensors("frozen", frozen, config)
        """The names of the parameters that are not trained."""
        self._engine = _native.Engine(config, threads, instruction_set, self.frozen)
        self._parameters = self._engine.parameters.array()
        self._gradients = self._engine.gradients.array()

    @property
    def parameters(self) -> Mapping[str, Float]:
        """Hugging Face GPT-2's name -> array: writable views, not copies, valid as long as anyone holds one.

        Frozen parameters are included and writable too: only training leaves them unchanged.
        """
        return self._views(self._parameters, frozen=True)

    @property
    def gradients(self) -> Mapping[str, Float]:
        """The gradients, as `parameters`, without the frozen ones."""
        return self._views(self._gradients, frozen=False)

    def _views(self, numbers: Float, *, frozen: bool) -> Mapping[str, Float]:
        views = {}
        for name, shape, offset, is_frozen in self._engine.tensors():
            if frozen or not is_frozen:
                views[name] = numbers[offset : offset + int(np.prod(shape))].reshape(shape)
        return MappingProxyType(views)

    @property
    def parameter_count(self) -> int:
        """The number of parameters, frozen ones included; a tied head counts once."""
        return self._parameters.size

    @property
    def threads(self) -> int:
        """The number of threads that compute."""
        return self._engine.threads

    @property
    def instruction_set(self) -> str:
        """The vector instructions in use: "portable", "neon", "avx2" or "avx512"."""
        return self._engine.instruction_set

    def logits(self, tokens: Any) -> Float:
        """Logits (B, T, V) of tokens (B, T), without dropout."""
        return self._engine.logits(_arrays.tokens("tokens", tokens, 2))

    def loss(self, tokens: Any, targets: Any) -> float:
        """The mean loss in nats on targets (B, T), without dropout; a target of -1 is ignored."""
        total, counted = self._engine.loss(
            _arrays.tokens("tokens", tokens, 2), _arrays.tokens("targets", targets, 2)
        )
        return total / counted if counted else 0.0

    def backward(self, tokens: Any, targets: Any, *, counted: int | None = None) -> float:
        """Forward and backward with dropout: adds to the gradients, returns the mean loss.

        The loss is the sum of all losses divided by `counted`: by default the number of targets here that are not -1.
        For micro-batches that together make one batch, pass the number in the whole batch. The gradients then have the
        bits of that batch.
        """
        tokens = _arrays.tokens("tokens", tokens, 2)
        targets = _arrays.tokens("targets", targets, 2)
        if counted is not None:
            counted = _arguments.size("counted", counted)
        total, here = self._engine.backward(tokens, targets, counted, self.seed)
        return total / here if here else 0.0

    def zero_gradients(self) -> None:
        """Sets all gradients to zero, before the first `backward` of a step."""
        self._engine.zero_gradients()

    def attention(self, tokens: Any) -> Float:
        """Attention weights (L, B, H, T, T) of tokens (B, T), without dropout, for inspection."""
        return self._engine.attention(_arrays.tokens("tokens", tokens, 2))

    def qkv(self, tokens: Any) -> Float:
        """Queries, keys and values (L, B, T, 3C) of tokens (B, T): the inputs of attention."""
        return self._engine.qkv(_arrays.tokens("tokens", tokens, 2))

    @overload
    def generate(
        self,
        tokens: Any,
        count: int,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        min_p: float | None = ...,
        seed: int = ...,
        stream: Literal[False] = ...,
    ) -> Int: ...

    @overload
    def generate(
        self,
        tokens: Any,
        count: int,
        temperature: float = ...,
        top_k: int | None = ...,
        top_p: float | None = ...,
        min_p: float | None = ...,
        seed: int = ...,
        *,
        stream: Literal[True],
    ) -> Iterator[int]: ...

    def generate(
        self,
        tokens: Any,
        count: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int = 0,
        stream: bool = False,
    ) -> Int | Iterator[int]:
        """Continues tokens (T,), at least one, by `count` tokens. Returns those, or with `stream` an iterator.

        temperature divides the logits; 0 takes the most probable token.
        top_k keeps that many tokens.
        top_p keeps the fewest tokens with that much probability (Holtzman et al. 2020).
        min_p keeps the tokens with at least that share of the greatest probability (Nguyen et al. 2024).

        A text longer than the context continues with a sliding window.
        """
        start = _arrays.tokens("tokens", tokens, 1)
        count = _arguments.count("count", count)
        temperature = _arguments.number("temperature", temperature)
        if top_k is not None:
            top_k = _arguments.size("top_k", top_k)
        if top_p is not None:
            top_p = _arguments.number("top_p", top_p)
        if min_p is not None:
            min_p = _arguments.number("min_p", min_p)
        seed = _arguments.seed("seed", seed)
        generator = _native.Generator(self._engine)
        generator.feed(start)
        # Drawing no token checks the settings now, not at the first token of a stream.
        generator.draw(0, temperature, top_k, top_p, min_p, seed, 0)
        if stream:
            return (
                generator.draw(1, temperature, top_k, top_p, min_p, seed, number)[0]
                for number in range(count)
            )
        return np.array(generator.draw(count, temperature, top_k, top_p, min_p, seed, 0), dtype=np.int32)

    def probabilities(self, tokens: Any) -> Float:
        """The probability (V,) of each token to follow tokens (T,). The model sees the last `context` of them."""
        logits = _native.Generator(self._engine).feed(_arrays.tokens("tokens", tokens, 1))
        return _native.softmax(logits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes configuration, parameters and tokenizer as safetensors. The file appears complete or not at all."""
        _files.write(path, _native.write_checkpoint(self._engine, None, self.seed, self._metadata()))

    def _metadata(self) -> list[tuple[str, str]]:
        if self.tokenizer is None:
            return []
        # In ASCII, because lone surrogates of a text have no UTF-8.
        return [("tokenizer", json.dumps(self.tokenizer.state()))]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        config: Config | None = None,
        threads: int | None = None,
        instruction_set: str | None = None,
        frozen: Iterable[str] = (),
        tokenizer: Tokenizer | None = None,
    ) -> Model:
        """Reads a model from a checkpoint, or, with its `config`, from any safetensors file with GPT-2's names.

        A file holds all parameters, whatever was frozen; `frozen` chooses anew. tokenizer: replaces the checkpoint's
        one, and is required if that is of a class of your own. Raises ValueError if the file is not such a file, was
        altered, or belongs to another model.

        jostle's metadata contains a checksum. A file that another program has rewritten therefore counts as altered as
        long as it keeps that metadata. Without metadata it is read with `config`.
        """
        data = Path(path).read_bytes()
        metadata = dict(_native.checkpoint_metadata(data))
        return cls._from_bytes(data, metadata, config, threads, instruction_set, frozen, tokenizer)

    @classmethod
    def _from_bytes(
        cls,
        data: bytes,
        metadata: Mapping[str, str],
        config: Config | None,
        threads: int | None,
        instruction_set: str | None,
        frozen: Iterable[str],
        tokenizer: Tokenizer | None,
    ) -> Model:
        if config is None:
            if "jostle.vocab" not in metadata:
                raise ValueError(
                    "the file does not say what the model is; expected a checkpoint of jostle's, or config="
                )
            config = Config(**_native.checkpoint_config(data))
        if tokenizer is None and "tokenizer" in metadata:
            tokenizer = Tokenizer.from_state(json.loads(metadata["tokenizer"]))
        model = cls.__new__(cls)
        model._make(config, 0, threads, tokenizer, instruction_set, frozen)
        seed = _native.read_checkpoint(data, model._engine, None)
        if seed is not None:
            model.seed = seed
        return model

    def __getstate__(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "seed": self.seed,
            "threads": self.threads,
            "tokenizer": self.tokenizer,
            "instruction_set": self.instruction_set,
            "frozen": self.frozen,
            "parameters": self._parameters.copy(),
            "gradients": self._gradients.copy(),
            "position": self._engine.position,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        instruction_set = state["instruction_set"]
        if instruction_set not in _native.instruction_sets():
            instruction_set = None
        self._make(
            state["config"],
            state["seed"],
            state["threads"],
            state["tokenizer"],
            instruction_set,
            state["frozen"],
        )
        self._parameters[:] = state["parameters"]
        self._gradients[:] = state["gradients"]
        self._engine.position = state["position"]

    def __repr__(self) -> str:
        return f"Model({self.config}, seed={self.seed}, threads={self.threads})"
