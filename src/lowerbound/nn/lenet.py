"""Small classifiers whose last hidden layer serves as features: LeNet, and an mlp for the rest.

References:
    LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition,
    1998.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lowerbound._shapes import num_elements

__all__ = ["FEATURES", "make_classifier"]

FEATURES = 84
"""Numbers per example."""
SMALLEST_SIDE = 4
LARGEST_LAST_SIDE = 8


def make_classifier(event_shape: Sequence[int]) -> tuple[str, nn.Module]:
    """The name of a network (N, *event) -> (N, 84), and the network.

    Args:
        event_shape: of one example: lenet for images of at least four pixels a side, else mlp.
    """
    if len(event_shape) == 3 and min(event_shape[1:]) >= SMALLEST_SIDE:
        return "lenet", _lenet(*event_shape)
    size = num_elements(event_shape)
    layers = [nn.Flatten(), nn.Linear(size, 120), nn.ReLU(), nn.Linear(120, FEATURES), nn.ReLU()]
    return "mlp", nn.Sequential(*layers)


def _lenet(channels: int, height: int, width: int) -> nn.Sequential:
    """Two convolutions, each at half the side of what came before, and two dense layers.

    Larger images are halved more often, until the dense layers see at most eight a side.
    """
    layers: list[nn.Module] = []
    before, after = channels, 8
    while len(layers) < 6 or max(height, width) > LARGEST_LAST_SIDE:
        convolution = nn.Conv2d(before, after, 5, padding=2)
        layers += [convolution, nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        height, width = (height + 1) // 2, (width + 1) // 2
        before, after = after, min(2 * after, 64)
    layers += [nn.Flatten(), nn.Linear(before * height * width, 120), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(120, FEATURES), nn.ReLU())
