"""Fine-tuning from the command line: from a folder to a folder, and a conversation with the result."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from common import bits
from test_cli import JOSTLE, environment, jostle_says, refused
from test_examples_of_data import tokenizer

import jostle
from jostle.runs import Run

ANSWERS = {"Snow?": "Yes.", "Ski?": "I like to ski.", "When?": "When it snows.", "And?": "Snow fell."}
CHATS = [
    {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    for question, answer in ANSWERS.items()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of Hugging Face's, and data."""
    path = tmp_path_factory.mktemp("finetuning")
    made = tokenizer()
    config = jostle.Config(vocab=made.vocab, context=64, layers=2, heads=2, width=32, activation="gelu_tanh")
    jostle.Model(config, 3, tokenizer=made).save_pretrained(path / "base")
    lines = [json.dumps(chat) for chat in CHATS * 10]
    (path / "chats.jsonl").write_text("\n".join(lines))
    (path / "mlx").mkdir()
    (path / "mlx" / "train.jsonl").write_text("\n".join(lines))
    (path / "mlx" / "valid.jsonl").write_text("\n".join(lines[:3]))
    (path / "text.txt").write_text("I like to ski when it snows. " * 60)
    return path


@pytest.fixture(scope="module")
def tuned(folder: Path) -> tuple[Path, str]:
    """A run that fine-tuned on conversations, and what it printed."""
    settings = ["--epochs", 12, "--learning-rate", 1e-2, "--threads", 1, "--checkpoint-every", 50]
    printed = jostle_says("train", "--from", "base", "chats.jsonl", *settings, cwd=folder)
    return folder / "runs" / "chats-1", printed


def test_fine_tuning_leaves_a_folder(tuned: tuple[Path, str]) -> None:
    path, printed = tuned
    run = Run(path)
    assert "40 examples (" in printed
    assert run.config["recipe"]["steps"] == 12 * 9 and run.config["recipe"]["batch"] == 4
    losses = run.metrics["validation_loss"]
    assert np.flatnonzero(~np.isnan(losses)).tolist() == list(range(8, 108, 9)), "after each epoch"
    before = float(printed.split("before  validation loss ")[1].split()[0])
    assert losses[-1] < 0.2 < 3 < before
    model = jostle.Model.from_pretrained(path / "model")
    assert bits(model.parameters) == bits(run.model().parameters)
    assert model.tokenizer == jostle.Tokenizer.load(path.parents[1] / "base")
    sample = (path / "sample.txt").read_text()
    for answer in ("Yes.", "I like to ski.", "When it snows."):
        assert f"assistant\n{answer}\n" in sample and f"assistant\n{answer}\n" in printed


def test_adapters_are_trained_from_a_folder(folder: Path) -> None:
    settings = ["--lora", 4, "--steps", 30, "--learning-rate", 1e-2, "--threads", 1, "--out", "lora"]
    printed = jostle_says("train", "--from", "base", "chats.jsonl", *settings, cwd=folder)
    assert "adapter: lora/adapter" in printed and "model: lora/model" in printed
    run = Run(folder / "lora")
    adapted = jostle.Model.from_pretrained(folder / "base", adapter=folder / "lora" / "adapter")
    assert bits(adapted.parameters) == bits(run.model().parameters)
    assert run.metrics["loss"][-1] < 0.95 * run.metrics["loss"][0]
    merged = jostle.Model.from_pretrained(folder / "lora" / "model")
    assert bits(merged.parameters) == bits(adapted.merge_adapter().parameters)
    trainer = run.trainer()
    assert set(trainer.model.frozen) == set(merged.parameters)
    says = [
        jostle_says("generate", place, "Ski?", "--temperature", 0, "--count", 8, cwd=folder)
        for place in ("lora", "lora/model")
    ]
    assert says[0] == says[1]
    assert refused("train", "text.txt", "--lora", 2, cwd=folder).returncode == 2


