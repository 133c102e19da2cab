"""jostle train: trains on texts, and leaves a run's folder."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import itertools
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

import jostle
from jostle import _files, data, runs
from jostle.cli import options, plot
from jostle.cli import text as texts
from jostle.runs import Metrics, Run
from jostle.tokenizers import Tokenizer
from jostle.training import Report, Trainer

EXAMPLE = "jostle train shakespeare.txt --steps 2000 --dropout 0.2"

PAUSE = 5.0
"""Seconds between two lines of progress without a terminal."""
PROMPT = "The "
"""The beginning of the sample, if the vocabulary has its characters."""
SAMPLE = 500
"""The number of tokens in the sample."""

RUN = "Run"
"""The panel of `--help` for the files of a run."""


class OnDivergence(str, enum.Enum):
    """The action after a step that diverges."""

    stop = "stop"
    skip = "skip"


def command(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Texts in UTF-8, which are joined, or a token file, whose name ends in .bin; the last tenth is for"
            " validation.",
            show_default=False,
        ),
    ] = None,
    tokenizer: options.Tokenizer = None,
    vocab: options.Vocab = None,
    context: options.Context = 64,
    layers: options.Layers = 4,
    heads: options.Heads = 4,
    width: options.Width = 128,
    hidden: options.Hidden = None,
    tied: options.Tied = False,
    dropout: options.Dropout = 0.1,
    batch: options.Batch = 12,
    accumulate: Annotated[int, typer.Option(min=1, help="The number of batches in a step.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="The number of steps in all.")] = 1400,
    learning_rate: Annotated[
        float, typer.Option(metavar="RATE", help="The learning rate of AdamW, after the warm-up.")
    ] = 1e-3,
    final_learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="The rate at the last step, at the end of half a cosine.",
            show_default="a tenth of the learning rate",
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(min=0, help="Steps of rising learning rate.", show_default="100, or all steps"),
    ] = None,
    spike_limit: Annotated[
        float | None,
        typer.Option(
            metavar="DEVIATIONS",
            help="Refuse the update of a step whose loss is this many standard deviations above the last ones; 6 is usual.",
            show_default="none",
        ),
    ] = None,
    on_divergence: Annotated[
        OnDivergence,
        typer.Option(help="Whether a step that is not finite, or a spike, stops training or is skipped."),
    ] = OnDivergence.stop,
    seed: options.Seed = 1337,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="The number of threads.", show_default="all processors"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(rich_help_panel=RUN, help="The run's folder.", show_default="runs/NAME-NUMBER"),
    ] = None,
    evaluate_every: Annotated[
        int,
        typer.Option(min=1, rich_help_panel=RUN, help="Steps between losses on the validation text."),
    ] = 250,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, rich_help_panel=RUN, help="Steps between checkpoints.")
    ] = 100,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=RUN,
            help="How many of the newest checkpoints to keep.",
            show_default="all",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            rich_help_panel=RUN,
            help="Continue a run, with the bits of a run that was never interrupted. FILE, if it has moved, --threads"
            " and --learning-rate may be given too.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a model on texts.

    Ctrl-C and SIGTERM stop training after the current step and leave a checkpoint for --resume.
    """
    if resume is not None:
        given = _given(ctx, ("resume", "threads", "files", "learning_rate"))
        run = Run(resume)
        run.lock()
        rate = learning_rate if "learning_rate" in given else None
        trainer = run.trainer(threads, files=files or None, learning_rate=rate)
        if rate is not None:
            run.note_change(trainer.step, {"learning_rate": rate})
    else:
        if not files:
            raise typer.BadParameter("a text to train on is missing", ctx, param_hint="FILE")
        read = _read_tokens if any(map(runs.is_token_file, files)) else _read_text
        source = read(ctx, files, tokenizer, vocab)
        train, validation = runs.split(source.tokens, context)
        config = jostle.Config(
            vocab=source.vocab,
            context=context,
            layers=layers,
            heads=heads,
            width=width,
            hidden=hidden,
            dropout=dropout,
            tied=tied,
        )
        final = learning_rate / 10 if final_learning_rate is None else final_learning_rate
        warmup = min(100, steps) if warmup is None else warmup
        recipe = {
            "batch": batch,
            "accumulate": accumulate,
            "steps": steps,
            "learning_rate": learning_rate,
            "final_learning_rate": final,
            "warmup": warmup,
            "spike_limit": spike_limit,
            "on_divergence": on_divergence.value,
            "evaluate_every": evaluate_every,
            "checkpoint_every": checkpoint_every,
            "keep": keep,
        }
        model = jostle.Model(config, seed, threads, tokenizer=source.tokenizer)
        trainer = Trainer(
            model,
            jostle.AdamW(model, learning_rate),
            train=train,
            validation=validation,
            batch=batch,
            steps=steps,
            schedule=jostle.Cosine(warmup=warmup, final=final),
            accumulate=accumulate,
            seed=seed,
            evaluate_every=evaluate_every,
            spike_limit=spike_limit,
            on_divergence=on_divergence.value,
        )
        description = {
            "jostle": jostle.__version__,
            "files": source.files,
            "tokenizer": source.kind,
            "model": dataclasses.asdict(config),
            "recipe": recipe,
            "seed": seed,
        }
        if out is None:
            run = Run.create_numbered("runs", files[0].stem, description, trainer)
        else:
            run = Run.create(out, description, trainer)
    again = f"jostle train --resume {shlex.quote(str(run.path))}"
    try:
        stopped = _train(run, trainer)
    except KeyboardInterrupt:
        stopped = signal.SIGINT
    except FloatingPointError as error:
        raise FloatingPointError(
            f"{error}: training diverges; to go on from the last checkpoint with a lower"
            f" rate than {trainer.optimizer.learning_rate:g}: {again} --learning-rate RATE; or begin again with a"
            " longer --warmup"
        ) from None
    if stopped is not None:
        print(f"stopped; to go on: {again}", file=sys.stderr)
        # As shells report a signal.
        raise typer.Exit(128 + stopped)
    has_text = trainer.model.tokenizer is not None
    if has_text:
        _write_sample(run, trainer)
    if importlib.util.find_spec("matplotlib") is not None:
        plot.draw([run], plot.Kind.loss)
    if has_text and importlib.util.find_spec("matplotlib") is not None:
        # All heads are drawn if they are few enough to be distinguished.
        plot.draw([run], plot.Kind.attention, head=None if trainer.model.config.heads <= 4 else 0)


