"""Which encoder and decoder fit the data, for the models that are made of two networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from lowerbound._shapes import num_elements, shown_shape
from lowerbound.errors import refuse
from lowerbound.nn import ConvDecoder, ConvEncoder, HybridDecoder, Mlp

__all__ = ["Network", "make_networks"]

Network = Literal["auto", "mlp", "hybrid", "conv"]
LARGEST_FOR_MLP = 1024
SMALLEST_FOR_HYBRID = 16


def make_networks(
    event_shape: Sequence[int],
    num_parameters: int,
    num_outputs: int,
    latent_dim: int,
    *,
    network: Network = "auto",
    width: int | None = None,
    depth: int = 1,
) -> tuple[nn.Module, nn.Module]:
    """Encoder (N, *event) -> (N, num_parameters), decoder (N, d) -> (N, num_outputs · event).

    Args:
        event_shape: shape of one example.
        num_parameters: numbers that the encoder gives per example.
        num_outputs: numbers that the decoder gives per element of the event.
        latent_dim: d.
        network: mlp, hybrid, conv, or auto for what fits the shape.
        width: hidden units of an mlp (512 unless said), or channels of a conv at full size (32).
        depth: residual blocks, per stage of a conv.

    Raises:
        InputError: a network for images and data that are none.
    """
    kind = _fitting(event_shape) if network == "auto" else network
    if kind != "mlp" and len(event_shape) != 3:
        raise refuse("network", f"mlp for data of shape {shown_shape(event_shape)}", kind)
    sizes = {"width": width or (32 if kind == "conv" else 512), "depth": depth}
    if kind == "mlp":
        total = num_outputs * num_elements(event_shape)
        return Mlp(event_shape, num_parameters, **sizes), Mlp((latent_dim,), total, **sizes)
    channels, *size = event_shape
    image = (num_outputs * channels, *size)
    if kind == "hybrid":
        encoder = Mlp(event_shape, num_parameters, **sizes)
        return encoder, HybridDecoder(latent_dim, image, **sizes)
    return (
        ConvEncoder(event_shape, num_parameters, **sizes),
        ConvDecoder(latent_dim, image, **sizes),
    )


def _fitting(event_shape: Sequence[int]) -> Literal["mlp", "hybrid", "conv"]:
    """Small images have few places; larger ones have too many for a dense layer."""
    if len(event_shape) != 3:
        return "mlp"
    if num_elements(event_shape) > LARGEST_FOR_MLP:
        return "conv"
    return "hybrid" if min(event_shape[1:]) >= SMALLEST_FOR_HYBRID else "mlp"
