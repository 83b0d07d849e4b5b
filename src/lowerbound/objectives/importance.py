"""The importance-weighted bounds, and the estimators of their gradients.

With K draws z_k ~ q(z|x) and their weights w_k = p(x, z_k)/q(z_k|x)

    L_K(x) = E log 1/K Σ_k w_k,   L_1 = ELBO ≤ L_K ≤ L_{K+1} ≤ log p(x),

and ∂ log Σ_k w_k = Σ_k w̃_k ∂ log w_k with the shares w̃ = softmax(log w). The encoder's parameters
φ reach log w_k in two ways: along the sample's path z_k(φ), and directly through log q(z_k|x),
which is the score. The score is most of the noise: with it the encoder's signal-to-noise ratio
falls as 1/√K (iwae), and averaged over M groups it grows as √M (miwae, piwae). Leaving it out is
exact for K = 1 and biased beyond (stl). Its expectation, written as a derivative along the path,
makes the encoder's shares w̃² (dreg): unbiased for every K, with a ratio that grows as √K.

What is reported has the terms of an ELBO: Σ w̃_k log p(x|z_k), and the rest as the rate. Drawing K
times and picking a draw by its share is a sharper posterior; the rate is its KL to the prior (over
the K draws and the pick, of which the prior makes one and q the others), never negative in
expectation.

References:
    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016.
    Cremer, Morris and Duvenaud, Reinterpreting Importance-Weighted Autoencoders, 2017: q̃.
    Roeder, Wu and Duvenaud, Sticking the Landing, 2017.
    Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018.
    Tucker et al., Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, 2019.
"""

from __future__ import annotations

import math

from torch import Tensor

from lowerbound.errors import refuse
from lowerbound.objectives.base import UNWEIGHTED, Bound, Drawn, Noise, WeightModel, Weights

__all__ = ["ciwae", "dreg", "iwae", "log_mean_weight", "miwae", "piwae", "stl", "weighted_bound"]


def iwae(
    model: WeightModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = UNWEIGHTED,
) -> tuple[Tensor, Bound]:
    """Loss −L̂_K with K = ``num_samples``, (B,) nats; its plain gradient, score included."""
    draw = model.draw(x, num_samples, context, noise=noise)
    return _loss(draw, log_mean_weight(draw.log_weight))


def stl(
    model: WeightModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = UNWEIGHTED,
) -> tuple[Tensor, Bound]:
    """Loss −L̂_K, (B,) nats, without the score: "sticking the landing".

    The encoder's gradient vanishes, draw by draw, where q is the true posterior. It is unbiased
    for K = 1 and biased for more.
    """
    draw = model.draw(x, num_samples, context, noise=noise, path=True)
    return _loss(draw, log_mean_weight(draw.log_weight))


def dreg(
    model: WeightModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = UNWEIGHTED,
) -> tuple[Tensor, Bound]:
    """Loss −L̂_K, (B,) nats, with the doubly reparameterised gradient: unbiased for every K.

    The decoder's gradient has shares w̃_k, the encoder's w̃_k² along the path alone.

    Raises:
        InputError: the model has several latents: where one depends on another, its shares would
            count twice.
    """
    # Shares: Σ w̃ log w, by the derivative of a log-sum-exp, without the score.
    draw = model.draw(x, num_samples, context, noise=noise, path=True)
    # Encoder: on its way from z into q every gradient takes the factor w̃ once more.
    paths = {name: z for name, z in draw.latents.items() if z.requires_grad}
    if len(paths) > 1:
        names = " and ".join(paths)
        raise refuse("objective", f"iwae or stl for a model with latents {names}", "dreg")
    shares = draw.log_weight.detach().softmax(0)
    for z in paths.values():
        z.register_hook(lambda g: g * shares.to(g).reshape(*shares.shape, *[1] * (g.ndim - 2)))
    return _loss(draw, log_mean_weight(draw.log_weight))


def miwae(
    model: WeightModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = UNWEIGHTED,
) -> tuple[Tensor, Bound]:
    """Loss −(mean of M values L̂_K), (B,) nats, M = ``num_groups`` and MK = ``num_samples``.

    Raises:
        InputError: M does not divide the number of samples.
    """
    draw = model.draw(x, num_samples, context, noise=noise)
    return _loss(draw, log_mean_weight(draw.log_weight, weights.num_groups), weights.num_groups)