def test_a_conversation(tuned: tuple[Path, str]) -> None:
    path, _ = tuned
    for place in (path / "model", path):
        command = [*JOSTLE, "chat", str(place), "--temperature", "0"]
        done = subprocess.run(
            command, input="Ski?\n\nSnow?\n", env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and done.stderr == ""
        assert done.stdout.splitlines()[0] == "I like to ski."
        assert len(done.stdout.splitlines()) >= 2 and "<|" not in done.stdout
    done = refused("chat", path.parents[1] / "bare")
    assert done.returncode == 1


def test_generation_ends_where_the_model_or_a_string_ends_it(tuned: tuple[Path, str]) -> None:
    path, _ = tuned
    prompt = "<|im_start|>user\nWhen?<|im_end|>\n<|im_start|>assistant\n"
    arguments = ["generate", path / "model", prompt, "--temperature", 0, "--count", 40]
    assert jostle_says(*arguments, "--stop", "<|im_end|>") == f"{prompt}When it snows.\n"
    assert jostle_says(*arguments, "--stop", "zzz", "--stop", "snow") == f"{prompt}When it\n"
    penalized = jostle_says(*arguments, "--repetition-penalty", 50)
    assert penalized != jostle_says(*arguments)


def test_fine_tuning_resumes_with_the_bits_of_a_run_without_interruption(folder: Path) -> None:
    settings = ["--from", "base", "chats.jsonl", "--steps", 14, "--threads", 1, "--out"]
    jostle_says("train", *settings, "whole", cwd=folder)
    out = folder / "half"
    trainer_steps = Run(folder / "whole").trainer().steps
    assert trainer_steps == 14
    # As if the process had been killed after seven steps.
    code = """
import sys
from jostle import training
from jostle.cli import run
advance = training.Trainer.advance
def stop(trainer):
    if trainer.step == 7:
        raise KeyboardInterrupt
    return advance(trainer)
training.Trainer.advance = stop
sys.argv = ["jostle", *sys.argv[1:]]
run()
"""
    arguments = [str(one) for one in ("train", *settings, "half", "--checkpoint-every", 7)]
    done = subprocess.run(
        [JOSTLE[0], "-c", code, *arguments], cwd=folder, env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 130 and Run(out).trainer().step == 7
    jostle_says("train", "--resume", "half", "--tensorboard", cwd=folder)
    assert bits(Run(out).model().parameters) == bits(Run(folder / "whole").model().parameters)
    assert (out / "sample.txt").read_bytes() == (folder / "whole" / "sample.txt").read_bytes()
    assert list(out.glob("events.*")) and (out / "model" / "config.json").exists()


def test_folders_as_mlx_lm_has_them_and_texts(folder: Path) -> None:
    few = ["--epochs", 1, "--threads", 1, "--out"]
    printed = jostle_says("train", "--from", "base", "mlx", *few, "of mlx", cwd=folder)
    assert "43 examples" in printed
    assert Run(folder / "of mlx").trainer().validation.examples[0].counted.any()
    printed = jostle_says("train", "--from", "runs/chats-1", "text.txt", *few, "of text", cwd=folder)
    assert "tokens of text" in printed and Run(folder / "of text").trainer().step > 1
    jostle_says(
        "tokenize", "text.txt", "--tokenizer", "base", "--out", "text.bin", "--processes", 1, cwd=folder
    )
    jostle_says("train", "--from", "runs/chats-1", "text.bin", *few, "of tokens", cwd=folder)
    models = [Run(folder / f"of {kind}").model() for kind in ("text", "tokens")]
    assert models[0].config == models[1].config
    assert (folder / "of tokens" / "model" / "model.safetensors").exists()


def test_a_long_context_needs_memory_for_the_longest_example_only(folder: Path) -> None:
    made = tokenizer()
    config = jostle.Config(
        vocab=made.vocab, context=1 << 20, layers=1, heads=2, kv_heads=1, width=16, norm="rms",
        positions="rotary", activation="swiglu", bias=False,
    )  # fmt: skip
    jostle.Model(config, 3, tokenizer=made).save_pretrained(folder / "long")
    few = ["--epochs", 1, "--threads", 1, "--out"]
    jostle_says("train", "--from", "long", "chats.jsonl", *few, "of chats", cwd=folder)
    run = Run(folder / "of chats")
    longest = max(len(made.encode(made.chat(chat["messages"], answer=False))) for chat in CHATS)
    assert run.config["recipe"]["length"] == longest - 1
    assert run.trainer().length == longest - 1
    assert jostle.Config.from_pretrained(run.path / "model").context == 1 << 20
    jostle_says("train", "--from", "long", "text.txt", "--context", 20, *few, "of long text", cwd=folder)
    assert Run(folder / "of long text").trainer().length == 20


def test_training_on_standard_input(folder: Path) -> None:
    command = [*JOSTLE, "train", "-", "--steps", "3", "--context", "8", "--layers", "1", "--threads", "1"]
    text = (folder / "text.txt").read_bytes()
    subprocess.run(command, cwd=folder, input=text, env=environment(), capture_output=True, check=True)
    run = Run(folder / "runs" / "stdin-1")
    assert (run.path / "stdin.txt").read_bytes() == text and run.trainer().step == 3
    assert run.text() == text.decode()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ("train --from base chats.jsonl --width 8", 2, "--width"),
        ("train --from base chats.jsonl --steps 5 --epochs 2", 2, "--epochs"),
        ("train text.txt --epochs 2", 2, "--epochs"),
        ("train chats.jsonl", 2, "--from"),
        ("train --from missing chats.jsonl", 1, "missing: No such file or directory"),
        ("train --from base bad.jsonl", 1, "bad.jsonl, line 1: the keys are ['words']"),
        ("train --from bare chats.jsonl", 1, "the model has no tokenizer"),
        ("chat bare", 1, "the checkpoint has no tokenizer"),
    ],
)
def test_refusals(folder: Path, arguments: str, status: int, sentence: str) -> None:
    (folder / "bad.jsonl").write_text('{"words": 5}')
    config = jostle.Config(vocab=9, context=4, layers=1, heads=1, width=4)
    jostle.Model(config).save(folder / "bare")
    done = refused(*arguments.split(), cwd=folder)
    assert done.returncode == status and sentence in done.stderr and "Traceback" not in done.stderr
