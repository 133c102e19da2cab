"""Shared by the peers: arguments, the answering side of the protocol of `turns.py`, and the check against jostle's
numbers."""

import argparse
import json
import select
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from safetensors.numpy import load_file

from configurations import Sizes

Arrays = Mapping[str, np.ndarray]

TEXT = 100_000  # tokens
LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, CLIP = 1e-3, (0.9, 0.99), 1e-8, 0.1, 1.0


class Peer(Protocol):
    """A GPT-2, or a Llama, with random initial parameters and a text of random tokens."""

    def step(self) -> None:
        """Forward, loss, backward, clipping by global norm 1 and AdamW on windows drawn from the text."""

    def load(self, parameters: Arrays) -> None:
        """Takes parameters by Hugging Face's names, matrices `[in, out]`."""

    def gradients(self, tokens: np.ndarray, targets: np.ndarray) -> Arrays:
        """The gradients, with the same names and shapes."""

    def update(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """Does a step on this batch. Returns the loss before it."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--sizes", required=True, metavar="V,T,L,H,C,B")
    parser.add_argument("--llama", metavar="K,F", help="key/value heads and hidden width of a Llama")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", metavar="FILE", help="instead, compare with what jostle computed")
    return parser


def main(options: argparse.Namespace, build: Callable[[Sizes], Peer]) -> None:
    llama = options.llama.split(",") if options.llama else ()
    sizes = Sizes(*map(int, [*options.sizes.split(","), *llama]))
    if options.check:
        print(json.dumps(differences(build(sizes), load_file(options.check))))
        return
    ready()
    serve(build(sizes).step)


def ready() -> None:
    """Reports that the process is up, and returns at the first turn. Memory allocated from then on is the model's."""
    print("{}", flush=True)
    # Leaves the line there.
    select.select([sys.stdin], [], [])


def serve(step: Callable[[], None]) -> None:
    """Does as many steps as each line says, until the input ends."""
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            times.append((time.perf_counter() - start) * 1e3)
        print(json.dumps({"median_ms": statistics.median_low(times), "about": {}}), flush=True)


def differences(peer: Peer, file: Arrays) -> dict[str, float]:
    """By tensor, the largest difference of a gradient over the largest gradient; the same for the losses."""
    batch = file["tokens"], file["targets"]
    theirs = {key.removeprefix("gradient."): file[key] for key in file if key.startswith("gradient.")}
    peer.load({name: file[name] for name in theirs})
    ours = peer.gradients(*batch)
    assert ours.keys() == theirs.keys(), f"other tensors: {sorted(ours.keys() ^ theirs.keys())}"
    found = {name: relative(ours[name], theirs[name]) for name in theirs}
    losses = np.array([peer.update(*batch) for _ in file["losses"]], dtype=np.float32)
    return found | {"losses": relative(losses, file["losses"])}


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
