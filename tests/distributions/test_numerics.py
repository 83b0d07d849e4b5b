"""Functions that do not cancel, against the plain formula in high precision and against scipy."""

from __future__ import annotations

from decimal import Decimal, getcontext

import pytest
import torch
from scipy import special, stats

from lowerbound.distributions import (
    ContinuousBernoulli,
    ContinuousBernoulliLikelihood,
    DiagonalGaussian,
    Discrete,
    LogisticLikelihood,
    LogisticMixture,
    LogisticMixtureLikelihood,
    NegativeBinomial,
    Poisson,
    StudentT,
    Unit,
    ZeroInflated,
)
from lowerbound.distributions.continuous_bernoulli import langevin, log_sinhc
from lowerbound.distributions.logistic import DiscretizedLogistic
from lowerbound.distributions.numerics import deviance, excess, gamma_half_step, stirling_error

getcontext().prec = 60
SIZES = [1e-8, 1e-4, 0.003, 0.019, 0.021, 0.29, 0.31, 1.0, 5.0, 30.0]
SIGNED = [sign * size for size in SIZES for sign in (1, -1)]


def exact_sinhc(h: float) -> Decimal:
    d = Decimal(h)
    return ((d.exp() - (-d).exp()) / (2 * d)).ln()


def exact_langevin(h: float) -> Decimal:
    d = Decimal(h)
    return (d.exp() + (-d).exp()) / (d.exp() - (-d).exp()) - 1 / d


EXACT = {
    excess: lambda u: Decimal(u).exp() - 1 - Decimal(u),
    log_sinhc: exact_sinhc,
    langevin: exact_langevin,
}


@pytest.mark.parametrize("function", EXACT)
@pytest.mark.parametrize("value", SIGNED)
def test_a_stable_form_is_the_plain_formula_of_sixty_digits(function, value):
    expected = float(EXACT[function](value))
    given = torch.tensor(value, dtype=torch.float64)
    assert float(function(given)) == pytest.approx(expected, rel=1e-10, abs=0)
    in_float32 = float(torch.tensor(value, dtype=torch.float32))
    expected = float(EXACT[function](in_float32))
    assert float(function(given.float())) == pytest.approx(expected, rel=3e-5, abs=0)


