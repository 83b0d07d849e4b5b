"""The training loop, one straight function.

Data stay on the device as they came and batches are index selections; the loss is accumulated as
a tensor and read once per log interval, the only place where the loop waits for the device. A step
whose loss or gradient is not finite is skipped on the device, without being looked at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lowerbound._random import generator_for
from lowerbound.config import TrainingConfig
from lowerbound.data import Source
from lowerbound.engine import Engine, make_engine
from lowerbound.errors import DivergedError, Interrupted
from lowerbound.evaluation import Judge
from lowerbound.evaluation.base import mean_dims
from lowerbound.launch import heartbeat
from lowerbound.models import Model, concatenate_noise
from lowerbound.objectives import Bound
from lowerbound.training.batches import Batches, blocks_of
from lowerbound.training.checkpoint import Checkpoint
from lowerbound.training.compiling import resolve_compile
from lowerbound.training.logs import Console, TrackedLog
from lowerbound.training.meter import Meter
from lowerbound.training.resume import facts_of, moved, place_of, refuse_changes
from lowerbound.training.schedule import Length, learning_rate
from lowerbound.training.signals import stop_signal
from lowerbound.training.state import Position, TrainState
from lowerbound.training.step import Step, resolve_precision
from lowerbound.training.tracking import Trackers
from lowerbound.training.update import update

__all__ = ["History", "fit_model"]

SECONDS_BETWEEN_LOGS = 1.0
SECONDS_BETWEEN_CHECKPOINTS = 300.0
MAX_VALIDATION_ROWS = 10_000
# Of a model whose bound is as deep a network again for every draw, and of which each example has
# four: with all of MNIST's 5,000 validation images two fifths of a usual run went into judging.
MAX_STRATIFIED_ROWS = 1_000


@dataclass
class History:
    """What training leaves beside the model.

    Args:
        rows: the rows of metrics.jsonl.
        seconds: of training and validation.
        stopped_early: whether the validation bound had stopped improving.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0
    best_step: int | None = None
    stopped_early: bool = False


