"""Networks. They map tensors to tensors and know nothing of probability."""

from lowerbound.nn.causal import CausalTransformer
from lowerbound.nn.conv import ConvDecoder, ConvEncoder
from lowerbound.nn.conv_ladder import ConvLadder
from lowerbound.nn.denoiser import Denoiser, DenoiserKind, MlpDenoiser, make_denoiser
from lowerbound.nn.dit import DiT
from lowerbound.nn.embedding import (
    ClassEmbedding,
    Embedding,
    Joined,
    JoinedPlaces,
    MaskEmbedding,
    VectorEmbedding,
)
from lowerbound.nn.flows import Autoregressive, Chain, Coupling, Flow, coupling_masks
from lowerbound.nn.fourier import FourierFeatures
from lowerbound.nn.grid import GridDecoder, GridEncoder, grid_sides
from lowerbound.nn.hybrid import HybridDecoder
from lowerbound.nn.ladder import Ladder, MlpLadder
from lowerbound.nn.mlp import Mlp
from lowerbound.nn.quantisers import Quantised, Quantiser, ScalarQuantiser, VectorQuantiser
from lowerbound.nn.unet import UNet

__all__ = [
    "Autoregressive",
    "CausalTransformer",
    "Chain",
    "ClassEmbedding",
    "ConvDecoder",
    "ConvEncoder",
    "ConvLadder",
    "Coupling",
    "Denoiser",
    "DenoiserKind",
    "DiT",
    "Embedding",
    "Flow",
    "FourierFeatures",
    "GridDecoder",
    "GridEncoder",
    "HybridDecoder",
    "Joined",
    "JoinedPlaces",
    "Ladder",
    "MaskEmbedding",
    "Mlp",
    "MlpDenoiser",
    "MlpLadder",
    "Quantised",
    "Quantiser",
    "ScalarQuantiser",
    "UNet",
    "VectorEmbedding",
    "VectorQuantiser",
    "coupling_masks",
    "grid_sides",
    "make_denoiser",
]
