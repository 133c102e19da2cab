"""Low-rank adapters: their settings, PEFT's files, and merging."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jostle import _arguments, _families, _files, _native, _safetensors, ops
from jostle._arrays import Float
from jostle._checkpoint import understood
from jostle.config import MODULES, Config

if TYPE_CHECKING:
    from jostle.model import Model

_GPT2 = {"qkv": "attn.c_attn", "o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
_ATTENTION = {name: f"self_attn.{name}_proj" for name in "qkvo"}
_LLAMA = _ATTENTION | {name: f"mlp.{name}_proj" for name in ("gate", "up", "down")}
"""The matrices that can have an adapter: their names in a configuration, and in a block."""

_ALL = "all-linear"
_CONFIG, _WEIGHTS, _MLX_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapters.safetensors"
_PREFIX = "base_model.model."
_MOST_CONFIG = 1 << 20


def modules(config: Config) -> dict[str, str]:
    """The matrices of a model's blocks that can have an adapter: their names in a configuration, and in a block."""
    if config.is_gpt2:
        return _GPT2
    return {name: path for name, path in _LLAMA.items() if name != "gate" or config.activation == "swiglu"}


def ranks(config: Config) -> dict[str, int]:
    """The ranks of a model's adapters, by the names of matrices in a configuration."""
    found = {name: getattr(config, f"lora_{name}_rank") for name in MODULES}
    return {name: rank for name, rank in found.items() if rank}


def base(config: Config) -> Config:
    """The configuration without adapters."""
    return dataclasses.replace(config, **_fields({}, {}, False, 0.0))


def _fields(
    ranks: Mapping[str, int], alphas: Mapping[str, float], rslora: bool, dropout: float
) -> dict[str, Any]:
    """The arguments of `Config` for adapters."""
    return {
        **{f"lora_{name}_rank": ranks.get(name, 0) for name in MODULES},
        **{f"lora_{name}_alpha": alphas.get(name, 16.0) for name in MODULES},
        "lora_rslora": rslora,
        "lora_dropout": dropout,
    }


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021): a matrix W becomes W + s B A, and only A and B are trained.

    rank: the rows of A; at most each side of the matrices.
    alpha: s is alpha divided by the rank.
    targets: the matrices that get an adapter, by the ends of their names, as PEFT's `target_modules`; or "all-linear" for
    all matrices of the blocks.
    dropout: the rate of dropout on the inputs of A, in training.
    rslora: whether s is alpha divided by the root of the rank (Kalajdzievski 2023).
    """

    rank: int = 8
    alpha: float = 16.0
    targets: str | tuple[str, ...] = ("q_proj", "v_proj")
    dropout: float = 0.0
    rslora: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", _arguments.size("rank", self.rank))
        object.__setattr__(self, "alpha", _arguments.amount("alpha", self.alpha))
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha is {self.alpha}; expected a finite number of more than 0")
        object.__setattr__(self, "dropout", _arguments.rate("dropout", self.dropout))
        if not isinstance(self.rslora, bool):
            raise TypeError(f"rslora is {self.rslora!r}; expected True or False")
        if self.targets != _ALL:
            if isinstance(self.targets, str):
                raise TypeError(f"targets is {self.targets!r}; expected names of matrices, or {_ALL!r}")
            targets = tuple(self.targets)
            if not targets or not all(isinstance(target, str) for target in targets):
                raise TypeError(f"targets is {self.targets!r}; expected names of matrices, or {_ALL!r}")
            object.__setattr__(self, "targets", targets)

    def on(self, config: Config) -> Config:
        """A model's configuration with these adapters. ValueError for targets that the model does not have."""
        known = modules(config)
        chosen = list(known) if self.targets == _ALL else []
        for target in () if self.targets == _ALL else self.targets:
            found = [name for name, path in known.items() if _ends(path, target)]
            if not found:
                ends = sorted(path.rsplit(".", 1)[-1] for path in known.values())
                raise ValueError(
                    f"targets has {target!r}, which matches no matrix of the model's blocks; expected some of"
                    f" {list(dict.fromkeys(ends))} or {_ALL!r}"
                )
            chosen += found
        names = dict.fromkeys(chosen)
        ranks, alphas = dict.fromkeys(names, self.rank), dict.fromkeys(names, self.alpha)
        return dataclasses.replace(config, **_fields(ranks, alphas, self.rslora, self.dropout))


def _ends(path: str, end: str) -> bool:
    """Whether a matrix's name ends with whole words."""
    return f".{path}".endswith(f".{end}")


def base_tensors(config: Config) -> list[str]:
    """The names of all tensors except the matrices of adapters."""
    return [name for name, _ in _native.tensors(base(config))]


