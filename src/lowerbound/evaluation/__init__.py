"""Judging: the estimators of log p(x) and their errors, and what the latents do."""

from lowerbound.evaluation.ais import annealed_importance_sampling
from lowerbound.evaluation.base import LogLikelihood, paired_difference
from lowerbound.evaluation.distances import frechet_distance, kernel_distance, precision_recall
from lowerbound.evaluation.flow_likelihood import FlowLikelihood, flow_likelihood
from lowerbound.evaluation.judge import Judge
from lowerbound.evaluation.judging import evaluate
from lowerbound.evaluation.latents import latent_means, mutual_information, num_active_units
from lowerbound.evaluation.likelihood import log_likelihood
from lowerbound.evaluation.noise_levels import NoiseSplit, split_by_noise, two_forms
from lowerbound.evaluation.prior import prior_monte_carlo
from lowerbound.evaluation.quality import sample_quality

__all__ = [
    "FlowLikelihood",
    "Judge",
    "LogLikelihood",
    "NoiseSplit",
    "annealed_importance_sampling",
    "evaluate",
    "flow_likelihood",
    "frechet_distance",
    "kernel_distance",
    "latent_means",
    "log_likelihood",
    "mutual_information",
    "num_active_units",
    "paired_difference",
    "precision_recall",
    "prior_monte_carlo",
    "sample_quality",
    "split_by_noise",
    "two_forms",
]
