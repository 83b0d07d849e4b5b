"""The quantised autoencoder: an example is a few codes of a finite set.

    c = quantiser(encoder(x)),   x | c ~ p(x | decoder(e_c)),   p(c) a prior over codes

q(c|x) is a point, so that the bound needs no draws:

    log p(x) = log Σ_c p(x|c) p(c) ≥ log p(x|c) + log p(c).

Training maximises it, and pays two penalties beside it, per example, in the unit of nats:

    weight · D · mean over places and numbers of (z − e_c)²,

with D the dimensions of x: the reconstruction is a sum over D, so that the balance of the two
depends neither on the size of x, nor on that of the batch, nor on how many places there are. The
weight is ``commitment`` for z, and 1 for a codebook that has a gradient. The prior learns from the
same steps; codes are integers, and its gradient ends there.

Given a context, decoder and prior see its embedding, each its own, and the bound is of log p(x|·).
The encoder sees x alone: what its codes need not hold is what the others are told.

References:
    van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning, 2017.
    Zeghidour et al., SoundStream, 2021; Mentzer et al., Finite Scalar Quantization, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lowerbound._shapes import num_elements, repeated_rows
from lowerbound.data import Context, Source
from lowerbound.distributions import (
    Distribution,
    Likelihood,
    Support,
)
from lowerbound.errors import refuse
from lowerbound.models.base import Draw
from lowerbound.models.codes import CodePrior, PointMass
from lowerbound.models.context import make_embedding
from lowerbound.models.heads import make_head
from lowerbound.models.latent import LatentModel
from lowerbound.models.networks import check_network
from lowerbound.models.quantised_parts import (
    VQVAEOptions,
    make_code_networks,
    make_code_prior,
    make_quantiser,
    places_of,
)
from lowerbound.nn import Embedding, Quantised, Quantiser, VectorQuantiser
from lowerbound.objectives import Bound, Noise

__all__ = ["VQVAE", "VQVAEOptions"]


class VQVAE(LatentModel):
    """A quantised autoencoder from its parts; `VQVAE.build` makes them from `VQVAEOptions`.

    Args:
        encoder: network (B, *event) -> (B, P · d): a vector for each place, one after another. It
            sees x standardised by the likelihood.
        decoder: network (N, P · d) -> (N, likelihood.num_outputs · event), in any arrangement.
        quantiser: of vectors of d numbers, into M codes below n.
        likelihood: the head of the decoder.
        prior: over the S = P · M codes of an example, those of a place together.
        grid: the places, (rows, columns) of an image, or (P,).
        commitment: weight of its penalty.
        context: what every example is given; None for a model of p(x).
        embedding: of that context, (B, …) -> (B, E). The decoder sees it as a second argument.
    """

    name: ClassVar[str] = "vqvae"
    closed_form: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        quantiser: Quantiser,
        likelihood: Likelihood,
        prior: CodePrior,
        grid: Sequence[int],
        *,
        commitment: float = 0.25,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        super().__init__(likelihood.event_shape, likelihood.support, context, embedding)
        self.encoder, self.decoder, self.quantiser = encoder, decoder, quantiser
        self.likelihood, self.prior = likelihood, prior
        self.grid, self.num_places, self.commitment = tuple(grid), math.prod(grid), commitment

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: VQVAEOptions | None = None,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: CodePrior | None = None,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> VQVAE:
        """The model that ``options`` describe; a part that is given takes the place of theirs.

        Raises:
            InputError: options that do not fit the data.
        """
        options = options or VQVAEOptions()
        likelihood = make_head(event_shape, support, options)
        quantiser, grid = make_quantiser(options), places_of(event_shape, options)
        embedding = embedding or make_embedding(context, event_shape, support, options)
        if encoder is None or decoder is None:
            sizes = (likelihood.num_outputs, quantiser.size, grid)
            num_context = 0 if embedding is None else embedding.size
            made = make_code_networks(event_shape, *sizes, options, num_context)
            encoder, decoder = encoder or made[0], decoder or made[1]
        if prior is None:
            own = make_embedding(context, event_shape, support, options)
            prior = make_code_prior(options, quantiser, grid, own)
        parts = (encoder, decoder, quantiser, likelihood, prior, grid)
        told: Any = {"context": context, "embedding": embedding}
        model = cls(*parts, commitment=options.commitment, **told)
        model.options = options
        model.check_networks()
        return model

    def check_networks(self) -> None:
        """Refuse networks whose outputs have the wrong size, before the first step."""
        training = self.training
        self.eval()
        size = self._size
        x, z = torch.zeros(2, *self.event_shape), torch.zeros(2, size)
        num_outputs = self.likelihood.num_outputs * num_elements(self.event_shape)
        check_network("encoder", self.encoder, (x,), size)
        beside = () if self.embedding is None else (torch.zeros(2, self.embedding.size),)
        check_network("decoder", self.decoder, (z, *beside), num_outputs)
        self.train(training)

    @property
    def _size(self) -> int:
        """P · d, the numbers that the decoder sees of codes."""
        return self.num_places * self.quantiser.size

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Nothing: codes are a function of x; see `ContextModel` for ``drop``."""
        return self._with_drop({}, batch_size, num_samples, generator)

    # --- codes ------------------------------------------------------------------------------

    def _vectors(self, x: Tensor) -> Tensor:
        """What is quantised of x (B, *event): (B, P, d)."""
        z: Tensor = self.encoder(self.likelihood.standardized(x))
        return (z if z.dtype == torch.float64 else z.float()).unflatten(1, (self.num_places, -1))

    def codes(self, x: Tensor) -> Tensor:
        """The codes of x (B, *event): (B, S) int64, those of a place together."""
        self.check_shape(x)
        quantised: Quantised = self.quantiser(self._vectors(x))
        return quantised.codes.flatten(1)

    def vectors_of(self, codes: Tensor) -> Tensor:
        """What the decoder sees of codes (…, S): (…, P · d)."""
        by_place = codes.unflatten(-1, (self.num_places, -1))
        return self.quantiser.vectors_of(by_place).flatten(-2)

    def encode(self, x: Tensor, context: Tensor | None = None) -> PointMass:
        """q(codes|x): a point, given as the vectors of its codes, (B, P · d)."""
        codes = self.codes(x)
        self._given_context(context, len(x))  # refused here as by `decode`
        return PointMass(self.vectors_of(codes))

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|codes) over (N, *event), for codes (N, S), or for vectors (N, P · d) as they are."""
        is_code = not z.is_floating_point()
        self.check_latents(z, self.prior.length if is_code else self._size)
        context = self._given_context(context, len(z))
        if is_code and len(z) and not 0 <= int(z.min()) <= int(z.max()) < self.prior.num_codes:
            given = f"codes from {int(z.min())} to {int(z.max())}"
            raise refuse("z", f"codes from 0 to {self.prior.num_codes - 1}", given)
        vectors = self.vectors_of(z) if is_code else z
        p: Distribution = self.likelihood(self.decoder(vectors, *self._embedded(context)))
        return self._completed(p, context)

    # --- the bound --------------------------------------------------------------------------

    def bound(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
        noise: Noise | None = None,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """See `Model.bound`; the rate is ``"codes"``, with its parts per code."""
        self.check_shape(x)
        x, context = self.likelihood.floating(x), self._given_context(context, len(x))
        # Inference: the nearest codes, behind which gradients go straight on.
        z = self._vectors(x)
        quantised: Quantised = self.quantiser(z)
        # Rate: −log p(codes).
        rates, details = self.prior.rates(None, quantised.codes.flatten(1), context)
        # Reconstruction: log p(x|codes), summed over dimensions.
        raw = self.decoder(quantised.vectors.flatten(1), *self._embedded(context))
        reconstruction = self._completed(self.likelihood(raw, x), context).log_prob(x)
        # Penalties: mean squares, times the dimensions that the reconstruction is a sum over.
        unit = num_elements(self.event_shape)
        weights = {"commitment": self.commitment, "codebook": 1.0}
        penalties = {k: weights[k] * unit * loss for k, loss in quantised.losses.items()}
        observed = {"vectors": z.detach()} if self.training else {}
        return Bound(reconstruction, rates, details, penalties, observed=observed)

    def take_in(self, observed: Mapping[str, Tensor], usable: Tensor, step: int) -> None:
        """See `Model.take_in`: the codebooks follow the vectors of the step."""
        self.quantiser.take_in(observed["vectors"], usable, step)

    def facts(self) -> dict[str, float]:
        """Codes in use, and the perplexity of their use; see `Quantiser.facts`."""
        return self.quantiser.facts()

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
        path: bool = False,
    ) -> Draw:
        """See `Model.draw`; latents ``z`` are the codes (K, B, S), K times the same point.

        Raises:
            InputError: while training, which needs the penalties beside the bound.
        """
        if self.training:
            remedy = "its posterior is a point: more draws of it say nothing more"
            raise refuse("objective", f"elbo for a '{self.name}'", "one of draws", remedy)
        codes, context = self.codes(x).unsqueeze(0), self._given_context(context, len(x))
        log_likelihood = self._log_likelihood(x, codes, context)
        log_weight = log_likelihood + self.prior.log_prob(codes, context)
        weights, likelihoods = (t.expand(num_samples, -1) for t in (log_weight, log_likelihood))
        return Draw(weights, {"z": codes.expand(num_samples, -1, -1)}, likelihoods)

    def log_joint(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """See `Model.log_joint`; the latents are codes ``z`` (K, B, S)."""
        codes, context = latents["z"], self._given_context(context, len(x))
        return self._log_likelihood(x, codes, context) + self.prior.log_prob(codes, context)

    def _log_likelihood(self, x: Tensor, codes: Tensor, context: Tensor | None) -> Tensor:
        """Log p(x|codes) of examples (B, *event) at codes (K, B, S): (K, B), nats."""
        self.check_shape(x)
        x = self.likelihood.floating(x)
        repeated = repeated_rows(x, len(codes))
        given = None if context is None else repeated_rows(context, len(codes))
        log_prob: Tensor = self.decode(codes.flatten(0, 1), given).log_prob(repeated)
        return log_prob.unflatten(0, (len(codes), len(x)))

    # --- what is measured -------------------------------------------------------------------

    def _calibrate(self, source: Source) -> None:
        super()._calibrate(source)
        total = len(source.train) * self.num_places
        if isinstance(self.quantiser, VectorQuantiser) and self.quantiser.num_codes > total:
            required = f"at most the {total:,} places of the training examples"
            raise refuse("codebook_size", required, self.quantiser.num_codes, "use fewer codes")

    def decoded(self, x: Tensor, context: Tensor | None, noise: Noise) -> Tensor:
        """The mean of p(x|z) at the codes of each example, (B, *event)."""
        return self.decode(self.codes(x), context).mean

    def notes(self) -> list[str]:
        """What the likelihood has to say, and why there is no tighter bound."""
        said = (
            "The posterior over codes is a point: the bound is log p(x, codes), and more draws "
            "make it no tighter."
        )
        return [said, *super().notes()]
