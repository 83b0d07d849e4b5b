"""Distributions over events, their closed-form divergences, and the likelihoods of decoders."""

from lowerbound.distributions.base import Distribution, Likelihood
from lowerbound.distributions.bernoulli import Bernoulli, BernoulliLikelihood
from lowerbound.distributions.categorical import Categorical, CategoricalLikelihood
from lowerbound.distributions.continuous_bernoulli import (
    ContinuousBernoulli,
    ContinuousBernoulliLikelihood,
)
from lowerbound.distributions.counts import (
    NegativeBinomial,
    NegativeBinomialLikelihood,
    Poisson,
    PoissonLikelihood,
)
from lowerbound.distributions.divergences import KLS, kl
from lowerbound.distributions.full_gaussian import FullGaussian, chain_kl, kl_full_gaussian
from lowerbound.distributions.gaussian import DiagonalGaussian, GaussianLikelihood, kl_gaussian
from lowerbound.distributions.laplace import Laplace, LaplaceLikelihood
from lowerbound.distributions.location_scale import Sigma
from lowerbound.distributions.logistic import DiscretizedLogistic, LogisticLikelihood
from lowerbound.distributions.logistic_mixture import LogisticMixture, LogisticMixtureLikelihood
from lowerbound.distributions.product import ProductDistribution, ProductLikelihood
from lowerbound.distributions.registry import LIKELIHOODS, default_likelihood, make_likelihood
from lowerbound.distributions.student_t import StudentT, StudentTLikelihood
from lowerbound.distributions.support import (
    Binary,
    Counts,
    Discrete,
    Product,
    Real,
    Support,
    Unit,
    parse_support,
)
from lowerbound.distributions.zero_inflated import (
    ZeroInflated,
    ZeroInflatedNegativeBinomialLikelihood,
    ZeroInflatedPoissonLikelihood,
)

__all__ = [
    "KLS",
    "LIKELIHOODS",
    "Bernoulli",
    "BernoulliLikelihood",
    "Binary",
    "Categorical",
    "CategoricalLikelihood",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "Counts",
    "DiagonalGaussian",
    "Discrete",
    "DiscretizedLogistic",
    "Distribution",
    "FullGaussian",
    "GaussianLikelihood",
    "Laplace",
    "LaplaceLikelihood",
    "Likelihood",
    "LogisticLikelihood",
    "LogisticMixture",
    "LogisticMixtureLikelihood",
    "NegativeBinomial",
    "NegativeBinomialLikelihood",
    "Poisson",
    "PoissonLikelihood",
    "Product",
    "ProductDistribution",
    "ProductLikelihood",
    "Real",
    "Sigma",
    "StudentT",
    "StudentTLikelihood",
    "Support",
    "Unit",
    "ZeroInflated",
    "ZeroInflatedNegativeBinomialLikelihood",
    "ZeroInflatedPoissonLikelihood",
    "chain_kl",
    "default_likelihood",
    "kl",
    "kl_full_gaussian",
    "kl_gaussian",
    "make_likelihood",
    "parse_support",
]
