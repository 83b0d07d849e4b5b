"""The commands that judge a run: evaluate, score."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lowerbound.commands.comparing import SCORES
from lowerbound.commands.shared import (
    OfRun,
    OnDevices,
    data_of,
    drawing,
    engine_of,
    model_of,
    named,
    output,
    rows_for,
)
from lowerbound.errors import refuse
from lowerbound.tables import evaluation_table, print_json, print_table

if TYPE_CHECKING:
    from lowerbound.data import Source
    from lowerbound.evaluation.exported import ExportedFeatures
    from lowerbound.models import Diffusion, Model

__all__ = ["EvaluateFlags", "ScoreFlags", "evaluate", "score"]


@dataclass(frozen=True)
class EvaluateFlags(OnDevices):
    """Judge a run: the bound and its terms, the log-likelihood, and what stands beside them."""

    data: str | None = None
    """Other data than the run's, prepared in the same way."""
    split: Literal["test", "validation", "train"] = "test"
    """Which split is judged."""
    samples: int = 1000
    """Importance samples K per example, and draws of prior Monte Carlo."""
    ais: int = 0
    """Steps of annealed importance sampling on 100 seeded examples, for a poor encoder; 0: none,
    1,000 is thorough."""
    ais_chains: int = 16
    """Its chains per example."""
    quality: bool = False
    """Compare samples with real examples too, in the features of a small classifier that is
    trained on the labels of the data: Fréchet and kernel distance, precision and recall."""
    features: Path | None = None
    """Of --quality: an ONNX file of a network, such as Inception's, to compare by in place of the
    classifier; from examples in data units to features."""
    quality_samples: int | None = None
    """Samples of --quality; as many as there are validation examples unless said."""
    steps: int | None = None
    """Of --quality of a diffusion: steps from noise to data; those of its options unless said."""
    sampler: str | None = None
    """Of --quality of a diffusion: ancestral, ddim, dpm++, heun or euler."""
    eta: float | None = None
    """Of --quality of a diffusion: share of fresh noise in each step of ddim and dpm++."""
    guidance: float | None = None
    """Of --quality of a diffusion of classes: 1 unless said, which is p(x|class)."""
    seed: int = 0
    """Of the samples of --quality."""
    noise_levels: bool = False
    """Of a diffusion: where its bits go, term by term, on 500 seeded examples; a chain step by
    step, as many passes of its network for each. Into RUN/noise-levels.json and .png."""
    json: bool = False
    """Print one JSON object."""


def evaluate(flags: EvaluateFlags) -> None:
    """``lowerbound evaluate``."""
    from lowerbound.evaluation import evaluate as judge
    from lowerbound.evaluation.nats import BOUND_SAMPLES
    from lowerbound.models import Diffusion

    if flags.samples < 1:
        raise refuse("samples", "at least 1", flags.samples)
    if flags.ais < 0:
        raise refuse("ais", "0 or more", flags.ais)
    if flags.ais_chains < 1:
        raise refuse("ais_chains", "at least 1", flags.ais_chains)
    engine = engine_of(flags)
    model, source = drawing(model_of(flags, engine), flags), data_of(flags, flags.data)
    if flags.features is not None and not flags.quality:
        raise refuse("features", "left out without --quality", flags.features)
    features = _features(flags, model, source) if flags.quality else None
    if flags.noise_levels and not isinstance(model, Diffusion):
        raise refuse("noise_levels", f"left out for a '{model.name}'", True)
    kept = flags.run / SCORES  # what train keeps, for runs that were judged before it did
    is_own = flags.data is None and flags.split == "test" and flags.samples >= BOUND_SAMPLES
    missing = is_own and not kept.exists() and os.access(flags.run, os.W_OK)
    with engine.connected():
        result = judge(
            model,
            source,
            split=flags.split,
            num_samples=flags.samples,
            ais=flags.ais,
            ais_chains=flags.ais_chains,
            keep=kept if missing and engine.is_main else None,
            engine=engine,
        )
    if not engine.is_main:
        return
    if flags.quality:
        result["quality"] = _quality(flags, model, source, features)
    if flags.noise_levels:
        assert isinstance(model, Diffusion)
        result["noise_levels"] = _noise_levels(flags, model, source)
    if flags.json:
        print_json(result)
    else:
        print_table(evaluation_table(result))
        if flags.noise_levels:
            stem = flags.run / "noise-levels"
            print(f"\nnoise levels   {stem}.json\npicture        {stem}.png")


