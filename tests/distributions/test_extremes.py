"""Distributions at the ends of their parameters: scales of any size, probabilities that are 0."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from scipy import special

from lowerbound.distributions import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Counts,
    Discrete,
    Likelihood,
    Poisson,
    kl,
)
from lowerbound.distributions.logistic import DiscretizedLogistic
from lowerbound.models.classical.components import ComponentMixture, Components, OneHot

LEVELS = 256
DTYPES = [torch.float32, torch.float64]


def exact_log_mass(level: int, loc: float, log_scale: float) -> float:
    """Log of a difference of sigmoids, in as many digits as it takes."""
    with localcontext() as context:
        context.prec = 600
        scale = Decimal(log_scale).exp()

        def below(edge: int) -> Decimal:
            if edge in (0, LEVELS):
                return Decimal(edge // LEVELS)
            at = (Decimal(2 * edge) / LEVELS - 1 - Decimal(loc)) / scale
            return 1 / (1 + (-at).exp())

        return float((below(level + 1) - below(level)).ln())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log_scale", [-6.0, -1.0, 5.0, 30.0, 36.0, 50.0, 87.0, 200.0, 800.0])
def test_a_level_of_a_logistic_of_any_width_has_its_exact_mass(log_scale, dtype):
    for level in (0, 1, 100, LEVELS - 2, LEVELS - 1):
        p = DiscretizedLogistic(torch.tensor([0.25]).to(dtype), torch.tensor(log_scale), LEVELS)
        got = float(p.log_prob(torch.tensor([level], dtype=dtype)))
        tolerance = 1e-4 if dtype == torch.float32 else 1e-6
        expected = exact_log_mass(level, 0.25, log_scale)
        assert got == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log_scale", [-60.0, -100.0, -800.0])
def test_a_logistic_of_no_width_is_all_in_its_level_or_half_in_each_beside_an_edge(
    log_scale, dtype
):
    inside, edge = 100.5 * 2 / LEVELS - 1, 100 * 2 / LEVELS - 1
    x = torch.arange(LEVELS, dtype=dtype).unsqueeze(-1)
    for loc, expected in ((inside, {100: 1.0}), (edge, {99: 0.5, 100: 0.5})):
        parameters = torch.tensor([[loc], [log_scale]], dtype=dtype, requires_grad=True)
        p = DiscretizedLogistic(parameters[0], parameters[1], LEVELS)
        mass = p.log_prob(x).exp().detach()
        wanted = torch.zeros(LEVELS, dtype=dtype)
        wanted[list(expected)] = torch.tensor(list(expected.values()), dtype=dtype)
        torch.testing.assert_close(mass, wanted)
        assert float(p.mean.detach()) == pytest.approx(sum(k * m for k, m in expected.items()))
        p.log_prob(x[100]).sum().backward()
        assert parameters.grad.isfinite().all()


@pytest.mark.parametrize("log_scale", [-100.0, 0.0, 60.0, 200.0])
def test_the_slope_of_the_log_mass_is_finite_and_minus_one_where_it_is_wide(log_scale):
    """A mass of w/4 falls by one nat with every nat of log s."""
    given = torch.tensor([log_scale], requires_grad=True)
    nats = DiscretizedLogistic(torch.zeros(1), given, LEVELS).log_prob(torch.tensor([9.0]))
    nats.sum().backward()
    assert given.grad.isfinite().all()
    if log_scale >= 60:
        assert float(given.grad) == pytest.approx(-1)


@pytest.mark.parametrize("log_scale", [-200.0, 200.0])
def test_draws_of_a_logistic_of_any_width_are_levels(log_scale):
    loc = torch.zeros(100_000)
    draws = DiscretizedLogistic(loc, torch.tensor(log_scale), LEVELS).sample(
        torch.Generator().manual_seed(0)
    )
    assert Discrete(LEVELS).contains(draws)
    # Wide: the open bins at the ends share everything; narrow: the level that begins at 0.
    expected = {0, LEVELS - 1} if log_scale > 0 else {LEVELS // 2}
    assert set(draws.tolist()) == expected


def test_a_logistic_head_reaches_the_locations_where_the_ends_are_certain_and_stops_there():
    """±1000 half-axes: the far end still has a finite score under the widest scale and less."""
    head = LIKELIHOODS["logistic"]((1,), Discrete(LEVELS))
    for raw, shown in ((999.0, 999.0), (-999.0, -999.0), (1e4, 1e3), (-1e4, -1e3)):
        p = head(torch.tensor([[raw, 0.0]]))
        assert float(p.loc) == pytest.approx(shown)


@pytest.mark.parametrize("name", [n for n in LIKELIHOODS if n.startswith("zero-inflated")])
def test_zero_inflated_counts_start_with_few_zeros_by_themselves(name):
    """8 % of them at a raw output of 0, not 92 %: the rate has the data to learn from."""
    head: Likelihood = LIKELIHOODS[name]((2,), Counts())
    p = head(torch.zeros(1, head.num_outputs * 2))
    share = torch.sigmoid(p.gate)
    torch.testing.assert_close(share, torch.full_like(share, special.expit(-2.5)))
    assert float(share.max()) < 0.1


# --- probabilities that are exactly zero ------------------------------------------------------


def some_zero() -> tuple[torch.Tensor, torch.Tensor]:
    q, p = torch.tensor([0.3, 0.7, 0.0, 0.0]), torch.tensor([0.2, 0.3, 0.5, 0.0])
    return q.double(), p.double()


def test_what_q_never_takes_adds_nothing_to_its_divergence():
    q, p = some_zero()
    exact = float(special.rel_entr(q.numpy(), p.numpy()).sum())
    q_logits, p_logits = q.log().requires_grad_(), p.log().requires_grad_()
    divergence = kl(Categorical(q_logits, 0), Categorical(p_logits, 0))
    assert float(divergence.detach()) == pytest.approx(exact)
    divergence.backward()
    for logits in (q_logits, p_logits):
        assert logits.grad.isfinite().all()
    assert float(kl(Categorical(p.log(), 0), Categorical(q.log(), 0))) == math.inf
    assert float(kl(Categorical(q.log(), 0), Categorical(q.log(), 0))) == 0


def test_a_rate_of_zero_is_as_far_from_another_as_the_other_is_large():
    """A Poisson of rate 0 is always 0, which one of rate r is with probability e^-r."""
    none, three = torch.tensor([-math.inf]), torch.tensor([math.log(3.0)])
    assert float(kl(Poisson(none), Poisson(three))) == pytest.approx(3)
    assert float(kl(Poisson(none), Poisson(none))) == 0


def test_a_choice_that_is_never_made_adds_nothing():
    q, _ = some_zero()
    choice = OneHot(q.log())
    assert float(choice.entropy()) == pytest.approx(float(special.entr(q.numpy()).sum()))
    made = torch.nn.functional.one_hot(torch.arange(4), 4).double()
    torch.testing.assert_close(choice.log_prob(made), q.log())


def test_a_component_of_weight_zero_is_as_if_it_were_not_there():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(4, 2, generator=generator).double()
    x = torch.randn(9, 2, generator=generator).double()
    q, _ = some_zero()
    parts = Components(means, torch.ones(4, 2).double())
    fewer = Components(means[:2], torch.ones(2, 2).double())
    whole, part = (
        ComponentMixture(q[None], parts, (2,)),
        ComponentMixture(q[None, :2], fewer, (2,)),
    )
    torch.testing.assert_close(whole.log_prob(x), part.log_prob(x))
    torch.testing.assert_close(whole.mean, part.mean)
    torch.testing.assert_close(whole.choice.entropy(), part.choice.entropy())
    assert whole.choice.log_prob(whole.choice.sample(generator)).isfinite().all()


def test_a_mixture_whose_component_has_no_weight_keeps_its_bound(blobs):
    from lowerbound.build import create_model

    model = create_model("mixture", blobs, components=2)
    model.fit_exactly(blobs)
    wider = create_model("mixture", blobs, components=3)
    for name in ("weights", "means", "scales"):
        values = getattr(model, name)
        spare = torch.zeros_like(values[:1]) if name == "weights" else values[:1]
        getattr(wider, name).copy_(torch.cat([values, spare]))
    x = blobs.test.x
    torch.testing.assert_close(wider.bound(x).value, model.bound(x).value)
    log_weight = wider.log_weight(x, 3)
    expected = model.bound(x).value.expand_as(log_weight)
    torch.testing.assert_close(log_weight, expected)


@pytest.mark.parametrize("logit", [-30.0, -3.0, -1e-3, 0.0, 1e-3, 3.0, 30.0])
def test_a_bernoulli_score_of_grey_values_is_too_low_by_at_least_log_two(logit):
    """By log C(λ): one over the logarithmic mean of λ and 1 − λ, which is at most their half."""
    x = torch.linspace(0, 1, 11).double().unsqueeze(-1)
    given = torch.tensor([logit], dtype=torch.float64)
    short = ContinuousBernoulli(given).log_prob(x) - Bernoulli(given).log_prob(x)
    assert (short >= math.log(2) - 1e-12).all()
    lam = special.expit(logit)
    log_mean = 0.5 if logit == 0 else (2 * lam - 1) / logit
    torch.testing.assert_close(short, torch.full_like(short, -math.log(log_mean)))
