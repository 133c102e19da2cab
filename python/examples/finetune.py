"""Fine-tunes a part of a model on another text, the rest stays frozen:

python finetune.py CHECKPOINT TEXT [STEPS]

CHECKPOINT is a file that `train.py` saved.
"""

import sys

import jostle


def main(checkpoint: str, path: str, steps: int = 300) -> None:
    # The embeddings and the first two blocks keep their values. They get no gradients and no optimizer state.
    model = jostle.Model.load(checkpoint, frozen=["wte.weight", "wpe.weight", "h.[01].*"])
    trained = sum(gradient.size for gradient in model.gradients.values())
    print(f"{trained} of {model.parameter_count} parameters are trained")

    tokenizer = model.tokenizer
    assert tokenizer is not None, "train.py saves the tokenizer with the model"
    with open(path, encoding="utf-8") as file:
        text = file.read()
    # A vocabulary is fixed when a model is made: characters that the first text did not have are left out.
    known = tokenizer.state()["characters"]
    tokens = tokenizer.encode("".join(character for character in text if character in known))

    trainer = jostle.Trainer(model, jostle.AdamW(model, learning_rate=3e-4), train=tokens, steps=steps)
    print(f"loss {trainer.evaluate(tokens):.3f} before")
    for _ in trainer:
        pass
    print(f"loss {trainer.evaluate(tokens):.3f} after {steps} steps")
    model.save("finetuned.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
