"""Everything a run remembers, in one place, and how it goes into a checkpoint and back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowerbound._parallel import like, whole
from lowerbound.config import TrainingConfig
from lowerbound.errors import InputError, printable
from lowerbound.models import Model
from lowerbound.training.checkpoint import (
    Checkpoint,
    optimizer_tensors,
    prune,
    restore_optimizer,
    save_checkpoint,
)
from lowerbound.training.ema import Average

__all__ = ["Position", "TrainState"]

MAX_SKIPPED_IN_A_ROW = 10
RECENT_STEPS, MAX_SKIPPED_RECENTLY = 1000, 10


@dataclass
class Position:
    """Where a run stands: plain numbers, from which data order and noise follow."""

    step: int = 0
    seconds: float = 0.0
    validations: int = 0
    best: float | None = None
    best_step: int | None = None
    since_best: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    skipped_steps: list[int] = field(default_factory=list)  # of the last thousand
    metrics_bytes: int = 0
    finished: bool = False

    def count(self, step: int, used: bool, *, finite: bool = False) -> None:
        """Take in whether a step was used, or skipped because something was not finite.

        One that was skipped for a long gradient, all of it ``finite``, counts as skipped and says
        nothing else. A count that has reached what ends a run stays there until the run has been
        ended.
        """
        self.skipped += not used
        used = used or finite
        if self.skipped_in_a_row < MAX_SKIPPED_IN_A_ROW:
            self.skipped_in_a_row = 0 if used else self.skipped_in_a_row + 1
        recent = [n for n in self.skipped_steps if n > step - RECENT_STEPS]
        if len(recent) <= MAX_SKIPPED_RECENTLY:
            self.skipped_steps = recent if used else [*recent, step]

    def stand_at(self, progress: float, validations: int) -> None:
        """Stand at a share of a run whose length, or number of validations, has changed.

        A run that was finished goes on where that share is below 1, and its patience begins anew.
        """
        self.validations = math.floor(progress * validations + 1e-9)
        if self.finished and progress < 1:
            self.finished, self.since_best = False, 0

    @property
    def diverged(self) -> str:
        """How many steps were skipped, where it is too many to go on; else nothing."""
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            return f"{self.skipped_in_a_row} steps in a row"
        if len(self.skipped_steps) > MAX_SKIPPED_RECENTLY:
            return f"{len(self.skipped_steps)} of the last {RECENT_STEPS:,} steps"
        return ""


class TrainState:
    """The model, its average, the optimiser and the position.

    Args:
        model: the model that is trained, on its device.
        config: learning rate, weight decay and the average's decay.
        initial: a whole model of the same weights, where ``model`` is in parts.
    """

    def __init__(self, model: Model, config: TrainingConfig, initial: Model | None = None) -> None:
        self.model = model
        self.average = Average(model, config.average, initial)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise InputError(f"a model of kind '{model.name}' has nothing to train")
        # Only matrices decay: a bias or a sigma has no reason to be near zero.
        matrices = [p for n, p in named if n.endswith("weight") and p.ndim >= 2]
        others = [p for n, p in named if not (n.endswith("weight") and p.ndim >= 2)]
        if config.weight_decay == 0:  # a second group would cost a launch of its own
            matrices, others = [], [p for _, p in named]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )
        self.names: dict[Tensor, str] = {
            parameter: name for name, parameter in model.named_parameters()
        }
        self.position = Position()
        self.best: dict[str, Tensor] = {}  # averaged weights of the best validation

    def take_in(self, row: dict[str, Any], judged: Model, *, is_likelihood: bool) -> bool:
        """Whether a validation is the best so far; if so its weights are kept.

        A validation that is not finite is never the best, and stands in no later one's way.
        """
        row["step"] = self.position.step
        score = row["bound"] if is_likelihood else -row["loss"]
        best = self.position.best
        better = math.isfinite(score) and (best is None or score > best)
        self.position.since_best = 0 if better else self.position.since_best + 1
        if better:
            self.position.best, self.position.best_step = score, self.position.step
            self.best = {k: v.clone() for k, v in judged.state_dict().items()}
        return better

    def save(self, run: Path | None, facts: dict[str, Any], place: dict[str, Any]) -> None:
        """Write a checkpoint of everything, then prune the older ones.

        Every process calls it, since each may hold parts; the one that has a folder writes.
        """
        model = {name: whole(tensor) for name, tensor in self.model.state_dict().items()}
        optimizer = optimizer_tensors(self.optimizer, self.names)
        if run is None:
            return
        average = self.average.model.state_dict()
        tensors = {"model": model, "average": average, "optimizer": optimizer, "best": self.best}
        position = asdict(self.position)
        state = {"position": position, "averaged": self.average.step}
        state |= {"facts": facts, "place": place}
        save_checkpoint(run, self.position.step, tensors, state)
        prune(run, self.position.step, self.position.best_step)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a verified checkpoint.

        Raises:
            InputError: it belongs to another model.
        """
        try:
            present, saved = self.model.state_dict(), checkpoint.tensors["model"]
            parts = {n: like(t, present[n]) if n in present else t for n, t in saved.items()}
            self.model.load_state_dict(parts)
            self.average.model.load_state_dict(checkpoint.tensors["average"])
            restore_optimizer(self.optimizer, self.names, checkpoint.tensors["optimizer"])
            self.best = checkpoint.tensors["best"]
            self.average.step = int(checkpoint.state["averaged"])
            self.position = Position(**checkpoint.state["position"])
        except (RuntimeError, KeyError, TypeError) as error:
            reason = printable(" ".join(str(error).split()), 160)
            raise InputError(
                f"'{printable(checkpoint.path)}' does not fit the model: {reason}; "
                "resume with the options that the run began with"
            ) from error
