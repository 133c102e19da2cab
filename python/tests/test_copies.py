"""Pickles, deep copies, and other processes."""

import copy
import pickle

import numpy as np
import pytest
from common import SMALL, bits, go_on, run_python, text

import jostle

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles(trained, protocol):
    model, optimizer = trained
    # The optimizer's model is still the same object as the model: pickle keeps identity.
    copied, other = pickle.loads(pickle.dumps((model, optimizer), protocol))
    check_copy(trained, (copied, other))


def test_deep_copies(trained):
    model, optimizer = trained
    copied = copy.deepcopy(optimizer)
    check_copy(trained, (copied.model, copied))


def check_copy(trained, copied):
    (model, optimizer), (model_2, optimizer_2) = trained, copied
    assert optimizer_2.model is model_2 and type(optimizer_2) is type(optimizer)
    assert model_2.config == model.config and model_2.threads == model.threads
    assert model_2.instruction_set == model.instruction_set
    for name, array in model.parameters.items():
        assert not np.shares_memory(array, model_2.parameters[name])
    assert bits(model_2.gradients) == bits(model.gradients)
    for _ in range(3):
        go_on(model, optimizer)
        go_on(model_2, optimizer_2)
    assert optimizer_2.steps == optimizer.steps == 6
    assert bits(model_2.parameters) == bits(model.parameters)
    assert optimizer_2.state.tobytes() == optimizer.state.tobytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_of_a_model_alone(model, protocol):
    model.tokenizer = jostle.CharTokenizer("abcdefghijklm")
    copied = pickle.loads(pickle.dumps(model, protocol))
    assert bits(copied.parameters) == bits(model.parameters)
    assert copied.tokenizer == model.tokenizer


@pytest.mark.parametrize("make", [lambda m: jostle.SGD(m, 0.1), lambda m: jostle.SGD(m, 0.1, 0.9)])
def test_pickles_of_other_optimizers(model, make):
    optimizer = make(model)
    go_on(model, optimizer)
    copied = pickle.loads(pickle.dumps(optimizer))
    go_on(model, optimizer)
    go_on(copied.model, copied)
    assert bits(copied.model.parameters) == bits(model.parameters)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pickles_of_trainers(model, protocol):
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), batch=2, steps=6)
    for _ in range(3):
        trainer.advance()
    copied = pickle.loads(pickle.dumps(trainer, protocol))
    rest, other = list(trainer), list(copied)
    assert [report.loss for report in rest] == [report.loss for report in other]
    assert bits(copied.model.parameters) == bits(model.parameters)


@pytest.mark.parametrize(
    "thing",
    [SMALL, jostle.Cosine(3, 0.1), jostle.WarmupStableDecay(decay=3), jostle.CharTokenizer("ab"),
     jostle.WordTokenizer(["a", " "]), jostle.ByteTokenizer()],
    ids=repr,
)  # fmt: skip
def test_values_are_equal_to_their_copies(thing):
    assert pickle.loads(pickle.dumps(thing)) == copy.deepcopy(thing) == thing
    assert hash(copy.deepcopy(thing)) == hash(thing)


def test_a_forked_child_can_use_and_drop_the_model():
    done = run_python("""
import gc, os, sys, warnings
import jostle
# Newer versions of Python warn of any fork while there are threads.
warnings.simplefilter("ignore", DeprecationWarning)

config = jostle.Config(vocab=65, context=64, layers=2, heads=2, width=64)
model = jostle.Model(config, threads=2)
tokens = [list(range(64))] * 4
loss = model.backward(tokens, tokens)

child = os.fork()
if child == 0:
    code = 1
    try:
        model.zero_gradients()
        assert model.backward(tokens, tokens) == loss
        del model
        gc.collect()
        assert jostle.Model(config, threads=2).loss(tokens, tokens) == loss
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
assert model.loss(tokens, tokens) == loss
print("both")
""")
    assert done.stdout == "both\n"


def test_a_model_goes_to_other_processes():
    run_python("""
import multiprocessing
import jostle
def loss(model):
    return model.loss([[1, 2, 3]], [[2, 3, 4]])
if __name__ == "__main__":
    model = jostle.Model(jostle.Config(vocab=5, context=4, layers=1, heads=1, width=4), threads=2)

    import pickle, sys, subprocess

    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).loss([[1, 2, 3]], [[2, 3, 4]]))"

    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(model), capture_output=True)
    assert float(done.stdout) == loss(model), done.stderr
""")
