"""Whether a training step is compiled: a fixed rule of device, length and network.

Compiling costs seconds once and saves the overhead of many small operations. On an accelerator it
takes about a minute and saves the launch of every small kernel. On a CPU it was measured to pay
for networks of a few dense layers in bf16 (1.28 of the speed at batch 128 for 3 to 10 seconds) and
for U-Nets (1.22 for 49 seconds); convolutional VAEs gained little, and a deep hierarchy took
minutes. So auto compiles on a CPU the first for runs of two minutes and the second for runs of
twenty, or of very many steps, in one process, where there is a compiler. What comes of it is
written into config.yaml, and a resume keeps it.
"""

from __future__ import annotations

import math
import os
import shutil
import sys

import torch

from lowerbound.config import TrainingConfig
from lowerbound.errors import refuse
from lowerbound.models import Model
from lowerbound.nn import UNet
from lowerbound.training.schedule import Length
from lowerbound.training.step import resolve_precision

__all__ = ["find_compiler", "resolve_compile"]

STEPS_TO_PAY = {"cuda": 5_000, "cpu": 50_000}
SECONDS_TO_PAY = {"cuda": 300.0, "dense": 120.0, "unet": 1_200.0, "other": math.inf}
MAX_MATRICES = 16


def resolve_compile(
    config: TrainingConfig, device: torch.device, length: Length, model: Model
) -> bool:
    """Whether the step is compiled.

    Args:
        config: what was asked for; auto is the rule.
        device: of the run.
        length: of the run.
        model: whose networks decide on a CPU.

    Raises:
        InputError: a model or an objective that cannot be compiled, and is asked to be.
    """
    # Both work by hooks on gradients inside the step, which a compiled one may leave out.
    hooked = None if model.can_compile else f"this '{model.name}', whose schedule is learned"
    if any(climbed == "dreg" for climbed, _ in config.climbed):
        hooked = "the objective dreg"
    if hooked is not None:
        if config.compile == "always":
            raise refuse("compile", f"never or auto for {hooked}", "always")
        return False
    if config.compile != "auto":
        return config.compile == "always"
    if device.type not in STEPS_TO_PAY:
        return False
    steps, seconds = length.steps or 0, length.seconds or 0.0
    enough = SECONDS_TO_PAY["cuda" if device.type == "cuda" else _kind(model)]
    pays = math.isfinite(enough) and (steps >= STEPS_TO_PAY[device.type] or seconds >= enough)
    if device.type == "cuda" or not pays:
        return pays
    half = resolve_precision(config.precision, device) == "bf16"
    return half and config.devices == 1 and find_compiler() is not None


def find_compiler() -> str | None:
    """Path of the C++ compiler that compiling on a CPU needs, or None."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


def _kind(model: Model) -> str:
    """What a model's networks are to a compiler for CPUs, a key of `SECONDS_TO_PAY`.

    ``dense`` has no kernels and at most 16 matrices; ``other`` was not seen to pay.
    """
    if any(isinstance(part, UNet) for part in model.modules()):
        return "unet"
    sizes = [p.ndim for p in model.parameters()]
    is_dense = max(sizes, default=0) <= 2 and sizes.count(2) <= MAX_MATRICES
    return "dense" if is_dense else "other"
