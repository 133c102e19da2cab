"""The models that are measured."""

from dataclasses import dataclass
from typing import NamedTuple


class Sizes(NamedTuple):
    """Vocabulary, context, layers, heads, width and batch."""

    V: int
    T: int
    L: int
    H: int
    C: int
    B: int


# As in `benches/src/session.rs`.
CONFIGURATIONS = {
    "tiny": Sizes(65, 32, 2, 2, 32, 8),
    "small": Sizes(65, 64, 4, 4, 128, 12),
    "medium": Sizes(65, 256, 6, 6, 384, 16),
    "gpt2": Sizes(50257, 64, 12, 12, 768, 4),
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
        return f"{self.configuration} ({', '.join(map(str, self.sizes))})"


def words(sizes: tuple[int, ...]) -> list[str]:
    """The arguments that tell a program the sizes."""
    return ["--sizes", ",".join(map(str, sizes))]
