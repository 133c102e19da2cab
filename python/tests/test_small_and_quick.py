"""The package's overhead, in counts that a busy machine does not change."""

import sys
from collections import Counter

import pytest
from common import random_tokens, run_python

import jostle

TINY = jostle.Config(vocab=65, context=32, layers=2, heads=2, width=32)


def test_import_loads_few_modules_beyond_numpy():
    code = """
import sys, numpy
before = set(sys.modules)
import jostle
print(*set(sys.modules) - before)
"""
    imported = run_python(code).stdout.split()
    packages = {name.partition(".")[0] for name in imported}
    assert "jostle" in packages
    assert not packages & {"typer", "rich", "click", "matplotlib", "safetensors", "torch"}
    # 90 with Python 3.11; releases of Python differ in their own modules.
    assert len(imported) <= 120, sorted(imported)


def instructions(call):
    """The bytecode instructions and the calls of functions, those in C included, that a call executes."""
    counts = Counter()

    def trace(frame, event, argument):
        frame.f_trace_opcodes = True
        counts[event] += 1
        return trace

    def profile(frame, event, argument):
        counts[event] += 1

    for set_function, function in ((sys.settrace, trace), (sys.setprofile, profile)):
        set_function(function)
        try:
            call()
        finally:
            set_function(None)
    return counts["opcode"], counts["call"] // 2 + counts["c_call"]


CALLS = {
    "backward": lambda model, tokens: model.backward(tokens, tokens),
    "logits": lambda model, tokens: model.logits(tokens),
    "loss": lambda model, tokens: model.loss(tokens, tokens),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_costs_few_instructions_however_large_the_batch(name):
    model = jostle.Model(TINY, threads=1)
    found = []
    for shape in ((1, 1), (8, 32)):
        tokens = random_tokens(TINY, shape)
        CALLS[name](model, tokens)
        found.append(instructions(lambda tokens=tokens: CALLS[name](model, tokens)))
    assert found[0] == found[1]
    # At most 183 and 19 with Python 3.11.
    opcodes, calls = found[0]
    assert opcodes <= 260 and calls <= 28, f"{opcodes} instructions, {calls} calls"
