"""Which parts a quantised autoencoder is made of: its options, and what they name.

The names are those of `lowerbound.models.quantised`: P places of d numbers, M codes below n each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from lowerbound._shapes import num_elements
from lowerbound.errors import refuse
from lowerbound.models.codes import AutoregressiveCodes, CodePrior, UniformCodes
from lowerbound.models.context import ContextOptions
from lowerbound.models.heads import HeadOptions
from lowerbound.models.networks import make_networks
from lowerbound.nn import (
    CausalTransformer,
    Embedding,
    GridDecoder,
    GridEncoder,
    JoinedPlaces,
    Quantiser,
    ScalarQuantiser,
    VectorQuantiser,
    grid_sides,
)

__all__ = ["VQVAEOptions", "make_code_networks", "make_code_prior", "make_quantiser", "places_of"]

CODEBOOK_SIZE, NUM_CODEBOOKS, LATENT_DIM, LEVELS = 256, 4, 16, (8, 5, 5, 5)
MOST_CODES = 2**16
PLACES, HALVINGS, SMALLEST_FOR_GRID = 16, 2, 16
LONGEST = 4096  # codes of an example that an autoregressive prior takes


@dataclass(frozen=True)
class VQVAEOptions(HeadOptions, ContextOptions):
    """Options of the quantised autoencoder; the others are those of its likelihood and context."""

    quantiser: Literal["vq", "rvq", "fsq"] = "vq"
    """One codebook; several in turn, each for what the last has left over; or rounded numbers."""
    codebook_size: int | None = None
    """Vectors of a codebook of vq or rvq (256 unless said)."""
    num_codebooks: int | None = None
    """Codebooks of rvq (4 unless said)."""
    levels: tuple[int, ...] = ()
    """Levels of each number of fsq (8, 5, 5, 5 unless said); their product is the code's."""
    codebook: Literal["ema", "gradient"] = "ema"
    """How codebooks learn: by moving averages of what chose them, or by gradient."""
    commitment: float = 0.25
    """Weight of the penalty that keeps the encoder near its codes."""
    prior: Literal["autoregressive", "uniform"] = "autoregressive"
    """p(codes): a small causal transformer, or every sequence alike."""
    prior_width: int | None = None
    """Numbers per place of an autoregressive prior (128 unless said for a grid, else 64)."""
    prior_depth: int = 2
    """Its blocks."""
    latent_dim: int | None = None
    """Numbers of a code's vector (16 unless said; fsq has one for each of its levels)."""
    network: Literal["auto", "grid", "mlp", "hybrid", "conv"] = "auto"
    """Encoder and decoder: grid, convolutions between an image and a grid of places; or those of
    the VAE, whose latents are cut into places. auto is grid for images from 16 pixels a side,
    else mlp."""
    halvings: int | None = None
    """How often a grid halves the image's sides (2 unless said): a place is 4×4 pixels then."""
    places: int | None = None
    """Places of the other networks (16 unless said, and at most one per number of x)."""
    width: int | None = None
    """Hidden units of an mlp (512 unless said), or channels at full size (32)."""
    depth: int = 1
    """Residual blocks at the places of a grid, or per stage of a conv; an mlp of depth 0 has one
    hidden layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_codebooks", "latent_dim", "places", "width", "prior_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise refuse(name, "at least 1", value)
        for name in ("halvings", "depth", "prior_depth"):
            if (getattr(self, name) or 0) < 0:
                raise refuse(name, "0 or more", getattr(self, name))
        if self.codebook_size is not None and self.codebook_size < 2:
            raise refuse("codebook_size", "at least 2", self.codebook_size)
        if self.levels and min(self.levels) < 2:
            raise refuse("levels", "at least 2 each", tuple(self.levels))
        if math.prod(self.levels) > MOST_CODES:  # the prior has a logit for each, at every place
            required = f"of at most {MOST_CODES:,} codes, their product"
            raise refuse("levels", required, f"{math.prod(self.levels):,}", "use fewer levels")
        if not 0 <= self.commitment < math.inf:
            raise refuse("commitment", "0 or more", self.commitment)
        fits: dict[str, tuple[str, ...]] = {"levels": ("fsq",), "num_codebooks": ("rvq",)}
        fits |= {"codebook_size": ("vq", "rvq"), "latent_dim": ("vq", "rvq")}
        for name, quantisers in fits.items():
            if getattr(self, name) and self.quantiser not in quantisers:
                required = f"left out for quantiser {self.quantiser}"
                raise refuse(name, required, getattr(self, name), f"of {' and '.join(quantisers)}")


def make_quantiser(options: VQVAEOptions) -> Quantiser:
    """The quantiser that the options name."""
    if options.quantiser == "fsq":
        return ScalarQuantiser(options.levels or LEVELS)
    num = (options.num_codebooks or NUM_CODEBOOKS) if options.quantiser == "rvq" else 1
    size, d = options.codebook_size or CODEBOOK_SIZE, options.latent_dim or LATENT_DIM
    return VectorQuantiser(size, d, num, learned=options.codebook)


def _is_grid(event_shape: Sequence[int], options: VQVAEOptions) -> bool:
    """Whether the places are those of an image."""
    if options.network != "auto":
        return options.network == "grid"
    return len(event_shape) == 3 and min(event_shape[1:]) >= SMALLEST_FOR_GRID


def places_of(event_shape: Sequence[int], options: VQVAEOptions) -> tuple[int, ...]:
    """The places: (rows, columns) of an image, or (P,).

    Raises:
        InputError: a grid for data that are no images, or more places or halvings than fit.
    """
    if not _is_grid(event_shape, options):
        if options.halvings is not None:
            raise refuse("halvings", "left out where there is no grid", options.halvings)
        most = num_elements(event_shape)
        if (options.places or 0) > most:
            raise refuse("places", f"at most the {most} numbers of an example", options.places)
        return (options.places or min(PLACES, most),)
    if len(event_shape) != 3:
        raise refuse("network", f"mlp for data with {len(event_shape)} axes", "grid")
    if options.places is not None:
        remedy = "say --halvings, or --network mlp"
        raise refuse("places", "left out for a grid", options.places, remedy)
    most = math.ceil(math.log2(max(event_shape[1:])))
    halvings = HALVINGS if options.halvings is None else options.halvings
    if halvings > most:
        sides = f"{event_shape[1]}×{event_shape[2]}"
        raise refuse("halvings", f"at most {most} for an image of {sides}", halvings)
    return grid_sides(event_shape[1:], halvings)[-1]


def make_code_networks(
    event_shape: Sequence[int],
    num_outputs: int,
    size: int,
    grid: tuple[int, ...],
    options: VQVAEOptions,
    num_context: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder between x and ``size`` numbers at each place of the grid.

    With ``num_context`` E the decoder takes an embedding (N, E) beside them.
    """
    encoder, decoder = _code_networks(event_shape, num_outputs, size, grid, options)
    if not num_context:
        return encoder, decoder
    told = _code_networks(event_shape, num_outputs, size + num_context, grid, options)[1]
    return encoder, JoinedPlaces(told, math.prod(grid))