class _Source(NamedTuple):
    """What a run trains on."""

    tokens: runs.Tokens
    vocab: int
    tokenizer: Tokenizer | None
    kind: str
    """The tokenizer's, as in a run's configuration."""
    files: list[dict[str, Any]]


def _read_text(ctx: typer.Context, files: list[Path], tokenizer: str | None, vocab: int | None) -> _Source:
    kind = tokenizer or "char"
    options.check_vocab(ctx, kind, vocab)
    text = runs.Text.read(files)
    made = runs.make_tokenizer(kind, text.text, vocab)
    kind = kind if kind in runs.KINDS else "file"
    return _Source(made.encode(text.text), made.vocab, made, kind, text.files)


def _read_tokens(ctx: typer.Context, files: list[Path], tokenizer: str | None, vocab: int | None) -> _Source:
    if len(files) > 1:
        raise typer.BadParameter("a token file is trained on alone", ctx, param_hint="FILE")
    if tokenizer in runs.KINDS:
        raise typer.BadParameter(
            "a token file needs its own tokenizer, in a file or folder", ctx, param_hint="--tokenizer"
        )
    (path,) = files
    beside = data.tokenizer_path(path)
    if tokenizer is None and beside.exists():
        tokenizer = str(beside)
    made = None if tokenizer is None else runs.make_tokenizer(tokenizer, "")
    vocab = made.vocab if vocab is None and made is not None else vocab
    if vocab is None:
        raise typer.BadParameter(
            f"{path} has no {beside.name} beside it; give its tokenizer, or the size of its vocabulary",
            ctx,
            param_hint=["--tokenizer", "--vocab"],
        )
    tokens = runs.read_tokens(path, vocab)
    return _Source(tokens, vocab, made, "file", [runs.describe(path)])


