"""The numerical contract through the package: bits that do not depend on threads, instruction sets, micro-batches,
interruption, or on the caller that takes the steps. The run is the one in core/tests/contract."""

import copy
import gc
import threading
import time

import numpy as np
import pytest
from common import GOLDEN, SMALL, bits, flat, instruction_sets, random_tokens, text

import jostle

CONFIG = jostle.Config(vocab=27, context=35, layers=2, heads=3, width=21, dropout=0.2)
STEPS = 50


def make(
    batch=4, accumulate=1, threads=1, instruction_set=None, seed=1337, kind=np.uint8, clip=1.0, **options
):
    model = jostle.Model(CONFIG, seed, threads, instruction_set=instruction_set)
    return jostle.Trainer(
        model,
        jostle.AdamW(model, learning_rate=3e-3),
        train=text(CONFIG.vocab).astype(kind),
        batch=batch,
        steps=60,
        schedule=jostle.Cosine(warmup=5, final=1e-4),
        clip=clip,
        accumulate=accumulate,
        seed=seed,
        **options,
    )


def train(trainer, steps=STEPS):
    for _ in range(steps):
        trainer.advance()
    return trainer


def checksum(parameters):
    """FNV-1a over the parameters' bytes, little-endian."""
    total = 0xCBF29CE484222325
    for byte in flat(parameters).astype("<f4").tobytes():
        total = (total ^ byte) * 0x100000001B3 % 2**64
    return f"{total:016x}"


@pytest.fixture(scope="module")
def expected():
    return bits(train(make()).model.parameters)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_the_bits_that_were_written_down(threads, instruction_set):
    trainer = make(threads=threads, instruction_set=instruction_set)
    assert trainer.model.threads == threads
    assert trainer.model.instruction_set == instruction_set
    train(trainer)
    assert checksum(trainer.model.parameters) == (GOLDEN / "fifty_steps.txt").read_text().strip()


def test_another_seed_gives_other_bits(expected):
    assert bits(train(make(seed=1338)).model.parameters) != expected


@pytest.mark.parametrize(("batch", "accumulate"), [(2, 2), (1, 4)])
def test_micro_batches(expected, batch, accumulate):
    assert bits(train(make(batch, accumulate)).model.parameters) == expected


def test_calls_of_another_thread_between_micro_batches(expected):
    trainer, done = make(1, 4), threading.Event()

    def disturb():
        while not done.is_set():
            trainer.model.backward([[1, 2]], [[2, 3]])

    thread = threading.Thread(target=disturb)
    thread.start()
    train(trainer)
    done.set()
    thread.join()
    assert bits(trainer.model.parameters) == expected


def test_logits_of_a_large_batch_are_those_of_its_parts():
    model = make().model
    tokens = np.random.default_rng(1).integers(0, model.config.vocab, (1 << 14, 3))
    parts = np.concatenate([model.logits(part) for part in np.array_split(tokens, 7)])
    assert np.array_equal(model.logits(tokens), parts)


def test_recomputed_activations(expected):
    assert bits(train(make(2, 2, threads=2, recompute=True)).model.parameters) == expected


@pytest.mark.parametrize("how", [{}, {"clip": None, "fused": True}])
def test_head_by_rows(how, tmp_path):
    at_once = train(make(**how))
    chunked_head = train(make(threads=2, head_rows=5, **how), 20)
    chunked_head.save(tmp_path / "checkpoint")
    chunked_head = jostle.Trainer.resume(tmp_path / "checkpoint", train=text(CONFIG.vocab), threads=1)
    assert chunked_head.head_rows == 5
    assert bits(train(chunked_head, STEPS - 20).model.parameters) == bits(at_once.model.parameters)


@pytest.mark.parametrize("recompute", [False, True])
def test_fused_updates(recompute, tmp_path):
    after = train(make(clip=None))
    within = train(make(clip=None, threads=2, recompute=recompute, fused=True), 20)
    within.save(tmp_path / "checkpoint")
    within = jostle.Trainer.resume(tmp_path / "checkpoint", train=text(CONFIG.vocab), threads=1)
    assert within.fused and within.recompute == recompute
    assert bits(train(within, STEPS - 20).model.parameters) == bits(after.model.parameters)


def test_resumed_training(expected, tmp_path):
    first = train(make(), 17)
    first.save(tmp_path / "checkpoint")
    first.advance()
    again = jostle.Trainer.resume(tmp_path / "checkpoint", train=text(CONFIG.vocab), threads=2)
    assert again.step == 17
    assert bits(train(again, STEPS - 17).model.parameters) == expected


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int32, np.int64, np.uint64, ">i4"])
def test_integers_of_any_width_for_the_text(expected, kind):
    assert bits(train(make(kind=kind)).model.parameters) == expected


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint64, ">i4", ">i8"])
def test_tokens_of_any_width_however_they_lie(kind):
    model = jostle.Model(CONFIG, threads=1)
    tokens = random_tokens(CONFIG, (3, CONFIG.context)).astype(kind)
    wanted = model.logits(tokens.tolist()).tobytes()
    unaligned = np.frombuffer(b"-" + tokens.tobytes(), kind, offset=1).reshape(tokens.shape)
    for lying in (tokens, np.asfortranarray(tokens), np.repeat(tokens, 2, axis=1)[:, ::2], unaligned):
        assert model.logits(lying).tobytes() == wanted


