"""Ctrl-C at whatever moment: training goes on with the bits of one that never stopped."""

import signal
import threading
import time

import numpy as np

import jostle


def trained(pauses: float | None) -> tuple[np.ndarray, int, float]:
    """The parameters after 20 steps, with Ctrl-C after every so many seconds; how often it came; seconds in all."""
    text = "I like to ski when it snows. " * 50
    tokenizer = jostle.CharTokenizer.from_text(text)
    config = jostle.Config(vocab=tokenizer.vocab, context=64, layers=2, heads=4, width=64, dropout=0.1)
    model = jostle.Model(config, threads=1)
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=tokenizer.encode(text), steps=20, batch=8)
    main, done = threading.main_thread().ident, threading.Event()
    assert main is not None

    def press() -> None:
        while not done.wait(pauses):
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    interruptions, begin, seconds = 0, time.perf_counter(), 0.0
    if pauses is not None:
        thread.start()
    while not done.is_set():
        try:
            for _ in trainer:
                pass
            done.set()
            seconds = time.perf_counter() - begin
            time.sleep(0.1)  # For a signal that is on its way.
        except KeyboardInterrupt:
            interruptions += 1
    if pauses is not None:
        thread.join()
    parameters = np.concatenate([view.ravel() for view in model.parameters.values()])
    return parameters, interruptions, seconds


def test_no_step_is_taken_twice() -> None:
    undisturbed, _, seconds = trained(None)
    disturbed, interruptions, _ = trained(seconds / 10)
    assert interruptions > 3
    assert np.array_equal(undisturbed, disturbed)
