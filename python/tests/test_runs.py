"""The folder of a run: it is locked, it can move, and what goes wrong leaves it whole."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import bits
from test_cli import JOSTLE, QUICK, environment, refused

import jostle
from jostle import _files, runs
from jostle.runs import Metrics, Run

WORDS = "I like to ski when it snows. " * 40


def begin(folder: Path, steps: int = 6, *, learning_rate: float = 1e-3, run: str = "run") -> tuple[Run, Any]:
    """A run on a text in the folder, with its trainer, before the first step."""
    (folder / "text.txt").write_text(WORDS)
    text = runs.Text.read([folder / "text.txt"])
    tokenizer = runs.make_tokenizer("char", text.text)
    train, validation = runs.split(tokenizer.encode(text.text), 8)
    config = jostle.Config(vocab=tokenizer.vocab, context=8, layers=1, heads=1, width=8)
    model = jostle.Model(config, 7, 1, tokenizer=tokenizer)
    trainer = jostle.Trainer(
        model, jostle.AdamW(model, learning_rate), train=train, validation=validation, batch=2, steps=steps, seed=7,
        schedule=jostle.Cosine(final=learning_rate / 10),
    )  # fmt: skip
    description = {
        "files": text.files, "tokenizer": "char", "model": dataclasses.asdict(config), "recipe": {"checkpoint_every": 2}
    }  # fmt: skip
    return Run.create(folder / run, description, trainer), trainer


def go_on(run: Run, trainer: Any, steps: int) -> None:
    with Metrics(run, trainer.step) as metrics:
        for _ in range(steps):
            metrics.add(trainer.advance())
        metrics.sync()
        run.save(trainer, snapshot=True)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_run_moves_with_its_text(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "runs").mkdir(parents=True)
    run, trainer = begin(here, run="runs/run")
    go_on(run, trainer, 2)
    here.rename(there)
    moved = Run(there / "runs" / "run")
    assert moved.trainer().step == 2, "the text is found two folders above"

    elsewhere = tmp_path / "elsewhere.txt"
    (there / "text.txt").rename(elsewhere)
    with pytest.raises(FileNotFoundError, match=r"here/text\.txt"):
        moved.trainer()
    assert moved.trainer(files=[elsewhere]).step == 2
    with pytest.raises(ValueError, match="2 texts are given; .* was trained on 1"):
        moved.trainer(files=[elsewhere, elsewhere])
    elsewhere.write_text(WORDS.replace("ski", "sit"))
    with pytest.raises(ValueError, match="elsewhere.txt was changed since"):
        moved.trainer(files=[elsewhere])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")
def test_two_processes_on_one_run(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path)
    before = names(run.path)
    done = refused("train", "--resume", run.path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {run.path}: process {os.getpid()} on ")
    done = refused("train", tmp_path / "text.txt", "--out", run.path, *QUICK)
    assert done.returncode == 1 and "is not empty" in done.stderr
    assert names(run.path) == before
    path = run.path
    del run
    # Nobody has the lock now.
    other = Run(path)
    other.lock()
    go_on(other, trainer, 1)


@pytest.mark.parametrize("moment", ["metrics.csv", "run.json", "checkpoint.safetensors"])
def test_a_run_that_cannot_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    whole = _files.replacing

    def cut(path: Any) -> Any:
        if Path(path).name == moment:
            raise KeyboardInterrupt
        return whole(path)

    monkeypatch.setattr(_files, "replacing", cut)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path)
    assert names(tmp_path) == ["text.txt"]
    monkeypatch.undo()
    run, _ = begin(tmp_path)
    assert run.trainer().step == 0


def test_what_a_killed_process_has_left_goes(tmp_path: Path) -> None:
    # Killed while a run began: run.json is missing, and nobody holds the lock.
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    left = [
        folder / f"checkpoint.safetensors.0{_files.PARTIAL}",
        folder / "checkpoints" / f"x{_files.PARTIAL}",
    ]
    for path in (*left, folder / "lock", folder / "metrics.csv", folder / f"beginning{_files.PARTIAL}"):
        path.touch()
    run, _ = begin(tmp_path)
    assert not any(path.exists() for path in left)
    # Killed while it saved.
    for path in left:
        path.touch()
    del run
    again = Run(folder)
    again.lock()
    assert not any(path.exists() for path in left) and again.trainer().step == 0
    # What is nobody's but the user's stays.
    (tmp_path / "other").mkdir()
    for name in ("checkpoint.safetensors", "notes.txt"):
        (tmp_path / "other" / name).touch()
        with pytest.raises(runs.Occupied, match="other is not empty"):
            begin(tmp_path, run="other")
    assert names(tmp_path / "other") == ["checkpoint.safetensors", "notes.txt"]


def test_runs_from_before_run_json_go_on(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path)
    go_on(run, trainer, 2)
    (run.path / "run.json").rename(run.path / "config.json")
    older = Run(run.path)
    assert older.trainer().step == 2
    older.note_change(2, {"learning_rate": 1.0})
    assert Run(run.path).config["changes"] and not (run.path / "run.json").exists()


def test_lost_rows_cost_a_warning(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path)
    go_on(run, trainer, 4)
    metrics = run.path / "metrics.csv"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines[:2], lines[4], "rubbish\n"]))
    with pytest.warns(UserWarning, match=r"metrics\.csv lacks the rows of 2 of 4 steps"):
        go_on(run, trainer, 2)
    assert run.metrics["step"].tolist() == [1, 4, 5, 6]


def test_another_rate_and_fewer_snapshots(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path, steps=40)
    for _ in range(3):
        go_on(run, trainer, 1)
    run.save(trainer, snapshot=True, keep=2)
    assert [step for step, _ in run.snapshots] == [2, 3]
    assert run.trainer(learning_rate=5.0).schedule.final == 0.5  # type: ignore[attr-defined]
    run.note_change(3, {"learning_rate": 5.0})
    assert run.config["changes"] == [{"step": 3, "learning_rate": 5.0}]
    assert bits(run.trainer().model.parameters) == bits(trainer.model.parameters)


HOSTILE = (
    "", "[]", "null", "[" * 100_000, '{"files": [5]}', "{}", {"files": [5]}, {"files": [{}]}, {"files": {}}, {"recipe": []},
    {"recipe": {}}, {"recipe": {"checkpoint_every": 0}}, {"model": {}}, {"model": []}, {"model": {"context": "8"}},
    {"tokenizer": 5}, {"tokenizer": "none"}, {"files": [{"path": 1, "size": 1, "sha256": ""}]},
)  # fmt: skip


@pytest.mark.parametrize("given", HOSTILE, ids=str)
def test_a_configuration_that_anybody_may_have_written(tmp_path: Path, given: Any) -> None:
    run, _ = begin(tmp_path)
    path = run.path / "run.json"
    whole = json.loads(path.read_text())
    path.write_text(given if isinstance(given, str) else json.dumps({**whole, **given}))
    with pytest.raises(ValueError) as raised:
        Run(run.path).trainer()
    assert str(path) in str(raised.value) or "tokenizer is 'none'" in str(raised.value)


@pytest.mark.parametrize("row", ["x,1,1,1,1,1,1", "1,2", "1,2,3,4,5,6,abc"])
def test_metrics_that_anybody_may_have_written(tmp_path: Path, row: str) -> None:
    run, _ = begin(tmp_path)
    with (run.path / "metrics.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(ValueError, match=r"metrics\.csv, line 2: "):
        _ = run.metrics
    (run.path / "metrics.csv").write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"metrics\.csv: "):
        _ = run.metrics


def test_a_training_that_diverges_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(WORDS)
    out = tmp_path / "run"
    diverging = ["--learning-rate", "1e30", "--warmup", "3", "--steps", "50", "--checkpoint-every", "1"]
    done = refused("train", tmp_path / "text.txt", "--out", out, *QUICK, *diverging)
    assert done.returncode == 1
    assert re.match(r"error: step \d+: (loss|gradient norm) is (inf|NaN)", done.stderr), done.stderr
    assert f"lower rate than 1e+30: jostle train --resume {out} --learning-rate RATE" in done.stderr
    assert done.stderr.count("\n") == 1
    done = refused("train", "--resume", out, "--learning-rate", "1e-3", "--steps", "9")
    assert done.returncode == 2 and "--steps: cannot be combined with --resume" in " ".join(
        done.stderr.split()
    )


def test_a_run_keeps_what_it_does_about_spikes(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(WORDS)
    out = tmp_path / "run"
    spikes = ["--spike-limit", "6", "--on-divergence", "skip", "--steps", "2"]
    command = [*JOSTLE, "train", str(tmp_path / "text.txt"), "--out", str(out), *QUICK, *spikes]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    trainer = Run(out).trainer(1)
    assert (trainer.spike_limit, trainer.on_divergence) == (6.0, "skip")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("end", ["SIGTERM", "closed pipe"])
def test_a_run_that_is_ended_from_outside_leaves_a_checkpoint(tmp_path: Path, end: str) -> None:
    (tmp_path / "text.txt").write_text(WORDS)
    out = tmp_path / "run"
    arguments = [*QUICK, "--steps", "10000000", "--evaluate-every", "20", "--checkpoint-every", "10000000"]
    command = [*JOSTLE, "train", str(tmp_path / "text.txt"), "--out", str(out), *arguments]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), text=True, **pipes) as process:
        while not process.stdout.readline().startswith("step 20 "):
            assert process.poll() is None
        if end == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdout.close()
        status = process.wait(60)
        said = process.stderr.read()
    assert status == 128 + (signal.SIGTERM if end == "SIGTERM" else signal.SIGPIPE)
    assert said == f"stopped; to go on: jostle train --resume {out}\n"
    run = Run(out)
    assert run.trainer().step == len(run.metrics["step"]) >= 20


@pytest.mark.skipif(os.name == "nt", reason="a limit of POSIX")
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    import resource

    run, trainer = begin(tmp_path)
    go_on(run, trainer, 2)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer.advance()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: .*step-000003.safetensors'"):
            run.save(trainer, snapshot=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_disk_that_fills_up_ends_a_run_with_its_last_checkpoint(tmp_path: Path) -> None:
    disk, text = tmp_path / "disk", tmp_path / "text.txt"
    disk.mkdir()
    text.write_text(WORDS)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=False).returncode:
        pytest.skip("nobody may mount a disk here")
    try:
        steps = ["--steps", "1000", "--checkpoint-every", "2"]
        done = refused("train", text, "--out", disk / "run", *QUICK, *steps)
        assert done.returncode == 1
        assert re.fullmatch(rf"error: {disk}/run/\S+: No space left on device\n", done.stderr), done.stderr
        run = Run(disk / "run")
        step = run.trainer().step
        assert step >= 2 and not list(run.path.rglob("*.partial"))
        # With room again, the run continues.
        for _, path in run.snapshots[:-1]:
            path.unlink()
        done = refused("train", "--resume", run.path)
        assert run.trainer().step > step
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.skipif(os.name == "nt", reason="folders of POSIX")
def test_a_folder_that_is_read_only_or_gone(tmp_path: Path) -> None:
    run, trainer = begin(tmp_path)
    before = run.checkpoint.read_bytes()
    run.path.chmod(0o500)
    try:
        if not os.access(run.path, os.W_OK):  # root writes everywhere
            with pytest.raises(PermissionError, match="checkpoint.safetensors"):
                run.save(trainer, snapshot=False)
    finally:
        run.path.chmod(0o700)
    assert run.checkpoint.read_bytes() == before
    shutil.rmtree(run.path)
    with pytest.raises(FileNotFoundError, match="checkpoint.safetensors"):
        run.save(trainer, snapshot=False)
    assert np.isfinite(trainer.advance().loss)