class Folder:
    """An adapter in a folder of PEFT or mlx-lm, for a model. ValueError if it does not fit the model."""

    def __init__(self, folder: str | os.PathLike[str], config: Config) -> None:
        from jostle import _pretrained

        self.path = Path(folder)
        given = _pretrained.read_object(self.path / _CONFIG, _MOST_CONFIG)
        self._is_mlx = not (self.path / _WEIGHTS).exists() and (self.path / _MLX_WEIGHTS).exists()
        self._file = self.path / (_MLX_WEIGHTS if self._is_mlx else _WEIGHTS)
        self._found = self._own_names(_safetensors.tensors(self._file), config)
        with understood(os.fspath(self.path / _CONFIG)):
            layers = _mlx_layers(given, config) if self._is_mlx else _peft_layers(given, config)
            ranks = self._ranks(config, layers)
            self.config = dataclasses.replace(
                config, **(_mlx if self._is_mlx else _peft)(given, config, ranks)
            )
        self._check(layers)

    def _own_names(
        self, tensors: Mapping[str, _safetensors.Tensor], config: Config
    ) -> dict[str, _safetensors.Tensor]:
        """The tensors by the model's own names."""
        family, found = _families.family_for(config), {}
        for name, tensor in tensors.items():
            for wrong, what in (
                ("lora_magnitude_vector", "DoRA"),
                ("lora_embedding_", "adapters of embeddings"),
                ("lm_head.", "adapters of the head"),
                ("embed_tokens.", "adapters of embeddings"),
                (".lora_m", "DoRA"),
            ):
                if wrong in name:
                    raise ValueError(
                        f"{self._file}: {name:.80}: {what} are not supported".replace("DoRA are", "DoRA is")
                    )
            own = name.removeprefix(_PREFIX)
            if self._is_mlx:
                own = re.sub(r"\.lora_([ab])$", lambda end: f".lora_{end[1].upper()}.weight", own)
            found[family.own_name(own)] = tensor
        return found

    def _ranks(self, config: Config, layers: set[int]) -> dict[str, int]:
        """The rank of each matrix that has adapters."""
        prefix = "h" if config.is_gpt2 else "model.layers"
        ranks: dict[str, int] = {}
        for name, path in modules(config).items():
            sides = {
                tensor.shape[1 if self._is_mlx else 0]
                for layer in layers
                if (tensor := self._found.get(f"{prefix}.{layer}.{path}.lora_A.weight"))
                and len(tensor.shape) == 2
            }
            if len(sides) > 1:
                raise ValueError(
                    f"{path} has adapters of the ranks {sorted(sides)}; expected one rank in all layers"
                )
            if sides:
                ranks[name] = sides.pop()
        if not ranks:
            names = ", ".join(f"{name:.80}" for name in list(self._found)[:3])
            raise ValueError(f"the model has no matrix for the adapters in {self._file.name}: {names}")
        return ranks

    def _check(self, layers: set[int]) -> None:
        """Refuses files that do not have exactly the adapters' tensors."""
        plain = set(base_tensors(self.config))
        wanted = {name: shape for name, shape in _native.tensors(self.config) if name not in plain}
        self._absent = []
        for name, shape in wanted.items():
            tensor = self._found.get(name)
            if tensor is None:
                if int(re.sub(r"^(h|model\.layers)\.([0-9]+)\..*", r"\2", name)) in layers:
                    raise ValueError(f"{self._file}: {name} is missing")
                self._absent.append(name)
                continue
            shape = shape[::-1] if self._is_mlx else shape
            if tensor.dtype not in _safetensors.SIZES:
                raise ValueError(f"{self._file}: {name} is {tensor.dtype!r:.80}; expected F32, F16 or BF16")
            if tensor.shape != shape:
                raise ValueError(
                    f"{self._file}: {name} has shape {tensor.shape}; the base makes it {shape}: is it another model's?"
                )
        unknown = [name for name in self._found if name not in wanted]
        if unknown:
            raise ValueError(f"{self._file}: the model does not have {unknown[0]:.80}")

    def read(self, parameters: Mapping[str, Float]) -> None:
        """Fills a model's adapters. Layers that have none get zeros, which have no effect and stay zeros."""
        for name, tensor in self._found.items():
            numbers = np.concatenate([numbers for _, numbers in tensor.blocks()] or [np.zeros(0, np.float32)])
            array = numbers.reshape(tensor.shape)
            parameters[name][...] = array.T if self._is_mlx else array
        for name in self._absent:
            parameters[name][...] = 0


def _number(given: Mapping[str, Any], key: str, default: float) -> float:
    value = _arguments.amount(key, given.get(key, default))
    if not 0 < value < math.inf:
        raise ValueError(f"{key} is {value}; expected a finite number of more than 0")
    return value


_UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "biases of adapters",
    "modules_to_save": "modules_to_save",
    "trainable_token_indices": "trainable_token_indices",
    "target_parameters": "target_parameters",
    "layer_replication": "layer_replication",
    "alora_invocation_tokens": "aLoRA",
    "use_qalora": "QALoRA",
}
"""Keys in PEFT's configuration that must be false or absent, and their meanings."""


def _peft_layers(given: Mapping[str, Any], config: Config) -> set[int]:
    """The layers that have adapters."""
    layers = given.get("layers_to_transform")
    if layers is None:
        return set(range(config.layers))
    layers = [layers] if isinstance(layers, int) else layers
    return {_arguments.integer("layers_to_transform", layer, 0, config.layers - 1) for layer in layers}


