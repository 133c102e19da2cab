"""Runs the examples, on a small text and for a few steps."""

import re
import runpy
from pathlib import Path

import pytest

import jostle

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXT = "The quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in a folder of its own; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr("sys.argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def losses(printed: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"loss ([0-9.]+)", printed)]


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "train.py",
        "finetune.py",
        "own_loop.py",
        "answers.py",
    }


def test_train_then_finetune(run):
    printed = run("train.py", "text.txt", "20")
    assert losses(printed)[-1] < 3 and len(printed) > 300

    before = jostle.Model.load("checkpoint.safetensors")
    first, last = losses(run("finetune.py", "checkpoint.safetensors", "text.txt", "20"))
    after = jostle.Model.load("finetuned.safetensors")
    assert last < first
    for name, parameter in before.parameters.items():
        changed = bool((parameter != after.parameters[name]).any())
        assert changed == (not name.startswith(("wte.", "wpe.", "h.0.", "h.1."))), name


def test_own_loop(run):
    printed = run("own_loop.py")
    assert losses(printed)[-1] < 2.5
    assert printed.count("norm of the gradients") == 5


def test_answers(run):
    printed = run("answers.py")
    before, after = losses(printed)
    assert after < 0.2 < before
    assert "What does the cow do? It moos.\n" in printed and "What does the lion do? It roars.\n" in printed
    assert jostle.Model.from_pretrained("answers").tokenizer is not None
