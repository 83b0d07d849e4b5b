"""A run: train, judge, draw. What the command line and `lowerbound.fit` share.

A run folder holds all that is needed to repeat, continue, judge and use the run: config.yaml,
metrics.jsonl, checkpoints/, model.safetensors with config.json, evaluation.json, the pictures and
report.html.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lowerbound.build import create_model, load_model, options_class, save_model
from lowerbound.conditions import asked_context, check_condition, condition_of, data_condition
from lowerbound.config import (
    RunConfig,
    TrainingConfig,
    load_config,
    validated,
)
from lowerbound.data import Rows, Source, load_data, load_rows, replaced_examples
from lowerbound.data.base import binarized
from lowerbound.engine import Engine, make_engine, resolve_device
from lowerbound.errors import InputError, refuse
from lowerbound.evaluation import evaluate
from lowerbound.files import load_json, save_json, save_text
from lowerbound.models import Model
from lowerbound.pictures import draw_pictures
from lowerbound.report import write_report
from lowerbound.training import History, fit_model
from lowerbound.training.checkpoint import Checkpoint, RunLock, load_newest, sweep
from lowerbound.training.logs import Console
from lowerbound.training.schedule import Length
from lowerbound.training.step import resolve_compile, resolve_precision
from lowerbound.training.trackers import require
from lowerbound.training.tracking import MADE_BY_TRACKERS, Trackers

__all__ = ["Run", "fit", "new_folder", "resume", "rows_of", "run_config", "source_of", "train"]

TRAIN_NUM_SAMPLES = 100
MAX_JUDGED_ROWS = 10_000
MADE_BY_US = (
    "config.yaml config.json model.safetensors evaluation.json metrics.jsonl report.html "
    "samples.png reconstructions.png latents.png interpolations.png plane.png training.png "
    "comparison.png decomposition.png codes.png levels.png noise-levels.png "
    "scores.safetensors scores.csv latents.npz decoded.npz"
).split()


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
        **options: any other field of `lowerbound.config.TrainingConfig`.

    Raises:
        InputError: an unknown option, or a source that does not fit the model.
    """
    given: dict[str, Any] = {"epochs": epochs, "steps": steps, "minutes": minutes, "seed": seed}
    given |= {"objective": objective, **options}
    config = validated(TrainingConfig, given, "the arguments of fit")
    model.check(source.train[slice(0, 256)][0], source.name)
    model.check_objective(config.objective)
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
    config = resolved(config, source)
    for warning in source.warnings:
        console.say(f"warning: {warning}")
    model = _model_of(config, source)
    for warning in model.warnings():
        console.say(f"warning: {warning}")
    model.check_objective(config.objective)
    config = replace(config, options=asdict(model.options))
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
        changed: continue with this configuration, and with whatever the data are now.
        places: device, devices, strategy or logger, where they are to be others than before.
        quiet: no progress.

    Raises:
        InputError: no run there, or its data or options have changed.
        CheckpointError: it has checkpoints and all of them are bad.
    """
    config = changed or run_config(folder)
    config = replace(config, **dict(places or {}))
    require(config.logger)
    engine = make_engine(config.device, config.devices, config.strategy)
    console = Console(quiet or not engine.is_main)
    if (folder / "report.html").exists():
        console.say(f"{folder} is finished")
        return Run(load_model(folder), History(), load_json(folder / "evaluation.json"), folder)
    source = source_of(config)
    model = _model_of(config, source)
    rewritten = changed if engine.is_main else None
    with _rewritten(folder / "config.yaml", rewritten):
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


@contextlib.contextmanager
def _rewritten(path: Path, config: RunConfig | None) -> Iterator[None]:
    """Write a changed configuration; where it is refused, the one before stays."""
    if config is None:
        yield
        return
    before = path.read_text(encoding="utf-8")
    save_text(path, config.to_yaml())
    try:
        yield
    except InputError:
        save_text(path, before)
        raise


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
        for replaced in replaced_examples(source):
            console.say(f"warning: {replaced}")
        if engine.is_main:
            save_model(folder, model)
        console.say(f"judging on the test split (K = {TRAIN_NUM_SAMPLES})")
        result = evaluate(
            model,
            source,
            num_samples=TRAIN_NUM_SAMPLES,
            max_rows=MAX_JUDGED_ROWS,
            keep=folder / "scores.safetensors" if engine.is_main else None,
            engine=engine,
        )
        if engine.is_main:
            save_json(folder / "evaluation.json", result)
            draw_pictures(model, source, folder, history.rows, method=config.latents)
            write_report(folder)
            trackers.finish(history.steps, result, [n for n in MADE_BY_US if n.endswith(".png")])
        return Run(model, history, result, folder)


def _newest(folder: Path, console: Console) -> Checkpoint | None:
    """The newest good checkpoint, having said what was rejected."""
    checkpoint, rejected = load_newest(folder)
    for reason in rejected:
        console.say(f"warning: {reason}; falling back to an older checkpoint")
    at = f"step {checkpoint.state['position']['step']:,}" if checkpoint else "the beginning"
    console.say(f"resuming {folder} from {at}")
    return checkpoint


def resolved(config: RunConfig, source: Source) -> RunConfig:
    """The configuration with every default that depends on the machine written out."""
    device = resolve_device(config.device)
    batches = max(1, len(source.train) // config.batch_size)
    length = Length.of(config, batches)
    compiled = resolve_compile(config.compile, device, length)
    precision: Any = resolve_precision(config.precision, device)
    return replace(
        config,
        device=str(device),
        precision=precision,
        compile="always" if compiled else "never",
        steps=length.steps if config.epochs is None else None,
        num_samples=config.samples,
    )


def _model_of(config: RunConfig, source: Source) -> Model:
    """The model of a run, untrained, with the context that the run asks for."""
    context = asked_context(config.model, config.condition, source)
    options = dict(config.options or {})
    return create_model(config.model, source, context=context, seed=config.seed, **options)


def source_of(config: RunConfig, data: str | None = None) -> Source:
    """The data of a run, or other data prepared in the same way."""
    return load_data(
        data or config.data,
        binarize=config.binarize,
        image_size=config.image_size,
        labels=config.labels,
        support=config.support,
        on_bad=config.on_bad,
        layout=config.layout,
        condition=data_condition(config.condition),
        seed=config.data_seed,
    )


def rows_of(config: RunConfig, data: str | None = None) -> Rows:
    """Every example of the data, in its own order, prepared as for the run."""
    rows = load_rows(
        data or config.data,
        image_size=config.image_size,
        labels=config.labels,
        support=config.support,
        on_bad=config.on_bad,
        layout=config.layout,
    )
    return binarized(rows, config.binarize, config.data_seed)[0]


def run_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        InputError: no run there, or a configuration that is not valid.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(
            f"'{folder}' has no config.yaml; give the folder of a run that `lowerbound train` made"
        )
    return config_from(load_config(folder / "config.yaml"), str(folder / "config.yaml"))


def config_from(values: Mapping[str, Any], where: str) -> RunConfig:
    """A `RunConfig` from plain values; unknown keys are named with the nearest right one."""
    plain = {k: v for k, v in values.items() if k != "options"}
    config = validated(RunConfig, plain, where)
    options = values.get("options")
    if options is None:
        return config
    if not isinstance(options, Mapping):
        raise refuse("options", "a mapping", options)
    chosen = validated(options_class(config.model), options, f"options of {where}")
    return replace(config, options=asdict(chosen))


def next_folder(config: RunConfig) -> Path:
    """runs/DATA-MODEL-N with the first N that is free."""
    kind, _, rest = config.data.partition(":")
    stem = kind if rest and kind != "folder" else Path(rest or kind).stem
    number = 1
    while (
        folder := Path("runs") / f"{stem or 'data'}-{config.preset or config.model}-{number}"
    ).exists():
        number += 1
    return folder


def new_folder(folder: Path, overwrite: bool) -> Path:
    """A run folder that is empty, emptied of an earlier run, or refused.

    Only files that a run makes are removed: a folder with anything else in it keeps the rest.
    """
    if folder.exists() and not folder.is_dir():
        raise refuse("out", "a folder", folder)
    inhabitants = [p for p in folder.iterdir() if p.name != "run.lock"] if folder.exists() else []
    if inhabitants and not overwrite:
        raise refuse(
            "out",
            "an empty or new folder",
            folder,
            "choose another, continue it with --resume, or replace it with --overwrite",
        )
    if inhabitants:
        with RunLock(folder):
            for name in MADE_BY_US:
                (folder / name).unlink(missing_ok=True)
            for name in ("checkpoints", *MADE_BY_TRACKERS):
                shutil.rmtree(folder / name, ignore_errors=True)
                (folder / name).unlink(missing_ok=True)
    return folder


def newest_unfinished(root: Path = Path("runs")) -> Path:
    """The run under ``root`` that was last written to and has no report yet."""
    runs = [
        p.parent for p in root.glob("*/config.yaml") if not (p.parent / "report.html").exists()
    ]
    if not runs:
        raise InputError(f"'resume' found no unfinished run under '{root}'; name one")
    return max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime)


def _announcement(config: RunConfig, source: Source, model: Model, folder: Path) -> str:
    shape = "×".join(str(n) for n in source.event_shape)
    sizes = f"{len(source.train):,} + {len(source.validation):,} + {len(source.test):,}"
    chosen = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "options"}
    said = {k: v for k, v in {**chosen, **dict(config.options or {})}.items() if v is not None}
    listed = ", ".join(f"{k} {v}" for k, v in said.items())
    return (
        f"{config.model} ({model.num_parameters:,} parameters) on {source.name}: {sizes} examples "
        f"of {shape} {source.support} values\nconfiguration: {listed}\nrun folder: {folder}"
    )
