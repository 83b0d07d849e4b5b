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
from lowerbound.models.context import ContextModel, ContextOptions
from lowerbound.models.denoising import DenoisingModel
from lowerbound.models.diffusion import Diffusion, DiffusionOptions
from lowerbound.models.flowed import FlowedGaussian
from lowerbound.models.hierarchical import HierarchicalVAE, HierarchicalVAEOptions
from lowerbound.models.hierarchy import Hierarchy, JointPosterior
from lowerbound.models.ladder import LadderOptions, LadderVAE
from lowerbound.models.posteriors import Posterior, make_posterior
from lowerbound.models.priors import (
    AutoregressivePrior,
    ConditionalNormal,
    CouplingPrior,
    MixturePrior,
    Prior,
    StandardNormal,
    VampPrior,
    make_prior,
)
from lowerbound.models.quantised import VQVAE, VQVAEOptions
from lowerbound.models.sampling import Sampling
from lowerbound.models.vae import VAE, VAEOptions

__all__ = [
    "CVAE",
    "VAE",
    "VQVAE",
    "Autoencoder",
    "AutoencoderOptions",
    "AutoregressiveCodes",
    "AutoregressivePrior",
    "CVAEOptions",
    "CodePrior",
    "Coder",
    "ConditionalNormal",
    "ContextModel",
    "ContextOptions",
    "CouplingPrior",
    "DCTCoder",
    "DCTOptions",
    "DenoisingModel",
    "Diffusion",
    "DiffusionOptions",
    "Draw",
    "FlowedGaussian",
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
    "MixturePrior",
    "Model",
    "PPCAOptions",
    "Point",
    "PointMass",
    "Posterior",
    "Prior",
    "ProbabilisticPCA",
    "Sampling",
    "StandardNormal",
    "UniformCodes",
    "VAEOptions",
    "VQVAEOptions",
    "VampPrior",
    "concatenate_noise",
    "make_posterior",
    "make_prior",
]
