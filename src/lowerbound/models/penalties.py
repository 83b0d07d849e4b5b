"""Penalties: what training adds to its loss so that the codes of a batch look as one wishes.

With q(z) = E_x q(z|x), the codes of all examples together,

    total correlation   KL(q(z) ‖ Π_d q(z_d)): 0 where the dimensions are independent
    mmd                 squared distance of q(z) from N(0, I) in the feature space of a kernel
    dip-i, dip-ii       squared distance of the covariance of the means E[z|x], or of z, from I

A penalty couples the examples of a batch, so it is no part of a bound: it stands in
`Bound.penalties`, and only while a model is trained. Several devices see the codes of all.

References:
    Chen, Li, Grosse and Duvenaud, Isolating Sources of Disentanglement in Variational
    Autoencoders, 2018 (beta-TCVAE).
    Zhao, Song and Ermon, InfoVAE: Balancing Learning and Inference in Variational
    Autoencoders, 2019.
    Kumar, Sattigeri and Balakrishnan, Variational Inference of Disentangled Latent Concepts from
    Unlabeled Observations, 2018 (DIP-VAE).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lowerbound._parallel import global_mean, global_rows, rank
from lowerbound.distributions import DiagonalGaussian

__all__ = ["PENALTIES", "dip", "log_aggregate", "mmd", "total_correlation"]

DIAGONAL_OF_DIP_I = 10.0  # how much more its paper weighs variances than covariances

Penalty = Callable[[DiagonalGaussian, Tensor, Tensor], Tensor]
"""(q(z|x) of a batch, one draw z of each (B, d), number of training examples) -> (B,), nats or
squared units; with weight 1."""


def total_correlation(q: DiagonalGaussian, z: Tensor, num_examples: Tensor) -> Tensor:
    """Estimates of log q(z) − Σ_d log q(z_d) at each draw, (B,), nats."""
    loc, log_scale = global_rows(q.loc), global_rows(q.log_scale.expand_as(q.loc))
    # log q(z_id|x_j) of every draw i, posterior j and dimension d: (B, all, d).
    log_prob = DiagonalGaussian(loc, log_scale, event_ndim=0).log_prob(z[:, None])
    joint = log_aggregate(log_prob.sum(-1, keepdim=True), num_examples)
    return (joint - log_aggregate(log_prob, num_examples).sum(-1, keepdim=True)).squeeze(-1)


def log_aggregate(log_prob: Tensor, num_examples: Tensor) -> Tensor:
    """Estimates of log q(z_i), the mean over all N examples of q(z_i|x_n), (B, d), nats.

    A batch has x_i itself, which counts 1/N, and others, which stand for the other N − 1:

        q(z_i) ≈ 1/N q(z_i|x_i) + (N − 1)/N · mean over j ≠ i of q(z_i|x_j),

    without bias (its logarithm has some). One that gives every example of the batch the same
    weight counts x_i, where q(z_i|·) has its peak, N/B times too often.

    Args:
        log_prob: log q(z_i|x_j), (B, all, d), nats; the draws are of the rows of this process.
        num_examples: N.
    """
    num_draws, num = log_prob.shape[:2]
    here = torch.arange(num_draws, device=log_prob.device)
    log_others = (num_examples - 1).log() - math.log(max(1, num - 1))
    log_weight = log_others.expand(num_draws, num).clone()
    log_weight[here, here + rank() * num_draws] = 0.0
    return (log_prob + log_weight[..., None]).logsumexp(1) - num_examples.log()


def mmd(q: DiagonalGaussian, z: Tensor, num_examples: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between the draws and N(0, I), the same for all: (B,).

    With the kernel k(z, z') = exp(−|z − z'|²/(2d)), whose means under N(0, I) are known: the
    estimate needs no draws from the prior, has no bias, and is exact in all but q(z).
    """
    codes, d = global_rows(z), z.shape[-1]
    num = len(codes)
    lengths = codes.square().sum(-1)
    with torch.autocast(codes.device.type, enabled=False):  # the lengths nearly cancel
        distances = (lengths[:, None] + lengths - 2 * codes @ codes.T).clamp(min=0)
    among = torch.exp(-distances / (2 * d)).sum() - num  # without each with itself
    across = torch.exp(-lengths / (2 * (d + 1))) * (d / (d + 1)) ** (d / 2)
    of_prior = (d / (d + 2)) ** (d / 2)
    value = among / max(1, num * (num - 1)) - 2 * across.mean() + of_prior
    return value.expand(len(z))


def dip(q: DiagonalGaussian, z: Tensor, num_examples: Tensor, *, of_codes: bool = False) -> Tensor:
    """Squared covariances, and squared distances of the variances from 1, the same for all: (B,).

    Args:
        q: the posteriors.
        z: their draws; not used.
        num_examples: not used.
        of_codes: whether the covariance is that of z (DIP-VAE-II), or of E[z|x] (DIP-VAE-I, where
            variances count ten times as much).
    """
    centered = q.loc - global_mean(q.loc)
    covariance = global_mean(centered[:, :, None] * centered[:, None])
    if of_codes:
        variance = global_mean(torch.exp(2 * q.log_scale).expand_as(q.loc))
        covariance = covariance + torch.diag(variance)
    from_identity = (covariance - torch.eye(len(covariance)).to(covariance)).square()
    diagonal = from_identity.diagonal().sum()
    weight = 1.0 if of_codes else DIAGONAL_OF_DIP_I
    return (from_identity.sum() - diagonal + weight * diagonal).expand(len(z))


def _dip_ii(q: DiagonalGaussian, z: Tensor, num_examples: Tensor) -> Tensor:
    return dip(q, z, num_examples, of_codes=True)


PENALTIES: dict[str, Penalty] = {
    "total-correlation": total_correlation,
    "mmd": mmd,
    "dip-i": dip,
    "dip-ii": _dip_ii,
}
"""Every penalty by name."""
