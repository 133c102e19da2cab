"""jostle train: trains on texts, and leaves a run's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

import jostle
from jostle import _documents, adapters, callbacks, data, runs
from jostle._batches import are_batches
from jostle.cli import options, plot, progress, samples, sources
from jostle.runs import Metrics, Run
from jostle.training import Trainer

EXAMPLE = "jostle train shakespeare.txt --steps 2000 --dropout 0.2"


_BATCH, _RATE, _LORA_RATE, _LENGTH = 4, 2e-5, 2e-4, 1024
"""Defaults of fine-tuning."""
_OF_THE_MODEL = {
    "tokenizer",
    "vocab",
    "recipe",
    "layers",
    "heads",
    "kv_heads",
    "width",
    "hidden",
    "tied",
    "dropout",
}
"""The parameters that a model has settled."""

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
            help="Texts in UTF-8, which are joined, folders of them (.txt), - for standard input, or a token file (.bin). With"
            " --from also JSON lines (.jsonl). The last tenth is for validation.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Fine-tune a model: a Hugging Face folder, a run's folder or a checkpoint. The result is a Hugging Face"
            " folder in the run's folder.",
            show_default=False,
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK",
            min=1,
            help="With --from FOLDER: train low-rank adapters of all matrices of the blocks, not the model. The run's folder"
            " then also gets the adapter in PEFT's format.",
            show_default=False,
        ),
    ] = None,
    tokenizer: options.Tokenizer = None,
    vocab: options.Vocab = None,
    context: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=options.MODEL,
            help="The longest sequence that the model attends to. With --from, the longest that training sees: the model's"
            " own if its positions are learned.",
            show_default=f"64; with --from {_LENGTH}",
        ),
    ] = 64,
    recipe: options.Recipe = options.Architecture.gpt2,
    layers: options.Layers = 4,
    heads: options.Heads = 4,
    kv_heads: options.KvHeads = None,
    width: options.Width = 128,
    hidden: options.Hidden = None,
    tied: options.Tied = False,
    dropout: options.Dropout = 0.1,
    batch: Annotated[
        int, typer.Option(min=1, help="Sequences in a batch.", show_default=f"12; with --from {_BATCH}")
    ] = 12,
    accumulate: Annotated[int, typer.Option(min=1, help="The number of batches in a step.")] = 1,
    steps: Annotated[
        int,
        typer.Option(
            min=1, help="The number of steps in all.", show_default="1400; with --from as --epochs says"
        ),
    ] = 1400,
    epochs: Annotated[
        int, typer.Option(min=1, help="With --from: how often training sees as much as there is.")
    ] = 3,
    learning_rate: Annotated[
        float,
        typer.Option(
            metavar="RATE",
            help="The learning rate of AdamW, after the warm-up.",
            show_default=f"0.001; with --from {_RATE}, with --lora {_LORA_RATE}",
        ),
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
        typer.Option(
            min=0,
            help="Steps of rising learning rate.",
            show_default="100, or all steps; with --from at most a tenth of them",
        ),
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
        typer.Option(
            min=1,
            rich_help_panel=RUN,
            help="Steps between losses on the validation text.",
            show_default="250; with --from an epoch",
        ),
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
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", rich_help_panel=RUN, help="Write a log for TensorBoard into the run's folder."
        ),
    ] = False,
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
    """Train a model on texts, or fine-tune one.

    Ctrl-C and SIGTERM stop training after the current step and leave a checkpoint for --resume.
    """
    given = _given(ctx)
    if resume is not None:
        _refuse(ctx, given - {"resume", "threads", "files", "learning_rate", "tensorboard"}, "--resume")
        run = Run(resume)
        run.lock()
        rate = learning_rate if "learning_rate" in given else None
        trainer = run.trainer(threads, files=files or None, learning_rate=rate)
        if rate is not None:
            run.note_change(trainer.step, {"learning_rate": rate})
    else:
        if not files:
            raise typer.BadParameter("a text to train on is missing", ctx, param_hint="FILE")
        if base is None:
            _refuse(ctx, given & {"epochs", "lora"}, "training without --from")
            source = sources.read_tokens(ctx, files, tokenizer, vocab)
            config = options.config(
                ctx,
                recipe,
                vocab=source.vocab,
                context=context,
                layers=layers,
                heads=heads,
                kv_heads=kv_heads,
                width=width,
                hidden=hidden,
                dropout=dropout,
                tied=tied,
            )
            train, validation = runs.split(source.tokens, context)
            length = context
            model = jostle.Model(config, seed, threads, tokenizer=source.tokenizer)
            optimizer = jostle.AdamW(model, learning_rate)
            read, own, kind = source.files, source.own, source.kind
            warmup = min(100, steps) if warmup is None else warmup
        else:
            _refuse(ctx, given & _OF_THE_MODEL, "--from")
            if "steps" in given:
                _refuse(ctx, given & {"epochs"}, "--steps")
            if lora is None:
                model = runs.load(base, threads)
            else:
                adapter = jostle.LoRA(rank=lora, alpha=2 * lora, targets="all-linear")
                model = jostle.Model.from_pretrained(base, threads=threads, adapter=adapter)
            # Before hours of training, what `save_pretrained` would refuse after them.
            adapters.base(model.config).to_hugging_face()
            batch = batch if "batch" in given else _BATCH
            usual = _RATE if lora is None else _LORA_RATE
            learning_rate = learning_rate if "learning_rate" in given else usual
            length = _length(model, context if "context" in given else _LENGTH)
            goal = sources.read_for(model, ctx, files, length, batch, seed)
            if isinstance(goal.train, data.Batches) and model.config.positions != "learned":
                length = max(goal.train.longest, goal.validation.longest)
            train, validation, read, own, kind = *goal[:4], runs.GIVEN
            epoch = -(-goal.epoch // accumulate)
            steps = steps if "steps" in given else epochs * epoch
            evaluate_every = evaluate_every if "evaluate_every" in given else epoch
            optimizer = jostle.AdamW(model, learning_rate, betas=(0.9, 0.999), weight_decay=0.0)
            warmup = min(100, steps // 10) if warmup is None else warmup
        final = learning_rate / 10 if final_learning_rate is None else final_learning_rate
        settings = {
            "batch": batch,
            "accumulate": accumulate,
            "length": length,
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
        trainer = Trainer(
            model,
            optimizer,
            train=train,
            validation=validation,
            batch=batch,
            length=length,
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
            "files": read,
            "tokenizer": kind,
            "model": dataclasses.asdict(model.config),
            "recipe": settings,
            "seed": seed,
            **({} if base is None else {"from": str(base)}),
        }
        if out is None:
            name = "stdin" if files[0] == _documents.STANDARD_INPUT else files[0].stem
            run = Run.create_numbered("runs", name, description, trainer, own)
        else:
            run = Run.create(out, description, trainer, own)
    again = f"jostle train --resume {shlex.quote(str(run.path))}"
    try:
        with callbacks.TensorBoard(run.path) if tensorboard else contextlib.nullcontext() as log:
            if log is not None:
                trainer.on_report(log)
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
        samples.write(run, trainer)
    if "from" in run.config:
        model = trainer.model
        if adapters.ranks(model.config):
            model.save_adapter(run.path / runs.ADAPTER)
            print(f"\nadapter: {run.path / runs.ADAPTER}", end="")
            model = model.merge_adapter()
        model.save_pretrained(run.path / runs.MODEL)
        print(f"\nmodel: {run.path / runs.MODEL}")
    has_pictures = importlib.util.find_spec("matplotlib") is not None
    if has_pictures:
        plot.draw([run], plot.Kind.loss)
    if has_pictures and has_text and not are_batches(trainer.train):
        # All heads are drawn if they are few enough to be distinguished.
        plot.draw([run], plot.Kind.attention, head=None if trainer.model.config.heads <= 4 else 0)


def _length(model: jostle.Model, wanted: int) -> int:
    """The longest sequence that fine-tuning sees: the whole context if positions are learned."""
    context = model.config.context
    return context if model.config.positions == "learned" else min(wanted, context)


def _given(ctx: typer.Context) -> set[str]:
    """The parameters on the command line."""
    names = [parameter.name or "" for parameter in ctx.command.params]
    sources = {name: ctx.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _refuse(ctx: typer.Context, given: set[str], beside: str) -> None:
    """Refuses parameters on the command line."""
    for parameter in ctx.command.params:
        if parameter.name in given:
            raise typer.BadParameter(f"cannot be combined with {beside}", ctx, param_hint=parameter.opts[0])


def _introduce(run: Run, trainer: Trainer) -> None:
    model, train, validation = trainer.model, trainer.train, trainer.validation
    config = dataclasses.replace(model.config, context=trainer.length)
    plan = jostle.plan(config, trainer.batch, model.threads)
    if isinstance(train, data.Batches):
        amount = f"{len(train.examples) + len(validation.examples):,} examples ({train.padding:.0%} padding)"
    else:
        amount = f"{len(train) + len(validation):,} tokens of text"
    print(
        f"{model.parameter_count:,} parameters, {amount} ({model.config.vocab:,} different tokens),"
        f" {plan.training / 2**20:.1f} MiB, {model.instruction_set}, threads: {model.threads}"
    )
    print(f"run: {run.path}", flush=True)
    if "from" in run.config and trainer.step == 0:
        print(f"before  validation loss {trainer.evaluate(validation):.4f}", flush=True)


def _train(run: Run, trainer: Trainer) -> int | None:
    """Takes the remaining steps. Returns the signal that stopped it, or None after the last step."""
    recipe = run.config["recipe"]
    every, keep = recipe["checkpoint_every"], recipe.get("keep")
    with Metrics(run, trainer.step) as metrics, progress.Display(trainer) as display, _signals() as stop:
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
