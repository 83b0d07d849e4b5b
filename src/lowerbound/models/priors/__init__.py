"""Priors over latents: how much a code costs, and where new ones come from."""

from lowerbound.models.priors.base import MAX_LOG_SCALE, MIN_LOG_SCALE, Prior, Rates
from lowerbound.models.priors.flow import AutoregressivePrior, CouplingPrior, FlowPrior
from lowerbound.models.priors.mixture import MixturePrior
from lowerbound.models.priors.normal import ConditionalNormal, StandardNormal
from lowerbound.models.priors.registry import PriorName, make_prior
from lowerbound.models.priors.top import TopPrior
from lowerbound.models.priors.vamp import VampPrior

__all__ = [
    "MAX_LOG_SCALE",
    "MIN_LOG_SCALE",
    "AutoregressivePrior",
    "ConditionalNormal",
    "CouplingPrior",
    "FlowPrior",
    "MixturePrior",
    "Prior",
    "PriorName",
    "Rates",
    "StandardNormal",
    "TopPrior",
    "VampPrior",
    "make_prior",
]
