"""The models that are measured."""

from dataclasses import dataclass
from typing import NamedTuple


class Sizes(NamedTuple):
    """Vocabulary, context, layers, heads, width and batch; of a Llama also key/value heads and hidden width."""

    V: int
    T: int
    L: int
    H: int
    C: int
    B: int
    K: int = 0
    F: int = 0


# As in `benches/src/session.rs`.
CONFIGURATIONS = {
    "tiny": Sizes(65, 32, 2, 2, 32, 8),
    "small": Sizes(65, 64, 4, 4, 128, 12),
    "medium": Sizes(65, 256, 6, 6, 384, 16),
    "gpt2": Sizes(50257, 64, 12, 12, 768, 4),
    "llama-small": Sizes(512, 64, 4, 4, 128, 12, 2, 344),
    "llama-medium": Sizes(4096, 256, 6, 6, 384, 8, 2, 1024),
    "smollm2": Sizes(49152, 256, 30, 9, 576, 1, 3, 1536),
}


@dataclass
class Cell:
    """The place of a measurement of training steps in the tables."""

    configuration: str
    threads: int

    @property
    def sizes(self) -> Sizes:
        return CONFIGURATIONS[self.configuration]

    def name(self) -> str:
        return f"{self.configuration} ({', '.join(str(size) for size in self.sizes if size)})"


def words(sizes: tuple[int, ...]) -> list[str]:
    """The arguments that tell a program the sizes."""
    common, llama = sizes[:6], sizes[6:]
    return [
        *["--sizes", ",".join(map(str, common))],
        *(["--llama", ",".join(map(str, llama))] if any(llama) else []),
    ]
