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
from lowerbound.models.conditional import CVAE, CVAEOptions
from lowerbound.models.hierarchical import HierarchicalVAE, HierarchicalVAEOptions
from lowerbound.models.hierarchy import Hierarchy, JointPosterior
from lowerbound.models.ladder import LadderOptions, LadderVAE
from lowerbound.models.priors import ConditionalNormal, Prior, StandardNormal
from lowerbound.models.vae import VAE, VAEOptions

__all__ = [
    "CVAE",
    "VAE",
    "Autoencoder",
    "AutoencoderOptions",
    "CVAEOptions",
    "Coder",
    "ConditionalNormal",
    "DCTCoder",
    "DCTOptions",
    "Draw",
    "GaussianMixture",
    "HierarchicalVAE",
    "HierarchicalVAEOptions",
    "Hierarchy",
    "JointPosterior",
    "LDAOptions",
    "LadderOptions",
    "LadderVAE",
    "LinearDiscriminants",
    "MixtureOptions",
    "Model",
    "PPCAOptions",
    "Point",
    "Prior",
    "ProbabilisticPCA",
    "StandardNormal",
    "VAEOptions",
    "concatenate_noise",
]
