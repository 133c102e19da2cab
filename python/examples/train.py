"""Trains a model of characters on a text, saves it, and lets it write:

python train.py TEXT [STEPS]
"""

import sys

import jostle


def main(path: str, steps: int = 2000) -> None:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    tokenizer = jostle.CharTokenizer.from_text(text)
    tokens = tokenizer.encode(text)
    # The last tenth of the text is for validation.
    train, validation = tokens[: -len(tokens) // 10], tokens[-len(tokens) // 10 :]

    config = jostle.Config(vocab=tokenizer.vocab, context=64, layers=4, heads=4, width=128, dropout=0.1)
    model = jostle.Model(config, seed=1337, tokenizer=tokenizer)
    optimizer = jostle.AdamW(model, learning_rate=1e-3)
    schedule = jostle.Cosine(warmup=min(100, steps), final=1e-4)
    trainer = jostle.Trainer(
        model, optimizer, train=train, validation=validation, steps=steps, schedule=schedule
    )
    # Any step may be the last one: `save`, then `jostle.Trainer.resume`, continues with the same bits.
    for report in trainer:
        if report.validation_loss is not None:
            print(f"step {report.step}: loss {report.loss:.3f}, on validation {report.validation_loss:.3f}")
    trainer.save("checkpoint.safetensors")

    for token in model.generate(tokens[:1], 300, temperature=0.8, stream=True):
        print(tokenizer.decode([token]), end="", flush=True)
    print()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
