"""The promise of a hierarchy: latents z_1 … z_L, z_1 next to the data, each with its own rate.

    p(x, z) = p(z_L) p(z_{L−1}|z_L) … p(z_1|z_2 …) p(x|z),   all p(z_l|·) diagonal Gaussians

    log p(x) ≥ E_q[log p(x|z)] − Σ_l kl_l,   kl_l = E_q[log q(z_l|·) − log p(z_l|·)]

Outside, a hierarchy has one latent vector like every other model: the levels side by side, level 1
first, each in the units of its prior, u_l = (z_l − μ_p)/σ_p. Of these p(u) = N(0, I) holds exactly
whatever has been learned, so that drawing, interpolating and counting active units mean what they
mean elsewhere. Densities of u and of z differ by Σ log σ_p, in p and q alike: no weight changes.

Given a context c, networks see it and every line is of log p(x|c). The prior of a level may depend
on c, that of the top too; of u it is N(0, I) for every context.

A learned p(u_L), a flow or a mixture, can take the place of the top level's N(0, I). Its rate is
then the closed form less what the learned density adds at each draw.

References:
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016.
    Sønderby et al., Ladder Variational Autoencoders, 2016.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from lowerbound._shapes import repeated_rows
from lowerbound.data import Context
from lowerbound.distributions import (
    DiagonalGaussian,
    Distribution,
    Likelihood,
)
from lowerbound.errors import refuse
from lowerbound.models.base import Draw
from lowerbound.models.joint import JointPosterior
from lowerbound.models.latent import LatentModel
from lowerbound.models.levels import (
    Level,
    Take,
    drawn,
    in_units_of,
    kept,
    taken,
    total_log_q,
)
from lowerbound.models.priors import Prior, StandardNormal, TopPrior, make_prior
from lowerbound.nn import Embedding
from lowerbound.objectives import Bound, Noise

__all__ = ["Hierarchy", "JointPosterior", "TopOptions"]


@dataclass(frozen=True)
class TopOptions:
    """The prior of a hierarchy's top level."""

    prior: Literal["normal", "mixture", "flow", "autoregressive"] = "normal"
    """p(z_L): a Gaussian; or, in units of it, a mixture of Gaussians, or a flow of couplings
    (flow) or of autoregressive layers."""
    prior_components: int = 500
    """Components of a mixture prior."""
    prior_layers: int = 6
    """Layers of a flow or autoregressive prior."""
    flow_width: int = 256
    """Hidden units of the networks inside a flow or autoregressive prior."""

    def __post_init__(self) -> None:
        for name in ("prior_components", "prior_layers", "flow_width"):
            if getattr(self, name) < 1:
                raise refuse(name, "at least 1", getattr(self, name))

    def top(self, size: int) -> Prior | None:
        """The prior of a top level of so many latents; None for the Gaussian itself."""
        if self.prior == "normal":
            return None
        sizes: Any = {"num_components": self.prior_components, "num_layers": self.prior_layers}
        return make_prior(self.prior, size, (), **sizes, width=self.flow_width)


