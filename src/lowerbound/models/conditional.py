"""The conditional variational autoencoder: a VAE of which every part is told a context.

    z ~ p(z|c),  x | z, c ~ p(x | decoder(z, e(c))),   q(z|x, c) by encoder(x, e(c))

    log p(x|c) ≥ E_q[log p(x|z, c)] − KL(q(z|x, c) ‖ p(z|c))

c is a class, a vector, or a part of x; e(c) is a learned embedding. Where c is a part of x, that
part is certain given c: the bound is on the log-probability of the rest of x given that part.

References:
    Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative
    Models, 2015.
    Kingma, Rezende, Mohamed and Welling, Semi-supervised Learning with Deep Generative Models,
    2014 (the model of x given a class and z).
    Ho and Salimans, Classifier-Free Diffusion Guidance, 2022 (label dropout).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn

from lowerbound.data import Classes, Context, Mask, Source, Vector
from lowerbound.data.stored import sampled_rows
from lowerbound.distributions import Support
from lowerbound.errors import refuse
from lowerbound.models.networks import make_encoder
from lowerbound.models.posteriors import Posterior
from lowerbound.models.priors import ConditionalNormal, Prior, PriorName
from lowerbound.models.vae import VAE, VAEOptions
from lowerbound.nn import ClassEmbedding, Embedding, MaskEmbedding, VectorEmbedding
from lowerbound.objectives import Noise

__all__ = ["CVAE", "CVAEOptions"]

CONTEXT_DIM, CONTEXT_DIM_OF_MASKS = 32, 128
MEASURED_ROWS = 10_000


@dataclass(frozen=True)
class CVAEOptions(VAEOptions):
    """Options of the conditional variational autoencoder; the others are those of the VAE."""

    prior: PriorName | Literal["conditional"] = "normal"  # type: ignore[assignment]
    """N(0, I) for every context, or a Gaussian by a small network that sees the context
    (conditional); or learned as for a vae, the same for every context; vamp has none."""
    label_dropout: float = 0.0
    """Share of the contexts that training withholds, so that one model also learns p(x)."""
    context_dim: int | None = None
    """Numbers of the context's embedding (32 unless said, 128 for a part of x)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_dropout <= 1:
            raise refuse("label_dropout", "from 0 to 1", self.label_dropout)
        if self.context_dim is not None and self.context_dim < 1:
            raise refuse("context_dim", "at least 1", self.context_dim)


class CVAE(VAE):
    """A VAE with a context; `CVAE.build` makes the parts from `CVAEOptions`.

    Its constructor is that of `VAE`, where ``context`` and ``embedding`` are given. The networks
    take two arguments: encoder (x, e) and decoder (z, e), e the embedding (B, E).
    """

    name: ClassVar[str] = "cvae"

    @classmethod
    def build(
        cls,
        event_shape: Sequence[int],
        support: Support,
        options: VAEOptions = CVAEOptions(),
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        prior: Prior | None = None,
        posterior: Posterior | None = None,
        context: Context | None = None,
        embedding: Embedding | None = None,
    ) -> Self:
        """The model that ``options`` describe; a part that is given takes the place of theirs.

        Raises:
            InputError: no context, or options that do not fit it.
        """
        assert isinstance(options, CVAEOptions)
        if context is None:
            remedy = (
                "name the labels with --labels, or give a part of images with --condition mask"
            )
            raise refuse("context", f"in the data of a '{cls.name}'", "none", remedy)
        if isinstance(context, Mask):
            _refuse_dependent(options)
        if prior is None and options.prior == "conditional":
            own = _embedding(context, event_shape, options)
            prior = ConditionalNormal(own, options.latent_dim)
        return super().build(
            event_shape,
            support,
            options,
            encoder=encoder,
            decoder=decoder,
            prior=prior,
            posterior=posterior,
            context=context,
            embedding=embedding or _embedding(context, event_shape, options),
        )

    @property
    def label_dropout(self) -> float:
        """Share of the contexts that training withholds; 0 for a model from parts alone."""
        return float(getattr(self.options, "label_dropout", 0.0))

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """As that of the VAE; training with label dropout also draws whose context it is."""
        noise = super().noise(batch_size, num_samples, generator)
        if self.training and self.label_dropout:
            drop = torch.empty_like(noise["z"][..., 0])
            noise["drop"] = drop.uniform_(generator=generator)
        return noise

    def dropped(self, context: Tensor | None, noise: Noise) -> Tensor | None:
        """``context`` (B, …) of which the share ``label_dropout`` says nothing.

        Only a training step asks for it: what is judged sees every context.
        """
        if context is None or self.context is None or "drop" not in noise:
            return context
        return self.context.dropped(context, noise["drop"][0] < self.label_dropout)

    def draw_context(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """Classes (num,) as often as in the training set.

        Raises:
            InputError: the context is none of classes: the data must give it.
        """
        if not isinstance(self.embedding, ClassEmbedding):
            remedy = "take it from a split: split[:10][1]"
            raise refuse("context", f"given to a '{self.name}' of {self.context}", None, remedy)
        frequencies = self.embedding.frequencies
        return torch.multinomial(frequencies, num, replacement=True, generator=generator)

    def _calibrate(self, source: Source) -> None:
        if isinstance(self.context, Classes):
            known = source.train.labels  # every one, also of data on a disk
        else:
            known = source.train[sampled_rows(len(source.train), MEASURED_ROWS)][1]
        assert known is not None
        assert self.context is not None
        self.context.check(known, self.event_shape)
        super()._calibrate(source)
        for part in self.modules():
            if isinstance(part, Embedding):
                part.measure(known)

    def notes(self) -> list[str]:
        """What the likelihood has to say, and which part of x the nats are of."""
        if not isinstance(self.context, Mask):
            return super().notes()
        note = (
            "The nats are of the part of x that is not observed, given the part that is; bits/dim "
            "divide them by the number of dimensions that are not observed."
        )
        return [*super().notes(), note]


def _embedding(context: Context, event_shape: Sequence[int], options: CVAEOptions) -> Embedding:
    """The embedding that fits a context."""
    usual = CONTEXT_DIM_OF_MASKS if isinstance(context, Mask) else CONTEXT_DIM
    size = options.context_dim or usual
    if isinstance(context, Classes):
        return ClassEmbedding(context.num_classes, size)
    if isinstance(context, Vector):
        return VectorEmbedding(context.size, size)
    shape = (2 * event_shape[0], *event_shape[1:])
    sizes = {"width": options.width, "depth": options.depth}
    network = make_encoder(shape, size, options.network, like=event_shape, **sizes)  # type: ignore[arg-type]
    return MaskEmbedding(network, cast(tuple[int, ...], tuple(event_shape)), size)


def _refuse_dependent(options: CVAEOptions) -> None:
    """A part of x can be left out of a sum over elements, and of nothing else."""
    remedy = "the observed part of x would be counted in it"
    if options.likelihood == "product":
        raise refuse("likelihood", "one of single elements for a masked x", "product", remedy)
    if options.sigma == "optimal":
        raise refuse("sigma", "learned or fixed for a masked x", "optimal", remedy)
