"""One training step as a module: objective of model, in the run's precision."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from lowerbound.config import TrainingConfig
from lowerbound.models import Model
from lowerbound.objectives import IMPORTANCE_WEIGHTED, OBJECTIVES, Bound, Noise, Weights

__all__ = ["Step", "resolve_device", "resolve_precision"]


def resolve_device(name: str) -> torch.device:
    """The device of a run; auto is the first accelerator, else the CPU.

    Raises:
        InputError: no such device here.
    """
    from lowerbound.errors import refuse

    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if accelerator is None else accelerator
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        remedy = "run `lowerbound doctor` to see what this machine has"
        raise refuse("device", "one that this machine has", name, remedy) from error
    return device


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
    """

    def __init__(self, model: Model, config: TrainingConfig, precision: str) -> None:
        super().__init__()
        self.model, self.config, self.precision = model, config, precision
        self.objective = OBJECTIVES[config.objective]

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
        )

    def forward(
        self, x: Tensor, context: Tensor | None, noise: Noise, progress: float
    ) -> tuple[Tensor, Bound]:
        """Loss (B,) in nats, to be averaged and minimised, and the unweighted bound."""
        half = self.precision == "bf16"
        autocast = torch.autocast(x.device.type, dtype=torch.bfloat16) if half else None
        with autocast or contextlib.nullcontext():
            loss, bound = self.objective(
                self.model, x, context, noise, self.config.samples, self.weights(progress)
            )
        return loss, bound
