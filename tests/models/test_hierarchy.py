"""Hierarchies: exact where everything is linear, and one latent vector to everyone outside."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import Rows, make_source
from lowerbound.distributions import Real, kl_gaussian
from lowerbound.errors import InputError
from lowerbound.models.levels import drawn
from lowerbound.objectives import OBJECTIVES
from lowerbound.run import fit
from tests.models.linear_hierarchy import ENCODERS, LINEAR, X, evidence


@pytest.fixture(params=LINEAR)
def name(request):
    return request.param


def noise_of(model, num_samples, seed=0):
    return model.noise(len(X), num_samples, torch.Generator().manual_seed(seed))


def assert_mean(values, exact, deviations=4.0):
    """The mean over the first axis is within standard errors of the exact one."""
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - exact).abs() <= deviations * error + 1e-9).all()


def random_model(kind, **options):
    """Random weights everywhere, the zeros of the heads included."""
    sizes = {"hvae": {"latent_dims": (4, 3, 2)}, "ladder": {"levels": 3, "latent_dim": 2}}
    model = create_model(kind, (6,), width=8, **{**sizes[kind], **options})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


# --- exactness ---------------------------------------------------------------------------------


def test_with_the_true_posterior_every_weight_is_the_evidence(name):
    log_weight = LINEAR[name]().log_weight(X, 20, noise=noise_of(LINEAR[name](), 20))
    exact = evidence().log_prob(X)
    torch.testing.assert_close(log_weight, exact.expand(20, 2), rtol=1e-7, atol=1e-7)


def test_with_another_posterior_the_weights_average_to_the_evidence(name):
    model = LINEAR[name](wrong=0.15)
    log_weight = model.log_weight(X, 20_000, noise=noise_of(model, 20_000))
    assert float(log_weight.std(0).min().detach()) > 0.05
    assert_mean((log_weight - evidence().log_prob(X)).exp(), 1.0)


def test_the_bound_is_the_evidence_with_the_true_posterior_and_below_it_with_another(name):
    draws = 4000
    noise = noise_of(LINEAR[name](), draws)
    ones = [{k: t[i : i + 1] for k, t in noise.items()} for i in range(draws)]
    for wrong in (0.0, 0.3):
        model = LINEAR[name](wrong)
        values = torch.stack([model.bound(X, noise=one).value for one in ones[:500]])
        if wrong:
            assert (values.mean(0) < evidence().log_prob(X) - 0.1).all()
        else:
            assert_mean(values, evidence().log_prob(X))


def test_several_samples_are_the_mean_of_one_at_a_time(name):
    model = LINEAR[name](0.3)
    noise = noise_of(model, 3)
    ones = [model.bound(X, noise={k: t[i : i + 1] for k, t in noise.items()}) for i in range(3)]
    joint = model.bound(X, num_samples=3, noise=noise)
    for key, rate in joint.rates.items():
        torch.testing.assert_close(rate, torch.stack([one.rates[key] for one in ones]).mean(0))
    torch.testing.assert_close(joint.value, torch.stack([one.value for one in ones]).mean(0))


def test_draws_from_the_linear_model_have_the_mean_and_covariance_of_its_evidence(name):
    x = LINEAR[name]().sample(40_000, generator=torch.Generator().manual_seed(0))
    assert_mean(x, evidence().mean)
    centred = x - evidence().mean
    products = (centred.unsqueeze(1) * centred.unsqueeze(2)).flatten(1)
    assert_mean(products, evidence().covariance_matrix.flatten())


# --- rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hvae", "ladder"])
def test_each_rate_is_the_mean_of_log_q_over_p_at_draws(kind):
    model = random_model(kind).double()
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0)).double()
    noise = model.noise(2, 20_000, torch.Generator().manual_seed(2))
    bound = model.bound(x, noise=noise)
    take = drawn(noise)
    found, _ = model._infer(model.likelihood.standardized(x), 20_000, take)
    assert list(bound.rates) == list(bound.details) == ["kl_1", "kl_2", "kl_3"]
    for (key, rate), level in zip(bound.rates.items(), found, strict=True):
        sampled = (level.q.log_prob(level.z) - level.p.log_prob(level.z)).unflatten(0, (-1, 2))
        assert float(rate.detach().min()) > 1e-3, key
        assert_mean(sampled.detach(), rate.detach())
        closed = kl_gaussian(level.q, level.p).unflatten(0, (-1, 2)).mean(0)
        if kind == "ladder" or key == "kl_3":
            torch.testing.assert_close(bound.details[key], closed)
        else:  # q above depends on the draw: KL(q ‖ p) of the pair is another number
            assert not torch.allclose(rate, closed.sum(1), rtol=1e-3)


@pytest.mark.parametrize("network", ["mlp", "hybrid", "conv"])
def test_a_ladder_whose_heads_are_zero_has_posteriors_that_are_the_prior(network):
    model = create_model("ladder", (1, 16, 16), support="binary", network=network, width=16)
    for rung in model.network.rungs:  # all that is not zero from the start
        for parameter in rung.direct.parameters():
            torch.nn.init.zeros_(parameter)
    x = torch.ones(3, 1, 16, 16)
    bound = model.bound(x)
    assert len(bound.rates) == 5
    assert all(torch.equal(rate, torch.zeros(3)) for rate in bound.rates.values())
    assert torch.equal(model.encode(x).mean, torch.zeros(3, model.latent_dim))
    assert torch.equal(model.encode(x).log_scale, torch.zeros(3, model.latent_dim))


def test_the_rates_of_a_conv_are_of_channels_summed_over_places():
    model = create_model("ladder", (1, 9, 6), network="conv", levels=3, latent_dim=2, width=8)
    assert model.shapes == [(2, 9, 6), (2, 5, 3), (2, 5, 3)]
    bound = model.bound(torch.zeros(4, 1, 9, 6))
    assert [d.shape for d in bound.details.values()] == [(4, 2)] * 3


# --- one vector in units of the prior ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["hvae", "ladder"])
def test_the_joint_vector_of_a_draw_decodes_to_what_the_draw_decoded_to(kind):
    model = random_model(kind)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    draw = model.draw(x, 3)
    joint = model.joined(draw.latents)
    assert joint.shape == (3, 5, model.latent_dim)
    decoded = model.decode(joint[2]).log_prob(x)
    torch.testing.assert_close(decoded, draw.log_likelihood[2], rtol=1e-4, atol=1e-4)
    one, other = model.log_joint(x, draw.latents), model.log_joint(x, {"z": joint})
    assert not torch.allclose(one, other)  # densities of z and of u


def test_levels_stand_in_the_joint_vector_in_the_order_of_their_rates():
    model = create_model("ladder", (6,), levels=3, latent_dim=2, width=8)
    with torch.no_grad():
        for i, rung in enumerate(model.network.rungs, 1):  # level 2 alone says something
            rung.direct.weight.zero_()
            rung.direct.bias.fill_(0.5 if i == 2 else 0.0)
    x = torch.zeros(4, 6)
    bound, means = model.bound(x), model.encode(x).mean
    assert [bool((rate > 0.1).all()) for rate in bound.rates.values()] == [False, True, False]
    assert [bool((means[:, span] != 0).all()) for span in model.spans()] == [False, True, False]


@pytest.mark.parametrize("kind", ["hvae", "ladder"])
def test_what_is_encoded_has_every_level_at_its_mean(kind):
    model = random_model(kind)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    still = {k: torch.zeros_like(t) for k, t in model.noise(5).items()}
    q = model.encode(x)
    torch.testing.assert_close(q.mean, model.joined(model.draw(x, 1, noise=still).latents)[0])
    drawn = q.sample(torch.Generator().manual_seed(0))
    assert drawn.shape == q.mean.shape
    assert not torch.allclose(drawn, q.mean)
    torch.testing.assert_close(q.log_prob(drawn), q.log_prob(drawn[None])[0])


def test_scales_of_what_is_encoded_are_in_units_of_the_prior(name):
    model = LINEAR[name](0.1)
    own = {
        "hvae": lambda: model.encoders[0].log_scale - model.priors[0].log_scale,
        "ladder": lambda: model.network.below.log_scale,
    }[name]()
    found = model.encode(X).log_scale[:, model.spans()[0]]
    assert float(own.abs().max().detach()) > 0.1
    torch.testing.assert_close(found, own.expand(2, 2))


def test_x_climbs_once_for_any_number_of_draws():
    model, rows = random_model("ladder"), []
    for rung in model.network.rungs:
        rung.up.register_forward_hook(lambda *args: rows.append(len(args[2])))
    model.draw(torch.zeros(4, 6), 7)
    assert rows == [4, 4, 4]


# --- objectives --------------------------------------------------------------------------------


def gradients(model, objective, noise, num_samples=1):
    loss, _ = OBJECTIVES[objective](model, X, None, noise, num_samples)
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(loss.sum(), list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, grads, strict=True) if g is not None}


def test_without_the_score_the_gradient_vanishes_at_the_true_posterior(name):
    model = LINEAR[name]()
    noise = noise_of(model, 4)
    left = {k: g.abs().max() for k, g in gradients(model, "stl", noise, 4).items()}
    score = {k: g.abs().max() for k, g in gradients(model, "iwae", noise, 4).items()}
    own = [k for k in score if k.startswith(ENCODERS[name])]
    assert own
    assert all(k not in left or left[k] < 1e-6 for k in own)
    assert all(score[k] > 1e-3 for k in own)


def test_without_the_score_the_gradient_of_one_draw_has_the_same_mean(name):
    model = LINEAR[name](0.3)
    differences = []
    for seed in range(400):
        noise = noise_of(model, 1, seed)
        plain, path = (gradients(model, o, noise) for o in ("iwae", "stl"))
        assert plain.keys() == path.keys()
        differences.append(torch.cat([(plain[k] - path[k]).flatten() for k in plain]))
    assert float(torch.stack(differences).std(0).max()) > 0.1
    assert_mean(torch.stack(differences), 0.0, 4.5)


@pytest.mark.parametrize("kind", ["hvae", "ladder"])
def test_double_reparameterisation_is_refused_in_one_line(kind):
    model = random_model(kind)
    x = torch.zeros(3, 6)
    with pytest.raises(InputError, match="must be iwae or stl for a model with latents z_1 and"):
        OBJECTIVES["dreg"](model, x, None, model.noise(3, 2), 2)


@pytest.mark.parametrize(
    ("kind", "options", "own"),
    [
        ("hvae", {"latent_dims": (4,)}, "encoders."),
        ("ladder", {"levels": 1}, "network.rungs.0.offset"),
        ("ladder", {"levels": 1}, "network.first"),
    ],
)
def test_double_reparameterisation_of_one_level_has_squared_shares_along_the_path(
    kind, options, own
):
    model = random_model(kind, **options).double()
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noise = model.noise(3, 4, torch.Generator().manual_seed(3))
    named = {n: p for n, p in model.named_parameters() if n.startswith(own)}
    draw = model.draw(x, 4, noise=noise)
    z = draw.latents["z_1"].detach().requires_grad_(True)
    log_weight = model.log_joint(x, {"z_1": z}) - model(x, {"z_1": z})
    (along,) = torch.autograd.grad(log_weight.sum(), z)
    shares = draw.log_weight.detach().softmax(0).unsqueeze(-1)
    exact = torch.autograd.grad(
        draw.latents["z_1"], list(named.values()), -(shares.square() * along)
    )
    loss, _ = OBJECTIVES["dreg"](model, x, None, noise, 4)
    found = torch.autograd.grad(loss.sum(), list(named.values()))
    assert all(g.abs().max() > 1e-4 for g in exact)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


# --- training and options ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hvae", "ladder"])
def test_the_optimal_sigma_is_the_error_of_decoded_draws(kind):
    x = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    source = make_source(Rows(x=x, support=Real(), name="normal"))
    model = random_model(kind, sigma="optimal")
    model.settle(source)
    train = source.train.x
    draw = model.draw(train, 1, noise=model.judging_noise(range(len(train))))
    decoded = model.decode(model.joined(draw.latents)[0])
    expected = (train - decoded.mean).square().mean().sqrt()
    torch.testing.assert_close(decoded.log_scale.exp().max(), expected, rtol=1e-4, atol=1e-4)


REFUSED = [
    ("ladder", (1, 8, 8), {"levels": 50, "network": "conv"}, "'levels' must be at most 12 on 8×8"),
    ("ladder", (1, 8, 8), {"scales": 6, "network": "conv"}, "'scales' must be from 1 to 4"),
    ("ladder", (1, 8, 8), {"scales": 2, "network": "mlp"}, "'scales' must be left out"),
    ("ladder", (1, 8, 8), {"patch": 2, "network": "mlp"}, "'patch' must be left out"),
    ("ladder", (1, 8, 8), {"patch": 9, "network": "conv"}, "'patch' must be from 1 to 8 on 8×8"),
    ("ladder", (1, 8, 8), {"patch": 0, "network": "conv"}, "'patch' must be at least 1"),
    ("ladder", (5,), {"network": "conv"}, "'network' must be mlp for data of shape 5"),
    ("ladder", (5,), {"levels": 0}, "'levels' must be at least 1, got 0"),
    ("ladder", (5,), {"latent_dim": 0}, "'latent_dim' must be at least 1"),
    ("ladder", (5,), {"depth": -1}, "'depth' must be 0 or more"),
    ("hvae", (5,), {"latent_dims": ()}, "'latent_dims' must be one or more sizes"),
    ("hvae", (5,), {"latent_dims": (3, 0)}, "'latent_dims' must be one or more sizes"),
    ("hvae", (5,), {"width": 0}, "'width' must be at least 1"),
    ("hvae", (5,), {"depth": -1}, "'depth' must be 0 or more"),
]


@pytest.mark.parametrize(("kind", "shape", "options", "message"), REFUSED)
def test_options_that_fit_nothing_are_refused_in_one_line(kind, shape, options, message):
    with pytest.raises(InputError, match=message) as refused:
        create_model(kind, shape, **options)
    assert str(refused.value).startswith("'")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("shape", [(2, 3000), (1, 14, 14, 14)], ids=str)
def test_a_long_sequence_or_a_volume_has_a_ladder_too(shape):
    model = create_model("ladder", shape, width=8, levels=2)
    assert model.bound(torch.zeros(2, *shape)).value.isfinite().all()


def test_a_network_that_a_model_has_no_place_for_is_refused_in_one_line():
    with pytest.raises(InputError, match="'encoder' must be left out for a 'ladder', got Linear"):
        create_model("ladder", (6,), encoder=torch.nn.Linear(6, 4))


@pytest.mark.parametrize("dims", [(3,), (4, 3), (5, 4, 3, 2)], ids=len)
def test_a_hierarchy_has_as_many_levels_as_it_is_told(dims):
    model = create_model("hvae", (4,), latent_dims=dims, width=8)
    assert model.latent_dim == sum(dims)
    assert len(model.bound(torch.zeros(2, 4)).rates) == len(dims)


def test_a_short_run_of_a_ladder_survives_its_first_large_steps(digits):
    model = create_model("ladder", digits)
    fit(model, digits, steps=30, validations=2, quiet=True)
    assert model.bound(digits.validation[:50][0]).value.mean() > -250
