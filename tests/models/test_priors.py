"""Priors: densities that are densities, draws that follow them, and parts that fit the VAE."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from lowerbound._random import initialised_by
from lowerbound.build import create_model
from lowerbound.data import Classes, Rows, make_source
from lowerbound.distributions import (
    Binary,
    Counts,
    DiagonalGaussian,
    Discrete,
    FullGaussian,
    Product,
    Real,
    Unit,
)
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate
from lowerbound.models.priors import PriorName, make_prior
from lowerbound.models.priors.mixture import component_log_prob
from lowerbound.objectives import Weights, elbo
from lowerbound.pictures import _has_plane

PRIORS = get_args(PriorName)
LEARNED = [name for name in PRIORS if name != "normal"]
SIZES = {"prior_components": 5, "prior_layers": 4, "flow_width": 16}


def vae(prior: str, latent_dim: int = 2, **options):
    """A small VAE in float64 whose prior has moved away from where it began."""
    model = create_model(
        "vae", (3,), latent_dim=latent_dim, width=8, prior=prior, **SIZES | options
    )
    generator = torch.Generator().manual_seed(1)
    for p in model.double().prior.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return model


def grid(half_width: float, num: int) -> tuple[torch.Tensor, float]:
    """Points of a square around 0 and the area of each."""
    axis = torch.linspace(-half_width, half_width, num, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


@pytest.mark.parametrize("posterior", ["diagonal", "isotropic", "full"])
@pytest.mark.parametrize("prior", PRIORS)
def test_a_density_integrates_to_one(prior, posterior):
    if posterior != "diagonal" and prior != "vamp":
        pytest.skip("only a VampPrior is made of posteriors")
    z, area = grid(14, 801)
    with torch.no_grad():
        log_prob = vae(prior, posterior=posterior).prior.log_prob(z)
    assert float(log_prob.exp().sum()) * area == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize("prior", PRIORS)
def test_draws_fall_where_the_density_is(prior, posterior):
    model, num = vae(prior, posterior=posterior), 200_000
    draws = model.prior.sample(num, None, torch.Generator().manual_seed(0))
    assert draws.shape == (num, 2)
    assert not draws.requires_grad
    side, half = 28, 7.0  # cells of half a unit, each of 20 × 20 points of the grid
    axis = (torch.arange(side * 20, dtype=torch.float64) + 0.5) / (side * 20) * 2 * half - half
    with torch.no_grad():
        density = model.prior.log_prob(torch.cartesian_prod(axis, axis)).exp()
    cells = density.reshape(side, 20, side, 20).mean((1, 3)) * 0.25
    counts, _ = torch.histogramdd(draws, [side, side], range=[-half, half, -half, half])
    expected = cells * num
    often = expected > 25
    assert float(cells[often].sum()) > 0.9
    chi_squared = ((counts - expected).square() / expected)[often].sum()
    assert float(chi_squared) < int(often.sum()) + 5 * math.sqrt(2 * int(often.sum()))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_without_a_closed_form_is_charged_for_the_draws(prior):
    model = vae(prior)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = model.noise(4, 3, torch.Generator().manual_seed(1))
    bound = model.bound(x, noise=noise, num_samples=3)
    q = model.encode(x)
    z = q.rsample(noise["z"])
    paid = (q.log_prob(z) - model.prior.log_prob(z)).mean(0)
    assert torch.equal(bound.rates["kl"], paid) == (prior != "normal")
    assert bool(bound.details) == (prior == "normal")


@pytest.mark.parametrize("prior", LEARNED)
def test_a_prior_learns_where_the_codes_are(prior):
    """Of all its parameters' directions, some raise the bound of codes that are all alike."""
    model = vae(prior)
    x = torch.ones(64, 3, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.prior.parameters(), lr=0.03)
    noise = model.noise(64, 1, torch.Generator().manual_seed(0))
    first = None
    for _ in range(60):
        loss, bound = elbo(model, x, None, noise, 1, Weights())
        first = bound.value.mean().item() if first is None else first
        optimizer.zero_grad()
        loss.mean().backward()
        assert all(p.grad is not None for p in model.prior.parameters())
        optimizer.step()
    assert bound.value.mean().item() > first + 0.1


@pytest.mark.parametrize("prior", ["flow", "autoregressive"])
def test_flows_begin_as_the_standard_normal(prior):
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    normal = make_prior("normal", 6, (3,))
    torch.testing.assert_close(make_prior(prior, 6, (3,)).log_prob(z), normal.log_prob(z))


def test_a_mixture_begins_with_unit_variance():
    with initialised_by(0):
        prior = make_prior("mixture", 3, (3,), num_components=2000)
    draws = prior.sample(100_000, None, torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws.var(0), torch.ones(3), atol=0.06, rtol=0)


@pytest.mark.parametrize("full", [False, True])
def test_products_of_matrices_are_the_densities_of_the_components(full):
    generator = torch.Generator().manual_seed(0)
    loc, z = (torch.randn(n, 3, generator=generator) for n in (4, 6))
    log_scale = torch.randn(4, 3, generator=generator)
    if full:
        below = torch.randn(4, 3, 3, generator=generator).tril(-1)
        p = FullGaussian(loc, torch.diag_embed(log_scale.exp()) + below)
        each = [FullGaussian(p.loc[k], p.scale_tril[k]).log_prob(z) for k in range(4)]
    else:
        p = DiagonalGaussian(loc, log_scale)
        each = [DiagonalGaussian(p.loc[k], p.log_scale[k]).log_prob(z) for k in range(4)]
    torch.testing.assert_close(component_log_prob(p, z), torch.stack(each, -1))
    assert component_log_prob(p, z.reshape(2, 3, 3)).shape == (2, 3, 4)


