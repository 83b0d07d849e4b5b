"""Distances of sets: exact for Gaussians, equal to brute force, and right on built sets."""

from __future__ import annotations

import itertools

import pytest
import torch

from lowerbound.errors import InputError
from lowerbound.evaluation import distances
from lowerbound.evaluation.distances import (
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    precision_recall,
)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rotation(d: int) -> torch.Tensor:
    return torch.linalg.qr(normal(d, d, seed=5)).Q


def test_gaussians_with_common_axes_are_apart_by_means_and_standard_deviations():
    d, axes = 6, rotation(6)
    first, second = torch.linspace(0, 3, d).double(), torch.linspace(2, 0, d).double()
    means = normal(2, d)
    expected = float((means[0] - means[1]).square().sum() + (first - second).square().sum())
    covs = [axes @ (s.square()[:, None] * axes.mT) for s in (first, second)]
    got = gaussian_distance(means[0], covs[0], means[1], covs[1])
    assert got == pytest.approx(expected, rel=1e-12)
    assert gaussian_distance(means[1], covs[1], means[0], covs[0]) == pytest.approx(got, rel=1e-12)


def test_gaussians_of_two_dimensions_without_common_axes():
    # tr √M of a 2×2 matrix with positive eigenvalues is √(tr M + 2 √det M).
    roots = normal(2, 2, 2)
    a, b = (m @ m.mT for m in roots)
    zero, product = torch.zeros(2), a @ b
    shared = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = float(a.trace() + b.trace() - 2 * shared)
    assert gaussian_distance(zero, a, zero, b) == pytest.approx(expected, rel=1e-10)


def test_the_distance_of_a_gaussian_to_itself_is_zero_also_where_it_is_flat():
    for rank in (1, 3, 8):
        root = normal(8, rank)
        cov, mean = root @ root.mT, normal(8)
        assert gaussian_distance(mean, cov, mean, cov) < 1e-12 * float(cov.trace())


def test_sets_are_compared_by_their_moments():
    x = normal(50, 4) @ rotation(4)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5])
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x, x + shift) == pytest.approx(5.25, rel=1e-10)
    spread = float(x.var(0).sum())  # unbiased: a set twice as wide is apart by its own spread
    assert frechet_distance(x, 2 * x - x.mean(0)) == pytest.approx(spread, rel=1e-10)


def test_the_bias_of_the_frechet_distance_falls_with_the_size_of_the_sets():
    few, many = (frechet_distance(normal(n, 10), normal(n, 10, seed=1)) for n in (40, 4000))
    assert many < 0.1 < few


def brute_kernel_distance(a, b):
    def k(u, v):
        return (float(u @ v) / len(u) + 1) ** 3

    within = [
        sum(k(x[i], x[j]) for i, j in itertools.permutations(range(len(x)), 2))
        / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    return sum(within) - 2 * sum(k(u, v) for u in a for v in b) / (len(a) * len(b))


def test_the_kernel_distance_is_that_of_brute_force(monkeypatch):
    a, b = normal(9, 3), 0.7 * normal(7, 3, seed=1) + 0.4
    expected = brute_kernel_distance(a, b)
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(distances, "ROWS", 4)
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_the_kernel_distance_of_sets_of_one_distribution_is_zero_on_average():
    sets = normal(400, 2, 10, 3)
    values = torch.tensor([kernel_distance(a, b) for a, b in sets])
    assert abs(values.mean()) < 4 * values.std() / 20
    assert (values < 0).any()


def line(*places):
    return torch.tensor(places)[:, None].double()


def test_reach_is_the_distance_to_the_kth_other_one():
    # The real ones reach 1, 1, 2 with k = 1: from −1 to 2, and from 1 to 5.
    real, samples = line(0.0, 1.0, 3.0), line(-1.0, -1.5, 4.9, 5.1)
    assert precision_recall(real, samples, 1)[0] == 0.5
    # The samples reach 0.5, 0.5, 0.2, 0.2: none of the real ones.
    assert precision_recall(real, samples, 1)[1] == 0.0
    # With k = 2 the sample at −1 reaches 5.9, and all else follows.
    assert precision_recall(real, samples, 2) == (1.0, 1.0)


def test_equal_sets_cover_one_another_and_distant_ones_do_not():
    x = normal(30, 5)
    assert precision_recall(x, x.flip(0)) == (1.0, 1.0)
    assert precision_recall(x, x + 1000) == (0.0, 0.0)


def test_samples_of_one_mode_are_precise_and_recall_that_mode_alone(monkeypatch):
    monkeypatch.setattr(distances, "ROWS", 16)
    modes = torch.cat([normal(50, 2), normal(150, 2, seed=1) + 100])
    precision, recall = precision_recall(modes, 0.1 * normal(60, 2, seed=2))
    assert precision == 1.0
    assert recall < 0.25
    precision, recall = precision_recall(0.1 * normal(60, 2, seed=2), modes)
    assert precision < 0.25
    assert recall == 1.0


def test_blocks_change_no_neighbour(monkeypatch):
    real, samples = normal(40, 3), normal(30, 3, seed=1)
    whole = precision_recall(real, samples, 1)
    assert 0 < min(whole) < max(whole) < 1
    monkeypatch.setattr(distances, "ROWS", 7)
    assert precision_recall(real, samples, 1) == whole


def test_copies_reach_one_another_at_no_distance():
    real = torch.tensor([[100.1, 200.2, 300.3]]).expand(6, 3)  # where squares cancel badly
    assert precision_recall(real, real[:4]) == (1.0, 1.0)
    assert precision_recall(real, real[:4] + 1e-2) == (0.0, 0.0)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, precision_recall])
def test_sets_that_cannot_be_compared_are_refused(measure):
    x = normal(8, 3)
    for other, said in (
        (normal(8, 4), "(N, d), got 8×4"),
        (x[:1], "got 1×3"),
        (x / 0, "must be finite numbers"),
    ):
        with pytest.raises(InputError) as refused:
            measure(x, other)
        assert said in str(refused.value)


def test_more_neighbours_than_there_are_others_are_refused():
    x = normal(4, 2)
    assert precision_recall(x, x, 3) == (1.0, 1.0)
    with pytest.raises(InputError, match="at least 5 vectors"):
        precision_recall(x, x, 4)
    with pytest.raises(InputError, match="'neighbours' must be at least 1, got 0"):
        precision_recall(x, x, 0)
