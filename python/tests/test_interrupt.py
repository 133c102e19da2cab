"""Ctrl-C during a long call: it stops within a step with KeyboardInterrupt, and nothing is lost."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from common import run_python

if os.name == "nt":
    pytest.skip("sends SIGINT to other processes", allow_module_level=True)

# A step takes some milliseconds here, and the calls below hours.
PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import jostle

config = jostle.Config(vocab=64, context=64, layers=2, heads=2, width=64, dropout=0.1)
tokens = np.random.default_rng(0).integers(0, 64, 10_000)

def bits(one):
    return [array.tobytes() for array in (*one.model.parameters.values(), one.optimizer.state)]
def make():
    model = jostle.Model(config, seed=5, threads=2)
    return jostle.Trainer(model, jostle.AdamW(model), train=tokens, batch=4, steps=10**9)
trainer = make()
model = trainer.model
"""

CALLS = {
    "generate": "model.generate(tokens[:5], 10**9)",
    "stream": "list(model.generate(tokens[:5], 10**9, stream=True))",
    "evaluate": "trainer.evaluate(np.zeros(10**9, np.uint8))",
    "train": "list(trainer)",
    "a step of many micro-batches": "jostle.Trainer(model, jostle.SGD(model, 1.0), train=tokens, accumulate=10**9).advance()",
    "logits": "model.logits(np.broadcast_to(np.uint8(1), (40_000, 64)))",
}

# A trainer that was interrupted continues with the bits of a run that was not.
CHECK = """
done = trainer.step
trainer.save(sys.argv[1])

again = jostle.Trainer.resume(sys.argv[1], train=tokens)
other = make()
for _ in range(done):
    other.advance()

for _ in range(3):
    assert bits(trainer) == bits(again) == bits(other)
    assert trainer.step == again.step == other.step
    assert trainer.advance().loss == again.advance().loss == other.advance().loss

text = trainer.model.generate(tokens[:5], 80, seed=1).tolist()
assert text == other.model.generate(tokens[:5], 80, seed=1).tolist()
print("whole")
"""


@pytest.mark.parametrize("call", CALLS)
def test_a_long_call_stops(call, tmp_path):
    code = f"""{PRELUDE}
trainer.advance()
try:
    print("begun", flush=True)
    begin = time.process_time()
    {CALLS[call]}
except KeyboardInterrupt:
    print("stopped", time.process_time() - begin, flush=True)
else:
    raise AssertionError("it came to an end")
{CHECK}"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "checkpoint"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # A call that does not stop leaves nothing to be read: the checks below then fail rather than wait.
    watchdog = threading.Timer(300, process.kill)
    watchdog.start()
    with process:
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            stopped = process.stdout.readline().split()
            assert stopped[:1] == ["stopped"], process.stderr.read()
            # Processor time, which a busy machine does not change. Many steps take less, and the calls would take hours.
            assert float(stopped[1]) < 10
            rest, errors = process.communicate()
            assert process.returncode == 0 and rest == "whole\n", errors
        finally:
            watchdog.cancel()
            process.kill()


STEPS = {
    "trainer": "one.advance()",
    "by hand": """one.model.zero_gradients()
    one.model.backward(tokens[None, :64], tokens[None, 1:65])
    one.optimizer.step()""",
}


@pytest.mark.parametrize("step", STEPS)
def test_no_moment_of_a_step_loses_anything(step):
    """Interrupts at many moments of steps: parameters, moments and the count of steps change together."""
    # Only the main thread receives the signal. Another thread might handle it too late on a busy machine.
    run_python(f"""import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
{PRELUDE}
def step(one):
    {STEPS[step]}
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
def seconds():
    begin = time.perf_counter()
    step(trainer)
    return time.perf_counter() - begin
typical = min(seconds() for _ in range(20))
interrupts = 0
for delay in np.random.default_rng(1).uniform(0.02, 2, 400) * typical:
    before, done = bits(trainer), trainer.step
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            step(trainer)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
    changed = bits(trainer) != before
    assert changed == (trainer.step == done + 1), (done, trainer.step)
assert interrupts > 20, interrupts
other = make()
for _ in range(trainer.step):
    step(other)
assert bits(trainer) == bits(other)
""")