def test_narrow_components_far_out_keep_their_nats():
    p = DiagonalGaussian(torch.full((1, 40), 30.0), torch.full((1, 40), -6.0))
    z = p.loc + torch.exp(p.log_scale) * torch.randn(
        8, 40, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(component_log_prob(p, z)[:, 0], p.log_prob(z), rtol=1e-5, atol=1e-2)


SUPPORTS = {
    "binary": (Binary(), 0.0, 1.0),
    "levels": (Discrete(9), 0.0, 8.0),
    "shares": (Unit(), 0.0, 1.0),
    "counts": (Counts(), 0.0, math.inf),
    "reals": (Real(), -math.inf, math.inf),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_pseudo_inputs_stay_where_data_can_be(name):
    support, low, high = SUPPORTS[name]
    model = create_model(
        "vae", (3,), support=support, latent_dim=2, width=8, prior="vamp", prior_components=2
    )
    with torch.no_grad():
        model.prior.pseudo_inputs[0] = -1e3
        model.prior.pseudo_inputs[1] = 1e3
    like = model.likelihood.standardized
    inputs = torch.tensor([[low if math.isfinite(low) else 0.0] * 3, [high] * 3])
    seen = like(inputs)
    seen = torch.where(seen.isfinite(), seen, torch.tensor([[-1e3], [1e3]]))
    if not math.isfinite(low):
        seen[0] = -1e3
    torch.testing.assert_close(model.prior.components().loc, model.posterior_given(seen).loc)


def test_pseudo_inputs_of_a_table_stay_in_each_columns_range():
    model = create_model(
        "vae",
        (2,),
        support=Product((Binary(), Real())),
        latent_dim=2,
        width=8,
        prior="vamp",
        prior_components=1,
    )
    with torch.no_grad():
        model.prior.pseudo_inputs.fill_(50.0)
    edge = model.likelihood.standardized(torch.tensor([[1.0, 0.0]]))
    edge[0, 1] = 50.0
    torch.testing.assert_close(model.prior.components().loc, model.posterior_given(edge).loc)


def test_pseudo_inputs_begin_at_training_examples(digits):
    model = create_model("vae", digits, latent_dim=2, width=8, prior="vamp", prior_components=7)
    inputs = model.prior.pseudo_inputs
    examples = model.likelihood.standardized(digits.train[slice(None)][0])
    nearest = torch.cdist(inputs.flatten(1), examples.flatten(1)).min(1)
    assert nearest.values.max() < 1e-2  # of products that cancel
    assert len(set(nearest.indices.tolist())) == 7
    z = torch.zeros(1, 2)
    each = model.encode(digits.train[nearest.indices][0]).log_prob(z)
    exact = each.logsumexp(0) - math.log(7)
    torch.testing.assert_close(model.prior.log_prob(z)[0], exact, rtol=1e-4, atol=1e-4)


def test_the_prior_of_a_copy_looks_through_the_encoder_of_the_copy(digits):
    import copy

    model = create_model("vae", digits, latent_dim=2, width=8, prior="vamp", prior_components=3)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.encoder.last.bias.add_(1.0)
    z = torch.zeros(1, 2)
    assert not torch.equal(other.prior.log_prob(z), model.prior.log_prob(z))
    assert other.prior.owner[0] is other
    assert "prior.pseudo_inputs" in model.state_dict()
    assert not any(name.startswith("prior.owner") for name in model.state_dict())


def test_what_does_not_fit_is_refused_in_one_line():
    few = make_source(Rows(x=torch.randn(30, 3), support=Real(), name="few"))
    with pytest.raises(InputError, match=r"'prior_components' must be at most the \d+ train"):
        create_model("vae", few, latent_dim=2, width=8, prior="vamp", prior_components=31)
    with pytest.raises(InputError, match="'prior' must be another for a posterior of kind iaf"):
        create_model("vae", (3,), posterior="iaf", prior="vamp")
    with pytest.raises(InputError, match="'prior' in the options of model 'cvae' is not valid"):
        create_model("cvae", (3,), context=Classes(2), prior="vamp")
    for name in ("prior_components", "prior_layers", "flow_width", "posterior_steps"):
        with pytest.raises(InputError, match=f"'{name}' must be at least 1, got 0"):
            create_model("vae", (3,), **{name: 0})
    with pytest.raises(InputError, match=r"'prior'.*not valid"):
        create_model("vae", (3,), prior="conditional")


@pytest.mark.parametrize("prior", [p for p in PRIORS if p != "vamp"])
def test_a_conditional_model_takes_a_prior_that_is_the_same_for_every_context(prior):
    model = create_model(
        "cvae", (3,), context=Classes(2), latent_dim=2, width=8, prior=prior, **SIZES
    )
    x, context = torch.zeros(2, 3), torch.tensor([0, 1])
    assert model.bound(x, context).value.isfinite().all()
    assert model.sample(4).shape == (4, 3)


@pytest.mark.parametrize("prior", LEARNED)
def test_free_bits_are_refused_where_there_are_no_parts(prior):
    model = vae(prior)
    x, noise = torch.zeros(2, 3, dtype=torch.float64), model.noise(2, 1)
    with pytest.raises(InputError, match="'free_bits' must be 0 for a model without rates per"):
        elbo(model, x, None, noise, 1, Weights(free_bits=0.1))


@pytest.mark.parametrize("prior", PRIORS)
def test_what_is_read_off_unit_variance_is_left_out_beside_a_learned_prior(prior, digits):
    sizes = {"latent_dim": 2, "width": 8, **SIZES}
    model = create_model("vae", digits, prior=prior, **sizes)
    result = evaluate(model, digits, num_samples=2, max_rows=20, baselines=False)
    assert (result["active_units"] is None) == (prior != "normal")
    assert _has_plane(model) == (prior == "normal")
