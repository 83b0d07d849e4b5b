"""Prior Monte Carlo: the estimator of log p(x) that needs no encoder, and shows why there is one.

    log p(x) ≈ log 1/m Σ_j p(x|z_j),   z_j ~ p(z)

Its mean weight is unbiased for p(x), and its logarithm is biased low. Nearly every z drawn from
the prior explains nearly every x hopelessly badly, so that the largest of the m weights is all
that counts: the effective sample size falls to 1 and the estimate far below the bound.

The codes are drawn once, by (seed, block), decoded once, and shared by all examples: m decoder
passes in place of m per example (m per different context, where there is one). Each example's
estimate has the same distribution as with codes of its own; the errors of different examples are
correlated, and do not average out over examples. `LogLikelihood.monte_carlo_error` knows: it is
measured on 32 groups of codes. Where a few codes carry all the weight it knows too little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lowerbound._random import generator_for
from lowerbound._shapes import num_elements
from lowerbound.data import Split
from lowerbound.errors import InputError, refuse
from lowerbound.evaluation.base import (
    LogLikelihood,
    RunningMean,
    as_split,
    blocks,
    check_split,
    context_of,
    decoded_at_once,
    judging,
    widest,
)
from lowerbound.evaluation.likelihood import join
from lowerbound.models import Model
from lowerbound.models.priors import Prior

__all__ = ["has_prior", "prior_monte_carlo"]

NUMBERS_IN_MEMORY = 2**25
CODES_AT_ONCE = 256  # fixed, so that the codes do not depend on the machine
GROUPS = 32  # of codes; their spread is known to an eighth


def has_prior(model: Model) -> bool:
    """Whether the model draws latents from a prior and decodes them to p(x|z) of the data.

    One that dequantises has p(x + u|z) instead, and the mean of that over u has no closed form.
    """
    return model.is_likelihood and hasattr(model, "prior") and not model.dequantizes


def prior_monte_carlo(
    model: Model,
    x: Tensor | Split,
    *,
    num_samples: int = 1000,
    context: Tensor | None = None,
    seed: int = 0,
) -> LogLikelihood:
    """Log of the mean of p(x|z_j) over draws z_j from the prior, per example.

    Args:
        model: a model with a prior and a decoder.
        x: examples (B, *event) in the units of the source, or a split of them.
        num_samples: m, draws from the prior, shared by the examples of one context.
        context: (B, …) or None, beside examples; m codes are decoded for each different one.
        seed: of the draws.

    Returns:
        A `LogLikelihood` of (B,) tensors in nats on the CPU, float64, with its groups of codes.

    Raises:
        InputError: m below 1, examples that do not fit, or a model without a prior.
    """
    if num_samples < 1:
        raise refuse("num_samples", "at least 1", num_samples)
    if not has_prior(model):
        raise InputError(
            f"a model of kind '{model.name}' has no prior to draw latents from, or none whose "
            "p(x|z) is that of these data"
        )
    split = as_split(x, context)
    check_split(model, split)
    most = max(1, NUMBERS_IN_MEMORY // num_elements(model.event_shape))
    if not split.in_memory and len(split) > most:
        judged = partial(prior_monte_carlo, model, num_samples=num_samples, seed=seed)
        parts = (split[rows] for rows in blocks(len(split), most))
        return join([judged(x, context=c) for x, c in parts])  # the codes are the same
    x, context = split[slice(None)][0], context_of(model, split)
    device, prior = model.calibrated.device, cast(Prior, model.prior)
    examples = x.to(device)
    examples = examples if examples.is_floating_point() else examples.float()
    mean = _Groups(min(num_samples, GROUPS), len(x), device)
    with judging(model):
        for given, rows in _kinds(context, len(x)):
            c = None if given is None else given.to(device).expand(CODES_AT_ONCE, *given.shape)
            for block in blocks(num_samples, CODES_AT_ONCE):
                generator = generator_for("prior", seed, block.start, device=device)
                z = prior.sample(CODES_AT_ONCE, c, generator)[: block.stop - block.start]
                _weigh(mean, model, z, c, examples, rows.to(device))
    return mean.result(num_samples)


class _Groups:
    """Log Σ w and log Σ w² of the codes j with j mod G = g, for each group g and example.

    Args:
        num: G.
        size: number of examples B.
        device: where the weights are.
    """

    def __init__(self, num: int, size: int, device: torch.device) -> None:
        self.num = num
        self.log_sums = torch.full((2, num, size), -math.inf, dtype=widest(device), device=device)

    def add(self, log_weight: Tensor, rows: Tensor) -> None:
        """Take in log-weights (M, rows) of consecutive codes, the first of them of group 0."""
        missing = -len(log_weight) % self.num
        filled = F.pad(log_weight.to(self.log_sums.dtype), (0, 0, 0, missing), value=-math.inf)
        by_group = filled.unflatten(0, (-1, self.num))
        new = torch.stack([by_group.logsumexp(0), (2 * by_group).logsumexp(0)])
        self.log_sums[:, :, rows] = torch.logaddexp(self.log_sums[:, :, rows], new)

    def result(self, num_samples: int) -> LogLikelihood:
        """The estimate from all codes, and how each group differs from it."""
        whole = RunningMean(self.log_sums.shape[2], self.log_sums.device)
        whole.log_sums = self.log_sums.logsumexp(1)
        result = whole.result(num_samples)
        sizes = torch.tensor([len(range(g, num_samples, self.num)) for g in range(self.num)])
        log_means = self.log_sums[0].cpu().double() - sizes.double().log().unsqueeze(1)
        return replace(result, groups=(log_means - result.value).exp().mT.contiguous())


def _kinds(context: Tensor | None, num: int) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Each different context (…) and the rows that have it; all rows, where there is none."""
    if context is None:
        yield None, torch.arange(num)
        return
    different, kind = torch.unique(context, dim=0, return_inverse=True)
    for k, given in enumerate(different):
        yield given, (kind == k).nonzero().squeeze(1)


def _weigh(
    mean: _Groups, model: Model, z: Tensor, context: Tensor | None, x: Tensor, rows: Tensor
) -> None:
    """Take into the mean p(x|z) of some rows of ``x`` at latents (M, d) of one context."""
    # Every group of codes has one more in each block, so that all begin with the first.
    whole = max(1, decoded_at_once(model) // mean.num) * mean.num
    for codes in blocks(len(z), whole):
        size = codes.stop - codes.start
        p = model.decode(z[codes], None if context is None else context[:size])
        for block in blocks(len(rows), max(1, decoded_at_once(model, 1) // size)):
            some = rows[block]
            # (rows, 1, *event) against (codes, *event).
            mean.add(p.log_prob(x[some].unsqueeze(1)).mT, some)
