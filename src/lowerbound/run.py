"""A run: train, judge, draw. What the command line and `lowerbound.fit` share.

A run folder holds all that is needed to repeat, continue, judge and use the run: config.yaml,
metrics.jsonl, checkpoints/, model.safetensors with config.json, evaluation.json, the pictures and
report.html.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lowerbound.build import MODELS, load_model, save_model
from lowerbound.conditions import check_condition, condition_of
from lowerbound.config import LENGTHS, RunConfig, TrainingConfig, validated
from lowerbound.data import Source, replaced_examples
from lowerbound.engine import Engine, make_engine
from lowerbound.errors import Interrupted, refuse
from lowerbound.evaluation import evaluate
from lowerbound.evaluation.nats import BOUND_SAMPLES
from lowerbound.files import load_json, save_json, save_text
from lowerbound.models import Model
from lowerbound.pictures import draw_pictures
from lowerbound.preparation import length_of, model_of, resolved, rows_of, source_of
from lowerbound.report import write_report
from lowerbound.run_folder import (
    MADE_BY_US,
    config_from,
    forget_replaced,
    new_folder,
    newest_unfinished,
    next_folder,
    nothing_left,
    rewritten,
    run_config,
)
from lowerbound.training import History, fit_model
from lowerbound.training.checkpoint import (
    Checkpoint,
    RunLock,
    checkpoints_of,
    load_newest,
    sweep,
)
from lowerbound.training.logs import Console
from lowerbound.training.trackers import require
from lowerbound.training.tracking import Trackers

__all__ = [
    "Run",
    "config_from",
    "fit",
    "new_folder",
    "newest_unfinished",
    "next_folder",
    "resume",
    "rows_of",
    "run_config",
    "source_of",
    "train",
]

TRAIN_NUM_SAMPLES = 100
MAX_JUDGED_ROWS = 10_000


@dataclass(frozen=True)
class Run:
    """What a finished run gives back.

    Args:
        model: averaged weights of the best validation, in eval mode.
        history: metrics and length of the training.
        evaluation: what evaluation.json holds; None for `fit` without a folder.
        folder: where everything lies; None for `fit` without a folder.
    """

    model: Model
    history: History
    evaluation: dict[str, Any] | None = None
    folder: Path | None = None


def fit(
    model: Model,
    source: Source,
    *,
    out: Path | str | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    objective: str = "elbo",
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train a model in place; it ends with the averaged weights of its best validation.

    Args:
        model: a model made for the source's shape and support.
        source: what it learns from.
        out: a run folder: checkpoints, the judgement and the pictures go there. Without one
            nothing is written.
        epochs: length in passes over the training set; or
        steps: in optimiser steps (without any length 300 epochs, at most 5,000 steps); or
        minutes: in minutes.
        seed: same seed, same machine: same weights, bit for bit (for epochs and steps).
        objective: what is maximised.
        overwrite: replace an earlier run in ``out``.
        quiet: no progress.
        **options: any other field of `lowerbound.config.TrainingConfig`. Some models have usual
            values of their own (`lowerbound.build.Entry.training`).

    Raises:
        InputError: an unknown option, or a source that does not fit the model.
    """
    given: dict[str, Any] = {"epochs": epochs, "steps": steps, "minutes": minutes, "seed": seed}
    given |= {"objective": objective, **options}
    entry = MODELS.get(model.name)
    usual = entry.usual(objective, elbo_first=bool(options.get("elbo_first"))) if entry else {}
    given = {**usual, **given}
    config = validated(TrainingConfig, given, "the arguments of fit")
    model.check(source.train[slice(0, 256)][0], source.name)
    for climbed, reweighing in config.climbed:
        model.check_objective(climbed, reweighing)
    engine = make_engine(config.device, config.devices, config.strategy)
    console = Console(quiet or not engine.is_main)
    require(config.logger)
    if out is None:
        if config.logger:
            raise refuse("out", "given where there is a logger", None, "name a run folder")
        with engine.connected():
            return Run(model, fit_model(model, source, config, console=console, engine=engine))
    full = RunConfig(
        **asdict(config),
        data=source.name,
        model=model.name,
        options=None if model.options is None else asdict(model.options),
        **source.preparation,
    )
    full = replace(full, num_samples=full.samples, condition=condition_of(model))
    if engine.is_main:
        new_folder(Path(out), overwrite)
    return _carry_out(full, model, source, Path(out), console, engine)


