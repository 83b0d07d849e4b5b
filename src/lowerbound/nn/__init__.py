"""Networks. They map tensors to tensors and know nothing of probability."""

from lowerbound.nn.conv import ConvDecoder, ConvEncoder
from lowerbound.nn.embedding import (
    ClassEmbedding,
    Embedding,
    Joined,
    MaskEmbedding,
    VectorEmbedding,
)
from lowerbound.nn.flows import Autoregressive, Chain, Coupling, Flow, coupling_masks
from lowerbound.nn.hybrid import HybridDecoder
from lowerbound.nn.mlp import Mlp

__all__ = [
    "Autoregressive",
    "Chain",
    "ClassEmbedding",
    "ConvDecoder",
    "ConvEncoder",
    "Coupling",
    "Embedding",
    "Flow",
    "HybridDecoder",
    "Joined",
    "MaskEmbedding",
    "Mlp",
    "VectorEmbedding",
    "coupling_masks",
]
