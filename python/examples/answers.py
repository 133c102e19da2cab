"""Fine-tunes a model on questions and answers, from a Hugging Face folder to another:

python answers.py [EPOCHS]

So that it runs without a download, it first makes the folder: a small model that has read about animals. Needs jostle[hf].
"""

import json
import sys

import jostle
from jostle import data

SOUNDS = {"dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "horse": "neighs", "lion": "roars"}


def make(folder: str) -> None:
    """A model that knows the sounds, but no questions."""
    text = (
        "".join(f"The {animal} {sound}. A {animal} is an animal. " for animal, sound in SOUNDS.items()) * 20
    )
    tokenizer = jostle.PretrainedTokenizer.from_text(text, 300)
    config = jostle.Config(
        vocab=tokenizer.vocab, context=32, layers=2, heads=2, width=48, activation="gelu_tanh"
    )
    model = jostle.Model(config, seed=1, tokenizer=tokenizer)
    for _ in jostle.Trainer(
        model, jostle.AdamW(model, 3e-3), train=tokenizer.encode(text), batch=8, steps=200
    ):
        pass
    model.save_pretrained(folder)


def main(epochs: int = 40) -> None:
    make("animals")
    with open("questions.jsonl", "w", encoding="utf-8") as file:
        for animal, sound in SOUNDS.items():
            line = {"prompt": f"What does the {animal} do?", "completion": f" It {sound}.\n"}
            file.write(json.dumps(line) + "\n")

    model = jostle.Model.from_pretrained("animals")
    # The loss is of the completions alone.
    examples = data.read_examples("questions.jsonl", model.tokenizer, model.config.context)
    batches = data.Batches(examples, batch=2)
    optimizer = jostle.AdamW(model, 1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    trainer = jostle.Trainer(model, optimizer, train=batches, batch=2, steps=epochs * len(batches))
    print(f"loss {trainer.evaluate(batches):.3f} before")
    for _ in trainer:
        pass
    print(f"loss {trainer.evaluate(batches):.3f} after {epochs} epochs")
    model.save_pretrained("answers")

    model = jostle.Model.from_pretrained("answers")
    for animal in ("cow", "lion"):
        question = f"What does the {animal} do?"
        answer = model.generate(model.tokenizer.encode(question), 10, temperature=0, stop="\n")
        print(question + model.tokenizer.decode(answer))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
