"""Figures from tensors: what a model draws, keeps, forgets, and how it got there.

Every function takes CPU tensors and returns a `matplotlib.figure.Figure` that belongs to nobody:
no pyplot, no global state, no window. Images are shown as the numbers they are, x / (levels − 1)
clipped to [0, 1] and never wrapped, volumes as their middle slices; sequences are lines, a small
frame for each; vectors become small multiples, one panel per column.

The training figure shows the bound in nats and its two halves, −bound = distortion + rate, where
the distortion is −E_q log p(x|z) and the rate is what the latents cost.
"""

from lowerbound.plots.codes import codes_figure
from lowerbound.plots.comparison import comparison_figure
from lowerbound.plots.decomposition import decomposition_figure, has_decomposition
from lowerbound.plots.examples import (
    completions_figure,
    interpolations_figure,
    plane_figure,
    reconstructions_figure,
    samples_figure,
)
from lowerbound.plots.images import MAX_IMAGES, displayable, image_grid, is_image
from lowerbound.plots.latents import latents_figure
from lowerbound.plots.levels import levels_figure, rates_of_levels
from lowerbound.plots.noise_levels import denoising_figure, noise_levels_figure
from lowerbound.plots.sequences import is_sequence
from lowerbound.plots.style import save_figure
from lowerbound.plots.training import has_curve, has_halves, training_figure

__all__ = [
    "MAX_IMAGES",
    "codes_figure",
    "comparison_figure",
    "completions_figure",
    "decomposition_figure",
    "denoising_figure",
    "displayable",
    "has_curve",
    "has_decomposition",
    "has_halves",
    "image_grid",
    "interpolations_figure",
    "is_image",
    "is_sequence",
    "latents_figure",
    "levels_figure",
    "noise_levels_figure",
    "plane_figure",
    "rates_of_levels",
    "reconstructions_figure",
    "samples_figure",
    "save_figure",
    "training_figure",
]
