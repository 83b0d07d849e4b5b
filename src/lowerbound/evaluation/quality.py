"""What samples look like, in numbers: distances to real examples in the features of a classifier.

Nats say how well a model predicts; they say little of how its samples look, and these numbers say
nothing of nats. Each is named after the features that it was computed in, FD-lenet, and stands
beside a floor: the same number of real examples of another split, in place of samples.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lowerbound._shapes import shown_shape
from lowerbound.data import Source, Split
from lowerbound.errors import DivergedError, refuse
from lowerbound.evaluation.base import blocks
from lowerbound.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from lowerbound.evaluation.features import Features, train_classifier
from lowerbound.evaluation.judge import subset

__all__ = ["MAX_ROWS", "default_num_samples", "sample_quality"]

MAX_ROWS = 10_000
"""Real examples that are compared at most."""
NEIGHBOURS = 3
ROWS_AT_ONCE = 1000


def default_num_samples(source: Source, split: str = "test") -> int:
    """As many samples as the floor has real examples, so that both have the same bias."""
    return min(len(source.split(_other(split))), MAX_ROWS)


def _other(split: str) -> str:
    """The split whose examples are compared with those of ``split``, as if they were samples."""
    return "test" if split == "validation" else "validation"


def sample_quality(
    samples: Tensor,
    source: Source,
    *,
    split: str = "test",
    classifier_seed: int = 0,
    features: Features | None = None,
    name: str = "own",
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Compare samples of any model with real examples, by their features.

    Args:
        samples: (N, *event), in data units.
        source: real examples, at most 10,000 seeded rows of a split; the features are those of a
            classifier trained on its training split, unless they are given.
        split: train, validation or test; a classifier knows its training examples by heart.
        classifier_seed: of the classifier: with another one numbers are in other features.
        features: of examples (N, *event) in data units, (N, d), in place of a classifier's.
        name: what those are called.
        device: where the classifier is trained.

    Returns:
        ``features``; ``accuracy`` of the classifier on the split, else None; ``num_samples``,
        ``split``, ``num_real``, ``classifier_seed``, ``neighbours``; ``fd``, ``kd``,
        ``precision`` and ``recall``, see `lowerbound.evaluation.distances`; under ``floor`` the
        same of as many real examples, where there are.

    Raises:
        InputError: data without labels, samples of another shape, or too few of either.
        DivergedError: samples that are not finite.
    """
    if tuple(samples.shape[1:]) != source.event_shape:
        required = f"of shape {shown_shape(source.event_shape)}"
        raise refuse("samples", required, shown_shape(samples.shape[1:]))
    for what, found in (("samples", samples), (split, source.split(split))):
        if len(found) <= NEIGHBOURS:
            raise refuse(what, f"at least {NEIGHBOURS + 1} examples", len(found))
    if not samples.isfinite().all():
        raise DivergedError("the samples are not finite: there is nothing to compare")
    accuracy = None
    if features is None:
        features = classifier = train_classifier(source, seed=classifier_seed, device=device)
        name, accuracy = classifier.name, classifier.accuracy(source.split(split))
    real = _features_of(source.split(split), features)
    other = subset(source.split(_other(split)), min(MAX_ROWS, len(samples)))  # as biased
    floor: dict[str, Any] | None = None
    if len(other) > NEIGHBOURS:
        floor = {"split": _other(split), "num_samples": len(other)}
        floor |= _numbers(_features_of(other, features), real)
    return {
        "features": name,
        "accuracy": accuracy,
        "num_samples": len(samples),
        "split": split,
        "num_real": len(real),
        "classifier_seed": classifier_seed,
        "neighbours": NEIGHBOURS,
        **_numbers(features(samples), real),
        "floor": floor,
    }


def _features_of(split: Split, features: Features) -> Tensor:
    """Features of at most 10,000 rows of a split, read piece by piece."""
    some = subset(split, MAX_ROWS)
    return torch.cat([features(some[rows][0]) for rows in blocks(len(some), ROWS_AT_ONCE)])


def _numbers(samples: Tensor, real: Tensor) -> dict[str, float]:
    """Every number of two sets of features."""
    precision, recall = precision_recall(real, samples, NEIGHBOURS)
    return {
        "fd": frechet_distance(samples, real),
        "kd": kernel_distance(samples, real),
        "precision": precision,
        "recall": recall,
    }
