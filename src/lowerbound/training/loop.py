"""The training loop, one straight function.

Data stay on the device as they came and batches are index selections; the loss is accumulated as
a tensor and read once per log interval, the only place where the loop waits for the device. A step
whose loss or gradient is not finite is skipped on the device, without being looked at.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowerbound._random import generator_for, permutation
from lowerbound._shapes import num_elements
from lowerbound.config import TrainingConfig
from lowerbound.data import Source
from lowerbound.errors import DivergedError, Interrupted
from lowerbound.evaluation import Judge
from lowerbound.models import Model, concatenate_noise
from lowerbound.training.checkpoint import Checkpoint
from lowerbound.training.logs import Console, MetricsLog
from lowerbound.training.resume import facts_of, refuse_changes
from lowerbound.training.schedule import Length, learning_rate
from lowerbound.training.state import Position, TrainState
from lowerbound.training.step import Step, resolve_device, resolve_precision

__all__ = ["History", "fit_model"]

NOISE_BLOCK = 128
SECONDS_BETWEEN_LOGS = 1.0
SECONDS_BETWEEN_CHECKPOINTS = 300.0
MAX_SKIPPED_IN_A_ROW = 10
RECENT_STEPS, MAX_SKIPPED_RECENTLY = 1000, 10
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
        allow_changed: continue although data or options are not those of the checkpoint.

    Raises:
        InputError: data or options have changed since the checkpoint, or do not fit it.
        DivergedError: ten steps in a row, or more of the last thousand, were not finite.
        Interrupted: asked to stop, having saved.
    """
    console = console or Console(quiet=True)
    device = resolve_device(config.device)
    model.calibrate(source)
    model.to(device)

    # --- models with a closed form have no loop
    if model.fit_exactly(source):
        console.say("fitted in closed form; the length of the run is not used")
        model.eval()
        return History()

    # --- state, and the order of everything random
    batch_size = min(config.batch_size, len(source.train))
    num_batches = len(source.train) // batch_size
    length = Length.of(config, num_batches)
    step_module = Step(model, config, resolve_precision(config.precision, device))
    state = TrainState(model, config)
    facts = facts_of(model, source, config)
    if checkpoint is not None:
        if not allow_changed:
            refuse_changes(checkpoint, facts, source)
        state.restore(checkpoint)
    position = state.position
    log = MetricsLog(folder, position.metrics_bytes)
    train = source.train.to(device)
    importance = step_module.importance
    judge = Judge(
        source.validation,
        device,
        MAX_VALIDATION_ROWS,
        num_samples=config.samples if importance else 1,
        importance=importance,
    )
    meter = Meter()
    history = History(log.rows)
    order, epoch = torch.empty(0), -1
    num_dims = num_elements(model.event_shape)
    started = time.perf_counter() - position.seconds
    saved_at = time.perf_counter()

    model.train()  # what is judged is the average, a model of its own
    with console, _stop_signal(folder is not None) as stop:
        while not position.finished:
            progress = length.progress(position.step, position.seconds)

            # --- one step: a batch by index, its noise by count, the loss, the update
            if position.step // num_batches != epoch:
                epoch = position.step // num_batches
                order = permutation(len(train), "epoch", config.seed, epoch).to(device)
            first = position.step % num_batches * batch_size
            generator = generator_for("data", config.seed, position.step, device=device)
            x, context = train.draw(order[first : first + batch_size], generator)
            noise = training_noise(model, batch_size, config, position.step)
            loss, bound = step_module(x, context, noise, progress)
            loss.mean().backward()
            rate = learning_rate(progress, config.learning_rate, config.warmup)
            usable = _update(state, loss, rate, config.clip)
            meter.add(loss.detach(), bound.terms(), usable)
            position.step += 1
            state.average.update(position.step)
            position.seconds = time.perf_counter() - started
            progress = length.progress(position.step, position.seconds)

            # --- once a second, and before a save: read the meter, the only wait for the device
            due = progress * config.validations >= position.validations + 1 or progress >= 1
            stopping = stop.number
            late = time.perf_counter() - saved_at > SECONDS_BETWEEN_CHECKPOINTS
            saving = bool(due or late or stopping)
            if saving or meter.seconds() >= SECONDS_BETWEEN_LOGS:
                row = meter.read(position, batch_size, num_dims)
                if not model.is_likelihood:  # a loss, and no nats
                    row |= {"bound": None, "bits_per_dim": None}
                    row.pop("reconstruction")
                row |= {"epoch": position.step / num_batches, "learning_rate": rate}
                row["beta"] = step_module.weights(progress).beta
                log.add(kind="train", **row)
                console.progress(progress, row)
                _refuse_divergence(position, folder)

            # --- validation: the unweighted bound, or L_K where that is climbed, of the average
            if due:
                judged = state.average.judged(position.step)
                judged.settle(source)
                row = judge(judged) | {"step": position.step, "epoch": position.step / num_batches}
                score = row["bound"] if model.is_likelihood else -row["loss"]
                position.validations = math.floor(progress * config.validations + 1e-9)
                better = math.isfinite(score) and (position.best is None or score > position.best)
                position.since_best = 0 if better else position.since_best + 1
                if better:
                    position.best, position.best_step = score, position.step
                    state.best = {k: v.clone() for k, v in judged.state_dict().items()}
                history.stopped_early = position.since_best >= config.patience and progress < 1
                position.finished = progress >= 1 or history.stopped_early
                position.seconds = time.perf_counter() - started
                log.add(kind="validation", seconds=position.seconds, best=better, **row)
                console.validation(progress, log.rows[-1])
                if history.stopped_early:
                    console.say(
                        f"no better for {config.patience} validations: stopped; the weights of "
                        f"step {position.best_step:,} are kept"
                    )

            # --- save: at every validation, every five minutes, and when asked to stop
            if folder is not None and saving:
                position.metrics_bytes = log.flushed_bytes()
                state.save(folder, facts)
                saved_at = time.perf_counter()
            if stopping or (position.finished and stop.number):  # asked for during the last save
                raise Interrupted(
                    f"stopped at step {position.step:,} and saved; continue with "
                    f"`lowerbound train --resume {folder}`",
                    stop.number,
                )

    # --- the model that was promised: averaged weights of the best validation
    if state.best:
        model.load_state_dict(state.best)
    model.eval()
    history.seconds, history.steps = position.seconds, position.step
    history.best_step = position.best_step
    return history


