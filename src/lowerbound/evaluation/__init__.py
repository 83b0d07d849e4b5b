"""Judging: the estimators of log p(x) and their errors, and what the latents do."""

from lowerbound.evaluation.ais import annealed_importance_sampling
from lowerbound.evaluation.base import LogLikelihood, paired_difference
from lowerbound.evaluation.judge import Judge
from lowerbound.evaluation.judging import evaluate
from lowerbound.evaluation.latents import latent_means, mutual_information, num_active_units
from lowerbound.evaluation.likelihood import log_likelihood
from lowerbound.evaluation.prior import prior_monte_carlo

__all__ = [
    "Judge",
    "LogLikelihood",
    "annealed_importance_sampling",
    "evaluate",
    "latent_means",
    "log_likelihood",
    "mutual_information",
    "num_active_units",
    "paired_difference",
    "prior_monte_carlo",
]
