"""Closed-form KLs over their registry: Monte Carlo, torch, rounding; and the full Gaussian."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import distributions as td

from lowerbound.distributions import (
    KLS,
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiagonalGaussian,
    FullGaussian,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Poisson,
    Product,
    ProductDistribution,
    Real,
    StudentT,
    Support,
    kl,
    kl_full_gaussian,
    kl_gaussian,
)
from lowerbound.errors import InputError
from tests.distributions.families import SUPPORTS, head, moved, raw_outputs

AS_TORCH = {
    DiagonalGaussian: lambda q: td.Normal(q.loc, q.log_scale.exp()),
    FullGaussian: lambda q: td.MultivariateNormal(q.loc, scale_tril=q.scale_tril),
    Laplace: lambda q: td.Laplace(q.loc, q.log_scale.exp()),
    Bernoulli: lambda q: td.Bernoulli(logits=q.logits),
    ContinuousBernoulli: lambda q: td.ContinuousBernoulli(logits=q.logits),
    Categorical: lambda q: td.Categorical(logits=q.logits),
    Poisson: lambda q: td.Poisson(q.mean),
    StudentT: lambda q: td.StudentT(q.df, q.loc, q.log_scale.exp()),
    NegativeBinomial: lambda q: td.NegativeBinomial(
        q.log_total_count.exp(), logits=q.log_mean - q.log_total_count
    ),
}


def full_gaussian(num: int, seed: int, dims: int = 3) -> FullGaussian:
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(1, dims, generator=generator, dtype=torch.float64)
    root = torch.randn(1, dims, dims, generator=generator, dtype=torch.float64)
    q = FullGaussian.from_covariance(loc, root @ root.mT + 0.3 * torch.eye(dims))
    return FullGaussian(q.loc.expand(num, -1), q.scale_tril.expand(num, -1, -1))


@cache
def maker(family) -> tuple[type[Likelihood], Support]:
    """A likelihood, with its support, that makes distributions of a family."""
    for cls in LIKELIHOODS.values():
        for support in SUPPORTS:
            if isinstance(support, cls.supports) and not isinstance(support, Product):
                likelihood = head(cls, support)
                if type(likelihood(raw_outputs(likelihood, 1))) is family:
                    return cls, support
    raise AssertionError(f"no likelihood makes a {family.__name__}: give the test an example")


def example(family, num: int, seed: int, shift: float = 0.0):
    """``num`` equal distributions of a family over events of three elements, in float64."""
    if family is FullGaussian:
        q = full_gaussian(num, seed)
        return FullGaussian(q.loc + shift, q.scale_tril)
    if family is ProductDistribution:
        names = ("gaussian", "bernoulli", "categorical", "laplace", "poisson", "auto")
        likelihood = LIKELIHOODS["product"]((6,), SUPPORTS[-1], columns=names)
        likelihood = moved(likelihood, seed).double()
        return likelihood(raw_outputs(likelihood, 1, seed=seed).double().expand(num, -1) + shift)
    cls, support = maker(family)
    likelihood = head(cls, support, learned=seed).double()
    raw = raw_outputs(likelihood, 1, seed=seed).double().expand(num, -1)
    return likelihood(raw + shift * torch.linspace(0.5, 1, raw.shape[1]))


def in_float32(q):
    return type(q)(**{k: v.float() if torch.is_tensor(v) else v for k, v in q.__dict__.items()})


@pytest.mark.parametrize("family", KLS)
def test_the_kl_is_the_mean_of_the_log_ratio(family):
    q, p = example(family, 1, seed=1), example(family, 1, seed=2)
    x = example(family, 100_000, seed=1).sample(torch.Generator().manual_seed(3)).double()
    ratio = (q.log_prob(x) - p.log_prob(x)).detach()
    exact = kl(q, p)
    assert exact.shape == (1,)
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert float(exact.detach()) == pytest.approx(float(ratio.mean()), abs=4 * error)
    assert float(exact.detach()) > 10 * error  # else the comparison says little


@pytest.mark.parametrize("family", AS_TORCH)
def test_log_prob_and_kl_agree_with_torch(family):
    q, p = example(family, 4, seed=1), example(family, 4, seed=2)
    x = q.sample(torch.Generator().manual_seed(3)).double()
    torch_q, torch_p = AS_TORCH[family](q), AS_TORCH[family](p)
    torch.testing.assert_close(
        q.log_prob(x), torch_q.log_prob(x).reshape(4, -1).sum(1), rtol=1e-6, atol=1e-6
    )
    if family in KLS:
        exact = td.kl_divergence(torch_q, torch_p).reshape(4, -1).sum(1)
        torch.testing.assert_close(kl(q, p), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", KLS)
def test_the_kl_of_a_distribution_to_itself_is_zero_and_its_gradient_too(family):
    q = example(family, 2, seed=1)
    torch.testing.assert_close(kl(q, q), torch.zeros(2, dtype=torch.float64))
    if family is ProductDistribution:
        return
    name = next(k for k, v in q.__dict__.items() if torch.is_tensor(v))
    leaf = q.__dict__[name].detach().clone().requires_grad_()
    moved = type(q)(**{**q.__dict__, name: leaf})
    kl(moved, q).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.zeros_like(leaf), atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", [f for f in KLS if f is not ProductDistribution])
@pytest.mark.parametrize("shift", [1e-3, 0.03, 0.3])
def test_the_kl_in_float32_does_not_cancel_next_to_itself(family, shift):
    q, p = in_float32(example(family, 1, 1)), in_float32(example(family, 1, 1, shift))
    as_double = lambda d: type(d)(  # noqa: E731
        **{k: v.double() if torch.is_tensor(v) else v for k, v in d.__dict__.items()}
    )
    exact = float(kl(as_double(q), as_double(p)).detach())
    assert exact > 0
    # The continuous Bernoulli alone has a difference of normalisers in it.
    slack = 3e-7 if family is ContinuousBernoulli else 0
    assert float(kl(q, p).detach()) == pytest.approx(exact, rel=3e-3, abs=slack)


@pytest.mark.parametrize("family", [Bernoulli, Categorical, Poisson])
def test_the_kl_is_finite_where_probabilities_underflow(family):
    for a, b in ((-200.0, 300.0), (300.0, -200.0), (-200.0, -300.0)):
        one, two = torch.tensor([[a, 0.0]]), torch.tensor([[b, 0.0]])
        if family is Poisson:
            one, two = one.clamp_max(80), two.clamp_max(80)
        events = 0 if family is Categorical else 1
        one, two = one.requires_grad_(), two.requires_grad_()
        value = kl(family(one, events), family(two, events))
        value.sum().backward()
        assert all(t.isfinite().all() for t in (value, one.grad, two.grad))
        assert (value >= 0).all()


def test_two_families_or_one_without_a_closed_form_are_refused():
    q = example(Bernoulli, 1, 0)
    student = example(StudentT, 1, 0)
    for pair in ((q, example(Poisson, 1, 0)), (student, student)):
        with pytest.raises(InputError, match=r"'q and p' must be two distributions .*; estimate"):
            kl(*pair)


def test_the_full_gaussian_contains_the_diagonal_and_the_isotropic_one():
    q, p = example(DiagonalGaussian, 5, 1), example(DiagonalGaussian, 5, 2)
    full_q, full_p = (
        FullGaussian(d.loc, torch.diag_embed(d.log_scale.expand_as(d.loc).exp())) for d in (q, p)
    )
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(full_q.log_prob(x), q.log_prob(x))
    torch.testing.assert_close(full_q.entropy(), q.entropy())
    torch.testing.assert_close(full_q.rsample(x), q.rsample(x))
    torch.testing.assert_close(kl_full_gaussian(full_q, full_p), kl_gaussian(q, p).sum(-1))
    torch.testing.assert_close(kl_full_gaussian(full_q), kl_gaussian(q).sum(-1))
    variance, d = 0.49, 3
    isotropic = FullGaussian(q.loc, 0.7 * torch.eye(d, dtype=torch.float64))
    formula = 0.5 * (d * variance + q.loc.square().sum(-1) - d - d * math.log(variance))
    torch.testing.assert_close(kl_full_gaussian(isotropic), formula)


def test_a_full_gaussian_has_the_covariance_that_it_was_made_from():
    q = full_gaussian(1, seed=0)
    assert torch.equal(q.scale_tril, q.scale_tril.tril())
    assert (q.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    torch.testing.assert_close(q.scale_tril, torch.linalg.cholesky(q.covariance))
    values, vectors = torch.linalg.eigh(q.covariance)
    again = FullGaussian.from_eigen(q.loc, values, vectors)
    torch.testing.assert_close(again.scale_tril, q.scale_tril)
    noise = torch.randn(200_000, 1, 3, generator=torch.Generator().manual_seed(1)).double()
    z = q.rsample(noise)[:, 0]
    torch.testing.assert_close(z.mT.cov(), q.covariance[0], rtol=0.02, atol=0.02)
    torch.testing.assert_close(q.entropy(), AS_TORCH[FullGaussian](q).entropy())
    draws = full_gaussian(100_000, 0).sample(torch.Generator().manual_seed(2))
    torch.testing.assert_close(draws.mT.cov(), q.covariance[0], rtol=0.03, atol=0.03)
    assert q.support == Real()
    assert not q.detach().scale_tril.requires_grad


def test_a_nearly_singular_covariance_keeps_its_factor():
    direction = torch.ones(4, 1, dtype=torch.float64) / 2
    covariance = direction @ direction.mT + 1e-13 * torch.eye(4, dtype=torch.float64)
    q = FullGaussian.from_covariance(torch.zeros(4, dtype=torch.float64), covariance)
    torch.testing.assert_close(q.covariance, covariance, atol=1e-15, rtol=0)


def test_a_matrix_that_is_no_covariance_is_refused_with_the_remedy():
    loc = torch.zeros(2)
    with pytest.raises(InputError, match="'covariance' must be symmetric"):
        FullGaussian.from_covariance(loc, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    for last in (0.0, -1.0):
        with pytest.raises(InputError, match=r"positive definite, got a smallest .*; add a small"):
            FullGaussian.from_covariance(loc, torch.diag(torch.tensor([1.0, last])))


def test_log_prob_and_kl_of_a_full_gaussian_broadcast_over_leading_axes():
    q, p = full_gaussian(4, 1), full_gaussian(1, 2)
    x = torch.randn(7, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert q.log_prob(x).shape == (7, 4)
    torch.testing.assert_close(q.log_prob(x)[2], q.log_prob(x[2]))
    assert kl_full_gaussian(q, p).shape == (4,)
