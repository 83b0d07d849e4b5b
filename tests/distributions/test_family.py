"""Every registered likelihood: normalisation, moments, refusals, extreme heads, precision."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.distributions import LIKELIHOODS, Binary, Discrete, Real, default_likelihood
from lowerbound.errors import InputError
from tests.oracles import integral

SUPPORTS = [Binary(), Discrete(5), Discrete(256), Real()]
CASES = [
    pytest.param(cls, support, id=f"{name}-{support}")
    for name, cls in LIKELIHOODS.items()
    for support in SUPPORTS
    if isinstance(support, cls.supports)
]


def head(cls, support, event_shape=(3,)):
    return cls(event_shape, support).eval()


def raw_outputs(likelihood, batch: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = likelihood.num_outputs * math.prod(likelihood.event_shape)
    return scale * torch.randn(batch, size, generator=generator)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_probabilities_sum_or_integrate_to_one(cls, support):
    p = head(cls, support, (1,))(raw_outputs(head(cls, support, (1,)), 1).double())
    if isinstance(support, Real):
        grid = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
        assert integral(p.log_prob(grid.unsqueeze(-1)).exp(), grid) == pytest.approx(1, abs=1e-9)
    else:
        values = torch.arange(support.levels, dtype=torch.float64).unsqueeze(-1)
        assert float(p.log_prob(values).logsumexp(0)) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_draws_have_the_mean_and_the_support(cls, support):
    likelihood = head(cls, support)
    p = likelihood(raw_outputs(likelihood, 1).expand(40_000, -1))
    draws = p.sample(torch.Generator().manual_seed(1))
    assert support.contains(draws)
    draws = draws.double()
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - p.mean[0]).abs() < 5 * error + 1e-6).all()


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_raw_outputs_of_any_size_give_finite_nats_and_gradients(cls, support):
    likelihood = head(cls, support, (1, 4, 4))
    top = 1 if isinstance(support, Binary) else getattr(support, "levels", 256) - 1
    for raw_value in (-1e4, 1e4, 0.0):
        for x_value in (0, top):
            raw = torch.full((2, likelihood.num_outputs * 16), raw_value, requires_grad=True)
            x = torch.full((2, 1, 4, 4), float(x_value))
            value = likelihood(raw, x).log_prob(x)
            value.sum().backward()
            assert value.isfinite().all()
            assert raw.grad.isfinite().all()


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_float32_agrees_with_float64(cls, support):
    likelihood = head(cls, support, (8,))
    raw = raw_outputs(likelihood, 50)
    x = likelihood(raw).sample(torch.Generator().manual_seed(2))
    exact = likelihood.double()(raw.double()).log_prob(x.double())
    rough = likelihood.float()(raw).log_prob(x)
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_log_prob_sums_over_the_event_and_over_nothing_else(cls, support):
    likelihood = head(cls, support, (2, 3))
    raw = raw_outputs(likelihood, 4)
    x = likelihood(raw).sample(torch.Generator().manual_seed(2))
    whole = likelihood(raw).log_prob(x)
    assert whole.shape == (4,)
    single = head(cls, support, (1,))
    by_element = raw.reshape(4, likelihood.num_outputs, 6).movedim(2, 1).reshape(24, -1)
    parts = single(by_element).log_prob(x.reshape(24, 1)).reshape(4, 6).sum(1)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("support", SUPPORTS, ids=str)
def test_a_likelihood_that_does_not_fit_the_support_is_refused_with_a_remedy(name, support):
    cls = LIKELIHOODS[name]
    if isinstance(support, cls.supports):
        assert cls((2,), support).support == support
        return
    with pytest.raises(InputError, match=rf"'likelihood' must be .*{support}.*, got {name}; .+"):
        cls((2,), support)


@pytest.mark.parametrize("support", SUPPORTS, ids=str)
def test_every_support_has_a_default_that_fits(support):
    assert isinstance(support, LIKELIHOODS[default_likelihood(support)].supports)


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_standardised_levels_fill_the_axis_from_minus_one_to_one(levels):
    likelihood = head(LIKELIHOODS["logistic"], Discrete(levels), (1,))
    x = torch.tensor([[0.0], [levels - 1.0]])
    half_bin = 1 / levels
    expected = torch.tensor([[-1 + half_bin], [1 - half_bin]])
    torch.testing.assert_close(likelihood.standardized(x), expected)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_the_logistic_is_the_difference_of_sigmoids_at_the_edges_of_its_bins(levels):
    p = head(LIKELIHOODS["logistic"], Discrete(levels), (1,))(torch.tensor([[0.3, 1.5]]).double())
    k = torch.arange(levels, dtype=torch.float64)
    lower, upper = 2 * k / levels - 1, 2 * (k + 1) / levels - 1
    scale = p.log_scale.exp()[0]
    cdf = lambda edge: torch.sigmoid((edge - p.loc[0]) / scale)  # noqa: E731
    mass = torch.where(k == levels - 1, 1.0, cdf(upper)) - torch.where(k == 0, 0.0, cdf(lower))
    torch.testing.assert_close(p.log_prob(k.unsqueeze(-1)).exp(), mass, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close((k * mass).sum(), p.mean[0, 0])


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_the_mean_is_the_expectation_under_log_prob(cls, support):
    p = head(cls, support, (1,))(raw_outputs(head(cls, support, (1,)), 1).double())
    if isinstance(support, Real):
        grid = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
        expected = integral(grid * p.log_prob(grid.unsqueeze(-1)).exp(), grid)
    else:
        k = torch.arange(support.levels, dtype=torch.float64)
        expected = float((k * p.log_prob(k.unsqueeze(-1)).exp()).sum())
    assert float(p.mean.detach()) == pytest.approx(expected, abs=1e-8)