class Hierarchy(LatentModel):
    """Base of the models with several levels of latents.

    A hierarchy says how its levels follow from x (`_infer`) and how they make x (`_generate`).

    Args:
        likelihood: p(x|z), the head of the decoder.
        shapes: of the latents of levels 1 … L.
        context: what every example is given; None for a model of p(x).
        embedding: of that context, (B, …) -> (B, E).
        top: a learned prior of the top level, in units of its Gaussian; None for N(0, I).
    """

    def __init__(
        self,
        likelihood: Likelihood,
        shapes: Sequence[tuple[int, ...]],
        context: Context | None = None,
        embedding: Embedding | None = None,
        top: Prior | None = None,
    ) -> None:
        super().__init__(likelihood.event_shape, likelihood.support, context, embedding)
        self.likelihood, self.shapes = likelihood, [tuple(shape) for shape in shapes]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.latent_dim = sum(self.sizes)
        self.prior: Prior = StandardNormal(self.latent_dim)
        if top is not None:
            self.prior = TopPrior(top, self.latent_dim, self.sizes[-1])

    @abstractmethod
    def _infer(
        self, x: Tensor, num: int, take: Take, *beside: Tensor
    ) -> tuple[list[Level], Tensor]:
        """Levels 1 … L for standardised x (B, *event), ``num`` ways each, and what they decode to.

        All tensors have N = num · B rows, one set of B after another; the embedding ``beside`` x,
        where there is one, has B.
        """

    @abstractmethod
    def _generate(
        self, num: int, take: Take, *beside: Tensor
    ) -> tuple[list[DiagonalGaussian], Tensor]:
        """Priors of levels 1 … L, each given what ``take`` made of those above; their decoding.

        All tensors have ``num`` rows, the embedding ``beside`` too, where there is one.
        """

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.shapes)

    @property
    def names(self) -> list[str]:
        """``z_1`` … ``z_L``, what the noise and the latents of a draw are called."""
        return [f"z_{level}" for level in range(1, self.num_levels + 1)]

    def spans(self) -> list[slice]:
        """Where levels 1 … L stand in the joint latent vector."""
        ends = accumulate(self.sizes, initial=0)
        return [slice(a, b) for a, b in pairwise(ends)]

    # --- randomness -------------------------------------------------------------------------

    def noise(
        self, batch_size: int, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Standard normal ``z_1`` … ``z_L``, each (num_samples, batch_size, *shape)."""
        place: Any = {"device": self.calibrated.device, "dtype": self.likelihood.shift.dtype}
        noise = {
            name: torch.empty(num_samples, batch_size, *shape, **place).normal_(
                generator=generator
            )
            for name, shape in zip(self.names, self.shapes, strict=True)
        }
        return self._with_drop(noise, batch_size, num_samples, generator)

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
        """See `Model.bound`; the rates are ``"kl_1"`` … ``"kl_L"``, 1 next to the data."""
        noise = self._given(x, num_samples, noise, generator)
        x, num = self.likelihood.floating(x), len(noise["z_1"])
        context = self._given_context(context, len(x))
        # Inference: one way down all levels for each sample.
        levels, raw = self._way(x, num, drawn(noise), context)
        # Rates: per level and group, the mean over the ways.
        details = {
            f"kl_{i}": level.rate.unflatten(0, (num, len(x))).mean(0)
            for i, level in enumerate(levels, 1)
        }
        rates = {name: parts.sum(1) for name, parts in details.items()}
        if isinstance(self.prior, TopPrior):
            name, gain = f"kl_{self.num_levels}", self._gain(levels[-1].p, levels[-1].z)
            rates[name] = rates[name] - gain.unflatten(0, (num, len(x))).mean(0)
            del details[name]  # a learned density has no parts
        # Reconstruction: the mean over the ways of log p(x|z), summed over dimensions.
        log_likelihood = self._log_likelihood(x, raw, context)
        return Bound(log_likelihood.mean(0), rates, details)

    def _gain(self, p: DiagonalGaussian, z: Tensor) -> Tensor:
        """What a learned prior of the top adds to log p(z_L) of latents (N, *shape): (N,)."""
        if not isinstance(self.prior, TopPrior):
            return torch.zeros_like(z.flatten(1)[:, 0])
        return self.prior.gain(in_units_of(p, z).flatten(1))

    def _way(
        self, x: Tensor, num: int, take: Take, context: Tensor | None
    ) -> tuple[list[Level], Tensor]:
        """As `_infer`, of examples (B, *event) in their own units and their context."""
        standardized = self.likelihood.standardized(x)
        return self._infer(standardized, num, take, *self._embedded(context))

    def _log_likelihood(self, x: Tensor, raw: Tensor, context: Tensor | None) -> Tensor:
        """Log p(x|z) of examples (B, *event) by decoded ways (M·B, …): (M, B), nats."""
        num = len(raw) // len(x)
        repeated = repeated_rows(x, num)
        given = None if context is None else repeated_rows(context, num)
        p = self._completed(self.likelihood(raw, repeated), given)
        return p.log_prob(repeated).unflatten(0, (num, len(x)))

    def draw(
        self,
        x: Tensor,
        num_samples: int,
        context: Tensor | None = None,
        *,
        noise: Noise | None = None,
        path: bool = False,
    ) -> Draw:
        """See `Model.draw`; the latents are ``z_1`` … ``z_L``, each (K, B, *shape)."""
        noise = self._given(x, num_samples, noise, None)
        x, num = self.likelihood.floating(x), len(noise["z_1"])
        context, shape = self._given_context(context, len(x)), (num, len(x))
        latents: dict[str, Tensor] = {}
        levels, raw = self._way(x, num, kept(drawn(noise), latents, shape), context)
        latents = {name: latents[name] for name in self.names}
        log_likelihood = self._log_likelihood(x, raw, context)
        log_p = torch.stack([level.p.log_prob(level.z) for level in levels]).sum(0)
        log_p = log_p + self._gain(levels[-1].p, levels[-1].z)
        if path:  # of all that q is made of, also what it shares with p
            fixed = {name: p.detach() for name, p in self.named_parameters()}
            log_q = torch.func.functional_call(self, fixed, (x, latents, context))
        else:
            log_q = total_log_q(levels).unflatten(0, shape)
        log_weight = log_likelihood + log_p.unflatten(0, shape) - log_q
        return Draw(log_weight, latents, log_likelihood)

    def forward(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """Log q(z|x) of examples (B, *event) at latents, each (K, B, *shape): (K, B), nats."""
        shape = latents["z_1"].shape[:2]
        levels, _ = self._way(x, shape[0], taken(latents), context)
        return total_log_q(levels).unflatten(0, shape)

    def log_joint(
        self, x: Tensor, latents: Mapping[str, Tensor], context: Tensor | None = None
    ) -> Tensor:
        """See `Model.log_joint`; of ``z_1`` … ``z_L``, or of the joint ``z`` (K, B, d)."""
        x, context = self.likelihood.floating(x), self._given_context(context, len(x))
        num = len(next(iter(latents.values())))
        beside = [repeated_rows(e, num) for e in self._embedded(context)]
        if "z" in latents:
            joint = latents["z"].flatten(0, 1)
            raw = self._generate(len(joint), self._from_joint(joint), *beside)[1]
            return self._log_likelihood(x, raw, context) + self.prior.log_prob(latents["z"])
        take = taken(latents)
        priors, raw = self._generate(num * len(x), take, *beside)
        log_p = torch.stack([p.log_prob(take(i, p)) for i, p in enumerate(priors, 1)]).sum(0)
        log_p = log_p + self._gain(priors[-1], take(self.num_levels, priors[-1]))
        return self._log_likelihood(x, raw, context) + log_p.unflatten(0, (num, len(x)))

    def top_latents(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """Draws of the top level in units of its Gaussian prior: (M, B, d_L).

        Args:
            x: examples (B, *event) in the units of the source.
            noise: of M ways down.
            context: of each example (B, …), or None.
        """
        x, num = self.likelihood.floating(x), len(noise["z_1"])
        context = self._given_context(context, len(x))
        level = self._way(x, num, drawn(noise), context)[0][-1]
        return in_units_of(level.p, level.z).flatten(1).unflatten(0, (num, len(x)))

    # --- one latent vector ------------------------------------------------------------------

    def _from_joint(self, joint: Tensor) -> Take:
        """Latents z_l = μ_p + σ_p u_l of joint vectors (N, d)."""
        parts = [
            joint[:, span].unflatten(1, shape)
            for span, shape in zip(self.spans(), self.shapes, strict=True)
        ]
        return lambda level, p: p.rsample(parts[level - 1])

    def joined(self, latents: Mapping[str, Tensor], context: Tensor | None = None) -> Tensor:
        """The joint vectors (K, B, d) of latents ``z_1`` … ``z_L``, each (K, B, *shape)."""
        shape = latents["z_1"].shape[:2]
        take, context = taken(latents), self._given_context(context, shape[1])
        beside = [repeated_rows(e, shape[0]) for e in self._embedded(context)]
        priors, _ = self._generate(shape.numel(), take, *beside)
        parts = [in_units_of(p, take(i, p)).flatten(1) for i, p in enumerate(priors, 1)]
        return torch.cat(parts, 1).unflatten(0, shape)

    def encode(self, x: Tensor, context: Tensor | None = None) -> JointPosterior:
        """q(u|x) over joint vectors (B, d); its mean has every level at its posterior mean."""
        self.check_shape(x)
        beside = self._embedded(self._given_context(context, len(x)))
        x = self.likelihood.standardized(x)
        levels, _ = self._infer(x, 1, lambda _, q: q.loc, *beside)
        means = [in_units_of(level.p, level.z).flatten(1) for level in levels]
        scales = [(level.q.log_scale - level.p.log_scale).flatten(1) for level in levels]
        return JointPosterior(self, x, torch.cat(means, 1), torch.cat(scales, 1), beside)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|u) for joint vectors (N, d): a distribution over (N, *event)."""
        self.check_latents(z, self.latent_dim)
        context = self._given_context(context, len(z))
        take, beside = self._from_joint(z), self._embedded(context)
        p: Distribution = self.likelihood(self._generate(len(z), take, *beside)[1])
        return self._completed(p, context)

    # --- training ---------------------------------------------------------------------------

    def decoded(self, x: Tensor, context: Tensor | None, noise: Noise) -> Tensor:
        """The mean of p(x|z) at one way down of each example, (B, *event)."""
        given = self._given_context(context, len(x))
        return self.likelihood(self._way(x, 1, drawn(noise), given)[1]).mean
