"""Every registered likelihood: normalisation, moments, refusals, extreme heads, precision."""

from __future__ import annotations

import math
import typing

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.distributions import (
    LIKELIHOODS,
    Counts,
    Discrete,
    Product,
    Real,
    default_likelihood,
    make_likelihood,
)
from lowerbound.errors import InputError
from lowerbound.models import VAEOptions
from tests.distributions.families import (
    CASES,
    ELEMENTS,
    SUPPORTS,
    extremes,
    head,
    num_draws,
    outside,
    quadrature,
    raw_outputs,
)


@pytest.mark.parametrize(("cls", "support"), ELEMENTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_sum_or_integrate_to_one_and_the_mean_is_their_expectation(
    cls, support, seed
):
    likelihood = head(cls, support, (1,)).double()
    p = likelihood(raw_outputs(likelihood, 1, seed=seed).double())
    values, weights = quadrature(support)
    weighted = weights * p.log_prob(values.unsqueeze(-1)).exp()
    assert float(weighted.detach().sum()) == pytest.approx(1, abs=1e-8)
    expected = float((values * weighted).detach().sum())
    assert float(p.mean.detach()) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_draws_have_the_mean_and_the_support(cls, support):
    likelihood = head(cls, support)
    p = likelihood(raw_outputs(likelihood, 1).expand(num_draws(likelihood, 40_000), -1))
    draws = p.sample(torch.Generator().manual_seed(1))
    assert support.contains(draws)
    assert str(p.support) == str(likelihood.support) or support.levels == p.support.levels
    assert not draws.requires_grad
    draws = draws.double()
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - p.mean[0]).abs() < 5 * error + 1e-6).all()


