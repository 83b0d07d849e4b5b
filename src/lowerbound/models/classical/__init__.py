"""Classical models, fitted without a training loop, behind the same promise as all others."""

from lowerbound.models.classical.dct import DCTCoder, DCTOptions
from lowerbound.models.classical.lda import LDAOptions, LinearDiscriminants
from lowerbound.models.classical.mixture import GaussianMixture, MixtureOptions
from lowerbound.models.classical.ppca import PPCAOptions, ProbabilisticPCA

__all__ = [
    "DCTCoder",
    "DCTOptions",
    "GaussianMixture",
    "LDAOptions",
    "LinearDiscriminants",
    "MixtureOptions",
    "PPCAOptions",
    "ProbabilisticPCA",
]
