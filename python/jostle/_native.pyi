from typing import Any, final

import numpy as np
import numpy.typing as npt

from jostle.config import Config

__all__ = [
    "Buffer",
    "Engine",
    "Generator",
    "State",
    "Training",
    "attention",
    "attention_backward",
    "attention_dropout",
    "check_optimizer",
    "checkpoint_config",
    "checkpoint_metadata",
    "cross_entropy",
    "cross_entropy_backward",
    "defines",
    "dropout",
    "gelu",
    "gelu_backward",
    "instruction_sets",
    "layer_norm",
    "layer_norm_backward",
    "matmul",
    "plan",
    "read_checkpoint",
    "softmax",
    "softmax_backward",
    "tensor_names",
    "validate",
    "write_checkpoint",
]

_Float = npt.NDArray[np.float32]
_Int = npt.NDArray[np.int32]
_Text = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | _Int
# Rate, seed, step, layer, sequence.
_Mask = tuple[float, int, int, int, int]

@final
class Buffer:
    def __new__(cls, length: int) -> Buffer: ...
    def __len__(self) -> int: ...
    def array(self) -> _Float: ...

@final
class State:
    steps: int
    def __new__(cls, engine: Engine, kind: str) -> State: ...
    @property
    def numbers(self) -> Buffer: ...

@final
class Engine:
    position: tuple[int, int]
    def __new__(
        cls, config: Config, threads: int, instruction_set: str | None, frozen: tuple[str, ...]
    ) -> Engine: ...
    @property
    def instruction_set(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def parameters(self) -> Buffer: ...
    @property
    def gradients(self) -> Buffer: ...
    def tensors(self) -> list[tuple[str, list[int], int, bool]]: ...
    def initialize(self, seed: int) -> None: ...
    def zero_gradients(self) -> None: ...
    def logits(self, tokens: _Int) -> _Float: ...
    def loss(self, tokens: _Int, targets: _Int) -> tuple[float, int]: ...
    def backward(self, tokens: _Int, targets: _Int, counted: int | None, seed: int) -> tuple[float, int]: ...
    def qkv(self, tokens: _Int) -> _Float: ...
    def attention(self, tokens: _Int) -> _Float: ...
    def update(
        self, optimizer: str, numbers: list[float], state: State, learning_rate: float, clip: float | None
    ) -> float: ...

@final
class Training:
    def __new__(
        cls,
        engine: Engine,
        state: State,
        optimizer: str,
        numbers: list[float],
        batch: tuple[int, bool, bool],
        schedule: tuple[str, float, int, int, int, float],
        clip: float | None,
        accumulate: int,
        seed: int,
    ) -> Training: ...
    def step(self, text: _Text) -> tuple[float, float, float]: ...
    def evaluate(self, text: _Text) -> float: ...

@final
class Generator:
    def __new__(cls, engine: Engine) -> Generator: ...
    def feed(self, tokens: _Int) -> _Float: ...
    def draw(
        self,
        count: int,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        min_p: float | None,
        seed: int,
        number: int,
    ) -> list[int]: ...

def validate(config: Config) -> None: ...
def tensor_names(config: Config) -> list[str]: ...
def plan(
    config: Config,
    batch: int,
    threads: int,
    optimizer: str,
    recompute: bool,
    fused: bool,
    frozen: tuple[str, ...],
    budget: int | None,
) -> tuple[int, int, bool, int, bool, dict[str, int]]: ...
def defines(
    config: Config,
    batch: int,
    threads: int,
    optimizer: str,
    recompute: bool,
    fused: bool,
    frozen: tuple[str, ...],
    device: bool,
    prefix: str,
    command: str,
) -> str: ...
def instruction_sets() -> list[str]: ...
def check_optimizer(name: str, numbers: list[float]) -> None: ...
def write_checkpoint(
    engine: Engine, state: tuple[str, State] | None, seed: int, metadata: list[tuple[str, str]]
) -> bytes: ...
def read_checkpoint(bytes: bytes, engine: Engine, state: tuple[str, State] | None) -> int | None: ...
def checkpoint_config(bytes: bytes) -> dict[str, Any]: ...
def checkpoint_metadata(bytes: bytes) -> list[tuple[str, str]]: ...
def matmul(a: _Float, b: _Float, transpose_a: bool, transpose_b: bool) -> _Float: ...
def softmax(x: _Float) -> _Float: ...
def softmax_backward(d_y: _Float, y: _Float) -> _Float: ...
def attention(qkv: _Float, heads: int, dropped: _Mask) -> tuple[_Float, _Float]: ...
def attention_dropout(weights: _Float, dropped: _Mask) -> _Float: ...
def attention_backward(
    d_out: _Float, qkv: _Float, out: _Float, stats: _Float, heads: int, dropped: _Mask
) -> _Float: ...
def layer_norm(x: _Float, weight: _Float, bias: _Float, epsilon: float) -> tuple[_Float, _Float, _Float]: ...
def layer_norm_backward(
    d_y: _Float, x: _Float, mean: _Float, rstd: _Float, weight: _Float
) -> tuple[_Float, _Float, _Float]: ...
def gelu(x: _Float, form: str) -> _Float: ...
def gelu_backward(d_y: _Float, x: _Float, form: str) -> _Float: ...
def dropout(x: _Float, rate: float, seed: int, step: int) -> _Float: ...
def cross_entropy(logits: _Float, targets: _Int) -> _Float: ...
def cross_entropy_backward(logits: _Float, targets: _Int, counted: int) -> tuple[_Float, _Float]: ...