def _peft(given: Mapping[str, Any], config: Config, ranks: Mapping[str, int]) -> dict[str, Any]:
    if given.get("peft_type") != "LORA":
        raise ValueError(f"peft_type is {_arguments.brief(given.get('peft_type'))}; expected 'LORA'")
    for key, what in _UNSUPPORTED.items():
        if given.get(key):
            raise ValueError(f"{key} is {_arguments.brief(given[key])}; {what}: not supported")
    if given.get("bias", "none") != "none":
        raise ValueError(f"bias is {_arguments.brief(given['bias'])}; expected 'none'")
    start = given.get("init_lora_weights", True)
    if isinstance(start, str) and start.startswith(("pissa", "olora", "loftq", "corda")):
        raise ValueError(
            f"init_lora_weights is {start!r:.80}, which changes the base; convert the adapter first"
        )
    alpha, patterns = _number(given, "lora_alpha", 8), given.get("alpha_pattern") or {}
    paths = modules(config)
    for key in patterns:
        # PEFT takes regular expressions, too. They may take any time, and name single layers.
        if not any(_ends(path, key) for path in paths.values()):
            raise ValueError(f"alpha_pattern has {key!r:.80}, which is the end of no matrix's name")
    alphas = {}
    for name in ranks:
        # As in PEFT: the first that ends the name.
        own = [key for key in patterns if _ends(paths[name], key)]
        alphas[name] = _number(patterns, own[0], alpha) if own else alpha
    dropout = _arguments.rate("lora_dropout", given.get("lora_dropout", 0.0))
    return _fields(
        ranks, alphas, _arguments.instance("use_rslora", given.get("use_rslora", False), bool), dropout
    )


def _mlx_layers(given: Mapping[str, Any], config: Config) -> set[int]:
    count = given.get("num_layers", config.layers)
    count = config.layers if count == -1 else _arguments.integer("num_layers", count, 1, config.layers)
    return set(range(config.layers - count, config.layers))


def _mlx(given: Mapping[str, Any], config: Config, ranks: Mapping[str, int]) -> dict[str, Any]:
    if given.get("fine_tune_type", "lora") != "lora":
        raise ValueError(f"fine_tune_type is {_arguments.brief(given['fine_tune_type'])}; expected 'lora'")
    parameters = given["lora_parameters"]
    scale = _number(parameters, "scale", 20.0)
    alphas = {name: scale * rank for name, rank in ranks.items()}
    return _fields(ranks, alphas, False, _arguments.rate("dropout", parameters.get("dropout", 0.0)))


def _common(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def save(model: Model, folder: str | os.PathLike[str]) -> None:
    """Writes PEFT's files."""
    config = model.config
    found = ranks(config)
    if not found:
        raise ValueError("the model has no adapters to save")
    trained = [name for name in base_tensors(config) if name not in model.frozen]
    if trained:
        raise ValueError(f"{trained[0]} is trained too, and an adapter's files have no place for it")
    paths = modules(config)
    alphas = {name: _whole(getattr(config, f"lora_{name}_alpha")) for name in found}
    rank, alpha = _common(found.values()), _common(alphas.values())
    family = _families.family_for(config)
    # The ends of names that no other matrix has.
    short = {name: path if config.is_gpt2 else path.rsplit(".", 1)[-1] for name, path in paths.items()}
    keys = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": config.lora_dropout,
        "use_rslora": config.lora_rslora,
        "target_modules": [short[name] for name in found],
        "rank_pattern": {short[name]: value for name, value in found.items() if value != rank},
        "alpha_pattern": {short[name]: value for name, value in alphas.items() if value != alpha},
        "fan_in_fan_out": config.is_gpt2,
        "bias": "none",
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
    }
    arrays = {
        _PREFIX + family.file_name(name): array
        for name, array in model.parameters.items()
        if ".lora_" in name
    }
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    _safetensors.write(path / _WEIGHTS, arrays, "F32")
    _files.write(path / _CONFIG, (json.dumps(keys, indent=2) + "\n").encode())


def merge(model: Model, merged: Mapping[str, Float]) -> None:
    """Fills the arrays of a model without adapters."""
    config, given = model.config, model.parameters
    for name, array in merged.items():
        array[...] = given[name]
    for name, rank in ranks(config).items():
        alpha = np.float32(getattr(config, f"lora_{name}_alpha"))
        scale = alpha / np.sqrt(np.float32(rank)) if config.lora_rslora else alpha / np.float32(rank)
        path = modules(config)[name]
        for layer in range(config.layers):
            matrix = f"{'h' if config.is_gpt2 else 'model.layers'}.{layer}.{path}"
            change = ops.matmul(given[f"{matrix}.lora_B.weight"], given[f"{matrix}.lora_A.weight"]) * scale
            merged[f"{matrix}.weight"][...] += change.T if config.is_gpt2 else change
