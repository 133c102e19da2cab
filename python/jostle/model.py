"""A model: its parameters, its gradients, and everything computed with them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from jostle import _arguments, _arrays, _files, _generation, _native, _safetensors, adapters
from jostle._arrays import Float, Int
from jostle._checkpoint import CheckpointFile, understood
from jostle.adapters import LoRA
from jostle.config import Config
from jostle.tokenizers import PretrainedTokenizer, Tokenizer


class Arrays(Mapping[str, Float]):
    """A model's arrays by name. Setting an item copies numbers into its array."""

    def __init__(self, views: dict[str, Float]) -> None:
        self._views = views

    def __getitem__(self, name: str) -> Float:
        return self._views[name]

    def __setitem__(self, name: str, given: Any) -> None:
        if name not in self._views:
            raise KeyError(f"{name!r} is not a tensor of the model")
        view = self._views[name]
        # `arrays[name] -= step` has subtracted in place, and now sets the view to itself.
        if given is not view:
            array = np.asarray(given)
            if array.dtype != np.float32 or array.shape != view.shape:
                raise ValueError(
                    f"{name} is set to {array.dtype} of the shape {array.shape}; expected float32 of {view.shape}"
                )
            view[...] = array

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return f"Arrays({len(self)}: {', '.join(self)})"


def _check_tokenizer(tokenizer: Any, config: Config) -> None:
    if tokenizer is None:
        return
    vocab = _arguments.instance("tokenizer", tokenizer, Tokenizer).vocab
    # Models often have a few more tokens than their tokenizer, for a rounder size.
    fits = vocab <= config.vocab if isinstance(tokenizer, PretrainedTokenizer) else vocab == config.vocab
    if not fits:
        raise ValueError(f"the tokenizer has {vocab} tokens, the configuration {config.vocab}")


def _check_targets(targets: Int, vocab: int) -> None:
    """Refuses targets outside the vocabulary. The native error calls them tokens."""
    flat = targets.ravel()
    wrong = np.flatnonzero((flat < -1) | (flat >= vocab))
    if wrong.size:
        raise IndexError(
            f"target {flat[wrong[0]]} at index {wrong[0]}; use -1 for ignored targets, and tokens of the vocabulary"
            f" of {vocab}"
        ) from None


