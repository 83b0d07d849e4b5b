"""A decoder for small images: an MLP that ends in two up-sampling convolutions.

The MLP decides what is where, on a grid of a quarter of the image's sides; the convolutions, alike
at every place, draw it. They learn strokes once instead of once per pixel, so that the decoder
fits faster and overfits later than one whose last layer is dense.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound.nn.mlp import Mlp

__all__ = ["HybridDecoder"]

UPSAMPLING = 4


class HybridDecoder(nn.Module):
    """Numbers to image: (N, num_inputs) -> (N, channels, H, W).

    Args:
        num_inputs: numbers per input.
        image_shape: (channels, H, W) of the output; any sides, what lies over is cut off.
        width: hidden units of the MLP; its grid has a sixteenth as many channels.
        depth: residual blocks of the MLP.
    """

    def __init__(
        self, num_inputs: int, image_shape: Sequence[int], *, width: int, depth: int
    ) -> None:
        super().__init__()
        channels, self.height, self.breadth = image_shape
        self.features = max(2, width // 16)
        self.grid = (-(-self.height // UPSAMPLING), -(-self.breadth // UPSAMPLING))
        num_features = self.features * self.grid[0] * self.grid[1]
        self.body = Mlp((num_inputs,), num_features, width=width, depth=depth)
        # Kernels of twice the stride: every pixel is drawn by four neighbours, without seams.
        self.up_1 = nn.ConvTranspose2d(self.features, self.features // 2, 4, stride=2, padding=1)
        self.up_2 = nn.ConvTranspose2d(self.features // 2, channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(N, num_inputs) -> (N, channels, H, W)."""
        h = F.silu(self.body(z)).reshape(-1, self.features, *self.grid)
        x = self.up_2(F.silu(self.up_1(h)))
        return x[..., : self.height, : self.breadth]
