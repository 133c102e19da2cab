"""Runs that are killed, threads, forks, and long runs. JOSTLE_SOAK=1 chooses the long versions, as `scripts/test.sh soak`."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import bits, run_python, text
from test_cli import JOSTLE, QUICK, environment

import jostle
from jostle.runs import Run

LONG = bool(os.environ.get("JOSTLE_SOAK"))
KILLS = 200 if LONG else 20
STEPS = 100_000 if LONG else 3_000

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import jostle

config = jostle.Config(vocab=13, context=16, layers=2, heads=2, width=16, dropout=0.1)
i = np.arange(2000)
tokens = ((i * i // 97 + 5 * i) % 13).astype(np.uint8)

def make(steps, threads=1):
    model = jostle.Model(config, seed=5, threads=threads)
    return jostle.Trainer(model, jostle.AdamW(model), train=tokens, batch=4, steps=steps)

def bits(trainer):
    return [array.tobytes() for array in (*trainer.model.parameters.values(), trainer.optimizer.state)]
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_run_that_is_killed_again_and_again_has_the_bits_of_one_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("I like to ski when it snows. " * 40)
    run_folder = tmp_path / "run"
    sizes = [*QUICK, "--steps", "1000000", "--checkpoint-every", "5", "--keep", "2", "--evaluate-every", "50"]
    train = [*JOSTLE, "train", str(tmp_path / "text.txt"), *sizes, "--out"]
    random = np.random.default_rng(1)
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    begin = time.monotonic()
    with subprocess.Popen([*train, str(tmp_path / "first")], env=environment(), **pipes) as process:
        process.stdout.readline()
        begun = time.monotonic() - begin
        process.kill()
    reference, losses = None, []
    for _ in range(KILLS):
        exists = (run_folder / "run.json").exists()
        command = [*JOSTLE, "train", "--resume", str(run_folder)] if exists else [*train, str(run_folder)]
        with subprocess.Popen(command, env=environment(), **pipes) as process:
            time.sleep(random.uniform(0.5 if not exists else 0, 1.5) * begun)
            process.kill()
            assert process.wait() == -9, process.stderr.read()
        if not (run_folder / "run.json").exists():
            continue
        run = Run(run_folder)
        found = run.trainer(1)
        if reference is None:
            reference = _alone(found)
        while reference.step < found.step:
            losses.append(reference.advance().loss)
        assert reference.step == found.step
        assert bits(found.model.parameters) == bits(reference.model.parameters)
        assert found.optimizer.state.tobytes() == reference.optimizer.state.tobytes()
        assert run.metrics["loss"][: found.step].tolist() == [float(str(np.float32(loss))) for loss in losses]
    assert reference is not None and reference.step > 5, "it never came to its second checkpoint"
    left = sorted(path.name for path in run_folder.rglob("*.partial"))
    assert len(left) <= 2, "only the last kill's may be there"


def _alone(trainer: jostle.Trainer) -> jostle.Trainer:
    """A trainer with the same settings, which nobody interrupts."""
    model = jostle.Model(trainer.model.config, 7, 1)
    optimizer = jostle.AdamW(model, trainer.optimizer.learning_rate)
    return jostle.Trainer(
        model, optimizer, train=trainer.train, batch=trainer.batch, steps=trainer.steps, seed=trainer.seed,
        schedule=trainer.schedule,
    )  # fmt: skip


def test_eight_models_in_eight_threads_have_the_bits_that_each_has_alone() -> None:
    def work(seed: int) -> tuple[Any, ...]:
        config = jostle.Config(vocab=13, context=16, layers=2, heads=2, width=16, dropout=0.1)
        model = jostle.Model(config, seed=seed, threads=1 + seed % 3)
        trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), batch=4, steps=30, seed=seed)
        losses = [report.loss for report in trainer]
        return losses, bits(model.parameters), model.generate([1], 40, seed=seed).tolist()

    alone = [work(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == alone


def test_reports_of_one_trainer_in_eight_threads_have_their_own_steps() -> None:
    model = jostle.Model(jostle.Config(vocab=13, context=8, layers=1, heads=1, width=8), threads=1)
    trainer = jostle.Trainer(model, jostle.AdamW(model), train=text(13), batch=1, steps=1)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        reports = [future.result() for future in [pool.submit(trainer.advance) for _ in range(400)]]
    assert sorted(report.step for report in reports) == list(range(1, 401))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_works_or_gets_an_error() -> None:
    """Whatever the parent's threads do at the fork. An alarm would end a child that hangs."""
    run_python(f"""import warnings
warnings.simplefilter("ignore", DeprecationWarning)
{PRELUDE}
idle, busy, other = make(10**9, 2), make(10**9, 2), make(10**9, 2)
def train(trainer):
    while not done:
        trainer.advance()
done = False
wanted = idle.model.logits(tokens[None, :16])
threads = [threading.Thread(target=train, args=[trainer], daemon=True) for trainer in (busy, other)]
for thread in threads:
    thread.start()
refused = 0
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        status = 0
        if not np.array_equal(idle.model.logits(tokens[None, :16]), wanted):
            status = 2
        try:
            busy.advance()
            busy.model.generate([1], 3)
        except RuntimeError as error:
            status = status or (1 if "forked" in str(error) else 3)
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), status
    refused += status
done = True
for thread in threads:
    thread.join()
assert refused, "no fork met a step"
assert busy.advance().loss > 0
""")


