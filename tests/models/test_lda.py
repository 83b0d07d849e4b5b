"""Linear discriminants: the subspace of scikit-learn, and the identities that define them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from lowerbound.build import create_model
from lowerbound.data import InMemorySplit, Source
from lowerbound.distributions import Real
from lowerbound.errors import InputError
from lowerbound.run import fit


def labelled(x: torch.Tensor, labels: torch.Tensor) -> Source:
    split = InMemorySplit(x, labels)
    return Source(split, split, split, tuple(x.shape[1:]), Real())


@pytest.fixture(scope="module")
def clusters() -> Source:
    """Four classes of different sizes in five correlated columns of different units."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3]).repeat(50)
    centers = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(400, 5, generator=generator, dtype=torch.float64)
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    unit = torch.tensor([1e-4, 1.0, 3.0, 1e4, 10.0], dtype=torch.float64)
    return labelled((2 * centers[labels] + noise @ mixing) * unit, labels)


def fitted(source: Source, k: int):
    model = create_model("lda", source, latent_dim=k)
    model.fit_exactly(source)
    return model


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_projection_is_that_of_scikit_learn(clusters, k):
    x, labels = clusters.train.x, clusters.train.labels
    theirs = LinearDiscriminantAnalysis(n_components=k, tol=1e-12).fit(x.numpy(), labels.numpy())
    ours = fitted(clusters, k).encode(x).mean
    # Up to signs, and to whether they divide by N or by N − C, which depends on their version.
    other = torch.from_numpy(theirs.transform(x.numpy()))
    other = other * ours.std(0) / other.std(0)
    torch.testing.assert_close(ours.abs(), other.abs(), rtol=1e-6, atol=1e-6)


def test_the_subspace_of_the_digits_is_that_of_scikit_learn(digits):
    x, labels = digits.train.x.flatten(1).double().numpy(), digits.train.labels.numpy()
    theirs = LinearDiscriminantAnalysis().fit(x, labels)
    weight = fitted(digits, 9).weight.numpy()
    angles = scipy.linalg.subspace_angles(weight, theirs.scalings_[:, :9])
    # Constant and almost constant pixels are left out by rules that differ in detail.
    assert np.rad2deg(angles.max()) < 0.1


def test_within_classes_the_codes_are_white_and_the_first_discriminant_is_the_best(clusters):
    x, labels = clusters.train.x, clusters.train.labels
    z = fitted(clusters, 3).encode(x).mean
    means = torch.stack([z[labels == c].mean(0) for c in range(4)])[labels]
    within = (z - means).mT @ (z - means) / len(z)
    torch.testing.assert_close(within, torch.eye(3, dtype=torch.float64))
    between = means.mT @ means / len(z)
    ratios = between.diagonal()
    torch.testing.assert_close(between, ratios.diag(), rtol=1e-8, atol=1e-8)
    assert (ratios.diff() < 0).all()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(5, generator=generator, dtype=torch.float64)
        y = (x / x.std(0)) @ direction
        y_means = torch.stack([y[labels == c].mean() for c in range(4)])[labels]
        assert (y_means - y.mean()).square().mean() / (y - y_means).square().mean() < ratios[0]


def test_decoding_is_the_least_squares_line_back(clusters):
    x = clusters.train.x
    model = fitted(clusters, 2)
    z = model.encode(x).mean
    design = torch.cat([torch.ones(400, 1, dtype=torch.float64), z], 1)
    expected = design @ torch.linalg.lstsq(design, x).solution
    torch.testing.assert_close(model.decode(z).mean, expected)


def test_constant_columns_change_nothing(clusters):
    x, labels = clusters.train.x, clusters.train.labels
    constant = torch.full((400, 1), 7.0, dtype=torch.float64)
    wider = labelled(torch.cat([constant, x], 1), labels)
    ours, other = fitted(clusters, 3), fitted(wider, 3)
    torch.testing.assert_close(other.weight[1:].abs(), ours.weight.abs())
    assert (other.weight[0] == 0).all()
    torch.testing.assert_close(
        other.decode(other.encode(wider.train.x).mean).mean[:, :1], constant
    )


def test_a_column_that_differs_between_classes_alone_is_left_out_with_a_note(clusters):
    x, labels = clusters.train.x, clusters.train.labels
    assert fitted(clusters, 2).notes() == []
    for column, told in (
        (torch.full((400,), 7.1, dtype=torch.float64), False),
        (labels.double(), True),
        (1e-3 * (labels == 2).double() + 0.7, True),
    ):
        wider = labelled(torch.cat([x, column[:, None]], 1), labels)
        model = fitted(wider, 2)
        torch.testing.assert_close(model.weight[:-1].abs(), fitted(clusters, 2).weight.abs())
        notes = model.notes()
        assert bool(notes) == told
        if told:
            assert "1 column(s) (5, from 0) are constant within every class" in notes[0]


def test_data_without_labels_or_with_too_few_classes_are_refused(clusters, digits, blobs):
    with pytest.raises(InputError, match="'data' must be labelled for a model of kind 'lda'"):
        create_model("lda", blobs)
    bare = replace(digits, train=InMemorySplit(digits.train.x))
    model = create_model("lda", (1, 8, 8), support=digits.support)
    with pytest.raises(InputError, match="give labels, or use ppca"):
        fit(model, bare, quiet=True)
    with pytest.raises(InputError, match="'latent_dim' must be below the 4 classes"):
        create_model("lda", clusters, latent_dim=4)
    with pytest.raises(InputError, match="'latent_dim' must be at most the 2 dimensions"):
        create_model("lda", (2,), latent_dim=3)


def test_class_means_on_a_line_have_one_discriminant():
    x = torch.randn(90, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(90) % 3
    for c in range(3):
        x[labels == c] += torch.tensor([c, 0.0, 0.0]) - x[labels == c].mean(0)
    with pytest.raises(InputError, match="'latent_dim' must be at most 1, in how many directions"):
        fitted(labelled(x, labels), 2)
    assert fitted(labelled(x, labels), 1).encode(x).mean.shape == (90, 1)
