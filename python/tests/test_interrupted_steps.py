"""Ctrl-C at any moment: training continues with the bits of a run that was never interrupted."""

import queue
import signal
import threading
import time

import numpy as np
from common import bits

import jostle


def trainer() -> jostle.Trainer:
    text = "I like to ski when it snows. " * 50
    tokenizer = jostle.CharTokenizer.from_text(text)
    config = jostle.Config(vocab=tokenizer.vocab, context=64, layers=2, heads=4, width=64, dropout=0.1)
    model = jostle.Model(config, threads=1)
    return jostle.Trainer(model, jostle.AdamW(model), train=tokenizer.encode(text), steps=10**9, batch=8)


def test_no_step_is_taken_twice() -> None:
    disturbed, main, interruptions = trainer(), threading.main_thread().ident, 0
    assert main is not None
    # The program asks for each press, so that it expects every one, however busy the machine is.
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def press() -> None:
        pauses = np.random.default_rng(0)
        while wanted.get():
            time.sleep(pauses.uniform(0, 0.01))
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    while interruptions < 10 or disturbed.step < 20:
        try:
            wanted.put(True)
            for _ in disturbed:
                pass
        except KeyboardInterrupt:
            interruptions += 1
    wanted.put(False)
    thread.join()

    undisturbed = trainer()
    while undisturbed.step < disturbed.step:
        undisturbed.advance()
    assert bits(undisturbed.model.parameters) == bits(disturbed.model.parameters)
