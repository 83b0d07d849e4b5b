"""The VAE with linear networks, held against closed forms without a single random number.

log p(x|z) is quadratic in z, so that the mean over z = μ ± √k σ_j e_j is its exact expectation;
the same holds for x. What a maximiser of the bound must have is a gradient that vanishes.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lowerbound.models import VAE
from lowerbound.objectives import UNWEIGHTED, Bound, Weights, elbo
from tests import oracles
from tests.models.linear import affine_vae, linear_vae

MU, SIGMA = 1.5, 2.0
X = torch.tensor([[MU - SIGMA], [MU + SIGMA]], dtype=torch.float64)  # N(μ, σ²) to second order


def points(k: int, rows: int) -> dict[str, Tensor]:
    """Noise whose mean over 2k samples is an exact expectation of what is quadratic."""
    eye = math.sqrt(k) * torch.eye(k, dtype=torch.float64)
    return {"z": torch.cat([eye, -eye])[:, None].expand(-1, rows, -1)}


def exact(model: VAE, x: Tensor, weights: Weights = UNWEIGHTED) -> tuple[Bound, float]:
    """The bound of each example, and the largest slope of the mean loss in any parameter."""
    k = model.prior.latent_dim
    loss, bound = elbo(model, x, None, points(k, len(x)), 2 * k, weights)
    grads = torch.autograd.grad(loss.mean(), list(model.parameters()))
    return bound, max(float(g.abs().max()) for g in grads)


def mean(values: Tensor) -> float:
    return float(values.detach().mean())


@pytest.mark.parametrize("t", [1.0, 0.999, 0.6, 0.1, 1e-3])
def test_the_ridge_is_flat_from_collapse_to_the_deterministic_limit(t):
    bound, slope = exact(affine_vae(**oracles.affine_ridge(MU, SIGMA, t)), X)
    assert mean(bound.value) == pytest.approx(oracles.affine_optimum(SIGMA), abs=1e-9)
    assert mean(bound.rates["kl"]) == pytest.approx(-math.log(t), abs=1e-9)
    assert slope < 1e-9 / t**2  # it is that steep beside the ridge


@pytest.mark.parametrize(("t", "s"), [(1.0, SIGMA), (0.3, 0.3 * SIGMA), (0.1, SIGMA), (0.01, 1)])
def test_off_the_ridge_each_term_is_that_of_the_closed_form(t, s):
    parts = oracles.affine_inverse(MU, SIGMA, t, s)
    bound, slope = exact(affine_vae(**parts), X)
    reconstruction, kl = oracles.affine_terms(MU, SIGMA, **parts)
    assert mean(bound.reconstruction) == pytest.approx(reconstruction, abs=1e-9)
    assert mean(bound.rates["kl"]) == pytest.approx(kl, abs=1e-9)
    assert slope > 1e-2


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("s", [0.5, 1.25, 3.0])
def test_with_sigma_given_the_objective_with_beta_is_at_rest_where_it_should_be(beta, s):
    model = affine_vae(**oracles.affine_fixed(MU, SIGMA, s, beta))
    for parameter in model.likelihood.parameters():
        parameter.requires_grad_(False)
    free = [p for p in model.parameters() if p.requires_grad]
    assert len(free) == 4
    for weights, at_rest in ((Weights(beta=beta), True), (Weights(beta=3 * beta), False)):
        loss, bound = elbo(model, X, None, points(1, 2), 2, weights)
        slopes = [float(g.abs().max()) for g in torch.autograd.grad(loss.mean(), free)]
        collapsed = beta * s**2 >= SIGMA**2
        assert (max(slopes) < 1e-9) == (at_rest or collapsed)
    parts = oracles.affine_fixed(MU, SIGMA, s, beta)
    assert mean(bound.value) == pytest.approx(oracles.affine_bound(MU, SIGMA, **parts), abs=1e-9)


def data(size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (N, D), and the eigenvalues and eigenvectors of their covariance, largest first."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, size, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(size, size, generator=generator).double() + 3
    eigenvalues, vectors = torch.linalg.eigh(x.T.cov(correction=0))
    return x, eigenvalues.flip(0), vectors.flip(1)


def with_best_encoder(w: Tensor, mu: Tensor, variance: float) -> VAE:
    """V = M⁻¹Wᵀ and δ_i = σ²/M_ii: the best q with a diagonal covariance."""
    m = w.mT @ w + variance * torch.eye(w.shape[1]).double()
    v = torch.linalg.solve(m, w.mT)
    log_t = 0.5 * (variance / m.diagonal()).log()
    return linear_vae(v, -v @ mu, log_t, w, mu, math.sqrt(variance))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_probabilistic_pca_is_a_maximum_of_the_bound_of_the_linear_vae(k):
    x, eigenvalues, vectors = data()
    variance, nats = oracles.linear_optimum(eigenvalues, k)
    w = vectors[:, :k] * (eigenvalues[:k] - variance).sqrt()
    bound, slope = exact(with_best_encoder(w, x.mean(0), variance), x)
    assert mean(bound.value) == pytest.approx(nats, abs=1e-9)
    assert slope < 1e-9
    # Turned, it is the same density, and a worse bound: the codes are no longer independent.
    turn = torch.linalg.qr(
        torch.randn(k, k, generator=torch.Generator().manual_seed(2)).double()
    ).Q
    turned, _ = exact(with_best_encoder(w @ turn, x.mean(0), variance), x)
    lost = oracles.linear_gap(w @ turn, variance)
    assert mean(turned.value) == pytest.approx(nats - lost, abs=1e-9)
    assert (lost > 1e-4) == (k > 1)


@pytest.mark.parametrize("active", [0, 1, 3])
def test_with_sigma_given_latents_below_it_are_at_rest_where_they_are_off(active):
    x, eigenvalues, vectors = data()
    k = 3
    variance = float(eigenvalues[active]) * 1.2 if active < k else float(eigenvalues[k]) * 0.8
    w = vectors[:, :k] * (eigenvalues[:k] - variance).clamp_min(0).sqrt()
    model = with_best_encoder(w, x.mean(0), variance)
    for parameter in model.likelihood.parameters():
        parameter.requires_grad_(False)
    loss, bound = elbo(model, x, None, points(k, len(x)), 2 * k, UNWEIGHTED)
    nats = oracles.linear_fixed(eigenvalues, k, variance)
    assert mean(bound.value) == pytest.approx(nats, abs=1e-9)
    rates = bound.details["kl"].detach().mean(0)
    assert int((rates > 1e-9).sum()) == active
    free = [p for p in model.parameters() if p.requires_grad]
    assert max(float(g.abs().max()) for g in torch.autograd.grad(loss.mean(), free)) < 1e-9


@pytest.mark.parametrize("k", [2, 3])
def test_any_decoder_with_its_best_encoder_has_the_known_gap(k):
    x, _, _ = data()
    generator = torch.Generator().manual_seed(k)
    w = torch.randn(x.shape[1], k, generator=generator, dtype=torch.float64)
    bound, _ = exact(with_best_encoder(w, x.mean(0), 0.5), x)
    covariance = w @ w.mT + 0.5 * torch.eye(len(w)).double()
    gap = oracles.gaussian_log_prob(x, x.mean(0), covariance) - bound.value.detach()
    torch.testing.assert_close(
        gap, torch.full_like(gap, oracles.linear_gap(w, 0.5)), atol=1e-9, rtol=1e-9
    )
