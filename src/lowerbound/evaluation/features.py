"""Features of examples: what a small classifier of the same data looks at.

Distances of sets of images are distances of their features. Those of a classifier that was
trained on the labels of the same data are about what tells its classes apart: strokes of a digit,
not single pixels. The network, its seed and its accuracy belong to every such number: numbers in
other features do not compare, whatever they are called. Features come in a unit of their own,
their root mean square over training examples, which no network's choice of scale changes.

References:
    LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition,
    1998: LeNet.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowerbound._random import generator_for, initialised_by, permutation
from lowerbound.data import Source, Split
from lowerbound.errors import refuse
from lowerbound.evaluation.base import blocks
from lowerbound.nn.lenet import FEATURES, make_classifier

__all__ = ["Classifier", "Features", "labels_of", "train_classifier"]

STEPS, BATCH, LEARNING_RATE = 500, 128, 2e-3
ROWS_AT_ONCE = 1000
MEASURED_ROWS = 10_000
Features = Callable[[Tensor], Tensor]
"""Of examples (N, *event) in data units: (N, d)."""


class Classifier:
    """A trained classifier, as features.

    Args:
        name: of the network.
        network: (N, *event) -> (N, 84) features.
        head: features -> (N, classes), logits.
        shift: mean of the training examples, in data units.
        scale: their standard deviation.
        unit: root mean square of the network's outputs; features are divided by it.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        head: nn.Module,
        shift: float,
        scale: float,
        unit: float = 1.0,
    ) -> None:
        self.name, self.network, self.head = name, network.eval(), head.eval()
        self.shift, self.scale, self.unit = shift, scale, unit

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Features (N, 84) of examples (N, *event) in data units, on the CPU."""
        parts = [self._features(x[rows]).cpu() for rows in blocks(len(x), ROWS_AT_ONCE)]
        return torch.cat(parts) / self.unit

    def _features(self, x: Tensor) -> Tensor:
        device = next(self.network.parameters()).device
        features: Tensor = self.network((x.to(device).float() - self.shift) / self.scale)
        return features

    @torch.no_grad()
    def accuracy(self, split: Split) -> float:
        """Share of the examples of a split whose class it finds."""
        labels, found = labels_of(split), 0
        for rows in blocks(len(split), ROWS_AT_ONCE):
            logits = self.head(self._features(split[rows][0]))
            found += int((logits.argmax(1).cpu() == labels[rows]).sum())
        return found / len(split)


def train_classifier(
    source: Source, *, seed: int = 0, steps: int | None = None, device: torch.device | str = "cpu"
) -> Classifier:
    """A classifier of the training examples: on one machine a function of data and seed alone.

    Args:
        source: data with class labels.
        seed: of its weights and batches.
        steps: of 128 examples each; 500 unless said.
        device: where it is trained.

    Raises:
        InputError: data without labels, or with one class alone.
    """
    labels = labels_of(source.train, source.name)
    num_classes = int(labels.max()) + 1
    if len(labels.unique()) < 2:
        raise refuse("quality", "asked of data with at least two classes", "one class")
    rows = permutation(len(labels), "features", seed)[:MEASURED_ROWS]
    x = source.train[rows.sort().values][0]
    measured = x.double()
    shift, scale = float(measured.mean()), float(measured.std()) or 1.0
    with initialised_by(seed):
        name, network = make_classifier(source.event_shape)
        head = nn.Linear(FEATURES, num_classes)
    classifier = Classifier(name, network.to(device), head.to(device), shift, scale)
    _fit(classifier, source.train, labels, seed, STEPS if steps is None else steps)
    classifier.unit = float(classifier(x).double().square().mean().sqrt()) or 1.0
    return classifier


def _fit(classifier: Classifier, split: Split, labels: Tensor, seed: int, steps: int) -> None:
    """Minimise the cross-entropy, the learning rate falling to zero by half a cosine."""
    network, head = classifier.network.train(), classifier.head.train()
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=1e-2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
        generator = generator_for("features", seed, step)
        rows = torch.randint(len(labels), (BATCH,), generator=generator)
        with torch.enable_grad():
            logits = head(classifier._features(split[rows][0]))
            loss = F.cross_entropy(logits, labels[rows].to(logits.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    head.eval()


def labels_of(split: Split, name: str = "data") -> Tensor:
    """Class indices (N,) of a split, on the CPU."""
    labels = split.labels
    if labels is None or labels.ndim != 1 or labels.is_floating_point():
        remedy = "name their column or array with --labels, or give features of your own"
        raise refuse("quality", "asked of data with class labels", name, remedy)
    return labels.long().cpu()
