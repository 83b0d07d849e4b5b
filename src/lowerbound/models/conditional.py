"""The conditional variational autoencoder: a VAE of which every part is told a context.

    z ~ p(z|c),  x | z, c ~ p(x | decoder(z, e(c))),   q(z|x, c) by encoder(x, e(c))

    log p(x|c) ≥ E_q[log p(x|z, c)] − KL(q(z|x, c) ‖ p(z|c))

c is a class, a vector, or a part of x; e(c) is a learned embedding; see
`lowerbound.models.context`.

References:
    Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative
    Models, 2015.
    Kingma, Rezende, Mohamed and Welling, Semi-supervised Learning with Deep Generative Models,
    2014 (the model of x given a class and z).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from torch import nn

from lowerbound.data import Context
from lowerbound.distributions import Support
from lowerbound.errors import refuse
from lowerbound.models.context import ContextOptions, make_embedding
from lowerbound.models.posteriors import Posterior
from lowerbound.models.priors import ConditionalNormal, CouplingPrior, Prior
from lowerbound.models.vae import VAE, VAEOptions
from lowerbound.nn import Embedding

__all__ = ["CVAE", "CVAEOptions"]

CONDITIONAL = ("conditional", "conditional-flow")


ConditionalPriorName = Literal[
    "normal", "mixture", "flow", "autoregressive", "conditional", "conditional-flow"
]


@dataclass(frozen=True)
class CVAEOptions(VAEOptions, ContextOptions):
    """Options of the conditional variational autoencoder; the others are those of the VAE."""

    prior: ConditionalPriorName = "normal"  # type: ignore[assignment]
    """N(0, I) for every context; or learned by networks that see the context, a Gaussian
    (conditional) or a flow of couplings (conditional-flow); or learned as for a vae, the same for
    every context."""

    def __post_init__(self) -> None:
        VAEOptions.__post_init__(self)
        ContextOptions.__post_init__(self)


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
        sizes: Any = {k: getattr(options, k) for k in ("network", "width", "depth")}
        if prior is None and options.prior in CONDITIONAL:
            own = make_embedding(context, event_shape, support, options, **sizes)
            assert own is not None
            prior = _prior_that_sees(own, options)
        return super().build(
            event_shape,
            support,
            options,
            encoder=encoder,
            decoder=decoder,
            prior=prior,
            posterior=posterior,
            context=context,
            embedding=embedding or make_embedding(context, event_shape, support, options, **sizes),
        )


def _prior_that_sees(embedding: Embedding, options: CVAEOptions) -> Prior:
    """The prior p(z|c) that ``options`` name, with an embedding of its own."""
    d = options.latent_dim
    if options.prior == "conditional":
        return ConditionalNormal(embedding, d)
    sizes: Any = {"width": options.flow_width, "embedding": embedding}
    return CouplingPrior(d, options.prior_layers, **sizes)
