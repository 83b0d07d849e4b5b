"""What the latents do: where examples lie, which dimensions are used, and how much they tell."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound._random import generator_for
from lowerbound.data import Split
from lowerbound.distributions import DiagonalGaussian, FullGaussian
from lowerbound.evaluation.base import blocks, context_of, judging
from lowerbound.models import FlowedGaussian, JointPosterior, Model
from lowerbound.models.priors import Prior

__all__ = [
    "ACTIVE_VARIANCE",
    "are_active",
    "has_posterior",
    "in_units_of_prior",
    "latent_means",
    "mutual_information",
    "num_active_units",
]

ACTIVE_VARIANCE = 0.01
BATCH = 1000
MAX_POSTERIORS = 2000
LOG_2PI = math.log(2 * math.pi)


def has_posterior(model: Model, split: Split) -> bool:
    """Whether examples are encoded to distributions beside a prior of unit variance.

    Codes that are points, or a choice among components, have no such scale, and neither have
    those of a prior that is learned: what varies little among them may still be all that they say.
    """
    if not (model.is_likelihood and model.has_encoder):
        return False
    if not getattr(getattr(model, "prior", None), "has_unit_scale", True):
        return False
    rows = slice(0, 1)
    with judging(model):
        x = split[rows][0].to(model.calibrated.device)
        q = model.encode(x, context_of(model, split, rows))
        return isinstance(q, DiagonalGaussian | FullGaussian | FlowedGaussian | JointPosterior)


def latent_means(model: Model, split: Split, max_rows: int | None = None) -> Tensor:
    """The mean of q(z|x) of the first ``max_rows`` examples of a split: (N, d), on the CPU.

    Of a hierarchy every level's mean, given the others at theirs: not quite E_q[z].
    """
    device, total = model.calibrated.device, min(len(split), max_rows or len(split))
    with judging(model):
        parts = [
            model.encode(split[rows][0].to(device), context_of(model, split, rows)).mean.cpu()
            for rows in blocks(total, model.rows_together(BATCH))
        ]
    return torch.cat(parts)


def in_units_of_prior(model: Model, split: Split, means: Tensor) -> Tensor:
    """Posterior means (N, d) of a split as `are_active` looks at them, on the CPU.

    Where the prior of a latent moves with the context, so does a posterior that says nothing.
    """
    prior, device = getattr(model, "prior", None), model.calibrated.device
    if model.context is None or not isinstance(prior, Prior):
        return means
    with judging(model):
        parts = [
            prior.units(means[rows].to(device), context_of(model, split, rows)).cpu()
            for rows in blocks(len(means), model.rows_together(BATCH))
        ]
    return torch.cat(parts)


def are_active(means: Tensor) -> Tensor:
    """Which latent dimensions carry the data: Var_x E_q[z] > 0.01, of a prior variance of 1.

    References:
        Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016.

    Args:
        means: posterior means (N, d), by `in_units_of_prior`.

    Returns:
        Booleans (d,).
    """
    return means.var(0, correction=0) > ACTIVE_VARIANCE


def num_active_units(means: Tensor) -> int:
    """How many latent dimensions carry the data; see `are_active`."""
    return int(are_active(means).sum())


def mutual_information(model: Model, split: Split, seed: int = 0) -> float | None:
    """I_q(x; z) of up to 2,000 examples in nats: what z tells about which example it came from.

        I = E_x KL(q(z|x) ‖ p(z)) − KL(q(z) ‖ p(z)) = E_x E_{q(z|x)} [log q(z|x) − log q(z)]

    with q(z) the average of the N posteriors and one draw z of each. It is unbiased for those N
    examples as if they were all there are, and therefore between 0 and log N: near log N it is
    only a lower bound of what a larger set would give. The mean rate is an upper bound.

    Of a model with a context it is I_q(x; z | context): q(z) is the average over the examples of
    the same context, so that z is not credited with what the prior was told; None where every
    example has a context of its own.

    References:
        Hoffman and Johnson, ELBO surgery, 2016.

    Args:
        model: encodes to diagonal Gaussians; None is returned for others.
        split: the examples; its first rows are used.
        seed: of the draws.
    """
    device, num = model.calibrated.device, min(len(split), MAX_POSTERIORS)
    with judging(model):
        encoded = [
            model.encode(split[rows][0].to(device), context_of(model, split, rows))
            for rows in blocks(num, model.rows_together(BATCH))
        ]
        if not all(isinstance(q, DiagonalGaussian) for q in encoded):
            return None
        loc = torch.cat([q.loc.cpu() for q in encoded]).double()  # type: ignore[attr-defined]
        scales = [q.log_scale.expand_as(q.loc).cpu() for q in encoded]  # type: ignore[attr-defined]
        q = DiagonalGaussian(loc, torch.cat(scales).double())
        generator = generator_for("information", seed)
        z = q.rsample(torch.empty_like(loc).normal_(generator=generator))
        # Σ (z_i − μ_n)²/σ_n² of every draw under every posterior, multiplied out: three products.
        precision = torch.exp(-2 * q.log_scale)
        squares = z.square() @ precision.mT - 2 * z @ (loc * precision).mT
        squares += (loc.square() * precision).sum(1)
        log_prob = -0.5 * (squares + loc.shape[1] * LOG_2PI) - q.log_scale.sum(1)
        log_q, alike = log_prob.diagonal(), _alike(context_of(model, split, slice(num)), log_prob)
        if num > 1 and int(alike.sum()) == num:  # nothing else has its context
            return None
        log_average = (
            log_prob.masked_fill(~alike, -math.inf).logsumexp(1) - alike.sum(1).double().log()
        )
        return float((log_q - log_average).mean())


def _alike(context: Tensor | None, log_prob: Tensor) -> Tensor:
    """Which pairs of examples have the same context, (N, N); all, without any."""
    if context is None:
        return torch.ones_like(log_prob, dtype=torch.bool)
    _, kind = torch.unique(context, dim=0, return_inverse=True)
    return kind[:, None] == kind
