"""The training loop, one straight function.

Data stay on the device as they came and batches are index selections; the loss is accumulated as
a tensor and read once per log interval, the only place where the loop waits for the device. A step
whose loss or gradient is not finite is skipped on the device, without being looked at.
"""

from __future__ import annotations

import math
import time
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
from lowerbound.training.batches import Batches, blocks_of
from lowerbound.training.checkpoint import Checkpoint
from lowerbound.training.logs import Console, TrackedLog
from lowerbound.training.meter import Meter
from lowerbound.training.resume import facts_of, moved, place_of, refuse_changes
from lowerbound.training.schedule import Length, learning_rate
from lowerbound.training.signals import stop_signal
from lowerbound.training.state import Position, TrainState
from lowerbound.training.step import Step, resolve_compile, resolve_precision
from lowerbound.training.tracking import Trackers
from lowerbound.training.update import update

__all__ = ["History", "fit_model"]

SECONDS_BETWEEN_LOGS = 1.0
SECONDS_BETWEEN_CHECKPOINTS = 300.0
MAX_VALIDATION_ROWS = 10_000


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
    model.check_objective(config.objective)
    for sentence in model.advice(config.objective):
        console.say(f"warning: {sentence}")
    model.calibrate(source)
    model.to(engine.device)

    # --- models with a closed form have no loop
    if model.fit_exactly(source):
        console.say("fitted in closed form; the length of the run is not used")
        model.eval()
        return History()

    # --- state, and the order of everything random
    batches = Batches(
        source.train,
        config.batch_size,
        config.seed,
        engine.device,
        rank=engine.rank,
        world=engine.world,
    )
    batch_size, rows = batches.batch_size, slice(batches.first, batches.last)
    length = Length.of(config, batches.num_batches)
    trained = engine.trained(model)
    step_module = Step(
        trained,
        config,
        resolve_precision(config.precision, engine.device),
        resolve_compile(config.compile, engine.device, length),
    )
    parallel_step = engine.setup(step_module)
    state = TrainState(trained, config, initial=model)
    facts, place = facts_of(model, source, config, step_module), place_of(engine)
    if checkpoint is not None:
        if not allow_changed:
            refuse_changes(checkpoint, facts, source)
        state.restore(checkpoint)
        console.say(moved(checkpoint, place))
    position = state.position
    log = TrackedLog(folder, position.metrics_bytes, trackers)
    judge = Judge(
        source.validation,
        engine,
        MAX_VALIDATION_ROWS,
        num_samples=config.samples if step_module.importance else 1,
        importance=step_module.importance,
    )
    meter = Meter(engine, batch_size, mean_dims(model, judge.split), model.is_likelihood)
    history = History(log.rows)
    started = time.perf_counter() - position.seconds
    saved_at = time.perf_counter()

    trained.train()  # what is judged is the average, a model of its own
    with console, stop_signal(folder is not None or engine.world > 1) as stop, batches:
        while not position.finished:
            progress = length.progress(position.step, position.seconds)

            # --- one step: a batch and its noise by count, the loss, the update
            x, context = batches(position.step)
            noise = training_noise(model, batch_size, config, position.step, rows)
            loss, bound = parallel_step(x, context, noise, progress)
            loss.mean().backward()
            rate = learning_rate(progress, config.learning_rate, config.warmup)
            done = update(state, loss, rate, config.clip, engine, config.skip_norm)
            trained.take_in(bound.observed, done.used, position.step)
            meter.add(loss.detach(), bound, done)
            position.step += 1
            state.average.update(position.step)

            # --- the time, and what it decides, agreed on by all processes
            now = time.perf_counter()
            position.seconds, stopping, log_age, save_age = engine.agree(
                now - started, stop.number, meter.seconds(), now - saved_at
            )
            progress = length.progress(position.step, position.seconds)

            # --- once a second, and before a save: read the meter, the only wait for the device
            due = progress * config.validations >= position.validations + 1 or progress >= 1
            saving = bool(due or save_age > SECONDS_BETWEEN_CHECKPOINTS or stopping)
            if saving or log_age >= SECONDS_BETWEEN_LOGS:
                row = meter.read(position) | {"epoch": position.step / batches.num_batches}
                row |= trained.facts() | {
                    "learning_rate": rate,
                    "beta": step_module.weights(progress).beta,
                }
                log.add(kind="train", **row)
                heartbeat(position.step)
                console.progress(progress, row)
                _refuse_divergence(position, folder)

            # --- validation: the unweighted bound, or L_K where that is climbed, of the average
            if due:
                judged = state.average.judged(position.step)
                judged.settle(source)
                row = judge(judged) | {"epoch": position.step / batches.num_batches}
                better = state.take_in(row, judged, is_likelihood=model.is_likelihood)
                position.validations = math.floor(progress * config.validations + 1e-9)
                history.stopped_early = position.since_best >= config.patience and progress < 1
                position.finished = progress >= 1 or history.stopped_early
                position.seconds = time.perf_counter() - started
                log.add(kind="validation", seconds=position.seconds, best=better, **row)
                console.validation(progress, log.rows[-1])
                log.show(judged, source, position.step)
                if history.stopped_early:
                    console.say(
                        f"no better for {config.patience} validations: stopped; the weights of "
                        f"step {position.best_step:,} are kept"
                    )

            # --- save: at every validation, every five minutes, and when asked to stop
            if saving:
                position.metrics_bytes = log.flushed_bytes()
                state.save(folder, facts, place)
                engine.barrier()
                saved_at = time.perf_counter()
            if stopping or (position.finished and stop.number):  # asked for during the last save
                raise Interrupted(
                    f"stopped at step {position.step:,} and saved; continue with "
                    f"`lowerbound train --resume {folder}`",
                    int(stopping or stop.number),
                )

    # --- the model that was promised: averaged weights of the best validation
    if state.best:
        model.load_state_dict(state.best)
    model.eval()
    history.seconds, history.steps = position.seconds, position.step
    history.best_step = position.best_step
    return history


def training_noise(
    model: Model, batch_size: int, config: TrainingConfig, step: int, rows: slice | None = None
) -> dict[str, Tensor]:
    """Noise of a step, by blocks of the global batch: device and worker count change nothing.

    Args:
        model: whose noise.
        batch_size: of the global batch.
        config: its seed and number of samples.
        step: by whose number the noise is drawn.
        rows: those of the global batch that this process takes; all unless said.
    """
    device = model.calibrated.device
    parts = []
    for block, taken, inner in blocks_of(rows or slice(0, batch_size), batch_size):
        generator = generator_for("noise", config.seed, step, block, device=device)
        noise = model.noise(taken.stop - taken.start, config.samples, generator)
        whole = inner == slice(0, taken.stop - taken.start)
        parts.append(noise if whole else {name: eps[:, inner] for name, eps in noise.items()})
    return parts[0] if len(parts) == 1 else concatenate_noise(parts)


def _refuse_divergence(position: Position, folder: Path | None) -> None:
    """End a run that steps over what is not finite again and again."""
    if position.diverged:
        good = f"; the last good state is in '{folder / 'checkpoints'}'" if folder else ""
        raise DivergedError(
            f"{position.diverged} had a loss or gradient that is not finite, and were skipped; "
            f"try a lower --learning-rate or --clip, or --precision float32{good}"
        )
