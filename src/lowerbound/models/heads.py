"""The options of a likelihood, for the models that end in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lowerbound.distributions import Likelihood, Sigma, Support, make_likelihood

__all__ = ["HeadOptions", "make_head"]


@dataclass(frozen=True)
class HeadOptions:
    """Which p(x|z) a decoder ends in."""

    likelihood: Literal[
        "auto",
        "bernoulli",
        "logistic",
        "logistic-mixture",
        "categorical",
        "gaussian",
        "laplace",
        "student-t",
        "continuous-bernoulli",
        "poisson",
        "negative-binomial",
        "zero-inflated-poisson",
        "zero-inflated-negative-binomial",
        "product",
    ] = "auto"
    """p(x|z); auto follows the support of the data."""
    sigma: Sigma | Literal["auto"] = "auto"
    """Scale of a gaussian, laplace or student-t likelihood: scalar, dimension, decoder, optimal
    (gaussian only), or a fixed number; auto is one per dimension of a vector, one scalar for an
    array."""
    components: int | None = None
    """Components of a logistic-mixture likelihood (5 unless said)."""
    columns: tuple[str, ...] = ()
    """Likelihood of each column of a product, by name; auto, or none at all, follows the
    support."""


def make_head(event_shape: Sequence[int], support: Support, options: HeadOptions) -> Likelihood:
    """The likelihood that ``options`` describe, for examples of a shape and a support.

    Raises:
        InputError: one that does not fit the support, or an option that it does not take.
    """
    given: Any = {key: getattr(options, key) for key in ("sigma", "components", "columns")}
    return make_likelihood(event_shape, support, options.likelihood, **given)