def _windows(text: npt.NDArray[Any], context: int) -> Iterator[tuple[Int, Int]]:
    """Inputs and targets (1, T) that predict every token but the first once."""
    for first in range(0, len(text) - 1, context):
        window = text[first : first + context + 1].astype(np.int32)[None]
        yield np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:])


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
        threads = _arguments.threads(threads)
        _check_tokenizer(tokenizer, config)
        if instruction_set is not None:
            _arguments.instance("instruction_set", instruction_set, str)
        self._config = config
        self._tokenizer = tokenizer
        self._seed = _arguments.seed("seed", seed)
        self._frozen = _arguments.tensors("frozen", frozen, config)
        self._engine = _native.Engine(config, threads, instruction_set, self._frozen)
        self._parameters = self._engine.parameters.array()
        self._gradients = self._engine.gradients.array()

    @property
    def config(self) -> Config:
        """The configuration. It cannot be changed."""
        return self._config

    @property
    def seed(self) -> int:
        """The seed of initial values and of the dropout masks of `backward`. It cannot be changed."""
        return self._seed

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the parameters that are not trained. They cannot be changed."""
        return self._frozen

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, which `save` keeps. It can be set to another one with as many tokens."""
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer | None) -> None:
        _check_tokenizer(tokenizer, self._config)
        self._tokenizer = tokenizer

    @property
    def parameters(self) -> Arrays:
        """Hugging Face GPT-2's name -> array: writable views, not copies, valid as long as anyone holds one.

        `model.parameters[name] = array` copies float32 numbers of the same shape into the model.

        Frozen parameters are included and writable too: only training leaves them unchanged.
        """
        return self._views(self._parameters, frozen=True)

    @property
    def gradients(self) -> Arrays:
        """The gradients, as `parameters`, without the frozen ones."""
        return self._views(self._gradients, frozen=False)

    def _views(self, numbers: Float, *, frozen: bool) -> Arrays:
        views = {}
        for name, shape, offset, is_frozen in self._engine.tensors():
            if frozen or not is_frozen:
                views[name] = numbers[offset : offset + int(np.prod(shape))].reshape(shape)
        return Arrays(views)

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
        """Logits (B, T, V) of tokens (B, T), without dropout. Ctrl-C, and other threads' calls, may come between parts of
        more than 16,384 tokens."""
        return self._engine.logits(_arrays.tokens("tokens", tokens, 2))

    def loss(self, tokens: Any, targets: Any) -> float:
        """The mean loss in nats on targets (B, T), without dropout; a target of -1 is ignored."""
        tokens = _arrays.tokens("tokens", tokens, 2)
        targets = _arrays.tokens("targets", targets, 2)
        try:
            total, counted = self._engine.loss(tokens, targets)
        except IndexError:
            _check_targets(targets, self._config.vocab)
            raise
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
        try:
            total, here = self._engine.backward(tokens, targets, counted, self._seed)
        except IndexError:
            _check_targets(targets, self._config.vocab)
            raise
        return total / here if here else 0.0

    def zero_gradients(self) -> None:
        """Sets all gradients to zero, before the first `backward` of a step."""
        self._engine.zero_gradients()

    def attention(self, tokens: Any) -> Float:
        """Attention weights (L, B, H, T, T) of tokens (B, T), without dropout, for inspection."""
        return self._engine.attention(_arrays.tokens("tokens", tokens, 2))

    def qkv(self, tokens: Any) -> Float:
        """Queries, keys and values (L, B, T, H D + 2 K D) of tokens (B, T): the inputs of attention, rotated if positions
        are rotary."""
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
        *,
        stop: int | str | Iterable[int | str] = ...,
        repetition_penalty: float = ...,
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
        stop: int | str | Iterable[int | str] = ...,
        repetition_penalty: float = ...,
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
        *,
        stop: int | str | Iterable[int | str] = (),
        repetition_penalty: float = 1.0,
    ) -> Int | Iterator[int]:
        """Continues tokens (T,), at least one, by `count` tokens. Returns those, or with `stream` an iterator.

        temperature divides the logits; 0 takes the most probable token.
        top_k keeps that many tokens.
        top_p keeps the fewest tokens with that much probability (Holtzman et al. 2020).
        min_p keeps the tokens with at least that share of the greatest probability (Nguyen et al. 2024).
        stop: tokens and strings that end the text. They are not part of it. Strings need the model's tokenizer.
        repetition_penalty divides the positive logits of tokens that the text has, and multiplies the negative ones
        (Keskar et al. 2019).

        A text longer than the context continues with a sliding window.
        """
        start = _arrays.tokens("tokens", tokens, 1)
        count = _arguments.count("count", count)
        settings = _generation.Settings.checked(temperature, top_k, top_p, min_p, seed)
        penalty = _arguments.amount("repetition_penalty", repetition_penalty)
        if penalty == 0:
            raise ValueError("repetition_penalty must be more than 0")
        stops = _generation.Stops(stop, self.tokenizer)
        generator = _native.Generator(self._engine)
        logits = generator.feed(start)
        # Drawing no token checks the settings now, not at the first token of a stream.
        generator.draw(0, *settings, 0)
        drawn = stops.cut(_generation.draw(generator, start, logits, count, settings, penalty))
        return drawn if stream else np.fromiter(drawn, np.int32)

    def generate_batch(
        self,
        prompts: Iterable[Any],
        count: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int = 0,
        *,
        stop: int | Iterable[int] = (),
    ) -> list[Int]:
        """Continues several prompts (T,), of unlike lengths, each on a thread of its own. Each gets the tokens
        of `generate` with its own seed: `seed`, `seed` + 1 and so on. stop: tokens that end a text."""
        starts = [_arrays.tokens("tokens", prompt, 1) for prompt in prompts]
        count = _arguments.count("count", count)
        settings = _generation.Settings.checked(temperature, top_k, top_p, min_p, seed)
        stops = _generation.Stops(stop, None)
        drawn = _native.generate_together(
            self._engine, starts, count, settings[:4], settings.seed, sorted(stops.tokens)
        )
        return [np.fromiter(stops.cut(iter(tokens)), np.int32) for tokens in drawn]

    def log_probabilities(self, tokens: Any) -> Float:
        """The logarithm of the probability (T - 1,) of each token but the first of tokens (T,), given those before it.

        A text longer than the context is cut into windows, which do not see each other.
        """
        text = _arrays.tokens("tokens", tokens, 1)
        if len(text) < 2:
            raise ValueError(f"tokens has {len(text)} tokens; at least 2 are needed")
        parts = []
        for inputs, targets in _windows(text, self._config.context):
            logits = self._engine.logits(inputs)
            parts.append(-_native.cross_entropy(logits, targets)[0])
        return np.concatenate(parts)

    def perplexity(self, text: Any) -> float:
        """The exponential of the mean loss on a text: tokens (T,), or a string if the model has a tokenizer. A text longer
        than the context is cut into windows, which do not see each other."""
        if isinstance(text, str):
            if self.tokenizer is None:
                raise ValueError("the model has no tokenizer to make tokens of the text")
            text = self.tokenizer.encode(text)
        tokens = _arrays.text("text", text, self._config.vocab)
        if len(tokens) < 2:
            raise ValueError(f"text has {len(tokens)} tokens; at least 2 are needed")
        total = sum(
            self._engine.loss(inputs, targets)[0]
            for inputs, targets in _windows(tokens, self._config.context)
        )
        return float(np.exp(total / (len(tokens) - 1)))

    def probabilities(self, tokens: Any) -> Float:
        """The probability (V,) of each token to follow tokens (T,). The model sees the last `context` of them."""
        logits = _native.Generator(self._engine).feed(_arrays.tokens("tokens", tokens, 1))
        return _native.softmax(logits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes configuration, parameters and tokenizer as safetensors. The file appears complete or not at all."""
        self._save(path, None, self.seed, [])

    def _save(
        self,
        path: str | os.PathLike[str],
        state: tuple[str, _native.State] | None,
        seed: int,
        metadata: list[tuple[str, str]],
    ) -> None:
        metadata = [*self._metadata(), *metadata]
        with _files.replacing(path) as partial:
            _native.write_checkpoint(os.fspath(partial), self._engine, state, seed, metadata)

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

        With `config`, the file must have exactly the model's tensors. Two others are accepted: causal masks, and a
        `lm_head.weight` that equals `wte.weight`.

        jostle's metadata contains a checksum. A file that another program has rewritten therefore counts as altered as
        long as it keeps that metadata. Without metadata it is read with `config`.
        """
        file = CheckpointFile.read(path)
        model = cls._from_file(file, config, threads, instruction_set, frozen, tokenizer)
        seed = file.native.read(model._engine, None)
        if seed is not None:
            model._seed = seed
        return model

    @classmethod
    def _from_file(
        cls,
        file: CheckpointFile,
        config: Config | None,
        threads: int | None,
        instruction_set: str | None,
        frozen: Iterable[str],
        tokenizer: Tokenizer | None,
    ) -> Model:
        """A model whose parameters are still to be read from the file. They exist there, with the right shapes."""
        is_own = "jostle.vocab" in file.metadata
        if config is None:
            if not is_own:
                raise ValueError("the file has no configuration; in Python, pass config=")
            config = file.config()
        elif not is_own and _arguments.instance("config", config, Config)._activation_is_default:
            warnings.warn(
                "the file does not say its activation, and config= leaves it at the exact 'gelu'; files of Hugging"
                " Face's GPT-2 need activation='gelu_tanh'; give either to silence this warning",
                stacklevel=3,
            )
        file.native.check(_arguments.instance("config", config, Config))
        if tokenizer is None and "tokenizer" in file.metadata:
            with file.parse("tokenizer") as state:
                tokenizer = Tokenizer.from_state(state)
        model = cls.__new__(cls)
        model._make(config, 0, threads, tokenizer, instruction_set, frozen)
        return model

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        frozen: Iterable[str] = (),
        threads: int | None = None,
        adapter: LoRA | str | os.PathLike[str] | None = None,
    ) -> Model:
        """Reads a model from a Hugging Face folder: config.json, model.safetensors or its shards, and tokenizer.json if
        there is one.

        adapter: `jostle.LoRA` adds new adapters, which change nothing before they are trained. A folder of PEFT or mlx-lm
        adds those in it. Everything else is frozen then.

        Numbers may be F32, F16 or BF16. Nothing is downloaded. `docs/models.md` lists the models that are supported.
        A tokenizer needs the extra jostle[hf]. ValueError, which names the file and the key, for everything else.
        """
        from jostle import _pretrained

        source = _pretrained.Folder(folder)
        model = cls.__new__(cls)
        if adapter is None:
            model._make(source.config, 1337, threads, source.tokenizer, None, frozen)
            source.read(model.parameters)
            return model
        if tuple(frozen):
            raise TypeError("frozen is given beside adapter, which freezes everything else")
        own = adapter if isinstance(adapter, LoRA) else adapters.Folder(adapter, source.config)
        config = own.on(source.config) if isinstance(own, LoRA) else own.config
        names = adapters.base_tensors(config)
        model._make(config, 1337, threads, source.tokenizer, None, names)
        parameters = model.parameters
        source.read({name: parameters[name] for name in names})
        if isinstance(own, LoRA):
            model._engine.initialize_trained(model.seed)
        else:
            own.read(parameters)
        return model

    def save_adapter(self, folder: str | os.PathLike[str]) -> None:
        """Writes the adapters in PEFT's format: adapter_config.json and adapter_model.safetensors. Each file appears complete
        or not at all. ValueError if the model has no adapters, or if other parameters are trained too."""
        adapters.save(self, folder)

    def merge_adapter(self) -> Model:
        """A model without adapters, whose matrices contain them: W + s B A. This model does not change."""
        if not adapters.ranks(self.config):
            raise ValueError("the model has no adapters to merge")
        model = type(self).__new__(type(self))
        config = adapters.base(self.config)
        model._make(config, self.seed, self.threads, self.tokenizer, self.instruction_set, ())
        adapters.merge(self, model.parameters)
        return model

    def save_pretrained(self, folder: str | os.PathLike[str], dtype: str = "f32") -> None:
        """Writes a Hugging Face folder, which Transformers loads: config.json, model.safetensors, and the files of the
        tokenizer.

        dtype: "f32", "bf16" or "f16". Numbers are rounded to nearest, ties to even. ValueError for a number that is too
        large for the type. Each file appears complete or not at all, config.json last.
        """
        from jostle import _pretrained

        _pretrained.save(self, folder, dtype)

    @classmethod
    def from_llama2c(
        cls,
        path: str | os.PathLike[str],
        *,
        tokenizer: Tokenizer | None = None,
        frozen: Iterable[str] = (),
        threads: int | None = None,
    ) -> Model:
        """Reads a model file of llama2.c, of version 0 or 1. `Tokenizer.load` reads the tokenizer, which is a file of its own.

        ValueError for another file, or one whose length is not what its header states.
        """
        _safetensors.refuse_special(Path(path))
        file = Path(path).read_bytes()
        model = cls.__new__(cls)
        with understood(os.fspath(path)):
            config = Config(**_native.llama2c_config(file))
        model._make(config, 1337, threads, tokenizer, None, frozen)
        _native.read_llama2c(file, model._engine)
        return model

    def save_llama2c(self, path: str | os.PathLike[str], version: int = 0) -> None:
        """Writes a model file of llama2.c, without the tokenizer. The file appears complete or not at all.

        version: 0, which llama2.c runs, or 1. ValueError for a model that such files cannot describe: they have Llama's
        choices, theta 10,000 and epsilon 1e-5.
        """
        version = _arguments.integer("version", version, 0, 1)
        _files.write(path, _native.write_llama2c(self._engine, version == 0))

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
