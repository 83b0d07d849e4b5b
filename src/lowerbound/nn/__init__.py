"""Networks. They map tensors to tensors and know nothing of probability."""

from lowerbound.nn.causal import CausalTransformer
from lowerbound.nn.conv import ConvDecoder, ConvEncoder
from lowerbound.nn.conv_ladder import ConvLadder
from lowerbound.nn.embedding import (
    ClassEmbedding,
    Embedding,
    Joined,
    JoinedPlaces,
    MaskEmbedding,
    VectorEmbedding,
)
from lowerbound.nn.flows import Autoregressive, Chain, Coupling, Flow, coupling_masks
from lowerbound.nn.grid import GridDecoder, GridEncoder, grid_sides
from lowerbound.nn.hybrid import HybridDecoder
from lowerbound.nn.ladder import Ladder, MlpLadder
from lowerbound.nn.mlp import Mlp
from lowerbound.nn.quantisers import Quantised, Quantiser, ScalarQuantiser, VectorQuantiser

__all__ = [
    "Autoregressive",
    "CausalTransformer",
    "Chain",
    "ClassEmbedding",
    "ConvDecoder",
    "ConvEncoder",
    "ConvLadder",
    "Coupling",
    "Embedding",
    "Flow",
    "GridDecoder",
    "GridEncoder",
    "HybridDecoder",
    "Joined",
    "JoinedPlaces",
    "Ladder",
    "MaskEmbedding",
    "Mlp",
    "MlpLadder",
    "Quantised",
    "Quantiser",
    "ScalarQuantiser",
    "VectorEmbedding",
    "VectorQuantiser",
    "coupling_masks",
    "grid_sides",
]