def fit_model(
    model: Model,
    source: Source,
    config: TrainingConfig,
    *,
    folder: Path | None = None,
    checkpoint: Checkpoint | None = None,
    console: Console | None = None,
    engine: Engine | None = None,
    trackers: Trackers | None = None,
    allow_changed: bool = False,
) -> History:
    """Train ``model`` in place; it ends as the average of the best validation, in eval mode.

    Args:
        model: the model.
        source: what it learns from; the test split is never looked at.
        config: how.
        folder: where checkpoints and metrics go; nothing is written without one.
        checkpoint: where to continue from.
        console: who tells the person that waits.
        engine: the devices; those of ``config`` unless given.
        trackers: dashboards that are told the metrics too.
        allow_changed: continue although data or options are not those of the checkpoint.

    Raises:
        InputError: data or options have changed since the checkpoint, or do not fit it; or an
            objective that the model cannot be trained by.
        DivergedError: ten steps in a row, or more of the last thousand, were not finite.
        Interrupted: asked to stop, having saved.
    """
    console = console or Console(quiet=True)
    engine = engine or make_engine(config.device, config.devices, config.strategy)
    for climbed, reweighing in config.climbed:
        model.check_objective(climbed, reweighing)
    model.calibrate(source)
    for sentence in (*model.advice(config.objective), *model.warnings()):
        console.say(f"warning: {sentence}")
    model.to(engine.device)

    # --- models with a closed form have no loop
    if model.fit_exactly(source):
        console.say("fitted in closed form; the length of the run is not used")
        model.eval()
        return History()

    # --- the parts, and the state of the checkpoint where there is one
    parts = _Parts.of(model, source, config, engine, checkpoint, allow_changed=allow_changed)
    state, length, position = parts.state, parts.length, parts.state.position
    batch_size = parts.batches.batch_size
    rows = slice(parts.batches.first, parts.batches.last)
    parts.step.say = console.say
    if checkpoint is not None:
        console.say(moved(checkpoint, parts.place))
    log = TrackedLog(folder, position.metrics_bytes, trackers)
    history = History(log.rows)
    started = time.perf_counter() - position.seconds
    saved_at = time.perf_counter()

    parts.model.train()  # what is judged is the average, a model of its own
    with console, stop_signal(folder is not None or engine.world > 1) as stop, parts.batches:
        while not position.finished:
            # --- one step: a batch and its noise by count, the loss, the update
            progress = length.progress(position.step, position.seconds)
            rate = learning_rate(progress, config.learning_rate, config.warmup)
            x, context = parts.batches(position.step)
            noise = training_noise(model, batch_size, config, position.step, rows, progress)
            loss, bound = parts.parallel_step(x, context, noise, progress)
            loss.mean().backward()
            done = update(state, loss, rate, config.clip, engine, config.skip_norm)
            parts.model.take_in(bound.observed, done.used, position.step)
            parts.meter.add(loss.detach(), bound, done)
            position.step += 1
            state.average.update(position.step)

            # --- the time, and what it decides, agreed on by all processes
            now = time.perf_counter()
            position.seconds, stopping, log_age, save_age = engine.agree(
                now - started, stop.number, parts.meter.seconds(), now - saved_at
            )
            progress = length.progress(position.step, position.seconds)
            due = progress * config.validations >= position.validations + 1 or progress >= 1
            saving = bool(due or save_age > SECONDS_BETWEEN_CHECKPOINTS or stopping)

            # --- once a second, and before a save: read the meter, the only wait for the device
            if saving or log_age >= SECONDS_BETWEEN_LOGS:
                row = parts.read(progress, rate)
                log.add(kind="train", **row)
                heartbeat(position.step)
                console.progress(progress, row)
                _refuse_divergence(position, folder)

            # --- validation: the unweighted bound, or L_K where that is climbed, of the average
            if due:
                row = parts.validate(progress)
                history.stopped_early = position.since_best >= config.patience and progress < 1
                position.finished = progress >= 1 or history.stopped_early
                position.seconds = time.perf_counter() - started
                log.add(kind="validation", seconds=position.seconds, **row)
                console.validation(progress, log.rows[-1])
                log.show(state.average.model, source, position.step)

            # --- save: at every validation, every five minutes, and when asked to stop
            if saving:
                position.metrics_bytes = log.flushed_bytes()
                state.save(folder, parts.facts, parts.place)
                engine.barrier()
                saved_at = time.perf_counter()
                parts.meter.reset()  # judging and saving are not the speed of training
            if stopping or (position.finished and stop.number):  # asked for during the last save
                raise Interrupted(
                    f"stopped at step {position.step:,} and saved; continue with "
                    f"`lowerbound train --resume {folder}`",
                    int(stopping or stop.number),
                )

    # --- the model that was promised: averaged weights of the best validation
    if history.stopped_early:
        console.say(
            f"no better for {config.patience} validations: stopped; the weights of "
            f"step {position.best_step:,} are kept"
        )
    if state.best:
        model.load_state_dict(state.best)
    model.eval()
    history.seconds, history.steps = position.seconds, position.step
    history.best_step = position.best_step
    return history


