"""Which network denoises what: a U-Net for images, an mlp for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import num_elements, shown_shape
from lowerbound.errors import refuse
from lowerbound.nn.unet import UNet, sinusoids

__all__ = ["DenoiserName", "LevelMlp", "fourier_features", "make_denoiser"]

DenoiserName = Literal["auto", "unet", "mlp"]
SMALLEST_SIDE = 8


class LevelBlock(nn.Module):
    """Two linear layers beside an identity, told the noise level; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.level = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        """(N, width), (N, width) -> (N, width)."""
        scale, shift = self.level(level).chunk(2, dim=1)
        return h + self.outer(F.silu(self.inner(F.silu(h)) * (1 + scale) + shift))


class LevelMlp(nn.Module):
    """An mlp that is told a noise level: (N, *shape), (N,) -> (N, *out_shape).

    Args:
        shape: of one input.
        out_shape: of one output.
        width: of the hidden layers and of the embedding of the level.
        depth: residual blocks.
    """

    def __init__(
        self, shape: Sequence[int], out_shape: Sequence[int], *, width: int, depth: int
    ) -> None:
        super().__init__()
        self.width, self.out_shape = width, tuple(out_shape)
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Linear(num_elements(shape), width)
        self.blocks = nn.ModuleList(LevelBlock(width) for _ in range(depth))
        self.last = nn.Linear(width, num_elements(out_shape))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, level: Tensor, extra: Tensor | None = None) -> Tensor:
        """(N, *shape), levels (N,) of the order of 0 … 1000, extra (N, width) -> (N, *out)."""
        known = self.level(sinusoids(level, self.width).to(self.first.weight.dtype))
        known = F.silu(known if extra is None else known + extra)
        h = self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h, known)
        return self.last(F.silu(h)).unflatten(1, self.out_shape)


def make_denoiser(
    event_shape: Sequence[int],
    num_inputs: int,
    num_outputs: int,
    *,
    network: DenoiserName = "auto",
    width: int | None = None,
    widths: Sequence[int] | None = None,
    depth: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """A network (N, inputs · C, …), levels (N,) -> (N, outputs · C, …) for events (C, …).

    Args:
        event_shape: (C, …) of one example.
        num_inputs: how many arrays of that shape it sees, one after another along C.
        num_outputs: how many it gives.
        network: unet for images, mlp for any shape, or auto: unet from 8 pixels a side.
        width: channels of a unet at full size (32 unless said), or hidden units of an mlp (256).
        widths: channels of each stage of a unet, as multiples of the width.
        depth: residual blocks, per stage of a unet.
        dropout: inside the blocks of a unet.

    Raises:
        InputError: a unet for what is no image, or for too small a one.
    """
    channels, *rest = event_shape
    is_image = len(event_shape) == 3
    kind = network
    if kind == "auto":
        kind = "unet" if is_image and min(rest) >= SMALLEST_SIDE else "mlp"
    shapes = [(n * channels, *rest) for n in (num_inputs, num_outputs)]
    if kind == "mlp":
        return LevelMlp(*shapes, width=width or 256, depth=depth)
    if not is_image:
        raise refuse("network", f"mlp for data of shape {shown_shape(event_shape)}", network)
    multiples = tuple(widths or (1, 2, 2))
    if min(rest) < 2 ** (len(multiples) - 1):
        required = f"at most {int(min(rest)).bit_length()} stages for {shown_shape(rest)} pixels"
        raise refuse("widths", required, len(multiples))
    sizes: Any = {"width": width or 32, "widths": multiples, "depth": depth, "dropout": dropout}
    return UNet(shapes[0][0], shapes[1][0], attention=(len(multiples) - 1,), **sizes)


def fourier_features(z: Tensor, exponents: Sequence[int]) -> Tensor:
    """Sines and cosines of 2^n π z appended along the first axis of the event, in full precision.

    What a network could not tell apart in the last bits of z, in half precision above all, differs
    in them plainly.

    Args:
        z: (N, C, …).
        exponents: n, F of them.

    Returns:
        (N, C · (1 + 2 F), …).

    References:
        Kingma, Salimans, Poole and Ho, Variational Diffusion Models, 2021.
    """
    angles = [z * (2.0**n * torch.pi) for n in exponents]
    return torch.cat([z, *(part for a in angles for part in (a.sin(), a.cos()))], dim=1)