@pytest.mark.parametrize("function", EXACT)
def test_a_stable_form_has_its_derivative_on_both_sides_of_the_seam(function):
    given = torch.tensor([*SIGNED[2:-2], 0.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (given,), eps=1e-7, rtol=1e-4, atol=1e-5)
    (slope,) = torch.autograd.grad(log_sinhc(given).sum(), given)
    torch.testing.assert_close(slope, langevin(given), rtol=1e-8, atol=1e-12)


def test_the_excess_can_be_differentiated_twice():
    given = torch.tensor([-2.0, 0.0, 0.01, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(excess, (given,))


def test_the_deviance_is_the_same_by_either_branch_and_at_underflow():
    a, b = torch.meshgrid(torch.linspace(0.1, 5, 30), torch.linspace(0.1, 5, 30), indexing="ij")
    a, b = a.double(), b.double()
    expected = b - a - a * (b / a).log()
    torch.testing.assert_close(deviance(a.log(), b.log()), expected, rtol=1e-9, atol=1e-12)
    assert float(deviance(torch.tensor(-200.0), torch.tensor(0.0))) == pytest.approx(1.0)


@pytest.mark.parametrize("value", [1e-3, 0.5, 3.0, 15.9, 16.1, 1e3, 1e8])
def test_gamma_functions_keep_what_stirling_leaves_out(value):
    x = torch.tensor(value, dtype=torch.float64)
    plain = special.gammaln(value + 0.5) - special.gammaln(value)
    assert float(gamma_half_step(x)) == pytest.approx(plain, rel=1e-7)
    leading = (value + 0.5) * Decimal(value).ln().__float__() - value + 0.9189385332046727
    if value < 100:  # beyond, scipy's own logarithm has too few digits
        assert float(stirling_error(x)) == pytest.approx(
            special.gammaln(value + 1) - leading, abs=1e-13
        )
    else:
        assert float(stirling_error(x)) == pytest.approx(1 / (12 * value), rel=1e-6)


RATES = [1e-3, 0.7, 40.0, 3e3, 1e6]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_counts_of_any_size_keep_their_digits(rate, dtype):
    tolerance = 1e-6 if dtype == torch.float64 else 4e-3
    log_rate = torch.tensor(rate).log().to(dtype)
    shown = float(log_rate.double().exp())
    deviations = torch.tensor([-2.0, 0.0, 1.0, 3.0]) * max(rate, 1) ** 0.5
    x = (rate + deviations).round().clamp_min(0)
    got = Poisson(log_rate, 0).log_prob(x.to(dtype)).double().numpy()
    assert got == pytest.approx(stats.poisson(shown).logpmf(x.double().numpy()), abs=tolerance)
    for r in (0.05, 2.0, 1e3, 1e6):
        log_r = torch.tensor(r).log().to(dtype)
        shown_r = float(log_r.double().exp())
        oracle = stats.nbinom(shown_r, shown_r / (shown_r + shown))
        got = NegativeBinomial(log_rate, log_r, 0).log_prob(x.to(dtype)).double().numpy()
        assert got == pytest.approx(oracle.logpmf(x.double().numpy()), abs=tolerance)


def test_a_negative_binomial_of_many_counts_is_a_poisson():
    log_mean, x = torch.tensor(1.3).double(), torch.arange(20).double()
    wide = NegativeBinomial(log_mean, torch.tensor(25.0).double(), 0).log_prob(x)
    torch.testing.assert_close(wide, Poisson(log_mean, 0).log_prob(x), atol=1e-7, rtol=0)


def test_a_student_t_of_many_degrees_is_a_gaussian_and_of_one_has_the_tails_of_cauchy():
    x = torch.linspace(-4, 4, 9, dtype=torch.float64).unsqueeze(-1)
    zero = torch.zeros(1, dtype=torch.float64)
    student = StudentT(zero, zero, torch.tensor(1e9).double()).log_prob(x)
    torch.testing.assert_close(
        student, DiagonalGaussian(zero, zero).log_prob(x), rtol=1e-6, atol=0
    )
    cauchy = StudentT(zero, zero, torch.ones(1).double()).log_prob(x)
    assert cauchy.numpy() == pytest.approx(stats.cauchy.logpdf(x[:, 0].numpy()), rel=1e-10)


def test_a_continuous_bernoulli_of_logit_zero_is_uniform_and_its_mean_is_no_sigmoid():
    uniform = ContinuousBernoulli(torch.zeros(1))
    assert float(uniform.log_prob(torch.tensor([0.3]))) == 0.0
    assert float(uniform.mean) == 0.5
    tilted = ContinuousBernoulli(torch.tensor([2.0]))
    assert float(tilted.mean) == pytest.approx(1 / (1 - 2.718281828459045**-2) - 0.5)
    for logit in (0.0, 1e-9, -1e-9):
        near = ContinuousBernoulli(torch.full((1000,), logit))
        assert 0.45 < float(near.sample(torch.Generator().manual_seed(0)).mean()) < 0.55


def test_the_density_of_shares_that_are_all_zero_or_all_one_has_the_ceiling_that_the_notes_say():
    likelihood = ContinuousBernoulliLikelihood((1,), Unit())
    for raw, x in ((1e4, 1.0), (-1e4, 0.0)):
        p = likelihood(torch.tensor([[raw]]))
        assert float(p.log_prob(torch.tensor([[x]])).exp()) == pytest.approx(1000, rel=1e-3)
    assert "at most 1000 per element" in likelihood.notes()[0]


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_the_logistic_is_the_difference_of_sigmoids_at_the_edges_of_its_bins(levels):
    p = LogisticLikelihood((1,), Discrete(levels))(torch.tensor([[0.3, 1.5]]).double())
    k = torch.arange(levels, dtype=torch.float64)
    lower, upper = 2 * k / levels - 1, 2 * (k + 1) / levels - 1
    scale = p.log_scale.exp()[0]
    cdf = lambda edge: torch.sigmoid((edge - p.loc[0]) / scale)  # noqa: E731
    mass = torch.where(k == levels - 1, 1.0, cdf(upper)) - torch.where(k == 0, 0.0, cdf(lower))
    torch.testing.assert_close(p.log_prob(k.unsqueeze(-1)).exp(), mass, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close((k * mass).sum(), p.mean[0, 0])


def test_a_mixture_of_one_is_its_logistic_and_of_equal_ones_too():
    generator = torch.Generator().manual_seed(0)
    loc, log_scale = torch.randn(2, 4, 3, generator=generator)
    single = DiscretizedLogistic(loc, log_scale, 9)
    x = single.sample(generator)
    for num in (1, 4):
        repeated = (t.unsqueeze(-1).expand(4, 3, num) for t in (loc, log_scale))
        logits = torch.randn(4, 3, num, generator=generator)
        mixture = LogisticMixture(logits, DiscretizedLogistic(*repeated, 9, 0))
        torch.testing.assert_close(mixture.log_prob(x), single.log_prob(x))
        torch.testing.assert_close(mixture.mean, single.mean)


def test_the_components_of_a_mixture_start_apart_and_in_the_middle_if_there_is_one():
    for num, expected in ((1, [0.0]), (3, [-0.5, 0.0, 0.5])):
        p = LogisticMixtureLikelihood((1,), Discrete(9), num)(torch.zeros(1, 3 * num))
        torch.testing.assert_close(p.components.loc, torch.tensor([[expected]]))


def test_zeros_by_themselves_are_added_to_those_of_the_counts():
    gate = torch.tensor([0.4])
    inflated = ZeroInflated(gate, Poisson(torch.tensor([0.7]), 0))
    pi, rate = float(torch.sigmoid(gate)), float(torch.exp(torch.tensor(0.7)))
    x = torch.tensor([[0.0], [1.0], [4.0]])
    expected = (1 - pi) * stats.poisson(rate).pmf(x[:, 0].numpy())
    expected[0] += pi
    assert inflated.log_prob(x).exp().numpy() == pytest.approx(expected, rel=1e-5)
    assert float(inflated.mean) == pytest.approx((1 - pi) * rate)
