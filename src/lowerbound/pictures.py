"""The pictures of a run: what the model makes, shown by `lowerbound.plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowerbound import plots
from lowerbound.data import Classes, Mask, Source
from lowerbound.evaluation import NoiseSplit, latent_means, split_by_noise
from lowerbound.evaluation.base import context_of
from lowerbound.files import load_json
from lowerbound.generation import (
    class_context,
    class_labels,
    complete,
    contexts_for,
    decode_plane,
    draw,
    interpolate,
    reconstruct,
    redraw_levels,
)
from lowerbound.models import (
    VQVAE,
    DenoisingModel,
    Diffusion,
    Hierarchy,
    Model,
    ProbabilisticPCA,
    StandardNormal,
)
from lowerbound.plots.images import is_image
from lowerbound.renoising import USUAL_LEVEL, denoising_path

__all__ = [
    "NUM_COMPARED",
    "NUM_COMPLETIONS",
    "NUM_DRAWS",
    "NUM_PATHS",
    "NUM_RECONSTRUCTED",
    "Numbers",
    "codes_picture",
    "denoising_picture",
    "draw_pictures",
    "is_seen",
    "latents_picture",
    "levels_picture",
    "noise_levels_picture",
    "paths",
    "reconstructions_picture",
    "samples_picture",
    "walk_note",
]


class Numbers(NamedTuple):
    """How many examples that are seen one by one, or how many rows of a table, a picture shows."""

    images: int
    rows: int

    def of(self, event_shape: Sequence[int]) -> int:
        """The one for examples of this shape; sequences and volumes count as images do."""
        return self.images if is_seen(event_shape) else self.rows


def is_seen(event_shape: Sequence[int]) -> bool:
    """Whether one example of this shape is a picture: a sequence, an image or a volume."""
    return plots.is_image(event_shape) or plots.is_sequence(event_shape)


NUM_DRAWS = Numbers(64, 2000)
NUM_RECONSTRUCTED = Numbers(20, 1000)
NUM_COMPARED = Numbers(12, 500)
NUM_LATENTS = 3000
NUM_PATHS = 6
NUM_COMPLETIONS = 5
NUM_MAPPED = 6
PLANE_STEPS = {2: 11, 3: 21, 4: 11}
"""Points along each side of a decoded plane, by how many axes an example has; a table has more."""
NUM_REDRAWN = 10
NOISE_BINS, NOISE_ROWS = 30, 200
NUM_DENOISED = 5


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
        shown = slice(0, NUM_RECONSTRUCTED.of(source.event_shape))
        x, context = source.test[shown][0], context_of(model, source.test, shown)
        figure = reconstructions_picture(model, x, context, names)
        plots.save_figure(figure, folder / "reconstructions.png")
        plots.save_figure(latents_picture(model, source, method), folder / "latents.png")
    half = min(NUM_PATHS, len(source.test) // 2)
    if model.has_encoder and half:
        frames = paths(model, source, half)
        figure = plots.interpolations_figure(frames, support, names, note=walk_note(model))
        plots.save_figure(figure, folder / "interpolations.png")
    if _has_plane(model):
        plots.save_figure(_plane_picture(model), folder / "plane.png")
    if plots.has_curve(rows):
        plots.save_figure(plots.training_figure(rows), folder / "training.png")
    judged = folder / "evaluation.json"
    evaluation = load_json(judged) if judged.is_file() else {}
    if plots.has_decomposition(evaluation):
        figure = plots.decomposition_figure(evaluation)
        plots.save_figure(figure, folder / "decomposition.png")
    _draw_kind(model, source, folder, evaluation)


def _draw_kind(model: Model, source: Source, folder: Path, evaluation: dict[str, Any]) -> None:
    """Write the pictures that only models of one kind have."""
    if isinstance(model, VQVAE):
        plots.save_figure(codes_picture(model, source), folder / "codes.png")
    if isinstance(model, Diffusion):
        bins = NOISE_BINS if model.timesteps is None else min(NOISE_BINS, model.timesteps - 1)
        split = split_by_noise(model, source.test, num_bins=bins, max_rows=NOISE_ROWS)
        plots.save_figure(noise_levels_picture(split), folder / "noise-levels.png")
    if isinstance(model, DenoisingModel) and is_image(model.event_shape):
        context = contexts_for(model, NUM_DENOISED, split=source.test)
        plots.save_figure(denoising_picture(model, context=context), folder / "denoising.png")
    is_shown = is_image(model.event_shape) or plots.rates_of_levels(evaluation)
    if isinstance(model, Hierarchy) and is_shown:
        context = contexts_for(model, 1, split=source.test)
        figure = levels_picture(model, evaluation, context=context)
        plots.save_figure(figure, folder / "levels.png")


def levels_picture(
    model: Model,
    evaluation: Mapping[str, Any],
    num: int | None = None,
    *,
    seed: int = 0,
    context: Tensor | None = None,
) -> Any:
    """What each level of a hierarchy holds, beside the rates that its evaluation has.

    Args:
        model: a hierarchy.
        evaluation: what evaluation.json holds; empty where there is none.
        num: images per row; ten unless said.
        seed: of the draws.
        context: as for `redraw_levels`.
    """
    num = NUM_REDRAWN if num is None else num
    frames = redraw_levels(model, num, seed=seed, context=context)
    rates = plots.rates_of_levels(evaluation)
    return plots.levels_figure(frames, model.support, rates)


def noise_levels_picture(split: NoiseSplit, name: str = "test") -> Any:
    """Where the bits of a diffusion go, on examples of the split called ``name``."""
    return plots.noise_levels_figure(
        split.gammas,
        split.rates,
        split.standard_errors,
        reconstruction=split.reconstruction,
        prior=split.prior,
        num_dims=split.num_dims,
        num_examples=split.num_examples,
        split=name,
    )


def denoising_picture(model: DenoisingModel, context: Tensor | None = None) -> Any:
    """A few draws on their way from noise to data, given contexts (5, …) where there are any."""
    frames, gammas = denoising_path(model, NUM_DENOISED, context=context)
    return plots.denoising_figure(frames, gammas, model.support)


def walk_note(model: Model) -> str:
    """What the title of walks says of a context that cannot be walked through."""
    return ": the class changes half-way" if isinstance(model.context, Classes) else ""


def paths(
    model: Model,
    source: Source,
    num: int,
    num_steps: int = 10,
    *,
    spherical: bool | None = None,
) -> Tensor:
    """Walks from each of the first ``num`` test examples to one of the next: (num, steps, …)."""
    (start, end), given = (slice(0, num), slice(num, 2 * num)), None
    if model.context is not None:
        given = [
            c for rows in (start, end) if (c := context_of(model, source.test, rows)) is not None
        ]
    return interpolate(
        model,
        source.test[start][0],
        source.test[end][0],
        num_steps,
        contexts=None if given is None else (given[0], given[1]),
        spherical=spherical,
    )


def samples_picture(
    model: Model,
    source: Source | None,
    num: int | None = None,
    *,
    seed: int = 0,
    mean: bool = False,
    context: Tensor | None = None,
    columns: int | None = None,
    how: str = "",
) -> Any:
    """Draws from p(x) beside means of p(x|z) at the same latents, or means alone.

    Args:
        model: one that has a prior.
        source: its data, which a table is compared with and which fix the grey of real images;
            None for images that need neither.
        num: how many; 64 images, sequences or volumes, or 2,000 rows of a table unless said.
        seed: of the draws.
        mean: means alone.
        context: what each draw is given (num, …); drawn, where the model needs any.
        columns: images to a row; a square grid unless said.
        how: by which sampler, in how many steps and the like; said in the title.
    """
    num = NUM_DRAWS.of(model.event_shape) if num is None else num
    some = None if source is None else source.train[slice(0, 5000)][0]
    names = () if source is None else source.column_names
    if context is None:
        split = None if source is None else source.test
        context = contexts_for(model, num, seed=seed, split=split)
    # A draw of a diffusion takes all its steps, and is its mean to the eye: once is enough.
    once = mean or isinstance(model, DenoisingModel)
    draws = draw(model, num, seed=seed, mean=mean, context=context)
    means = None if once else draw(model, num, seed=seed, mean=True, context=context)
    labels = class_labels(model, context)
    return plots.samples_figure(
        draws,
        means,
        model.support,
        model.event_shape,
        some,
        names,
        labels,
        are_means=mean,
        columns=columns,
        given="class" if labels else "" if context is None else "context",
        how=how,
    )


def reconstructions_picture(
    model: Model,
    x: Tensor,
    context: Tensor | None,
    names: Sequence[str] = (),
    label: str | None = None,
    *,
    noise_level: float | None = None,
    seed: int = 0,
) -> Any:
    """Examples (N, *event) beside what is left of them, or completions of what is observed.

    Args:
        model: one that has an encoder, or that denoises.
        x: the examples.
        context: what the model is given beside them.
        names: of the columns of a table.
        label: the class that all of them are decoded as; their own unless said.
        noise_level: as for `reconstruct`.
        seed: as for `reconstruct`.
    """
    if context is not None and isinstance(model.context, Mask) and is_seen(model.event_shape):
        completions = complete(model, context.cpu(), NUM_COMPLETIONS)
        return plots.completions_figure(x, context.cpu(), completions, model.support)
    other = class_context(model, label, len(x))
    given: Any = {"decoded_as": other, "noise_level": noise_level, "seed": seed}
    means = reconstruct(model, x, context, **given)
    panel = {}
    if isinstance(model, DenoisingModel):
        level = USUAL_LEVEL if noise_level is None else noise_level
        panel["panel"] = f"Noised to t = {level:g} and denoised"
    return plots.reconstructions_figure(x, means, model.support, names, label, **panel)


@torch.no_grad()
def codes_picture(model: VQVAE, source: Source) -> Any:
    """How often each code is used, and where the codes lie in a few test images."""
    if len(model.grid) != 2 or model.event_shape[0] > 4:
        return plots.codes_figure(model.quantiser.usage.cpu())
    x = source.test[slice(0, NUM_MAPPED)][0]
    codes = model.codes(x.to(model.calibrated.device)).cpu()
    maps = codes.unflatten(1, (*model.grid, -1))[..., 0]
    return plots.codes_figure(model.quantiser.usage.cpu(), x, maps, model.support)


def _has_plane(model: Model) -> bool:
    """Whether quantiles of N(0, 1) in two dimensions are even under the prior."""
    if not model.can_sample or getattr(model, "latent_dim", None) != 2:
        return False
    known = model.context is None or isinstance(model.context, Classes)
    return known and isinstance(getattr(model, "prior", None), StandardNormal)


def _plane_picture(model: Model) -> Any:
    """What the latent plane decodes to; of classes, as the first of them."""
    label = model.context.labels[0] if isinstance(model.context, Classes) else None
    context = None if label is None else torch.tensor(0)
    num_steps = PLANE_STEPS.get(len(model.event_shape), 41)
    decoded, quantiles = decode_plane(model, num_steps, context)
    return plots.plane_figure(decoded, model.support, quantiles, label)


def latents_picture(model: Model, source: Source, method: str = "pca") -> Any:
    """The latent plane of test examples beside their plane of principal components."""
    x, labels = source.test[slice(0, NUM_LATENTS)][0], source.test.labels
    if labels is not None:  # other contexts are no colours
        is_class = labels.ndim == 1 and not labels.is_floating_point()
        labels = labels[:NUM_LATENTS] if is_class else None
    z = latent_means(model, source.test, NUM_LATENTS)
    class_names = getattr(source.context, "names", ())
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