def _code_networks(
    event_shape: Sequence[int],
    num_outputs: int,
    size: int,
    grid: tuple[int, ...],
    options: VQVAEOptions,
) -> tuple[nn.Module, nn.Module]:
    """As `make_code_networks`, without a context."""
    if not _is_grid(event_shape, options):
        kind: Any = "mlp" if options.network == "auto" else options.network
        d, sizes = math.prod(grid) * size, {"width": options.width, "depth": options.depth}
        return make_networks(event_shape, d, num_outputs, d, network=kind, **sizes)  # type: ignore[arg-type]
    halvings = HALVINGS if options.halvings is None else options.halvings
    sizes = {"halvings": halvings, "width": options.width or 32, "depth": options.depth}
    image = (num_outputs * event_shape[0], *event_shape[1:])
    encoder = GridEncoder(event_shape, size, **sizes)  # type: ignore[arg-type]
    return encoder, GridDecoder(size, image, **sizes)  # type: ignore[arg-type]


def make_code_prior(
    options: VQVAEOptions,
    quantiser: Quantiser,
    grid: tuple[int, ...],
    embedding: Embedding | None = None,
) -> CodePrior:
    """The prior that the options name, which is told a context by an ``embedding`` of its own.

    Raises:
        InputError: more codes to an example than an autoregressive prior takes.
    """
    length = math.prod(grid) * quantiser.codes_per_place
    if options.prior == "uniform":
        return UniformCodes(quantiser.num_codes, length)
    if length > LONGEST:
        required = f"uniform where an example has more than {LONGEST:,} codes"
        remedy = f"here it has {length:,}: say --halvings with more, or fewer --places"
        raise refuse("prior", required, options.prior, remedy)
    width = options.prior_width or (128 if len(grid) == 2 else 64)
    network = CausalTransformer(
        quantiser.num_codes,
        length,
        quantiser.codes_per_place,
        width=width,
        depth=options.prior_depth,
        num_context=0 if embedding is None else embedding.size,
    )
    return AutoregressiveCodes(network, embedding)