@dataclass
class _Parts:
    """What the loop turns: made once, before the first step.

    Args:
        model: what is trained: the caller's model, or its parts on this device.
        source: what it learns from.
        config: how.
        batches: the order of the examples.
        length: of the run.
        step: objective of model, as a module.
        parallel_step: the same, with gradients of the global batch.
        state: everything that a run remembers.
        judge: of the averaged model, on the validation split.
        meter: of the steps since the last row of the log.
        facts: what decides the bits of the run, for its checkpoints.
        engine: the devices.
    """

    model: Model
    source: Source
    config: TrainingConfig
    batches: Batches
    length: Length
    step: Step
    parallel_step: Callable[..., tuple[Tensor, Bound]]
    state: TrainState
    judge: Judge
    meter: Meter
    facts: dict[str, Any]
    engine: Engine

    @classmethod
    def of(
        cls,
        model: Model,
        source: Source,
        config: TrainingConfig,
        engine: Engine,
        checkpoint: Checkpoint | None,
        *,
        allow_changed: bool,
    ) -> _Parts:
        """The parts of a run, as far as ``checkpoint`` had come; arguments as of `fit_model`."""
        batches = Batches(
            source.train,
            config.batch_size,
            config.seed,
            engine.device,
            rank=engine.rank,
            world=engine.world,
        )
        length = Length.of(config, batches.num_batches)
        trained = engine.trained(model)
        precision = resolve_precision(config.precision, engine.device)
        compiled = resolve_compile(config, engine.device, length, model)
        step = Step(trained, config, precision, compiled)
        parallel_step = engine.setup(step)
        state = TrainState(trained, config, initial=model)
        facts = facts_of(model, source, config, step)
        if checkpoint is not None:
            if not allow_changed:
                refuse_changes(checkpoint, facts, source)
                step.compiled &= checkpoint.state["place"].get("compiled", True)
            state.restore(checkpoint)
        if allow_changed:
            position = state.position
            progress = length.progress(position.step, position.seconds)
            position.stand_at(progress, config.validations)
        judge = Judge(
            source.validation,
            engine,
            MAX_STRATIFIED_ROWS if model.stratified else MAX_VALIDATION_ROWS,
            num_samples=config.samples if step.importance else 1,
            importance=step.importance,
        )
        dims = mean_dims(model, judge.split)
        meter = Meter(engine, batches.batch_size, dims, model.is_likelihood)
        return cls(
            trained,
            source,
            config,
            batches,
            length,
            step,
            parallel_step,
            state,
            judge,
            meter,
            facts,
            engine,
        )

    @property
    def place(self) -> dict[str, Any]:
        """Where the run is, as far as that decides how numbers are rounded."""
        return {**place_of(self.engine), "compiled": self.step.compiled}

    @property
    def epoch(self) -> float:
        """Passes over the training set so far."""
        return self.state.position.step / self.batches.num_batches

    def read(self, progress: float, rate: float) -> dict[str, Any]:
        """The row of the steps since the last one; waits for the device."""
        row = self.meter.read(self.state.position) | {"epoch": self.epoch}
        dials = {"learning_rate": rate, "beta": self.step.weights(progress).beta}
        return row | self.model.facts() | dials

    def validate(self, progress: float) -> dict[str, Any]:
        """Judge the averaged model, and keep its weights where they are the best so far."""
        position = self.state.position
        judged = self.state.average.judged(position.step)
        judged.settle(self.source)
        row = self.judge(judged) | {"epoch": self.epoch}
        better = self.state.take_in(row, judged, is_likelihood=judged.is_likelihood)
        position.validations = math.floor(progress * self.config.validations + 1e-9)
        return {**row, "best": better}


def training_noise(
    model: Model,
    batch_size: int,
    config: TrainingConfig,
    step: int,
    rows: slice | None = None,
    progress: float = 1.0,
) -> dict[str, Tensor]:
    """Noise of a step, by blocks of the global batch: device and worker count change nothing.

    Args:
        model: whose noise.
        batch_size: of the global batch.
        config: its seed and number of samples.
        step: by whose number the noise is drawn.
        rows: those of the global batch that this process takes; all unless said.
        progress: of the run, in [0, 1]; it may decide the number of samples.
    """
    num_samples = config.samples_at(progress)
    device = model.calibrated.device
    parts = []
    for block, taken, inner in blocks_of(rows or slice(0, batch_size), batch_size):
        generator = generator_for("noise", config.seed, step, block, device=device)
        noise = model.noise(taken.stop - taken.start, num_samples, generator)
        whole = inner == slice(0, taken.stop - taken.start)
        parts.append(noise if whole else {name: eps[:, inner] for name, eps in noise.items()})
    return parts[0] if len(parts) == 1 else concatenate_noise(parts)


def _refuse_divergence(position: Position, folder: Path | None) -> None:
    """End a run that steps over what is not finite again and again."""
    if position.diverged:
        kept = ""
        if folder is not None:  # finite is not yet good: it may have gone far before
            kept = f"; the last finite state is in '{folder / 'checkpoints'}', or start anew"
        raise DivergedError(
            f"{position.diverged} had a loss or gradient that is not finite, and were skipped; "
            f"try a lower --learning-rate or --clip, or --precision float32{kept}"
        )
