"""The firmware's training run on a host, through the Python package.

    train.py TEXT STEPS TO [FROM]

TEXT holds one token a byte. Trains up to step STEPS, from the checkpoint FROM if it is given. Writes a checkpoint TO,
and prints the checksum that the firmware prints after as many steps.
"""

import sys

import numpy as np

import jostle


def begin(text: np.ndarray) -> jostle.Trainer:
    """The setup of train.c."""
    config = jostle.Config(vocab=27, context=16, layers=1, heads=4, width=16, dropout=0.1)
    model = jostle.Model(config, seed=1337)
    return jostle.Trainer(
        model,
        jostle.AdamW(model, 1e-2),
        train=text,
        batch=1,
        accumulate=4,
        steps=200,
        schedule=jostle.Cosine(warmup=10, final=1e-3),
        seed=1337,
    )


def checksum(model: jostle.Model) -> int:
    """FNV-1a over the parameters' bytes."""
    result = 0xCBF29CE484222325
    for array in model.parameters.values():
        for byte in array.astype("<f4").tobytes():
            result = (result ^ byte) * 0x100000001B3 % 2**64
    return result


def main() -> None:
    """Trains."""
    path, steps, to, *start = sys.argv[1:]
    tokens = np.fromfile(path, np.uint8)
    text = tokens[: len(tokens) - len(tokens) // 8]
    trainer = jostle.Trainer.resume(start[0], train=text) if start else begin(text)
    while trainer.step < int(steps):
        trainer.advance()
    trainer.save(to)
    print(f"step {trainer.step}: checksum {checksum(trainer.model):016x}")


main()
