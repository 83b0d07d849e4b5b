"""The pictures of a run: what the model makes, shown by `lowerbound.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowerbound import plots
from lowerbound.data import Source
from lowerbound.evaluation import latent_means
from lowerbound.files import load_json
from lowerbound.generation import decode_plane, draw, interpolate, reconstruct
from lowerbound.models import Model, ProbabilisticPCA

__all__ = [
    "NUM_DRAWS",
    "NUM_PATHS",
    "NUM_RECONSTRUCTED",
    "Numbers",
    "draw_pictures",
    "latents_picture",
    "samples_picture",
]


class Numbers(NamedTuple):
    """How many images, or how many rows of a table, a picture shows."""

    images: int
    rows: int

    def of(self, event_shape: Sequence[int]) -> int:
        """The one for examples of this shape."""
        return self.images if len(event_shape) == 3 else self.rows


NUM_DRAWS = Numbers(64, 2000)
NUM_RECONSTRUCTED = Numbers(20, 1000)
NUM_LATENTS = 3000
NUM_PATHS = 6


def draw_pictures(
    model: Model,
    source: Source,
    folder: Path,
    rows: Sequence[dict[str, Any]],
    *,
    method: str = "pca",
) -> None:
    """Write every picture that the model and its data allow into ``folder``.

    Args:
        model: trained, in eval mode.
        source: its data; examples come from the test split.
        folder: the run folder; its evaluation.json, where it has one, is drawn too.
        rows: of metrics.jsonl; empty for models that are fitted in closed form.
        method: how more than two latents become a plane, ``"pca"`` or ``"tsne"``.
    """
    support, names = source.support, source.column_names
    if model.can_sample:
        plots.save_figure(samples_picture(model, source), folder / "samples.png")
    if model.has_encoder:
        x = source.test[slice(0, NUM_RECONSTRUCTED.of(source.event_shape))][0]
        figure = plots.reconstructions_figure(x, reconstruct(model, x), support, names)
        plots.save_figure(figure, folder / "reconstructions.png")
        plots.save_figure(latents_picture(model, source, method), folder / "latents.png")
    half = min(NUM_PATHS, len(source.test) // 2)
    if model.has_encoder and half:
        start, end = source.test[slice(0, half)][0], source.test[slice(half, 2 * half)][0]
        figure = plots.interpolations_figure(interpolate(model, start, end), support, names)
        plots.save_figure(figure, folder / "interpolations.png")
    if model.can_sample and getattr(model, "latent_dim", None) == 2:  # by quantiles of the prior
        decoded, quantiles = decode_plane(model, 21 if len(source.event_shape) == 3 else 41)
        figure = plots.plane_figure(decoded, support, quantiles)
        plots.save_figure(figure, folder / "plane.png")
    if plots.has_curve(rows):
        plots.save_figure(plots.training_figure(rows), folder / "training.png")
    judged = folder / "evaluation.json"
    if judged.is_file() and plots.has_decomposition(evaluation := load_json(judged)):
        figure = plots.decomposition_figure(evaluation)
        plots.save_figure(figure, folder / "decomposition.png")


def samples_picture(
    model: Model,
    source: Source | None,
    num: int | None = None,
    *,
    seed: int = 0,
    mean: bool = False,
) -> Any:
    """Draws from p(x) beside means of p(x|z) at the same latents, or means alone.

    Args:
        model: one that has a prior.
        source: its data, which a table is compared with and which fix the grey of real images;
            None for images that need neither.
        num: how many; 64 images or 2,000 rows of a table unless said.
        seed: of the draws.
        mean: means alone.
    """
    num = NUM_DRAWS.of(model.event_shape) if num is None else num
    some = None if source is None else source.train[slice(0, 5000)][0]
    names = () if source is None else source.column_names
    means = draw(model, num, seed=seed, mean=True)
    draws = means if mean else draw(model, num, seed=seed)
    return plots.samples_figure(
        draws,
        None if mean else means,
        model.support,
        model.event_shape,
        some,
        names,
        are_means=mean,
    )


def latents_picture(model: Model, source: Source, method: str = "pca") -> Any:
    """The latent plane of test examples beside their plane of principal components."""
    x, labels = source.test[slice(0, NUM_LATENTS)]
    z = latent_means(model, source.test, NUM_LATENTS)
    class_names = source.context.names if source.context else ()
    return plots.latents_figure(z, _principal_plane(x, source), labels, class_names, method)


def _principal_plane(x: Tensor, source: Source) -> Tensor | None:
    """First two principal components (N, 2) of examples, by the training set's directions."""
    size = x[0].numel()
    if size < 3 or size > 4096:
        return None if size != 2 else x.flatten(1).double()
    pca = ProbabilisticPCA(source.event_shape, source.support, 2)
    pca.fit_exactly(source)
    directions = torch.nn.functional.normalize(pca.weight, dim=0)
    return (x.flatten(1).to(pca.mu) - pca.mu) @ directions
