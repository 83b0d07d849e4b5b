"""Networks of other libraries, made as ours are, for the benchmarks that set them side by side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def diffusers_unet(side: int, width: int, widths: Sequence[int], depth: int) -> nn.Module:
    """The U-Net of diffusers: the same widths and depth, attention at the smallest size.

    Raises:
        ImportError: diffusers is not installed.
    """
    from diffusers import UNet2DModel

    last = len(widths) - 1
    return UNet2DModel(
        sample_size=side,
        in_channels=1,
        out_channels=1,
        layers_per_block=depth,
        block_out_channels=tuple(width * m for m in widths),
        down_block_types=("DownBlock2D",) * last + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * last,
        attention_head_dim=32,
        norm_num_groups=max(1, min(32, width // 4)),
    )