def train(
    config: RunConfig, folder: Path | None = None, *, overwrite: bool = False, quiet: bool = False
) -> Run:
    """Load the data, build the model, train it, judge it, draw it.

    Args:
        config: everything about the run.
        folder: the run folder; runs/DATA-MODEL-N where none is given.
        overwrite: replace an earlier run there.
        quiet: no progress.
    """
    require(config.logger)
    engine = make_engine(config.device, config.devices, config.strategy)
    console = Console(quiet or not engine.is_main)
    check_condition(config.model, config.condition)
    source = source_of(config)
    for warning in source.warnings:
        console.say(f"warning: {warning}")
    model = model_of(config, source)
    for climbed, reweighing in config.climbed:
        model.check_objective(climbed, reweighing)
    config = replace(resolved(config, source, model), options=asdict(model.options))
    folder = folder or next_folder(config)
    if engine.is_main:
        new_folder(folder, overwrite)
    console.say(_announcement(config, source, model, folder))
    return _carry_out(config, model, source, folder, console, engine)


def resume(
    folder: Path,
    *,
    changed: RunConfig | None = None,
    places: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Continue a run from its newest good checkpoint, or complete what a finished one lacks.

    Args:
        folder: the run folder.
        changed: continue with this configuration, and with whatever the data are now. A finished
            run trains on, where this is longer than what it has had.
        places: device, devices, strategy or logger, where they are to be others than before.
        quiet: no progress.

    Raises:
        InputError: no run there, its data or options have changed, or a finished run is not to be
            any longer.
        CheckpointError: it has checkpoints and all of them are bad.
    """
    config = changed or run_config(folder)
    config = replace(config, **dict(places or {}))
    require(config.logger)
    engine = make_engine(config.device, config.devices, config.strategy)
    console = Console(quiet or not engine.is_main)
    finished = (folder / "report.html").exists()
    if finished and (changed is None or not checkpoints_of(folder)):
        console.say(f"{folder} is finished")
        return Run(load_model(folder), History(), load_json(folder / "evaluation.json"), folder)
    source = source_of(config)
    model = model_of(config, source)
    if changed is not None:
        config = resolved(config, source, model)
        if finished:
            _refuse_no_more(folder, config, source)
    with rewritten(folder, config if changed is not None and engine.is_main else None):
        return _carry_out(
            config,
            model,
            source,
            folder,
            console,
            engine,
            resuming=True,
            allow_changed=changed is not None,
        )


def _refuse_no_more(folder: Path, config: RunConfig, source: Source) -> None:
    """Refuse to go on with a finished run that is no longer than it was."""
    checkpoint, _ = load_newest(folder)
    assert checkpoint is not None  # there is at least one, and a bad one would have raised
    position = checkpoint.state["position"]
    if length_of(config, source).progress(position["step"], position["seconds"]) < 1:
        return
    name = next(n for n in LENGTHS if getattr(config, n) is not None)
    minutes, steps = f"{position['seconds'] / 60:.2g} minutes", f"{position['step']:,} steps"
    required = f"more than the run has had, {minutes if name == 'minutes' else steps}"
    remedy = "give more to train on, or leave out --allow-changed: the run is finished"
    raise refuse(name, required, getattr(config, name), remedy)


def _carry_out(
    config: RunConfig,
    model: Model,
    source: Source,
    folder: Path,
    console: Console,
    engine: Engine,
    *,
    resuming: bool = False,
    allow_changed: bool = False,
) -> Run:
    """Train, save, judge and draw; one process writes, in a folder that it has locked."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(engine.connected())
        if engine.is_main:
            stack.enter_context(RunLock(folder))
            if resuming:
                sweep(folder)
            else:
                stack.enter_context(nothing_left(folder))  # ours alone: within the lock
                save_text(folder / "config.yaml", config.to_yaml())
        engine.barrier()  # nobody reads before the folder is in order
        checkpoint = _newest(folder, console) if resuming else None
        names = config.logger if engine.is_main else ()
        trackers = Trackers(names, folder, asdict(config), console.say)
        stack.enter_context(trackers)
        history = fit_model(
            model,
            source,
            config.training(),
            folder=folder if engine.is_main else None,
            checkpoint=checkpoint,
            console=console,
            engine=engine,
            trackers=trackers,
            allow_changed=allow_changed,
        )
        if engine.is_main:
            forget_replaced(folder)
        for replaced in replaced_examples(source):
            console.say(f"warning: {replaced}")
        trained = Run(model, history, folder=folder)
        with _to_be_resumed(folder):
            return _judged_and_drawn(trained, config, source, console, engine, trackers)


def _judged_and_drawn(
    run: Run,
    config: RunConfig,
    source: Source,
    console: Console,
    engine: Engine,
    trackers: Trackers,
) -> Run:
    """What follows training: the weights, their judgement, the pictures and the report."""
    model, history, folder = run.model, run.history, run.folder
    assert folder is not None
    if engine.is_main:
        save_model(folder, model)
    console.say(_judging(model))
    result = _judged(model, source, folder, engine)
    if engine.is_main:
        save_json(folder / "evaluation.json", result)
        draw_pictures(model, source, folder, history.rows, method=config.latents)
        write_report(folder)
        pictures = [name for name in MADE_BY_US if name.endswith(".png")]
        trackers.finish(history.steps, result, pictures)
    return replace(run, evaluation=result)


@contextlib.contextmanager
def _to_be_resumed(folder: Path) -> Iterator[None]:
    """Say, where somebody stops a run that is trained already, how the rest of it is had."""
    try:
        yield
    except KeyboardInterrupt as asked:
        raise Interrupted(
            "stopped after training and before everything was judged and drawn; the weights are "
            f"saved, and `lowerbound train --resume {folder}` does the rest",
            asked.args[0] if asked.args else signal.SIGINT,
        ) from asked


def _judged(model: Model, source: Source, folder: Path, engine: Engine) -> dict[str, Any]:
    """What `evaluate` says of the test split; one process keeps the value of each example."""
    return evaluate(
        model,
        source,
        num_samples=TRAIN_NUM_SAMPLES,
        max_rows=MAX_JUDGED_ROWS,
        keep=folder / "scores.safetensors" if engine.is_main else None,
        engine=engine,
    )


def _judging(model: Model) -> str:
    """That judging begins, with as many draws of each example as there will be."""
    if not model.is_likelihood:
        return "judging on the test split"
    draws = f"{min(TRAIN_NUM_SAMPLES, BOUND_SAMPLES)} draws of each example"
    said = f"K = {TRAIN_NUM_SAMPLES}" if model.has_weights else draws
    return f"judging on the test split ({said})"


def _newest(folder: Path, console: Console) -> Checkpoint | None:
    """The newest good checkpoint, having said what was rejected."""
    checkpoint, rejected = load_newest(folder)
    for reason in rejected:
        console.say(f"warning: {reason}; falling back to an older checkpoint")
    at = f"step {checkpoint.state['position']['step']:,}" if checkpoint else "the beginning"
    console.say(f"resuming {folder} from {at}")
    return checkpoint


def _announcement(config: RunConfig, source: Source, model: Model, folder: Path) -> str:
    shape = "×".join(str(n) for n in source.event_shape)
    sizes = f"{len(source.train):,} + {len(source.validation):,} + {len(source.test):,}"
    parts: list[tuple[Any, tuple[str, ...]]] = [(config, ("data", "model", "options"))]
    parts += [] if model.options is None else [(model.options, ())]
    said = [
        f"{f.name} {getattr(part, f.name)}"
        for part, elsewhere in parts
        for f in fields(part)
        if f.name not in elsewhere and getattr(part, f.name) not in (f.default, None)
    ]
    listed = ", ".join([*said, "all else as usual (config.yaml has it)"])
    return (
        f"{config.model} ({model.num_parameters:,} parameters) on {source.name}: {sizes} examples "
        f"of {shape} {source.support} values\nconfiguration: {listed}\nrun folder: {folder}"
    )
