"""Models: they differ in how they compute a `Bound`, and in nothing else that is seen outside."""

from lowerbound.models.base import Draw, Model, concatenate_noise
from lowerbound.models.classical import PPCAOptions, ProbabilisticPCA
from lowerbound.models.priors import Prior, StandardNormal
from lowerbound.models.vae import VAE, VAEOptions

__all__ = [
    "VAE",
    "Draw",
    "Model",
    "PPCAOptions",
    "Prior",
    "ProbabilisticPCA",
    "StandardNormal",
    "VAEOptions",
    "concatenate_noise",
]