def training_noise(
    model: Model, batch_size: int, config: TrainingConfig, step: int
) -> dict[str, Tensor]:
    """Noise of a step, by blocks of the global batch: device and worker count change nothing."""
    device = model.calibrated.device
    parts = []
    for block, first in enumerate(range(0, batch_size, NOISE_BLOCK)):
        generator = generator_for("noise", config.seed, step, block, device=device)
        size = min(NOISE_BLOCK, batch_size - first)
        parts.append(model.noise(size, config.samples, generator))
    return concatenate_noise(parts)


def _update(state: TrainState, loss: Tensor, rate: float, clip: float) -> Tensor:
    """Clip and step in one pass over the weights; what is not finite moves nothing.

    The fused optimiser divides by ``grad_scale`` and does nothing where ``found_inf`` is 1 (as it
    does for loss scaling): clipping costs no pass of its own, and skipping no synchronisation.
    """
    optimizer = state.optimizer
    gradients = [p.grad for p in state.names if p.grad is not None]
    norm = _total_norm(gradients)
    usable = norm.isfinite() & loss.detach().isfinite().all()
    # On a CPU looking costs nothing, and dividing by 1 a pass over the gradients.
    if norm.device.type != "cpu" or not (usable and norm <= clip):
        optimizer.grad_scale = (norm / clip).clamp_min(1.0)  # type: ignore[attr-defined]
        optimizer.found_inf = (~usable).float()  # type: ignore[attr-defined]
    else:
        optimizer.grad_scale = optimizer.found_inf = None  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return usable


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together; on a CPU by dot products, in half the time."""
    if gradients[0].device.type != "cpu":
        return torch.nn.utils.get_total_norm(gradients)
    flat = [g.flatten() for g in gradients]
    return torch.stack([torch.dot(g, g) for g in flat]).sum().sqrt()


def _refuse_divergence(position: Position, folder: Path | None) -> None:
    """End a run that steps over what is not finite again and again."""
    if position.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        many = f"{position.skipped_in_a_row} steps in a row"
    elif len(position.skipped_steps) > MAX_SKIPPED_RECENTLY:
        many = f"{len(position.skipped_steps)} of the last {RECENT_STEPS:,} steps"
    else:
        return
    good = f"; the last good state is in '{folder / 'checkpoints'}'" if folder else ""
    raise DivergedError(
        f"{many} had a loss or gradient that is not finite, and were skipped; "
        f"try a lower --learning-rate or --clip, or --precision float32{good}"
    )


class Meter:
    """What the steps since the last log came to, kept on the device as it is until it is read."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start a new interval."""
        self.started = time.perf_counter()
        self.steps: list[tuple[Tensor, dict[str, Tensor]]] = []
        self.usable: list[Tensor] = []

    def seconds(self) -> float:
        """Length of the interval so far."""
        return time.perf_counter() - self.started

    def add(self, loss: Tensor, terms: dict[str, Tensor], usable: Tensor) -> None:
        """Take in a step; a skipped one counts as skipped and adds nothing else."""
        self.steps.append((loss, {name: term.detach() for name, term in terms.items()}))
        self.usable.append(usable)

    def read(self, position: Position, batch_size: int, num_dims: int) -> dict[str, Any]:
        """Means over the interval, in nats; updates the position's count of skipped steps."""
        usable = torch.stack(self.usable)
        names = ["loss", *self.steps[0][1]]
        rows = [torch.stack([loss, *terms.values()]) for loss, terms in self.steps]
        means = torch.stack(rows)[usable].mean((0, 2)).tolist()  # nan where every step was skipped
        for step, used in enumerate(usable.tolist(), position.step - len(usable) + 1):
            position.skipped += not used
            if position.skipped_in_a_row < MAX_SKIPPED_IN_A_ROW:  # else the run is to end
                position.skipped_in_a_row = 0 if used else position.skipped_in_a_row + 1
            recent = [n for n in position.skipped_steps if n > step - RECENT_STEPS]
            if len(recent) <= MAX_SKIPPED_RECENTLY:
                position.skipped_steps = recent if used else [*recent, step]
        loss, terms = means[0], dict(zip(names[1:], means[1:], strict=True))
        bound = 2 * terms["reconstruction"] - sum(terms.values())
        row = {
            "step": position.step,
            "seconds": position.seconds,
            "images_per_second": batch_size * len(self.usable) / max(self.seconds(), 1e-9),
            "loss": loss,
            "bound": bound,
            **terms,
            "bits_per_dim": -bound / (num_dims * math.log(2)),
            "skipped": position.skipped,
        }
        self.reset()
        return row


@dataclass
class _Stop:
    number: int = 0


@contextlib.contextmanager
def _stop_signal(active: bool) -> Iterator[_Stop]:
    """Turn the first Ctrl-C or SIGTERM into a request to save and stop; the second kills."""
    stop = _Stop()
    if not active or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: Any) -> None:
        stop.number = number
        for n in before:
            signal.signal(n, signal.SIG_DFL)

    for n in before:
        signal.signal(n, request)
    try:
        yield stop
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