@pytest.mark.parametrize(("cls", "support"), ELEMENTS)
def test_draws_have_the_spread_and_the_lower_half_that_log_prob_says(cls, support):
    likelihood = head(cls, support, (1,)).double()
    raw = raw_outputs(likelihood, 1).double()
    p = likelihood(raw)
    values, weights = quadrature(support)
    weighted = (weights * p.log_prob(values.unsqueeze(-1)).exp()).detach()
    many = raw.expand(num_draws(likelihood, 100_000), -1)
    draws = likelihood(many).sample(torch.Generator().manual_seed(1)).double()
    mean = float(p.mean.detach())
    for f in (lambda x: (x - mean).abs(), lambda x: (x <= mean).double()):
        seen = f(draws)
        error = float(seen.std()) / math.sqrt(len(seen)) + 1e-6
        assert float(seen.mean()) == pytest.approx(
            float((f(values) * weighted).sum()), abs=5 * error
        )


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_draws_repeat_with_their_generator_and_leave_the_global_state_alone(cls, support):
    likelihood = head(cls, support)
    p = likelihood(raw_outputs(likelihood, 5))
    state = torch.get_rng_state()
    one, two = (p.sample(torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_raw_outputs_of_any_size_give_finite_nats_and_gradients(cls, support):
    likelihood = head(cls, support, (1, 4, 4))
    size = likelihood.num_outputs * math.prod(likelihood.event_shape)
    alternating = torch.tensor([1e4, -1e4]).repeat(size)[: 2 * size].reshape(2, size)
    raws = [torch.full((2, size), value) for value in (-1e4, 1e4, 0.0)]
    raws += [alternating, raw_outputs(likelihood, 2, scale=1e4)]
    for raw in raws:
        for parameter in likelihood.parameters():  # learned scales can run away as well
            parameter.data.fill_(float(raw.flatten()[0]))
            parameter.grad = None
        for value in extremes(support):
            leaf = raw.clone().requires_grad_()
            x = torch.full((2, *likelihood.event_shape), value)
            nats = likelihood(leaf, x).log_prob(x)
            nats.sum().backward()
            assert nats.isfinite().all()
            assert leaf.grad.isfinite().all()
            assert all(parameter.grad.isfinite().all() for parameter in likelihood.parameters())


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_float32_agrees_with_float64(cls, support):
    likelihood = head(cls, support, (8,))
    for scale in (1.0, 3.0):
        raw = raw_outputs(likelihood, 50, scale)
        x = likelihood.float()(raw).sample(torch.Generator().manual_seed(2))
        exact = likelihood.double()(raw.double()).log_prob(x.double())
        rough = likelihood.float()(raw).log_prob(x)
        assert rough.dtype == torch.float32
        torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_gradients_are_those_of_finite_differences(cls, support):
    likelihood = head(cls, support, (2,)).double()
    raw = raw_outputs(likelihood, 2, seed=5).double()
    x = likelihood(raw).sample(torch.Generator().manual_seed(2)).double()
    x = x + 0.001 * (x == x.round()) if isinstance(support, Real) else x
    leaf = raw.requires_grad_()
    assert torch.autograd.gradcheck(lambda r: likelihood(r).log_prob(x), (leaf,), atol=1e-4)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_networks_of_half_precision_end_at_the_head(cls, support):
    likelihood = head(cls, support)
    raw = raw_outputs(likelihood, 2).bfloat16()
    x = likelihood(raw).sample(torch.Generator().manual_seed(2))
    nats = likelihood(raw).log_prob(x)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, likelihood(raw.float()).log_prob(x))


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_log_prob_sums_over_the_event_and_over_nothing_else(cls, support):
    likelihood = head(cls, support, (2, 3), learned=None)
    raw = raw_outputs(likelihood, 4)
    x = likelihood(raw).sample(torch.Generator().manual_seed(2))
    whole = likelihood(raw).log_prob(x)
    assert whole.shape == (4,)
    many = likelihood(raw).log_prob(x.expand(7, *x.shape))
    torch.testing.assert_close(many, whole.expand(7, 4))
    if isinstance(support, Product):  # its columns are told apart in their own test
        return
    single = head(cls, support, (1,), learned=None)
    by_element = raw.reshape(4, likelihood.num_outputs, 6).movedim(2, 1).reshape(24, -1)
    parts = single(by_element).log_prob(x.reshape(24, 1)).reshape(4, 6).sum(1)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_data_outside_the_support_are_refused_and_nothing_is_measured(cls, support):
    likelihood = head(cls, support)
    before = {key: value.clone() for key, value in likelihood.state_dict().items()}
    good = torch.zeros(4, *likelihood.event_shape)
    likelihood.check(good)
    part = support.parts[-1] if isinstance(support, Product) else support
    for bad in outside(part):
        x = good.clone()
        x[-1, -1] = bad
        for measure in (likelihood.check, likelihood.calibrate):
            with pytest.raises(InputError, match=rf"'x' must be {support} data, got .*; declare"):
                measure(x)
    assert all(torch.equal(value, before[key]) for key, value in likelihood.state_dict().items())


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_networks_see_numbers_of_order_one(cls, support):
    likelihood = head(cls, support, (2, 3))
    raw = raw_outputs(likelihood, 1).expand(1000, -1)
    draws = likelihood(raw).sample(torch.Generator().manual_seed(0))
    if isinstance(support, Real | Counts):
        draws = 30 * draws + (1000 if isinstance(support, Real) else 0)
    likelihood.calibrate(draws)
    seen = likelihood.standardized(draws)
    assert seen.shape == draws.shape
    assert seen.dtype == torch.float32
    if isinstance(support, Real | Counts):
        torch.testing.assert_close(seen.mean((0, 2)), torch.zeros(2), atol=1e-3, rtol=0)
        spread = seen.std((0, 2), correction=0)
        torch.testing.assert_close(spread, torch.ones(2), atol=1e-3, rtol=0)
    elif not isinstance(support, Product):
        assert seen.abs().max() <= 1


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_a_decoder_that_says_nothing_starts_at_the_data(cls, support):
    if not isinstance(support, Real | Counts) and support != SUPPORTS[-2]:
        return  # their axis is known beforehand
    likelihood = head(cls, support, (2,), learned=None)
    shape = (400, *likelihood.event_shape)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 1000
    x[..., -1] /= 100
    x = x if isinstance(support, Real) else x.round()
    likelihood.calibrate(x)
    p = likelihood(torch.zeros(1, likelihood.num_outputs * shape[1]))
    mean = p.counts.mean if hasattr(p, "counts") else p.mean
    torch.testing.assert_close(mean[0], x.mean(0), rtol=3e-3, atol=3e-3)
    if not isinstance(support, Real):  # a column that was never above zero
        likelihood.calibrate(torch.zeros_like(x))
        nats = likelihood(torch.zeros(400, likelihood.num_outputs * shape[1])).log_prob(x)
        assert nats.isfinite().all()


def test_networks_see_the_logarithm_of_counts_so_that_a_long_tail_is_tame():
    likelihood = make_likelihood((1,), Counts())
    x = torch.tensor([0.0, 1.0, 3.0, 2.0**20 - 1]).unsqueeze(-1)
    likelihood.calibrate(x)
    bits = torch.tensor([0.0, 1.0, 2.0, 20.0]).unsqueeze(-1)
    expected = (bits - bits.mean()) / bits.std(correction=0)
    torch.testing.assert_close(likelihood.standardized(x), expected)


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_standardised_levels_fill_the_axis_from_minus_one_to_one(levels):
    likelihood = head(LIKELIHOODS["logistic"], Discrete(levels), (1,))
    x = torch.tensor([[0.0], [levels - 1.0]])
    half_bin = 1 / levels
    expected = torch.tensor([[-1 + half_bin], [1 - half_bin]])
    torch.testing.assert_close(likelihood.standardized(x), expected)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("support", SUPPORTS, ids=lambda support: str(support)[:12])
def test_a_likelihood_that_does_not_fit_the_support_is_refused_with_a_remedy(name, support):
    cls = LIKELIHOODS[name]
    if isinstance(support, cls.supports):
        assert head(cls, support).support == support
        return
    known = default_likelihood(support)
    with pytest.raises(
        InputError,
        match=rf"'likelihood' must be .*{support}.*, got {name}; use {known}, or .*--\w+",
    ):
        head(cls, support)


@pytest.mark.parametrize("support", SUPPORTS, ids=str)
def test_every_support_has_a_default_that_fits(support):
    assert isinstance(support, LIKELIHOODS[default_likelihood(support)].supports)


@pytest.mark.parametrize(("cls", "support"), CASES)
def test_a_vae_of_every_likelihood_has_a_finite_bound_and_gradients(cls, support):
    shape = (len(support.parts),) if isinstance(support, Product) else (3,)
    options = {"latent_dim": 2, "width": 8, "likelihood": cls.name}
    model = create_model("vae", shape, support=support, **options)
    x = model.sample(6, generator=torch.Generator().manual_seed(0))
    model.check(x)
    value = model.bound(x).value
    (-value).mean().backward()
    assert value.shape == (6,)
    assert value.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_options_of_the_vae_name_every_likelihood():
    names = typing.get_args(typing.get_type_hints(VAEOptions)["likelihood"])
    assert names == ("auto", *LIKELIHOODS)


def test_an_option_that_a_likelihood_does_not_take_is_refused_by_name():
    for option, value in (("sigma", "scalar"), ("components", 3), ("columns", ("auto",))):
        with pytest.raises(InputError, match=f"'{option}' must be left out for a logistic"):
            make_likelihood((3,), Discrete(5), **{option: value})
    with pytest.raises(InputError, match=r"'likelihood' must be one of bernoulli, .*, got normal"):
        make_likelihood((3,), Real(), "normal")
    with pytest.raises(InputError, match="'components' must be at least 1, got 0"):
        make_likelihood((3,), Discrete(5), "logistic-mixture", components=0)


def test_sigma_is_by_dimension_for_vectors_and_one_for_arrays_unless_said():
    assert make_likelihood((3,), Real()).sigma == "dimension"
    assert make_likelihood((1, 3, 3), Real(), "laplace").sigma == "scalar"
    assert make_likelihood((3,), Real(), "student-t", sigma=0.5).sigma == 0.5
    with pytest.raises(InputError, match="'sigma' must be scalar, dimension, decoder or a number"):
        make_likelihood((3,), Real(), "laplace", sigma="optimal")
