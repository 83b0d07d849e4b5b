"""Models: they differ in how they compute a `Bound`, and in nothing else that is seen outside."""

from lowerbound.models.autoencoder import Autoencoder, AutoencoderOptions
from lowerbound.models.base import Draw, Model, concatenate_noise
from lowerbound.models.classical import (
    DCTCoder,
    DCTOptions,
    GaussianMixture,
    LDAOptions,
    LinearDiscriminants,
    MixtureOptions,
    PPCAOptions,
    ProbabilisticPCA,
)
from lowerbound.models.coder import Coder, Point
from lowerbound.models.codes import AutoregressiveCodes, CodePrior, PointMass, UniformCodes
from lowerbound.models.conditional import CVAE, CVAEOptions
from lowerbound.models.priors import ConditionalNormal, Prior, StandardNormal
from lowerbound.models.quantised import VQVAE, VQVAEOptions
from lowerbound.models.vae import VAE, VAEOptions

__all__ = [
    "CVAE",
    "VAE",
    "VQVAE",
    "Autoencoder",
    "AutoencoderOptions",
    "AutoregressiveCodes",
    "CVAEOptions",
    "CodePrior",
    "Coder",
    "ConditionalNormal",
    "DCTCoder",
    "DCTOptions",
    "Draw",
    "GaussianMixture",
    "LDAOptions",
    "LinearDiscriminants",
    "MixtureOptions",
    "Model",
    "PPCAOptions",
    "Point",
    "PointMass",
    "Prior",
    "ProbabilisticPCA",
    "StandardNormal",
    "UniformCodes",
    "VAEOptions",
    "VQVAEOptions",
    "concatenate_noise",
]
