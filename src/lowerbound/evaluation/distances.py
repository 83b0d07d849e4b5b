"""How far apart two sets of feature vectors are, and how much of each the other covers.

    Fréchet     |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½): the squared 2-Wasserstein distance
                of two Gaussians with the moments of the sets
    kernel      E k(x, x′) + E k(y, y′) − 2 E k(x, y),   k(a, b) = (a·b / d + 1)³
    precision   the share of samples that lie within reach of a real example: no farther from it
                than its own k-th neighbour among the real ones
    recall      the share of real examples within reach of a sample

The Fréchet distance of sets is biased upwards by about their sizes' inverses: only distances of
equally large sets compare. The kernel distance leaves every vector out of its own mean, is
unbiased, and so may be negative. Moments and means are in float64, neighbours in float32.

References:
    Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium, 2017: the Fréchet distance.
    Bińkowski, Sutherland, Arbel and Gretton, Demystifying MMD GANs, 2018: the kernel distance.
    Kynkäänniemi et al., Improved Precision and Recall Metric for Assessing Generative Models,
    2019.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound._shapes import shown_shape
from lowerbound.errors import refuse
from lowerbound.evaluation.base import blocks

__all__ = ["frechet_distance", "gaussian_distance", "kernel_distance", "precision_recall"]

ROWS = 1000
"""Rows of a table of pairs that are held at once."""


def gaussian_distance(mean_1: Tensor, cov_1: Tensor, mean_2: Tensor, cov_2: Tensor) -> float:
    """Squared 2-Wasserstein distance of N(mean_1, cov_1) and N(mean_2, cov_2).

    tr (Σ₁^½ Σ₂ Σ₁^½)^½ is the sum of the singular values of Σ₁^½ Σ₂^½: without the square under
    the root, directions of no variance cost 1e-16 and not its root.

    Args:
        mean_1: (d,).
        cov_1: symmetric and positive semi-definite, (d, d).
        mean_2: (d,).
        cov_2: (d, d).
    """
    mean_1, cov_1, mean_2, cov_2 = (t.double() for t in (mean_1, cov_1, mean_2, cov_2))
    shared = torch.linalg.svdvals(_root(cov_1) @ _root(cov_2)).sum()
    total = (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * shared
    return max(0.0, float(total))  # which rounding alone makes negative


def _root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a positive semi-definite matrix (d, d)."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mT


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of two sets (N, d) and (M, d), by unbiased covariances.

    Raises:
        InputError: sets of other widths, or fewer than two vectors.
    """
    a, b = _checked(a, b, 2)
    return gaussian_distance(a.mean(0), _covariance(a), b.mean(0), _covariance(b))


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.mT @ centred / (len(x) - 1)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two sets (N, d) and (M, d).

    Raises:
        InputError: sets of other widths, or fewer than two vectors.
    """
    a, b = _checked(a, b, 2)
    within = [
        (_kernel_sum(x, x) - float(_kernel(x.square().sum(1), x.shape[1]).sum()))
        / (len(x) * (len(x) - 1))
        for x in (a, b)
    ]
    return sum(within) - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def _kernel(products: Tensor, d: int) -> Tensor:
    return (products / d + 1).pow(3)


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    """Σ_i Σ_j k(a_i, b_j)."""
    parts = [_kernel(a[rows] @ b.mT, a.shape[1]).sum() for rows in blocks(len(a), ROWS)]
    return float(torch.stack(parts).sum())


def precision_recall(real: Tensor, samples: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall, each from 0 to 1.

    Args:
        real: (N, d).
        samples: (M, d).
        neighbours: k; the reach of a vector is its distance to the k-th nearest other one.

    Raises:
        InputError: sets of other widths, k below 1, or no more than k vectors in a set.
    """
    if neighbours < 1:
        raise refuse("neighbours", "at least 1", neighbours)
    real, samples = (x.float() for x in _checked(real, samples, neighbours + 1))
    real_reach, reach = _reach(real, neighbours), _reach(samples, neighbours)
    is_covered, num_recalled = torch.zeros(len(samples), dtype=torch.bool), 0
    for rows in blocks(len(real), ROWS):
        distances = _distances(real[rows], samples)
        is_covered |= (distances <= real_reach[rows, None]).any(0)
        num_recalled += int((distances <= reach).any(1).sum())
    return int(is_covered.sum()) / len(samples), num_recalled / len(real)


def _reach(x: Tensor, neighbours: int) -> Tensor:
    """Distance of each of N vectors to its k-th nearest other one, (N,)."""
    reach = []
    for rows in blocks(len(x), ROWS):
        distances = _distances(x[rows], x)
        distances[range(len(distances)), range(rows.start, rows.stop)] = torch.inf  # itself
        reach.append(distances.kthvalue(neighbours, dim=1).values)
    return torch.cat(reach)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # By differences: equal vectors are at exactly zero, and a pair has one distance both ways.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _checked(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Two sets in float64 on the CPU, finite, of one width and of at least so many vectors."""
    for name, x in (("a", a), ("b", b)):
        if x.ndim != 2 or len(x) < least or x.shape[1] != a.shape[1]:
            raise refuse(
                name, f"at least {least} vectors of one size, (N, d)", shown_shape(x.shape)
            )
        if not x.isfinite().all():
            raise refuse(name, "finite numbers", "NaN or infinity")
    return a.double().cpu(), b.double().cpu()
