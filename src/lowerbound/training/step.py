"""One training step as a module: objective of model, in the run's precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lowerbound.config import TrainingConfig
from lowerbound.errors import printable
from lowerbound.models import Model
from lowerbound.objectives import IMPORTANCE_WEIGHTED, OBJECTIVES, Bound, Noise, Weights

__all__ = ["Step", "resolve_precision"]


def resolve_precision(name: str, device: torch.device) -> str:
    """float32 or bf16: auto is bf16 where it is multiplied natively, by a fixed rule."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        native = False
    return "bf16" if native else "float32"


class Step(nn.Module):
    """The only thing that parallel and compiled training see.

    Args:
        model: the model that is trained.
        config: objective, its dials and their schedules.
        precision: ``"float32"`` or ``"bf16"`` (matrix work only).
        compiled: whether the objective is compiled; on CUDA its kernels are then one graph. What
            cannot be compiled is run as it is: ``say`` is told once, and ``compiled`` is False.
    """

    say: Callable[[str], None] = print

    def __init__(
        self, model: Model, config: TrainingConfig, precision: str, compiled: bool = False
    ) -> None:
        super().__init__()
        self.model, self.config, self.precision = model, config, precision
        self.compiled = compiled
        if compiled:
            graphs = "reduce-overhead" if model.calibrated.device.type == "cuda" else None
            self.faster = torch.compile(self._run, dynamic=False, mode=graphs)

    @property
    def importance(self) -> bool:
        """Whether L_K is climbed and not L_1: what validation should then follow too."""
        return self.config.objective in IMPORTANCE_WEIGHTED

    def weights(self, progress: float) -> Weights:
        """The dials of the objective at ``progress`` in [0, 1]: pure functions of it."""
        warm = self.config.beta_warmup
        ramp = min(1.0, progress / warm) if warm > 0 else 1.0
        return Weights(
            beta=self.config.beta * ramp,
            free_bits=self.config.free_bits,
            num_groups=self.config.num_groups,
            mix=self.config.mix,
            kl_balancing=self.config.kl_balancing and progress < warm,
        )

    def forward(
        self, x: Tensor, context: Tensor | None, noise: Noise, progress: float
    ) -> tuple[Tensor, Bound]:
        """Loss (B,) in nats, to be averaged and minimised, and the unweighted bound."""
        weights, name = self.weights(progress), self.config.objective_at(progress)
        if not self.compiled:
            return self._run(x, context, noise, weights, name)
        beta: Any = weights.beta
        if self.config.beta_warmup:  # a number would be compiled in
            beta = torch.full((), beta, device=x.device)  # made there: no copy to wait for
        try:
            return self.faster(x, context, noise, replace(weights, beta=beta), name)
        except Exception as error:  # whatever it was: a step that is wrong fails again below
            self.compiled = False
            reason = printable(" ".join(str(error).split()), 160)
            self.say(f"warning: the step cannot be compiled and is run as it is ({reason})")
        return self._run(x, context, noise, weights, name)

    def _run(
        self, x: Tensor, context: Tensor | None, noise: Noise, weights: Weights, name: str
    ) -> tuple[Tensor, Bound]:
        context = self.model.dropped(context, noise)
        half = self.precision == "bf16"
        autocast = torch.autocast(x.device.type, dtype=torch.bfloat16) if half else None
        with autocast or contextlib.nullcontext():
            num_samples = 1 if name != self.config.objective else self.config.samples
            return OBJECTIVES[name](self.model, x, context, noise, num_samples, weights)
