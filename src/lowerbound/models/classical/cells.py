"""Discrete data as real ones: level k becomes the cell [k, k + 1), by uniform noise u.

A density p on the real line gives the mass P(x) = ∫ p(x + u) du over the cell, so that
E_u log p(x + u) ≤ log P(x): a lower bound in nats of probability. A real column has no cells; in
formulas its cells have width w = 0 where those of a discrete one have width 1.

References:
    Theis, van den Oord and Bethge, A note on the evaluation of generative models, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lowerbound._shapes import num_elements
from lowerbound.distributions.support import Product, Support, Unit

__all__ = ["UNIFORM_VARIANCE", "cell_widths", "values_of"]

UNIFORM_VARIANCE = 1 / 12
"""Of the noise in a cell of width 1."""


def cell_widths(event_shape: Sequence[int], support: Support) -> Tensor:
    """Widths w (D,) of the cells of each element, float64: 1 for discrete ones, 0 for real ones.

    >>> from lowerbound.distributions import Real
    >>> cell_widths((2,), Real())
    tensor([0., 0.], dtype=torch.float64)
    """
    if isinstance(support, Product):
        return torch.tensor([float(part.is_discrete) for part in support.parts]).double()
    width = float(support.is_discrete)
    return torch.full((num_elements(event_shape),), width, dtype=torch.float64)


def values_of(x: Tensor, support: Support) -> Tensor:
    """Real draws (N, *event), where level k is the cell k ± ½, as values that the data can take.

    What lies outside goes to the nearest value. Levels are uint8 up to 256 of them, else int64;
    a table keeps its dtype.
    """
    if isinstance(support, Product):
        columns = [values_of(x[..., j], part) for j, part in enumerate(support.parts)]
        return torch.stack([column.to(x.dtype) for column in columns], -1)
    if isinstance(support, Unit):
        return x.clamp(0, 1)
    if not support.is_discrete:
        return x
    levels: int | None = getattr(support, "levels", None)
    top = None if levels is None else levels - 1
    x = (x + 0.5).floor().clamp(0, top)
    return x.to(torch.uint8 if levels is not None and levels <= 256 else torch.int64)
