"""The average of the weights over the steps: what is judged, saved and used.

θ̄ ← d θ̄ + (1 − d) θ per step, with d = min(decay, (1 + n)/(10 + n)) after n steps, so that an
average of few steps is not dominated by the initial weights. It takes in every eighth step with
d⁸, and what is left over before it is judged: a pass over the weights is dear for a small network.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from lowerbound._parallel import whole
from lowerbound.models import Model

__all__ = ["UPDATE_EVERY", "Average"]

UPDATE_EVERY = 8


class Average:
    """An averaged copy of a model.

    Args:
        model: the model whose parameters are averaged; its buffers are copied.
        decay: of the average, per step.
        initial: a whole model of the same weights, where ``model`` is in parts.
    """

    def __init__(self, model: Model, decay: float, initial: Model | None = None) -> None:
        self.source, self.decay = model, decay
        self.step = 0  # up to which the average has taken in the weights
        self.model: Model = copy.deepcopy(initial or model).eval().requires_grad_(False)

    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps, where it is their turn."""
        if step % UPDATE_EVERY == 0:
            self._take_in(step)

    def judged(self, step: int) -> Model:
        """The averaged model in eval mode, up to ``step`` and with the present buffers."""
        self._take_in(step)
        with torch.no_grad():
            for mine, theirs in zip(self.model.buffers(), self.source.buffers(), strict=True):
                mine.copy_(theirs)
        return self.model

    def _take_in(self, step: int) -> None:
        if step == self.step:
            return
        decay = min(self.decay, (1 + step) / (10 + step)) ** (step - self.step)
        averaged, current = _parameters(self.model), _parameters(self.source)
        if averaged:
            torch._foreach_lerp_(averaged, current, 1 - decay)
        self.step = step


def _parameters(model: nn.Module) -> list[torch.Tensor]:
    return [whole(p.detach()) for p in model.parameters()]
