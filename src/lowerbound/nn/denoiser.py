"""Denoisers: networks from a noisy array and its noise level to an array of the same shape.

All of them are called as ``denoiser(x, level, extra)``: x (N, *event), a level of the order of
0 … 1000 per example (N,), and what else is known (N, embedding), or None. All of them start at
zero. Of what the output is an estimate is not their concern.

Their attention is fused: it has first derivatives in reverse mode, and neither second ones nor
forward mode, for which there is ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._shapes import num_elements, shown_shape
from lowerbound.errors import refuse
from lowerbound.nn.dit import DiT, modulated
from lowerbound.nn.fourier import FourierFeatures
from lowerbound.nn.unet import UNet, sinusoids

__all__ = [
    "Denoiser",
    "DenoiserKind",
    "MlpDenoiser",
    "fitting_denoiser",
    "fitting_widths",
    "make_denoiser",
]

DenoiserKind = Literal["auto", "unet", "dit", "mlp"]
SMALLEST_FOR_UNET = 8
SIDES = {"unet": (2,), "dit": (1, 2, 3)}
"""How many sides an array may have behind its channels; an mlp takes any shape."""
OPTIONS = {"unet": ("widths", "attention"), "dit": ("patch", "head_size"), "mlp": ()}
"""Those of one kind alone."""
WIDTHS = {"unet": 32, "dit": 128, "mlp": 256}
DEPTHS = {"unet": 2, "dit": 4, "mlp": 3}


class LevelBlock(nn.Module):
    """Two linear layers beside an identity; the level scales and shifts what they see."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        self.level, self.dropout = nn.Linear(embedding, 2 * width), nn.Dropout(dropout)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor, known: Tensor) -> Tensor:
        """(N, width), (N, embedding) -> (N, width)."""
        scale, shift = self.level(known).chunk(2, dim=1)
        inner = self.inner(modulated(h, scale, shift))
        return h + self.outer(self.dropout(F.silu(inner)))


class MlpDenoiser(nn.Module):
    """Residual network over all numbers of an array at once, for vectors above all.

    Its blocks see what is normalised, and add to what is not: how far out a vector lies is known
    to the last layer.

    Args:
        in_size: numbers per input.
        out_shape: shape of one output.
        width: size of the hidden layer.
        depth: residual blocks.
        embedding: size of the embedding of the noise level; the width unless said.
        dropout: inside the residual blocks.
    """

    def __init__(
        self,
        in_size: int,
        out_shape: Sequence[int],
        *,
        width: int = 256,
        depth: int = 3,
        embedding: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_shape, self.width = tuple(out_shape), width
        self.embedding = size = embedding or width
        self.level = nn.Sequential(nn.Linear(width, size), nn.SiLU(), nn.Linear(size, size))
        self.first = nn.Linear(in_size, width)
        self.blocks = nn.ModuleList(LevelBlock(width, size, dropout) for _ in range(depth))
        self.last_level = nn.Linear(size, 2 * width)
        self.last = nn.Linear(width, num_elements(out_shape))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, level: Tensor, extra: Tensor | None = None) -> Tensor:
        """(N, *in_shape), level (N,), extra (N, embedding) or None -> (N, *out_shape)."""
        known = self.level(sinusoids(level, self.width).to(self.first.weight.dtype))
        known = F.silu(known if extra is None else known + extra)
        h = self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h, known)
        scale, shift = self.last_level(known).chunk(2, dim=1)
        out: Tensor = self.last(torch.addcmul(shift, F.silu(h), 1 + scale))
        return out.reshape(len(x), *self.out_shape)


class Denoiser(nn.Module):
    """A denoising network behind the Fourier features of its input.

    Args:
        network: takes as many channels as the features give; has a size ``embedding``.
        features: of x; none unless said.
    """

    def __init__(self, network: nn.Module, features: FourierFeatures | None = None) -> None:
        super().__init__()
        self.network, self.features = network, features or FourierFeatures(())

    @property
    def embedding(self) -> int:
        """Numbers per example that ``extra`` holds."""
        size = self.network.embedding
        assert isinstance(size, int)
        return size

    def forward(self, x: Tensor, level: Tensor, extra: Tensor | None = None) -> Tensor:
        """(N, *event), level (N,), extra (N, embedding) or None -> (N, outputs · first, *rest)."""
        out: Tensor = self.network(self.features(x), level, extra)
        return out


def fitting_denoiser(event_shape: Sequence[int]) -> Literal["unet", "mlp"]:
    """A U-Net for images of at least eight pixels a side, else an mlp."""
    is_image = len(event_shape) == 3 and min(event_shape[1:]) >= SMALLEST_FOR_UNET
    return "unet" if is_image else "mlp"


def fitting_widths(sides: Sequence[int]) -> tuple[int, ...]:
    """Stages of a U-Net for an image: halved down to 4 … 7 pixels, at most three times.

    >>> fitting_widths((8, 8)), fitting_widths((28, 28))
    ((1, 2), (1, 2, 2))
    """
    return (1, 2, 2, 2)[: max(1, min(sides).bit_length() - 2)]