def _features(flags: EvaluateFlags, model: Model, source: Source) -> ExportedFeatures | None:
    """The features of a file; before any work what has no sample quality is refused.

    Raises:
        InputError: data without labels, features that cannot be read, a model that draws nothing,
            or too few samples.
    """
    from lowerbound.build import MODELS
    from lowerbound.evaluation.exported import ExportedFeatures
    from lowerbound.evaluation.features import labels_of
    from lowerbound.evaluation.quality import NEIGHBOURS

    if flags.features is None:
        labels_of(source.train, source.name)
    if model.name in MODELS and not MODELS[model.name].samples:
        raise refuse("quality", "asked of a model with samples", model.name)
    if flags.quality_samples is not None and flags.quality_samples <= NEIGHBOURS:
        raise refuse("quality_samples", f"at least {NEIGHBOURS + 1}", flags.quality_samples)
    return None if flags.features is None else ExportedFeatures(flags.features, source.event_shape)


def _quality(
    flags: EvaluateFlags, model: Model, source: Source, features: ExportedFeatures | None
) -> dict[str, Any]:
    """The block ``quality`` of what is printed."""
    from lowerbound.evaluation.quality import default_num_samples, sample_quality
    from lowerbound.generation import contexts_for, draw

    num, seed = flags.quality_samples or default_num_samples(source, flags.split), flags.seed
    context = contexts_for(model, num, seed=seed, split=source.split(flags.split))
    samples = draw(model, num, seed=seed, context=context)
    given: dict[str, Any] = {"split": flags.split, "device": model.calibrated.device}
    if features is not None:
        given |= {"features": features, "name": features.name}
    return {**sample_quality(samples, source, **given), "seed": seed}


def _noise_levels(flags: EvaluateFlags, model: Diffusion, source: Source) -> dict[str, Any]:
    """Every term of a diffusion's bound, kept in the run folder with its picture."""
    from lowerbound.evaluation import split_by_noise
    from lowerbound.files import save_json
    from lowerbound.pictures import noise_levels_picture
    from lowerbound.plots import save_figure

    found = split_by_noise(model, source.split(flags.split))
    result = {"data": source.name, "split": flags.split, **found.as_dict()}
    save_json(flags.run / "noise-levels.json", result)
    save_figure(noise_levels_picture(found, flags.split), flags.run / "noise-levels.png")
    return result


@dataclass(frozen=True)
class ScoreFlags(OfRun):
    """The bound of each example in nats and in bits/dim, as a CSV table in the data's order."""

    data: str | None = None
    """What to score, every row in its order; the run's own data unless said."""
    samples: int = 16
    """Monte Carlo samples per example."""
    out: Path | None = None
    """X.csv with the columns index, bound and bits_per_dim; RUN/scores.csv unless said."""


def score(flags: ScoreFlags) -> None:
    """``lowerbound score``."""
    from lowerbound.evaluation.judging import scores
    from lowerbound.files import save_text

    out = output(flags.out, named(flags, "scores", ".csv"), (".csv",))
    if flags.samples < 1:
        raise refuse("samples", "at least 1", flags.samples)
    x, context = rows_for(flags, flags.data)
    bound, bits = scores(model_of(flags), x, flags.samples, context)
    rows = zip(bound.tolist(), bits.tolist(), strict=True)
    text = "".join(f"{i},{b:.6f},{d:.8f}\n" for i, (b, d) in enumerate(rows))
    save_text(out, "index,bound,bits_per_dim\n" + text)
    print(out)
