"""Networks. They map tensors to tensors and know nothing of probability."""

from lowerbound.nn.conv import ConvDecoder, ConvEncoder
from lowerbound.nn.conv_ladder import ConvLadder
from lowerbound.nn.embedding import (
    ClassEmbedding,
    Embedding,
    Joined,
    MaskEmbedding,
    VectorEmbedding,
)
from lowerbound.nn.hybrid import HybridDecoder
from lowerbound.nn.ladder import Ladder, MlpLadder
from lowerbound.nn.mlp import Mlp

__all__ = [
    "ClassEmbedding",
    "ConvDecoder",
    "ConvEncoder",
    "ConvLadder",
    "Embedding",
    "HybridDecoder",
    "Joined",
    "Ladder",
    "MaskEmbedding",
    "Mlp",
    "MlpLadder",
    "VectorEmbedding",
]
