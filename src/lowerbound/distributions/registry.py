"""The likelihoods by name, and how one is made from its name and options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lowerbound.distributions.base import Likelihood
from lowerbound.distributions.bernoulli import BernoulliLikelihood
from lowerbound.distributions.categorical import CategoricalLikelihood
from lowerbound.distributions.continuous_bernoulli import ContinuousBernoulliLikelihood
from lowerbound.distributions.counts import NegativeBinomialLikelihood, PoissonLikelihood
from lowerbound.distributions.gaussian import GaussianLikelihood
from lowerbound.distributions.laplace import LaplaceLikelihood
from lowerbound.distributions.logistic import LogisticLikelihood
from lowerbound.distributions.logistic_mixture import LogisticMixtureLikelihood
from lowerbound.distributions.product import ProductLikelihood
from lowerbound.distributions.student_t import StudentTLikelihood
from lowerbound.distributions.support import Support
from lowerbound.distributions.zero_inflated import (
    ZeroInflatedNegativeBinomialLikelihood,
    ZeroInflatedPoissonLikelihood,
)
from lowerbound.errors import refuse

__all__ = [
    "LIKELIHOODS",
    "default_likelihood",
    "likelihood_class",
    "make_likelihood",
    "was_given",
]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    cls.name: cls
    for cls in (
        BernoulliLikelihood,
        LogisticLikelihood,
        LogisticMixtureLikelihood,
        CategoricalLikelihood,
        GaussianLikelihood,
        LaplaceLikelihood,
        StudentTLikelihood,
        ContinuousBernoulliLikelihood,
        PoissonLikelihood,
        NegativeBinomialLikelihood,
        ZeroInflatedPoissonLikelihood,
        ZeroInflatedNegativeBinomialLikelihood,
        ProductLikelihood,
    )
}
"""Every likelihood by name; the family tests run over this table."""

LEFT_OUT: dict[str, Any] = {"sigma": "auto", "components": None, "columns": ()}
"""Every option of a likelihood, with the value that says nothing."""


def default_likelihood(support: Support) -> str:
    """The likelihood that a support chooses.

    >>> from lowerbound.distributions import Counts, Discrete
    >>> default_likelihood(Discrete(256)), default_likelihood(Counts())
    ('logistic', 'negative-binomial')
    """
    return support.likelihood


def likelihood_class(name: str) -> type[Likelihood]:
    """The class of a name, or a refusal that lists the names."""
    if name not in LIKELIHOODS:
        raise refuse("likelihood", f"one of {', '.join(LIKELIHOODS)}", name)
    return LIKELIHOODS[name]


def was_given(option: str, value: Any) -> bool:
    """Whether an option has a value that says something."""
    return bool(value != LEFT_OUT[option]) and value != list(LEFT_OUT["columns"])


def make_likelihood(
    event_shape: Sequence[int], support: Support, name: str = "auto", **options: Any
) -> Likelihood:
    """The likelihood of a name, or the one that the support chooses.

    Args:
        event_shape: shape of one example.
        support: what values an element can take.
        name: a name of `LIKELIHOODS`, or ``"auto"``.
        **options: keys of `LEFT_OUT`. Sigma ``"auto"`` is one per dimension of a vector, one
            scalar for an array.

    Raises:
        InputError: a likelihood that does not fit the support, or an option that it does not take.

    >>> from lowerbound.distributions import Real
    >>> make_likelihood((3,), Real()).sigma
    'dimension'
    """
    cls = likelihood_class(default_likelihood(support) if name == "auto" else name)
    given = {key: value for key, value in options.items() if was_given(key, value)}
    for key, value in given.items():
        if key not in cls.options:
            raise refuse(key, f"left out for a {cls.name} likelihood", value)
    if "sigma" in cls.options and cls is not ProductLikelihood:
        given.setdefault("sigma", "dimension" if len(event_shape) <= 1 else "scalar")
    return cls(event_shape, support, **given)
