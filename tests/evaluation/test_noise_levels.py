"""The bound of a diffusion level by level, in both forms, and its probability flow."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from lowerbound.build import create_model
from lowerbound.distributions import Discrete
from lowerbound.errors import InputError
from lowerbound.evaluation import flow_likelihood, split_by_noise, two_forms
from lowerbound.models.diffusion import Diffusion
from lowerbound.models.ends import LevelsEnd
from lowerbound.noising import alpha, sigma
from lowerbound.schedules import LinearSchedule
from tests.models.gaussian_diffusion import (
    LAMBDA,
    Exact,
    continuous_term,
    optimal_model,
    prior_term,
    reconstruction_term,
    step_term,
)

ENDS = (-6.0, 4.0)


def gaussian_data(num: int, dims: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return math.sqrt(LAMBDA) * torch.randn(num, dims, generator=generator)


@pytest.mark.parametrize(("timesteps", "bins"), [(9, None), (9, 3), (12, 5), (None, 6)])
def test_every_level_costs_what_it_costs(timesteps, bins):
    model, x = optimal_model(LinearSchedule(*ENDS), 2, timesteps=timesteps), gaussian_data(500)
    split = split_by_noise(model, x, num_bins=bins)
    levels = model.schedule.levels(timesteps or 6 + 1)
    if timesteps is None:
        expected = torch.tensor([continuous_term(*pair) for pair in pairwise(levels)])
    else:
        steps = step_term(levels[:-1], levels[1:])
        inside = torch.searchsorted(split.gammas, levels[:-1], right=True) - 1
        expected = torch.zeros(len(split.rates)).double().index_add(0, inside, steps)
    assert split.gammas.shape == (len(split.rates) + 1,)
    assert (split.gammas[0], split.gammas[-1]) == ENDS
    error = (split.rates - 2 * expected) / split.standard_errors
    assert float(error.abs().max()) < 4
    assert split.prior == pytest.approx(2 * prior_term(ENDS[1]), abs=0.01)
    assert split.reconstruction == pytest.approx(2 * reconstruction_term(ENDS[0]), abs=0.2)
    bits = split.bits()
    total = bits["reconstruction"] + sum(bits["steps"]) + bits["prior"]
    assert total == pytest.approx(-split.bound / (2 * math.log(2)))
    assert split.num_examples == 500
    # Nothing says what an error is worth but how far the means of halves of the data are apart.
    kept = split.as_dict()
    assert kept["bound"]["value"] == pytest.approx(split.bound)
    assert sum(kept["rates"]) == pytest.approx(float(split.rates.sum()))
    halves = [split_by_noise(model, half, num_bins=bins) for half in (x[:250], x[250:])]
    for name in ("bound", "reconstruction", "prior"):
        apart = abs(getattr(halves[0], name) - getattr(halves[1], name)) / 2
        assert apart < 4 * kept[name]["standard_error"]
        assert kept[name]["standard_error"] < halves[0].errors[name]


def test_rows_see_their_own_noise_whatever_comes_with_them():
    model, x = optimal_model(LinearSchedule(*ENDS), 2, timesteps=5), gaussian_data(6)
    whole, first = split_by_noise(model, x), split_by_noise(model, x[:3])
    rest = 2 * whole.rates - first.rates  # the mean of the others
    assert not torch.allclose(rest, first.rates)
    assert torch.equal(split_by_noise(model, x[:3]).rates, first.rates)


@pytest.mark.parametrize("learn_variance", [False, True])
def test_both_forms_have_the_known_mean(learn_variance):
    model = optimal_model(LinearSchedule(*ENDS), 1, 0.0, 12, learn_variance)
    forms = two_forms(model, gaussian_data(4000, 1))
    gammas = model.schedule.levels(12)
    diffusion = float(step_term(gammas[:-1], gammas[1:]).sum())
    if learn_variance:
        diffusion = continuous_term(*ENDS)
    expected = reconstruction_term(ENDS[0]) - prior_term(ENDS[1]) - diffusion
    values = [form[0].sum(-1) for form in forms]
    for value in [*values]:
        assert abs(float(value.mean()) - expected) < 4 * float(value.std()) / math.sqrt(4000)
    difference = values[0] - values[1]
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / math.sqrt(4000)
    assert float(difference.var()) > 0.1  # they agree in the mean alone


def test_term_by_term_the_forward_form_varies_more_and_over_a_right_chain_not_at_all():
    model = optimal_model(LinearSchedule(-6.0, 12.0), 1, 0.0, 40, learn_variance=True)
    x = gaussian_data(10, 1)
    forward, after = two_forms(model, x, 300)
    assert forward.shape == after.shape == (300, 10, 41)
    each = [form[..., 1:-1].var(0).mean() for form in (forward, after)]
    assert each[0] > 2 * each[1]
    # A log-weight: of a model that is right it is log p(x), whatever the chain.
    exact = -0.5 * (x[:, 0] ** 2 / LAMBDA + math.log(2 * math.pi * LAMBDA))
    torch.testing.assert_close(forward.sum(-1), exact.expand(300, 10).double(), atol=1e-3, rtol=0)
    assert after.sum(-1).var(0).mean() > 1


def test_the_kl_form_is_the_bound_of_the_model():
    options = {"network": "mlp", "width": 8, "timesteps": 5}
    model = create_model("diffusion", (3,), support="discrete:9", **options).double()
    x = torch.tensor([[0.0, 3.0, 8.0]]).double()
    chains = two_forms(model, x, 4000)[1].sum(-1)
    bound = model.bound(x, num_samples=4000).value.detach()
    assert float(chains.mean()) == pytest.approx(float(bound), rel=0.05)


# --- the probability flow -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rk4", "heun"])
@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_the_flow_gives_the_exact_density(method, mean):
    # The prior is a little wrong where signal is left, and γ_1 is high for that not to matter.
    model = optimal_model(LinearSchedule(-13.0, 16.0), 3, mean)
    x = mean + gaussian_data(40, 3).double()
    steps = {"rk4": 60, "heun": 400}[method]
    found = flow_likelihood(model, x, num_steps=steps, method=method)
    exact = -0.5 * ((x - mean) ** 2 / LAMBDA + math.log(2 * math.pi * LAMBDA)).sum(1)
    torch.testing.assert_close(found.value, exact, atol=1e-3, rtol=0)
    assert found.kind == "estimate"
    assert found.standard_error.isnan().all()


def correlated_model() -> tuple[Diffusion, torch.Tensor]:
    """Diffusion of N(0, Σ), whose denoiser mixes dimensions: a divergence for probes."""
    mix = torch.tensor([[1.0, 0.6, 0.0], [0.6, 0.9, -0.4], [0.0, -0.4, 0.5]]).double()
    covariance = mix @ mix.T / 2

    class Denoiser(nn.Module):
        def forward(self, z, level, extra=None):
            gamma = (-13.0 + level / 1000 * 22).reshape(-1, 1, 1)
            a, s = alpha(gamma), sigma(gamma)
            inverse = torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(3).double())
            return (a * covariance @ inverse @ z.unsqueeze(-1)).squeeze(-1)

    parts = (Denoiser(), LinearSchedule(-13.0, 9.0), Exact(3))
    return Diffusion(*parts, prediction="x").double(), covariance


def test_probes_find_the_divergence_of_what_mixes_dimensions():
    model, covariance = correlated_model()
    x = gaussian_data(20, 3).double()
    found = flow_likelihood(model, x, num_steps=40, num_probes=20)
    normal = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance)
    error = (found.value - normal.log_prob(x)) / found.standard_error
    assert (found.standard_error > 0).all()
    assert float(error.abs().max()) < 5
    same = flow_likelihood(model, x[:2], num_steps=40, num_probes=20)
    torch.testing.assert_close(same.value, found.value[:2])  # by example, not by batch


@pytest.mark.parametrize("levels", [2, 4])
def test_the_flow_gives_the_mass_of_levels(levels):
    """Levels that are all as likely, independent, and a denoiser that knows it: −D log levels."""
    low, high = 2 * math.log(1 / (3 * levels)), 16.0
    grid = 2 * (torch.arange(levels).double() + 0.5) / levels - 1

    class Denoiser(nn.Module):
        def forward(self, z, level, extra=None):
            gamma = (low + level / 1000 * (high - low)).reshape(-1, 1, 1)
            a, s = alpha(gamma), sigma(gamma)
            weights = (-0.5 * ((z.unsqueeze(-1) - a * grid) / s) ** 2).softmax(-1)
            return (weights * grid).sum(-1)

    end = LevelsEnd((3,), Discrete(levels), low)
    model = Diffusion(Denoiser(), LinearSchedule(low, high), end, prediction="x").double()
    x = torch.randint(levels, (20, 3), generator=torch.Generator().manual_seed(0)).double()
    found = flow_likelihood(model, x, num_steps=200)
    exact = torch.full_like(found.value, -3 * math.log(levels))
    torch.testing.assert_close(found.value, exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("support", ["discrete:17", "binary", "real"])
def test_the_flow_of_a_network_is_finite_and_repeats(support):
    model = create_model("diffusion", (4,), support=support, network="mlp", width=8)
    x = torch.ones(3, 4)
    one, two = (flow_likelihood(model, x, num_steps=8, num_probes=2) for _ in range(2))
    assert one.value.isfinite().all()
    assert torch.equal(one.value, two.value)
    assert (one.num_steps, one.num_probes, one.method) == (8, 2, "rk4")
    assert one.dequantisation == ("none" if support == "real" else "q(z_0|x)")


def test_what_does_not_fit_is_refused():
    vae = create_model("vae", (4,), latent_dim=2, width=4)
    model = create_model("diffusion", (4,), network="mlp", width=8)
    x = torch.zeros(2, 4)
    for deed, message in (
        (lambda: split_by_noise(vae, x), "'model' must be a diffusion, got vae"),
        (lambda: two_forms(model, x), "'model' must be a diffusion of T levels"),
        (lambda: flow_likelihood(vae, x), "'model' must be a diffusion, which has"),
        (lambda: flow_likelihood(model, x, num_steps=0), "'num_steps' must be at least 1"),
        (lambda: flow_likelihood(model, x, num_probes=0), "'num_probes' must be at least 1"),
        (lambda: flow_likelihood(model, x, method="euler"), "'method' must be rk4 or heun"),
        (lambda: split_by_noise(optimal_model(timesteps=4), x[:, :1], num_bins=4), "from 1 to 3"),
    ):
        with pytest.raises(InputError, match=message):
            deed()
