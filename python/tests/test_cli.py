"""The command line end to end: as a process, and in a terminal."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pexpect  # type: ignore[import-untyped]
import pytest

import jostle
from jostle import runs
from jostle.cli import text as texts
from jostle.runs import Run

JOSTLE = [sys.executable, "-W", "error", "-m", "jostle"]
STEPS = 300
TRAIN = (
    f"--steps {STEPS} --context 16 --layers 2 --heads 2 --width 32 --batch 64 --threads 2 --seed 7"
    " --checkpoint-every 100 --evaluate-every 60"
).split()
CLOCKS = ("tokens_per_second", "seconds")
"""The columns of metrics.csv that differ from run to run."""


QUICK = ["--context", "8", "--layers", "1", "--heads", "1", "--width", "8", "--threads", "1", "--seed", "7"]
"""The sizes of runs that are only begun, interrupted or refused."""


def environment() -> dict[str, str]:
    """The environment of this process, without variables about terminals."""
    unset = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    return {name: value for name, value in os.environ.items() if name not in unset} | {"TERM": "xterm"}


def jostle_says(*arguments: object, cwd: Path | None = None) -> str:
    """The output of a command, which must succeed and leave stderr empty."""
    done = refused(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def refused(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*JOSTLE, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def text(folder: Path) -> Path:
    path = folder / "snow.txt"
    path.write_text("I like to ski when it snows. The snow is white – and cold. " * 40, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(folder: Path, text: Path) -> tuple[Run, str]:
    """A run without interruption, and its output."""
    printed = jostle_says("train", text, *TRAIN, cwd=folder)
    return Run(folder / "runs" / "snow-1"), printed


def test_train_leaves_a_folder(trained: tuple[Run, str], text: Path) -> None:
    run, printed = trained
    assert run.name == "snow-1"
    assert run.config["jostle"] == jostle.__version__
    assert run.config["files"][0]["path"] == str(text.resolve())
    assert run.config["files"][0]["size"] == text.stat().st_size
    assert jostle.Config(**run.config["model"]).width == 32
    assert run.config["recipe"]["final_learning_rate"] == 1e-4
    assert [snapshot.step for snapshot in run.snapshots] == [0, 100, 200, 300]
    assert jostle.Model.load(run.snapshots[1].path).config == run.model().config

    metrics = run.metrics
    assert list(metrics) == list(runs.COLUMNS)
    assert metrics["step"].tolist() == list(range(1, STEPS + 1))
    assert metrics["loss"][-1] < metrics["loss"][0] / 2
    evaluated = np.flatnonzero(~np.isnan(metrics["validation_loss"])) + 1
    assert evaluated.tolist() == [60, 120, 180, 240, 300]
    assert (np.diff(metrics["seconds"]) >= 0).all()

    # The package's own trainer gives the same rows, to the last bit.
    train, validation = run.tokens()
    assert len(train) + len(validation) == len(text.read_text(encoding="utf-8"))
    last = run.trainer()
    assert last.step == STEPS
    assert np.float32(last.evaluate(validation)) == np.float32(metrics["validation_loss"][-1])

    # Without a terminal, lines and nothing that moves a cursor.
    assert "\x1b" not in printed and "\r" not in printed
    assert f"\nstep {STEPS}/{STEPS}  loss " in printed
    loss, validation_loss = metrics["loss"][59], metrics["validation_loss"][59]
    assert f"step 60  loss {loss:.3f}  validation loss {validation_loss:.4f}" in printed
    for picture in ("loss.png", "attention.png"):
        assert (run.path / picture).read_bytes().startswith(b"\x89PNG")
    sample = (run.path / "sample.txt").read_text(encoding="utf-8")
    assert sample.startswith("The ") and len(sample) == 4 + 500 + 1
    assert "\n" + sample in printed


def test_a_second_run_has_a_folder_of_its_own(folder: Path, text: Path, trained: tuple[Run, str]) -> None:
    jostle_says("train", text, text, "--tokenizer", "word", *TRAIN, "--steps", 1, cwd=folder)
    second = Run(folder / "runs" / "snow-2")
    assert isinstance(second.model().tokenizer, jostle.WordTokenizer)
    assert len(second.config["files"]) == 2
    assert Run(folder / "runs" / "snow-1").config == trained[0].config


def test_ctrl_c_and_resume_end_in_the_same_bytes(folder: Path, text: Path, trained: tuple[Run, str]) -> None:
    undisturbed, _ = trained
    # The training takes less than a second. On a busy machine it may end before Ctrl-C arrives.
    for number in range(5):
        out = folder / f"disturbed run {number}"
        terminal = spawn(["train", str(text), *TRAIN, "--out", str(out)])
        terminal.expect(rf"━.* step \d+/{STEPS}  loss \d\.\d+  [\d,]+ tokens/s  \d+:\d\d left")
        terminal.sendintr()
        stopped = f"stopped; to go on: jostle train --resume '{out}'"
        if terminal.expect_exact([stopped, pexpect.EOF]) == 0:
            break
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    done = len(Run(out).metrics["step"])
    assert 0 < done < STEPS
    assert Run(out).trainer().step == done

    # As if it had been killed between two checkpoints: the last rows belong to steps that will be taken again.
    with (out / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write(f"{done + 1},9,9,9,9,9,9\n{done + 2},9,9")
    terminal = spawn(["train", "--resume", str(out)])
    terminal.expect(r"step \d+  loss \d\.\d+  validation loss \d\.\d{4}")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0

    for name in ("checkpoint.safetensors", "sample.txt", "run.json"):
        assert (out / name).read_bytes() == (undisturbed.path / name).read_bytes(), name
    assert [step for step, _ in Run(out).snapshots] == [step for step, _ in undisturbed.snapshots]
    for (_, ours), (_, theirs) in zip(Run(out).snapshots, undisturbed.snapshots, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    for name, column in undisturbed.metrics.items():
        if name not in CLOCKS:
            assert np.array_equal(Run(out).metrics[name], column, equal_nan=True), name


def spawn(arguments: Sequence[str]) -> pexpect.spawn:
    """The command in a terminal."""
    return pexpect.spawn(
        JOSTLE[0],
        [*JOSTLE[1:], *arguments],
        env=environment(),
        dimensions=(24, 120),
        encoding="utf-8",
        timeout=300,
    )


@pytest.mark.parametrize(
    "setting", [{"temperature": 3.0}, {"top_k": 2}, {"top_p": 0.3}, {"min_p": 0.9}, {"seed": 3}, {}]
)
def test_generate(trained: tuple[Run, str], setting: dict[str, Any]) -> None:
    run, _ = trained
    model = run.model()
    assert model.tokenizer is not None
    prompt = model.tokenizer.encode("I like")
    settings = {"temperature": 1.5, **setting}
    expected = model.generate(prompt, 50, **settings)
    other = model.generate(prompt, 50, temperature=1.5)
    assert not setting or not np.array_equal(expected, other), "the setting makes a difference"
    path = run.path if setting else run.checkpoint
    options = [
        str(part) for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)
    ]
    printed = jostle_says("generate", path, "I like", "--count", 50, *options)
    assert printed == "I like" + model.tokenizer.decode(expected) + "\n"


def test_text_is_shown_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="utf-8"))

    def pieces() -> Iterator[str]:
        yield "I like"
        assert shown.getvalue() == b"I like"
        yield " to ski"
        assert shown.getvalue() == b"I like to ski"

    assert texts.show(pieces()) == "I like to ski"


def test_generate_goes_on_until_ctrl_c(trained: tuple[Run, str]) -> None:
    arguments = [*JOSTLE, "generate", str(trained[0].path), "I like", "--count", "1000000000"]
    with subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(10).startswith(b"I like")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_bytes_become_whole_characters() -> None:
    pieces = list(jostle.ByteTokenizer().pieces([*"a –".encode(), 0xFF, *"é".encode()[:1]]))
    assert "".join(pieces) == "a –\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def test_a_tokenizer_is_trained_and_resumed(folder: Path, text: Path) -> None:
    out = folder / "bpe"
    printed = jostle_says(
        "train", text, *QUICK, "--tokenizer", "bpe", "--vocab", "270", "--steps", "2", "--out", out
    )
    assert "(270 different tokens)" in printed
    run = Run(out)
    tokenizer = run.model().tokenizer
    assert isinstance(tokenizer, jostle.PretrainedTokenizer) and tokenizer.vocab == 270
    trainer = run.trainer()
    assert trainer.validation is not None
    assert tokenizer.decode([*trainer.train, *trainer.validation]) == text.read_text(encoding="utf-8")
    assert jostle_says("generate", out, "I like", "--count", "5").startswith("I like")
    # A Hugging Face folder has the same model.
    run.model().save_pretrained(folder / "exported")
    for command in ("generate", "predict"):
        assert jostle_says(command, folder / "exported", "I") == jostle_says(command, out, "I")


def test_a_llama_is_trained_resumed_and_exported(folder: Path, text: Path) -> None:
    out, sizes = folder / "llama", ["--heads", "4", "--kv-heads", "2", "--width", "16"]
    jostle_says(
        "train",
        text,
        *QUICK,
        "--recipe",
        "llama",
        *sizes,
        "--steps",
        "4",
        "--evaluate-every",
        "2",
        "--out",
        out,
    )
    config = Run(out).model().config
    assert (config.positions, config.kv_heads, config.hidden, config.bias) == ("rotary", 2, 64, False)
    assert Run(out).trainer().step == 4
    Run(out).model().save_pretrained(folder / "exported-llama")
    assert jostle_says("generate", folder / "exported-llama", "I") == jostle_says("generate", out, "I")
    assert "rope_theta" not in jostle_says("plan", "--recipe", "llama", *sizes)


def test_predict(trained: tuple[Run, str]) -> None:
    model = trained[0].model()
    assert model.tokenizer is not None
    probabilities = model.probabilities(model.tokenizer.encode("I lik"))
    printed = jostle_says("predict", trained[0].path, "I lik", "--top", 3)
    rows = [line.split() for line in printed.splitlines()[1:]]
    assert len(rows) == 3
    assert rows[0][:2] == ["'e'", f"{probabilities.max():.2%}"]
    bars = [row[2].count("█") for row in rows if len(row) > 2]
    assert bars and abs(bars[0] - 40 * probabilities.max()) < 1


def test_plan() -> None:
    sizes = ["--vocab", "65", "--context", "32", "--layers", "2", "--heads", "2", "--width", "32"]
    config = jostle.Config(vocab=65, context=32, layers=2, heads=2, width=32, tied=False)
    plan = jostle.plan(config, 8, 2, "momentum")
    printed = jostle_says("plan", *sizes, "--batch", 8, "--threads", 2, "--optimizer", "momentum")
    for region in plan:
        assert f" {region} " in printed and f" {plan[region]:,} " in printed
    assert f" {plan.training:,} " in printed

    fitting = jostle.plan(config, 64, 1, budget=1536 * 1024)
    assert 1 < fitting.batch < 64
    last = f"fits 1,572,864 bytes with batch {fitting.batch} and threads 1\n"
    for budget in ("1.5M", "1572864"):
        assert jostle_says("plan", *sizes, "--batch", 64, "--fit", budget).endswith(last)
    header = jostle_says("plan", *sizes, "--batch", 8, "--defines", "--device", "--prefix", "TINY")
    assert header.startswith("/* jostle plan --vocab ")
    assert f"#define TINY_PARAMETERS_SIZE {jostle.plan(config, 8)['parameters']}u" in header
    assert (
        header.rstrip()
        == jostle.plan(config, 8)
        .defines(device=True, prefix="TINY", command=header.partition("\n")[0].removeprefix("/* "))
        .rstrip()
    )
    tight = refused("plan", *sizes, "--fit", "2K")
    assert tight.returncode == 1
    least = jostle.plan(config, recompute=True)
    assert f"expected at least {least.training}" in tight.stderr
    for given in (["--recompute"], ["--fit", least.training]):
        printed = jostle_says("plan", *sizes, "--batch", 1, *given)
        assert f" {least.training:,} " in printed
        assert f"recomputes {least.recomputed:,} multiply-adds a pass\n" in printed
    fused = jostle.plan(config, fused=True)
    for given in (["--fused"], ["--fit", fused.training]):
        printed = jostle_says("plan", *sizes, "--batch", 1, *given)
        assert f" {fused.training:,} " in printed and "updates in the backward pass" in printed
    frozen = jostle.plan(config, frozen=["w*", "h.0.*"])
    printed = jostle_says("plan", *sizes, "--batch", 1, "--freeze", "w*", "--freeze", "h.0.*")
    assert f" {frozen.training:,} " in printed and f" {frozen['frozen']:,} " in printed
    assert "'wte'" in refused("plan", *sizes, "--freeze", "wte").stderr


def test_plot(trained: tuple[Run, str], folder: Path) -> None:
    run, _ = trained
    printed = jostle_says("plot", run.path, "--kind", "all", "--text", "I like to ski", "--head", 1)
    pictures = [run.path / name for name in ("loss.png", "attention.png", "surface.png")]
    assert printed.splitlines() == [str(picture) for picture in pictures]
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
    out = folder / "pictures"
    other = folder / "elsewhere" / run.name
    shutil.copytree(run.path, other)
    before = (run.path / "loss.png").read_bytes()
    kinds = ["--kind", "attention", "--text", "I like", "--head", "0"]
    jostle_says("plot", run.path, other, "--out", out, *kinds)
    jostle_says("plot", run.path, "--out", out, *kinds)
    jostle_says("plot", run.path, other, "--out", out)
    wanted = ["attention.png", "loss.png", "snow-1-attention-2.png", "snow-1-attention.png"]
    assert sorted(path.name for path in out.iterdir()) == wanted
    # Without a folder, the losses of several runs go to neither's.
    assert jostle_says("plot", run.path, other, cwd=out.parent) == "loss.png\n"
    assert (run.path / "loss.png").read_bytes() == before


def test_pictures_of_bytes_that_begin_and_end_within_a_character(folder: Path) -> None:
    (folder / "cold.txt").write_text("冷たい水" * 100, encoding="utf-8")
    jostle_says("train", "cold.txt", "--tokenizer", "byte", *TRAIN, "--steps", 1, "--out", "cold", cwd=folder)
    assert (folder / "cold" / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_no_formulas_and_need_no_font(folder: Path, trained: tuple[Run, str]) -> None:
    named = folder / "named" / "$x^$ 冷"
    shutil.copytree(trained[0].path, named)
    jostle_says("plot", named, "--kind", "loss")
    jostle_says("plot", named, "--kind", "surface")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name, begin in (("plain", ""), ("marked", "\ufeff")):
        (tmp_path / name).write_text(begin + "snow", encoding="utf-8")
    assert runs.Text.read([tmp_path / "marked", tmp_path / "plain"]).text == "snowsnow"


def test_a_terminal_without_the_texts_characters_does_not_end_a_run(folder: Path, text: Path) -> None:
    arguments = [*JOSTLE, "train", str(text), *QUICK, "--steps", "1", "--out", str(folder / "ascii")]
    ascii_only = environment() | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(arguments, env=ascii_only, capture_output=True, encoding="ascii", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    sample = (folder / "ascii" / "sample.txt").read_text(encoding="utf-8")
    assert "–" in sample and sample.replace("–", "?") in done.stdout


def test_version() -> None:
    assert jostle_says("--version") == f"jostle {jostle.__version__}\n"


@pytest.mark.parametrize("command", ["train", "generate", "predict", "plan", "plot"])
def test_help_has_an_example(command: str) -> None:
    assert f"Example: jostle {command} " in jostle_says(command, "--help")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("train missing.txt", "missing.txt: No such file or directory"),
        ("train empty.txt", "empty.txt is empty"),
        ("train /dev/null", "/dev/null is not a regular file"),
        ("train latin.txt", "latin.txt is not UTF-8 text (byte 1)"),
        ("train short.txt", "the text has 5 tokens; at least 73 are needed for a context of 64"),
        ("train snow.txt --heads 3", "width 128 is not divisible by heads 3"),
        ("train snow.txt --dropout 1", "dropout is 1.0; expected at least 0 and below 1"),
        (
            "train snow.txt --width 1000000000",
            "width is 1000000000; expected at least 1 and at most 2**29 - 1",
        ),
        ("train snow.txt --steps 5 --warmup 6", "warmup is 6 steps; expected at most 5"),
        ("train snow.txt --out runs", "runs is not empty"),
        ("train --resume missing", "missing: No such run folder"),
        ("generate missing x", "missing: No such file or directory"),
        ("generate runs x", "runs is not a run's folder: it has no run.json"),
        ("generate short.txt x", "short.txt: checkpoint: "),
        ("generate torn.safetensors x", "torn.safetensors: checkpoint: "),
        ("generate altered.safetensors x", "altered.safetensors: checkpoint: "),
        ("generate runs/snow-1 ?", "the character '?' is not in the vocabulary"),
        ("generate runs/snow-1 I --top-p 2", "top_p is 2; expected"),
        ("predict runs/snow-1 ", "the prompt is empty"),
        ("plan --defines --prefix 2D", "prefix is '2D'; expected letters"),
        ("plot runs/snow-1 --kind attention --layer 2", "layer is 2; expected"),
    ],
)
def test_refusals(folder: Path, trained: tuple[Run, str], arguments: str, sentence: str) -> None:
    (folder / "empty.txt").touch()
    (folder / "latin.txt").write_bytes(b"h\xe9")
    (folder / "short.txt").write_text("short")
    whole = trained[0].checkpoint.read_bytes()
    (folder / "torn.safetensors").write_bytes(whole[:-1])
    (folder / "altered.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    before = sorted(folder.rglob("*"))
    done = refused(*arguments.split(" "), cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(folder.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("train", "FILE"),
        ("train --resume runs/snow-1 --steps 9", "--steps"),
        ("train snow.txt --batch 0", "--batch"),
        ("train snow.txt --vocab 300", "--vocab"),
        ("train snow.txt --kv-heads 2", "--kv-heads"),
        ("plan --fit 2X", "'2X'"),
        ("jump", "jump"),
    ],
)
def test_wrong_usage(folder: Path, trained: tuple[Run, str], arguments: str, word: str) -> None:
    done = refused(*arguments.split(), cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert word in done.stderr and "Traceback" not in done.stderr


def test_a_text_that_changed_is_not_trained_on(folder: Path, trained: tuple[Run, str]) -> None:
    changed, copy = folder / "changed.txt", folder / "run of changed"
    shutil.copytree(trained[0].path, copy)
    config = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    config["files"][0]["path"] = str(changed)
    (copy / "run.json").write_text(json.dumps(config), encoding="utf-8")
    done = refused("train", "--resume", copy)
    assert (done.returncode, done.stderr) == (1, f"error: {changed}: No such file or directory\n")
    text = Path(trained[0].config["files"][0]["path"]).read_bytes()
    changed.write_bytes(text.replace(b"cold", b"warm"))
    done = refused("train", "--resume", copy)
    assert done.returncode == 1 and f"{changed} was changed since" in done.stderr
    changed.write_bytes(text)
    assert Run(copy).trainer().step == STEPS


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from jostle.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert "pip install typer rich" in done.stderr and done.stderr.count("\n") == 1
