"""The hybrid decoder draws windows that overlap: held against a loop over cells."""

from __future__ import annotations

import pytest
import torch

from lowerbound.nn import HybridDecoder


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 30), (2, 16, 21)])
def test_every_window_is_added_at_its_cell(shape):
    channels, height, breadth = shape
    decoder = HybridDecoder(5, shape, width=64, depth=1).double()
    z = torch.randn(3, 5, dtype=torch.float64)
    cells = torch.nn.functional.silu(decoder.body(z)).reshape(3, *decoder.grid, -1)
    canvas = torch.zeros(3, channels, height + 16, breadth + 16, dtype=torch.float64)
    for i in range(decoder.grid[0]):
        for j in range(decoder.grid[1]):
            window = decoder.brush(cells[:, i, j]).reshape(3, 8, channels, 8).movedim(2, 1)
            canvas[:, :, 4 * i : 4 * i + 8, 4 * j : 4 * j + 8] += window
    expected = canvas[:, :, 2 : 2 + height, 2 : 2 + breadth] + decoder.bias
    torch.testing.assert_close(decoder(z), expected)


def test_each_pixel_is_drawn_by_four_cells():
    decoder = HybridDecoder(2, (1, 16, 16), width=64, depth=0).double()
    torch.nn.init.zeros_(decoder.brush[2].weight)
    torch.nn.init.ones_(decoder.brush[2].bias)
    image = decoder(torch.zeros(1, 2, dtype=torch.float64))
    assert (image[0, 0, 2:-2, 2:-2] == 4).all()
    assert float(image[0, 0, 0, 0]) == 1