@pytest.mark.parametrize("cuts", [[4], [2, 2], [1, 3]])
def test_by_hand(cuts):
    """A trainer whose text has a single window takes the same steps as backward and step by hand."""
    window = text(CONFIG.vocab)[: CONFIG.context + 1]
    model = jostle.Model(CONFIG, 1337, threads=1)
    trainer = jostle.Trainer(
        model, jostle.AdamW(model, learning_rate=3e-3), train=window, batch=4, steps=20, seed=1337
    )
    reports = list(trainer)
    tokens, targets = np.tile(window[:-1], (4, 1)), np.tile(window[1:], (4, 1))

    other = jostle.Model(CONFIG, 1337, threads=1)
    optimizer = jostle.AdamW(other, learning_rate=3e-3)
    for report in reports:
        other.zero_gradients()
        first, loss = 0, 0.0
        for size in cuts:
            part = slice(first, first + size)
            loss += size / 4 * other.backward(tokens[part], targets[part], counted=targets.size)
            first += size
        assert optimizer.step(clip=1.0) == report.gradient_norm
        assert loss == pytest.approx(report.loss, rel=1e-6)
    assert optimizer.steps == 20
    assert bits(other.parameters) == bits(model.parameters)
    assert bits(other.gradients) == bits(model.gradients)


def test_a_copy_goes_on_with_equal_bits(expected):
    trainer = train(make(), 20)
    copied = copy.deepcopy(trainer)
    assert copied.model is not trainer.model and copied.optimizer.model is copied.model
    assert bits(train(trainer, STEPS - 20).model.parameters) == expected
    # The copy has not changed meanwhile.
    assert copied.step == 20
    assert bits(train(copied, STEPS - 20).model.parameters) == expected


def test_masks_differ_from_step_to_step_and_from_sequence_to_sequence():
    model = jostle.Model(CONFIG, threads=1)
    tokens = random_tokens(CONFIG, (1, 35))
    one = model.backward(tokens, tokens)
    other = model.backward(tokens, tokens)
    assert one != other
    model.zero_gradients()
    assert model.backward(tokens, tokens) == one
    # A rate of 0 changes no parameter, but the step counts.
    jostle.SGD(model, 0.0).step()
    assert model.backward(tokens, tokens) not in (one, other)


def test_eight_models_train_in_eight_threads_at_once():
    """Each has a seed of its own, and the bits that it has alone."""
    seeds = range(1337, 1345)
    alone = [bits(train(make(seed=seed)).model.parameters) for seed in seeds]
    trainers = [make(seed=seed, threads=1 + seed % 2) for seed in seeds]
    threads = [threading.Thread(target=train, args=(trainer,)) for trainer in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bits(trainer.model.parameters) for trainer in trainers] == alone
    assert len(set(alone)) == len(alone)


def test_one_model_in_several_threads_waits_for_itself():
    """Calls on one model run one after the other: each has the bits that it has alone."""
    model = jostle.Model(SMALL, threads=2)
    batches = [random_tokens(SMALL, (3, 8), seed) for seed in range(4)]
    alone = [model.logits(tokens).tobytes() for tokens in batches]
    wrong = []

    def look(number):
        for _ in range(200):
            if model.logits(batches[number]).tobytes() != alone[number]:
                wrong.append(number)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_python_goes_on_while_a_model_computes():
    """The ticks of a second thread within one call. There are none if the call keeps Python's lock."""
    config = jostle.Config(vocab=64, context=64, layers=4, heads=4, width=128)
    model = jostle.Model(config, threads=1)
    tokens = random_tokens(config, (64, 64))
    model.logits(tokens)
    numbers = np.ones((8000, 4000), np.float32)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    gc.disable()
    thread = threading.Thread(target=tick)
    thread.start()
    try:
        calls = {
            "logits": lambda: model.logits(tokens),
            "loss": lambda: model.loss(tokens, tokens),
            "backward": lambda: model.backward(tokens, tokens),
            "softmax": lambda: jostle.ops.softmax(numbers),
        }
        for name, call in calls.items():
            within = 0
            # On a busy machine the second thread may have to wait. A call that keeps the lock makes it wait every time.
            for _ in range(20):
                begin = time.perf_counter()
                call()
                end = time.perf_counter()
                third = (end - begin) / 3
                within = sum(begin + third < tick < end - third for tick in list(ticks))
                if within >= 3:
                    break
            assert within >= 3, f"{name}: {within} ticks in the middle of {end - begin:.3f} s"
    finally:
        stop.set()
        thread.join()
        gc.enable()
