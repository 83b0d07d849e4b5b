"""The average of the weights over the steps: what is judged, saved and used.

θ̄ ← d θ̄ + (1 − d) θ per step, with d = min(decay, (1 + n)/(10 + n)) after n steps, so that an
average of few steps is not dominated by the initial weights. It is updated every eighth step with
d⁸: one pass over the weights costs as much as a small network's whole step.
"""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn

from lowerbound.models import Model

__all__ = ["UPDATE_EVERY", "Average"]

UPDATE_EVERY = 8


class Average:
    """An averaged copy of a model.

    Args:
        model: the model whose parameters are averaged; its buffers are copied.
        decay: of the average, per step.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.source, self.decay = model, decay
        self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)

    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps, where it is their turn."""
        if step % UPDATE_EVERY:
            return
        decay = min(self.decay, (1 + step) / (10 + step)) ** UPDATE_EVERY
        averaged, current = _parameters(self.model), _parameters(self.source)
        if averaged:
            torch._foreach_lerp_(averaged, current, 1 - decay)

    def judged(self) -> Model:
        """The averaged model in eval mode, with the present buffers."""
        with torch.no_grad():
            for mine, theirs in zip(self.model.buffers(), self.source.buffers(), strict=True):
                mine.copy_(theirs)
        return self.model


def _parameters(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach() for p in chain(model.parameters())]
