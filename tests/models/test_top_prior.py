"""A learned prior at the top of a hierarchy: one density, whichever way it is reached."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.errors import InputError
from lowerbound.models.levels import drawn, in_units_of
from lowerbound.objectives import OBJECTIVES, Weights

PRIORS = ["mixture", "flow", "autoregressive"]
SIZES = {"hvae": {"latent_dims": (3, 2)}, "ladder": {"levels": 2, "latent_dim": 2}}


@pytest.fixture(params=SIZES)
def kind(request):
    return request.param


@pytest.fixture(params=PRIORS)
def prior(request):
    return request.param


def moved(kind, prior, by=0.3, **sizes):
    """A small hierarchy in float64 whose weights are nowhere zero."""
    options = {"prior_components": 3, "prior_layers": 2, "flow_width": 8, **SIZES[kind], **sizes}
    model = create_model(kind, (4,), width=8, prior=prior, **options).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model.eval()


def examples(num=3):
    return torch.randn(num, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_flow_begins_as_the_gaussian(kind):
    plain, learned = (
        create_model(kind, (4,), width=8, prior=prior, **SIZES[kind])
        for prior in ("normal", "flow")
    )
    x, noise = examples().float(), plain.noise(3, 2, torch.Generator().manual_seed(0))
    one, other = (model.bound(x, noise=noise, num_samples=2) for model in (plain, learned))
    for name, rate in one.rates.items():
        torch.testing.assert_close(other.rates[name], rate)


def test_the_rate_of_the_top_is_what_its_draws_cost(kind, prior):
    model, x, num = moved(kind, prior), examples(), 4_000
    noise = model.noise(3, num, torch.Generator().manual_seed(0))
    bound = model.bound(x, noise=noise, num_samples=num)
    levels, _ = model._way(x, num, drawn(noise), None)
    q, p, z = levels[-1].q, levels[-1].p, levels[-1].z
    # log p(z) of the draws, by the change of variables from u to z.
    log_p = model.prior.top.log_prob(in_units_of(p, z)) - p.log_scale.expand_as(z).sum(-1)
    cost = (q.log_prob(z) - log_p).unflatten(0, (num, 3)).detach()
    error = cost.std(0) / math.sqrt(num)
    assert ((bound.rates["kl_2"].detach() - cost.mean(0)).abs() < 4 * error + 1e-9).all()
    assert list(bound.details) == ["kl_1"]


def test_weights_joints_and_joint_vectors_are_of_one_density(kind, prior):
    model, x = moved(kind, prior), examples()
    draw = model.draw(x, 5, noise=model.noise(3, 5, torch.Generator().manual_seed(0)))
    log_joint = model.log_joint(x, draw.latents)
    torch.testing.assert_close(draw.log_weight, log_joint - model(x, draw.latents))
    joint = model.joined(draw.latents)
    priors, _ = model._generate(15, model._from_joint(joint.flatten(0, 1)))
    volume = torch.stack(
        [p.log_scale.expand(15, *p.loc.shape[1:]).flatten(1).sum(1) for p in priors]
    )
    together = model.log_joint(x, {"z": joint})
    torch.testing.assert_close(together, log_joint + volume.sum(0).unflatten(0, (5, 3)))


def test_draws_of_x_are_of_the_density_that_the_latents_have(kind, prior):
    """E p(x|u) over draws of u is the integral of p(u) p(x|u), here a sum over a grid."""
    sizes = {"hvae": {"latent_dims": (1, 2)}, "ladder": {"levels": 1, "latent_dim": 2}}
    model, x, num = moved(kind, prior, 0.2, **sizes[kind]), examples(2), 40_000
    axis = torch.linspace(-9, 9, 73, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * model.latent_dim)
    with torch.no_grad():
        u = model.prior.sample(num, None, torch.Generator().manual_seed(3))
        volume = float(axis[1] - axis[0]) ** model.latent_dim
        density = model.prior.log_prob(grid).exp() * volume
        assert float(density.sum()) == pytest.approx(1, abs=1e-3)
        for one in x:
            exact = float((density * model.decode(grid).log_prob(one).exp()).sum())
            likely = model.decode(u).log_prob(one).exp()
            assert float(likely.mean()) == pytest.approx(
                exact, abs=4 * float(likely.std()) / math.sqrt(num)
            )


def test_a_learned_top_has_no_free_bits_and_no_unit(kind):
    model = moved(kind, "flow")
    noise = model.noise(3, 1, torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="free_bits"):
        OBJECTIVES["elbo"](model, examples(), None, noise, 1, Weights(free_bits=0.1))
    assert not model.prior.has_unit_scale
    assert model.latent_dim == sum(model.sizes)


@pytest.mark.parametrize("name", ["prior_components", "prior_layers", "flow_width"])
def test_sizes_below_one_are_refused(kind, name):
    with pytest.raises(InputError, match=f"'{name}' must be at least 1"):
        create_model(kind, (4,), **{name: 0})
