"""The figure of the latents: where the examples lie, in two coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lowerbound.errors import refuse
from lowerbound.plots.style import (
    HUES,
    MAX_POINTS,
    MODEL,
    Floats,
    dress,
    scatter_points,
    titled_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["latents_figure"]

MAX_TSNE_POINTS = 2_000  # t-SNE's time grows with the square


def latents_figure(
    z: Tensor,
    pca: Tensor | None = None,
    labels: Tensor | None = None,
    class_names: Sequence[str] = (),
    method: str = "pca",
) -> Figure:
    """Where the examples lie in the latent space, beside the plane of their own PCA.

    Args:
        z: Latents (N, d): shown as they are for d ≤ 2, else as two coordinates.
        pca: First two principal components of the same examples (N, 2), for comparison.
        labels: Class of each example (N,), as its colour.
        class_names: Name of each class; its index unless given.
        method: How d > 2 becomes two: ``pca``, or ``tsne`` (of at most 2,000 examples).
    """
    if method not in ("pca", "tsne"):
        raise refuse("method", "pca or tsne", method)
    keep = MAX_TSNE_POINTS if method == "tsne" else MAX_POINTS
    z = z.detach().double()[:keep]
    classes = torch.zeros(len(z)).int() if labels is None else labels[:keep].int()
    hues = {0: MODEL} if labels is None else _palette(classes)
    colours = [hues[c] for c in classes.tolist()]
    figure = titled_figure("Where the examples lie", 5.6 if pca is None else 9.8, 4.7)
    left = figure.add_subplot(1, 1 if pca is None else 2, 1)
    if z.shape[1] == 1:
        groups = [z[classes == c, 0].numpy() for c in hues]
        left.hist(groups, 40, stacked=True, color=list(hues.values()))
        dress(left, "The latent", "z", "examples per bin")
    else:
        points, names, title = _in_two(z, method)
        scatter_points(left, points, colours)
        dress(left, title, *names)
    if pca is not None:
        right = figure.add_subplot(1, 2, 2)
        scatter_points(right, pca[:keep].double().numpy(), colours)
        dress(right, "The data: its PCA", "first component", "second component")
    if labels is not None:
        _class_legend(figure, hues, class_names)
    return figure


def _in_two(z: Tensor, method: str) -> tuple[Floats, tuple[str, str], str]:
    """Two coordinates (N, 2) of latents (N, d), the names of their axes, and a title."""
    if z.shape[1] == 2:
        return z.numpy(), ("z₁", "z₂"), "The latents"
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, max(1.0, (len(z) - 1) / 3))
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(
            z.numpy()
        )
        names = ("first t-SNE coordinate", "second t-SNE coordinate")
        return points, names, f"The {z.shape[1]} latents: t-SNE"
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(z.numpy())
    first, second = (100 * np.nan_to_num(pca.explained_variance_ratio_)).tolist()
    names = (
        f"first principal component ({first:.0f} % of variance)",
        f"second principal component ({second:.0f} %)",
    )
    return pca.transform(z.numpy()), names, f"The {z.shape[1]} latents: their PCA"


def _palette(classes: Tensor) -> dict[int, Any]:
    """A colour for each class that occurs: ten hues, or a ramp when ten are not enough."""
    from matplotlib import colormaps

    present = sorted(set(classes.tolist()))
    ramp = list(colormaps["viridis"](np.linspace(0, 0.95, len(present))))
    return dict(zip(present, HUES if len(present) <= len(HUES) else ramp, strict=False))


def _class_legend(figure: Figure, palette: Mapping[int, Any], names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    title = [str(names[c]) if 0 <= c < len(names) else str(c) for c in palette]
    style: dict[str, Any] = {"ls": "", "marker": "o", "ms": 5}
    dots = [Line2D([], [], color=hue, **style) for hue in palette.values()]
    thin = math.ceil(len(dots) / 30)  # more names than fit: every second, third, … of the ramp
    style = {"loc": "outside right center", "frameon": False, "fontsize": 8.5}
    figure.legend(dots[::thin], title[::thin], **style)
