"""Distributions over events, their closed-form divergences, and the likelihoods of decoders."""

from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.bernoulli import Bernoulli, BernoulliLikelihood
from lowerbound.distributions.gaussian import (
    DiagonalGaussian,
    GaussianLikelihood,
    Sigma,
    kl_gaussian,
)
from lowerbound.distributions.logistic import DiscretizedLogistic, LogisticLikelihood
from lowerbound.distributions.support import Binary, Discrete, Real, Support, parse_support

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "BernoulliLikelihood",
    "Binary",
    "DiagonalGaussian",
    "Discrete",
    "DiscretizedLogistic",
    "Distribution",
    "GaussianLikelihood",
    "Likelihood",
    "LogisticLikelihood",
    "Real",
    "Sigma",
    "Support",
    "default_likelihood",
    "kl_gaussian",
    "parse_support",
]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    cls.name: cls for cls in (BernoulliLikelihood, LogisticLikelihood, GaussianLikelihood)
}
"""Every likelihood by name; the family tests run over this table."""


def default_likelihood(support: Support) -> str:
    """The likelihood that a support chooses: bernoulli, logistic or gaussian.

    >>> default_likelihood(Discrete(256))
    'logistic'
    """
    if isinstance(support, Binary):
        return BernoulliLikelihood.name
    return LogisticLikelihood.name if isinstance(support, Discrete) else GaussianLikelihood.name