@pytest.mark.parametrize("how", ["sys.exit()", "os.kill(os.getpid(), signal.SIGINT)", "raise ValueError"])
def test_the_interpreter_ends_while_a_thread_trains(how: str) -> None:
    code = f"""{PRELUDE}
trainer = make(10**9, 2)
threading.Thread(target=lambda: list(trainer), daemon=True).start()
while trainer.step < 3:
    time.sleep(0.01)
{how}
time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    ends = {"sys.exit()": 0, "raise ValueError": 1}
    assert done.returncode == ends.get(how, -2 if os.name != "nt" else done.returncode), done.stderr
    assert "panick" not in done.stderr and "Fatal" not in done.stderr


def test_what_a_caller_raises_or_delays_is_the_callers_alone(tmp_path: Path) -> None:
    class Raising(jostle.Tokenizer):
        vocab = 13

        def state(self) -> dict[str, Any]:
            raise ZeroDivisionError

    config = jostle.Config(vocab=13, context=8, layers=1, heads=1, width=8, dropout=0.1)

    def make() -> jostle.Trainer:
        model = jostle.Model(config, 3, 1)
        return jostle.Trainer(model, jostle.AdamW(model), train=text(13), batch=2, steps=6)

    trainer, other = make(), make()
    trainer.save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    trainer.model.tokenizer = Raising()
    for report in other:
        with pytest.raises(ZeroDivisionError):
            for _ in trainer:
                trainer.save(tmp_path / "file")
        # This caller is slow.
        time.sleep(0.01)
        assert trainer.step == report.step
    assert bits(trainer.model.parameters) == bits(other.model.parameters)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == before
    for token in trainer.model.generate([1], 5, stream=True):
        assert 0 <= token < 13
        break
    assert trainer.model.generate([1], 5).tolist() == other.model.generate([1], 5).tolist()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_run_takes_no_more_memory_and_has_the_bits_of_two_halves(tmp_path: Path) -> None:
    run_python(
        f"""{PRELUDE}
STEPS, LONG, path = {STEPS}, {LONG}, {str(tmp_path / "half")!r}
def resident():
    return int(open("/proc/self/statm").read().split()[1])
whole, seconds = make(STEPS), []
for block in range(STEPS // 1000):
    begin = time.process_time()
    for _ in range(1000):
        whole.advance()
    seconds.append(time.process_time() - begin)
    if block == 0:
        before = resident()
grown = resident() - before
# Python's own memory may move by some pages; a leak of one number a step would be more.
assert grown <= 64, f"{{grown}} pages more"
if LONG:
    first, last = min(seconds[:3]), min(seconds[-3:])
    assert last < 1.05 * first, (first, last)
half = make(STEPS)
for _ in range(STEPS // 2):
    half.advance()
half.save(path)
half = jostle.Trainer.resume(path, train=tokens, threads=2)
list(half)
assert half.step == STEPS and bits(half) == bits(whole)
""",
        timeout=3600,
    )
