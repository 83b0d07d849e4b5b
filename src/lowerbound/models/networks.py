"""Which encoder and decoder fit the data, for the models that are made of two networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lowerbound._shapes import num_elements, shown_shape
from lowerbound.errors import refuse
from lowerbound.nn import ConvDecoder, ConvEncoder, HybridDecoder, Joined, Mlp

__all__ = ["Network", "check_network", "fitting_network", "make_encoder", "make_networks"]

Network = Literal["auto", "mlp", "hybrid", "conv"]
LARGEST_FOR_MLP = 1024
SMALLEST_FOR_HYBRID = 16
AXES = {"hybrid": (3,), "conv": (2, 3, 4)}
"""How many axes an example may have, the channels among them; an mlp takes any number."""


def make_networks(
    event_shape: Sequence[int],
    num_parameters: int,
    num_outputs: int,
    latent_dim: int,
    *,
    network: Network = "auto",
    width: int | None = None,
    depth: int = 1,
    num_context: int = 0,
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
        num_context: E, numbers of an embedding (N, E) that both see as a second argument; 0 for
            networks of one.

    Raises:
        InputError: a network for arrays of other shapes.
    """
    kind = fitting_network(event_shape) if network == "auto" else network
    sizes = {"width": _width(kind, width), "depth": depth}
    shape, is_flat = tuple(event_shape), kind != "conv"
    if num_context:
        first = (num_elements(shape),) if is_flat else shape
        shape = (first[0] + num_context, *first[1:])
    encoder = make_encoder(shape, num_parameters, kind, **sizes, like=event_shape)
    decoder = _decoder(event_shape, latent_dim + num_context, num_outputs, kind, **sizes)
    if not num_context:
        return encoder, decoder
    return Joined(encoder, is_flat=is_flat), Joined(decoder, is_flat=True)


def make_encoder(
    shape: Sequence[int],
    num_outputs: int,
    network: Network = "auto",
    *,
    width: int | None = None,
    depth: int = 1,
    like: Sequence[int] | None = None,
) -> nn.Module:
    """A network (N, *shape) -> (N, num_outputs), chosen for arrays of shape ``like``.

    Raises:
        InputError: a network for arrays of other shapes.
    """
    like = shape if like is None else like
    kind = fitting_network(like) if network == "auto" else network
    if len(like) not in AXES.get(kind, (len(like),)):
        fit = " or ".join(["mlp", *(name for name, axes in AXES.items() if len(like) in axes)])
        raise refuse("network", f"{fit} for data of shape {shown_shape(like)}", kind)
    build = ConvEncoder if kind == "conv" else Mlp
    return build(shape, num_outputs, width=_width(kind, width), depth=depth)


def _decoder(
    event_shape: Sequence[int],
    num_inputs: int,
    num_outputs: int,
    kind: Network,
    *,
    width: int,
    depth: int,
) -> nn.Module:
    """A network (N, num_inputs) -> (N, num_outputs · event)."""
    if kind == "mlp":
        return Mlp(
            (num_inputs,), num_outputs * num_elements(event_shape), width=width, depth=depth
        )
    image = (num_outputs * event_shape[0], *event_shape[1:])
    build = ConvDecoder if kind == "conv" else HybridDecoder
    return build(num_inputs, image, width=width, depth=depth)


def _width(kind: Network, width: int | None) -> int:
    return width or (32 if kind == "conv" else 512)


def fitting_network(event_shape: Sequence[int]) -> Literal["mlp", "hybrid", "conv"]:
    """Small arrays have few places; larger ones have too many for a dense layer."""
    if len(event_shape) not in AXES["conv"]:
        return "mlp"
    if num_elements(event_shape) > LARGEST_FOR_MLP:
        return "conv"
    is_drawn = len(event_shape) == 3 and min(event_shape[1:]) >= SMALLEST_FOR_HYBRID
    return "hybrid" if is_drawn else "mlp"


@torch.no_grad()
def check_network(part: str, network: nn.Module, given: Sequence[Tensor], required: int) -> None:
    """Refuse a network whose output has the wrong size, before the first step.

    Args:
        part: what to call it.
        network: takes the tensors of ``given``, of which each holds two examples.
        given: its arguments.
        required: numbers per example that it must give.

    Raises:
        InputError: another number of them, or a network that fails.
    """
    try:
        got = network(*given)[0].numel()
    except (RuntimeError, TypeError) as error:
        shown = " and ".join(shown_shape(tensor.shape) for tensor in given)
        wanted = f"a network that takes {shown} tensors"
        raise refuse(part, wanted, f"one that fails: {error}") from error
    if got != required:
        raise refuse(part, f"a network with {required} outputs per example", got)
