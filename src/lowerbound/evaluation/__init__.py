"""Judging: the bound and its terms, the log-likelihood, what the latents do."""

from lowerbound.evaluation.judging import Judge, evaluate
from lowerbound.evaluation.latents import latent_means, num_active_units
from lowerbound.evaluation.likelihood import LogLikelihood, log_likelihood

__all__ = [
    "Judge",
    "LogLikelihood",
    "evaluate",
    "latent_means",
    "log_likelihood",
    "num_active_units",
]
