"""A training loop of one's own: batches, gradients and the update are NumPy arrays in plain sight.

python own_loop.py
"""

import numpy as np

import jostle


def main(steps: int = 100) -> None:
    text = "I like to ski when it snows. " * 50
    tokenizer = jostle.CharTokenizer.from_text(text)
    tokens = tokenizer.encode(text)
    config = jostle.Config(vocab=tokenizer.vocab, context=32, layers=2, heads=2, width=32)
    model = jostle.Model(config, seed=1337)
    velocity = {name: np.zeros_like(gradient) for name, gradient in model.gradients.items()}

    random = np.random.default_rng(1337)
    for step in range(1, steps + 1):
        # 8 windows of the text. The targets are the tokens one place later.
        first = random.integers(0, len(tokens) - config.context, (8, 1))
        places = first + np.arange(config.context)
        model.zero_gradients()
        loss = model.backward(tokens[places], tokens[places + 1])

        # Clip the global norm to 1, then SGD with momentum. Both mappings have views, so `-=` changes the model.
        norm = np.sqrt(sum(np.sum(gradient**2) for gradient in model.gradients.values()))
        for name, gradient in model.gradients.items():
            velocity[name] = 0.9 * velocity[name] + gradient / max(1.0, norm)
            parameter = model.parameters[name]
            parameter -= 0.1 * velocity[name]
        if step % 20 == 0:
            print(f"step {step}: loss {loss:.3f}, norm of the gradients {norm:.3f}")

    # The model in use: probabilities of the next character, and a continuation.
    probabilities = model.probabilities(tokenizer.encode("I like to s"))
    for token in np.argsort(probabilities)[:-4:-1]:
        print(f"{tokenizer.decode([token])!r}: {probabilities[token]:.3f}")
    print(tokenizer.decode(model.generate(tokenizer.encode("I like"), 60, temperature=0.8)))


if __name__ == "__main__":
    main()