def make_denoiser(
    kind: DenoiserKind,
    event_shape: Sequence[int],
    *,
    num_outputs: int = 1,
    width: int | None = None,
    depth: int | None = None,
    fourier: Sequence[int] = (),
    embedding: int | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> Denoiser:
    """A denoiser for examples of a shape.

    Args:
        kind: unet, dit, mlp, or auto for what fits the shape.
        event_shape: shape of one example; an image is (channels, height, width).
        num_outputs: numbers per element of x that it gives, 2 where it also learns variances: the
            output has so many times the first axis of x.
        width: channels of a unet at full size (32 unless said), numbers per token of a dit (128),
            hidden units of an mlp (256).
        depth: residual blocks per stage of a unet (2, and 1 below 16 pixels a side), blocks of a
            dit (4) or an mlp (3).
        fourier: exponents of `FourierFeatures` of x.
        embedding: numbers of the embedding of the level, and of ``extra``; follows the width.
        dropout: inside the blocks.
        **options: of the kind alone: ``widths`` and ``attention`` of `UNet`, which follow the
            image (see `fitting_widths`), attention being in the last stage; ``patch`` and
            ``head_size`` of `DiT`.

    Raises:
        InputError: a kind that does not fit the shape, with those that do, or a bad size.
    """
    kinds = [name for name in get_args(DenoiserKind) if name != "auto"]
    if kind not in get_args(DenoiserKind):
        raise refuse("network", f"one of auto, {', '.join(kinds)}", kind)
    chosen = fitting_denoiser(event_shape) if kind == "auto" else kind
    _check_shape(chosen, event_shape)
    if chosen == "unet":
        options = _stages(event_shape[1:], options)
    width = WIDTHS[chosen] if width is None else width
    depth = _fitting_depth(chosen, event_shape) if depth is None else depth
    for name, value, least in (("width", width, 1), ("depth", depth, 1)):
        if value < least:
            raise refuse(name, f"at least {least}", value)
    for name in options:
        if name not in OPTIONS[chosen]:
            others = (
                ", ".join(kind for kind, own in OPTIONS.items() if name in own) or "no network"
            )
            raise refuse(name, f"left out for a {chosen}: {others} has it", options[name])
    features = FourierFeatures(fourier)
    sizes = {"width": width, "depth": depth, "embedding": embedding, "dropout": dropout, **options}
    return Denoiser(_network(chosen, event_shape, features.ratio, num_outputs, sizes), features)


def _fitting_depth(kind: str, event_shape: Sequence[int]) -> int:
    """Residual blocks: fewer where an image is small."""
    is_small = kind == "unet" and min(event_shape[1:]) < 2 * SMALLEST_FOR_UNET
    return 1 if is_small else DEPTHS[kind]


def _stages(sides: Sequence[int], options: dict[str, Any]) -> dict[str, Any]:
    """``options`` of a U-Net with its stages, and attention in the last of them.

    Raises:
        InputError: stages that would halve a single pixel, or attention in one that is not there.
    """
    widths = tuple(options.get("widths") or fitting_widths(sides))
    if min(sides) < 2 ** (len(widths) - 1):
        required = f"at most {min(sides).bit_length()} stages for {shown_shape(sides)} pixels"
        raise refuse("widths", required, len(widths))
    attention = options.get("attention")
    attention = (len(widths) - 1,) if attention is None else tuple(attention)
    if any(not 0 <= stage < len(widths) for stage in attention):
        raise refuse("attention", f"stages from 0 to {len(widths) - 1}", attention)
    return {**options, "widths": widths, "attention": attention}


def _network(
    kind: str, event_shape: Sequence[int], ratio: int, num_outputs: int, sizes: dict[str, Any]
) -> nn.Module:
    """A network of a kind for ``ratio`` numbers per element of x, giving ``num_outputs``."""
    first, *sides = event_shape
    if kind == "mlp":
        in_size, out_shape = ratio * num_elements(event_shape), (num_outputs * first, *sides)
        return MlpDenoiser(in_size, out_shape, **sizes)
    channels = ratio * first, num_outputs * first
    if kind == "unet":
        return UNet(*channels, **sizes)
    return DiT(*channels, num_sides=len(sides), **sizes)


def _check_shape(kind: str, event_shape: Sequence[int]) -> None:
    """Refuse a network for arrays of other shapes.

    Raises:
        InputError: with the shapes that work, and the networks that fit this one.
    """
    if len(event_shape) - 1 in SIDES.get(kind, (len(event_shape) - 1,)):
        return
    fit = ["mlp", *(name for name, sides in SIDES.items() if len(event_shape) - 1 in sides)]
    takes = {
        "unet": "images (channels, height, width) of any size",
        "dit": "arrays of channels and one to three sides of any size",
    }
    shape = shown_shape(event_shape)
    required = f"{' or '.join(fit)} for data of shape {shape}"
    raise refuse("network", required, f"{kind}, which takes {takes[kind]}")