def piwae(
    model: WeightModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = UNWEIGHTED,
) -> tuple[Tensor, Bound]:
    """Loss −L̂_MK, (B,) nats, by whose gradient the decoder climbs L_MK and the encoder `miwae`.

    The prior's own parameters count as the decoder's. Costs a second pass of the decoder.

    Raises:
        InputError: M does not divide the number of samples.
    """
    num_groups = weights.num_groups
    draw = model.draw(x, num_samples, context, noise=noise)
    # The same weights once more, as numbers that depend on the decoder alone.
    latents = {name: z.detach() for name, z in draw.latents.items()}
    log_joint = model.log_joint(x, latents, context)
    fixed = log_joint + (draw.log_weight - log_joint).detach()
    # Both climb MIWAE; the decoder steps back from it, and climbs L_MK instead.
    both = log_mean_weight(draw.log_weight, num_groups)
    decoder = log_mean_weight(fixed) - log_mean_weight(fixed, num_groups)
    return _loss(draw, both + decoder)


def ciwae(
    model: WeightModel,
    x: Tensor,
    context: Tensor | None,
    noise: Noise,
    num_samples: int = 1,
    weights: Weights = UNWEIGHTED,
) -> tuple[Tensor, Bound]:
    """Loss −(mix · L̂_1 + (1 − mix) · L̂_K), (B,) nats; L̂_1 is the mean over the same draws."""
    draw = model.draw(x, num_samples, context, noise=noise)
    one = log_mean_weight(draw.log_weight, num_samples)
    value = weights.mix * one + (1 - weights.mix) * log_mean_weight(draw.log_weight)
    return _loss(draw, value, mix=weights.mix)


def log_mean_weight(log_weight: Tensor, num_groups: int = 1) -> Tensor:
    """Mean over M groups of log 1/K Σ_k w_k, (B,) nats, from log-weights (MK, B).

    >>> import torch
    >>> weights = torch.tensor([[1.0], [3.0]])
    >>> log_mean_weight(weights.log()).exp().round(decimals=3)  # of their mean
    tensor([2.])
    >>> log_mean_weight(weights.log(), num_groups=2).exp().square().round(decimals=3)
    tensor([3.])

    Raises:
        InputError: M does not divide the number of samples.
    """
    return _groups(log_weight, num_groups).logsumexp(1).mean(0) - math.log(
        len(log_weight) // num_groups
    )


def weighted_bound(log_likelihood: Tensor | None, value: Tensor, shares: Tensor) -> Bound:
    """What is reported of a weighted bound: ``value`` (B,) with its terms, free of gradients.

    Args:
        log_likelihood: log p(x|z_k), (K, B), nats; without it there is one term, the value.
        value: the bound, (B,), nats.
        shares: weight of each draw in the bound's gradient, (K, B), with sum 1.
    """
    value = value.detach()
    if log_likelihood is None:
        return Bound(value, {})
    reconstruction = (shares * log_likelihood.detach()).sum(0)
    return Bound(reconstruction, {"kl": reconstruction - value})


def _groups(log_weight: Tensor, num_groups: int) -> Tensor:
    """Log-weights (MK, B) as (M, K, B)."""
    num_samples = len(log_weight)
    if num_groups < 1 or num_samples % num_groups:
        raise refuse("num_groups", f"a divisor of the {num_samples} samples", num_groups)
    return log_weight.unflatten(0, (num_groups, -1))


def _loss(
    draw: Drawn, value: Tensor, num_groups: int = 1, mix: float = 0.0
) -> tuple[Tensor, Bound]:
    """Loss −value and the bound, whose terms weigh each draw as the bound does."""
    # A model may know log p(x|z_k) of its draws; computing it anew would decode twice.
    log_likelihood = getattr(draw, "log_likelihood", None)
    groups = _groups(draw.log_weight.detach(), num_groups)
    shares = (groups.softmax(1) / num_groups).flatten(0, 1)
    shares = mix / len(shares) + (1 - mix) * shares
    return -value, weighted_bound(log_likelihood, value, shares)