def _given(ctx: typer.Context, allowed: tuple[str, ...]) -> set[str]:
    """The parameters on the command line. Refuses those that --resume takes from the run."""
    given = set()
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given.add(name)
            if name not in allowed:
                raise typer.BadParameter(
                    "cannot be combined with --resume", ctx, param_hint=parameter.opts[0]
                )
    return given


def _introduce(run: Run, trainer: Trainer) -> None:
    model, validation = trainer.model, trainer.validation
    assert validation is not None, "a run has its validation text"
    plan = jostle.plan(model.config, run.config["recipe"]["batch"], model.threads)
    print(
        f"{model.parameter_count:,} parameters, {len(trainer.train) + len(validation):,} tokens of text"
        f" ({model.config.vocab:,} different), {plan.training / 2**20:.1f} MiB, {model.instruction_set},"
        f" threads: {model.threads}"
    )
    print(f"run: {run.path}", flush=True)


def _train(run: Run, trainer: Trainer) -> int | None:
    """Takes the remaining steps. Returns the signal that stopped it, or None after the last step."""
    recipe = run.config["recipe"]
    every, keep = recipe["checkpoint_every"], recipe.get("keep")
    with Metrics(run, trainer.step) as metrics, _Display(trainer) as display, _signals() as stop:
        _introduce(run, trainer)
        while trainer.step < trainer.steps and not stop:
            report = trainer.advance()
            metrics.add(report)
            try:
                display.show(report)
            except BrokenPipeError:
                _forget_output()
                stop.append(signal.SIGPIPE)
            snapshot = trainer.step % every == 0 or trainer.step == trainer.steps
            if snapshot or stop:
                # Rows first: a checkpoint must not be ahead of them.
                metrics.sync()
                run.save(trainer, snapshot=snapshot, keep=keep)
        return stop[0] if stop else None


def _forget_output() -> None:
    """Sends all further output nowhere, because nobody reads it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The first Ctrl-C or SIGTERM within, which is only noted: an exception would lose a step's report.

    The second raises KeyboardInterrupt.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Display:
    """Shows progress: a bar in a terminal, elsewhere a line every few seconds, and a line for each evaluation."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._first = trainer.step
        self._tokens = 0
        self._begin = self._printed = time.perf_counter()
        self._bar: Progress | None = None
        console = Console(highlight=False)
        if sys.stdout.isatty() and console.is_interactive:
            columns = (BarColumn(24), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("", total=trainer.steps, completed=trainer.step)

    def show(self, report: Report) -> None:
        now = time.perf_counter()
        done, steps = report.step, self._trainer.steps
        self._tokens += report.tokens
        pace = (done - self._first) / (now - self._begin)
        left = round((steps - done) / pace)
        line = (
            f"step {done}/{steps}  loss {report.loss:.3f}"
            f"  {self._tokens / (now - self._begin):,.0f} tokens/s  {left // 60}:{left % 60:02} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=line)
        elif now - self._printed >= PAUSE or done == steps:
            self._printed = now
            print(line, flush=True)
        if report.validation_loss is not None:
            evaluation = f"step {done}  loss {report.loss:.3f}  validation loss {report.validation_loss:.4f}"
            if self._bar is not None:
                self._bar.console.print(evaluation)
            else:
                print(evaluation, flush=True)

    def __enter__(self) -> _Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _write_sample(run: Run, trainer: Trainer) -> None:
    """Lets the model write, in the terminal and in sample.txt."""
    model = trainer.model
    tokenizer = texts.tokenizer_of(model)
    try:
        prompt = tokenizer.encode(PROMPT)
    except ValueError:
        prompt = trainer.train[:1]
    tokens = model.generate(prompt, SAMPLE, temperature=0.8, seed=trainer.seed, stream=True)
    print()
    sample = texts.show(tokenizer.pieces(itertools.chain(prompt.tolist(), tokens)))
    _files.write(run.path / "sample.txt", (sample + "\n").encode())
