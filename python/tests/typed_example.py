"""A user's program for mypy --strict. test_types.py checks it as it is, and once with the line at the end that must
fail."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

import jostle


def train(text: str, path: Path) -> jostle.Model:
    tokenizer = jostle.CharTokenizer.from_text(text)
    config = jostle.Config(
        vocab=tokenizer.vocab,
        context=16,
        layers=2,
        heads=2,
        width=16,
        hidden=None,
        dropout=0.1,
        activation="gelu",
    )
    model = jostle.Model(config, seed=1337, threads=None, tokenizer=tokenizer, frozen=["wpe.weight", "h.0.*"])
    optimizer = jostle.AdamW(model, learning_rate=1e-3, betas=(0.9, 0.99), epsilon=1e-8, weight_decay=0.1)
    trainer = jostle.Trainer(
        model, optimizer, train=tokenizer.encode(text), steps=2, schedule=jostle.Cosine(warmup=1, final=1e-4)
    )
    for report in trainer:
        step: int = report.step
        validation: float | None = report.validation_loss
        print(step, report.loss, validation)
    trainer.save(path)
    return jostle.Trainer.resume(path, train=tokenizer.encode(text)).model


def use(model: jostle.Model) -> None:
    logits: npt.NDArray[np.float32] = model.logits([[1, 2, 3]])
    loss: float = model.loss(np.array([[1, 2]]), [[2, 3]])
    embedding: npt.NDArray[np.float32] = model.parameters["wte.weight"]
    made: npt.NDArray[np.int32] = model.generate([1], 5, top_k=3)
    stream: Iterator[int] = model.generate([1], 5, stream=True)
    norm: float = jostle.SGD(model, 0.1, momentum=0.9).step(clip=None)
    size: int = jostle.plan(model.config, batch=12)["activations"]
    out, stats = jostle.ops.attention(np.ones((3, 12), np.float32), heads=2)
    assert model.tokenizer is not None
    words: str = model.tokenizer.decode(made)
    print(logits, loss, embedding, list(stream), norm, size, out, stats, words)
    # MUST FAIL: text: str = model.generate([1], 5, stream=False)
