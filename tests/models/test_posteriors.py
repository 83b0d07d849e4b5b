"""Posteriors: exact where the true one is known, honest densities, gradients along the path."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import nn

from lowerbound.build import create_model
from lowerbound.distributions import (
    DiagonalGaussian,
    FullGaussian,
    GaussianLikelihood,
    Real,
    chain_kl,
    kl_full_gaussian,
    kl_gaussian,
)
from lowerbound.errors import InputError
from lowerbound.evaluation import annealed_importance_sampling
from lowerbound.models import VAE, FlowedGaussian, StandardNormal
from lowerbound.models.posteriors import FlowPosterior, PosteriorName, make_posterior
from lowerbound.objectives import OBJECTIVES, UNWEIGHTED, dreg, elbo, stl
from lowerbound.run import fit
from tests.oracles import gaussian_log_prob

POSTERIORS = get_args(PosteriorName)
S = 0.5


class Correlated:
    """z ~ N(0, I₂), x = W z + s ε in two dimensions, whose posterior is correlated."""

    w = torch.tensor([[1.0, 0.9], [0.8, 0.6]], dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + w.T @ w / S**2
    covariance = precision.inverse()
    gain = covariance @ w.T / S**2  # posterior mean = gain · x
    factor = torch.linalg.cholesky(covariance)

    @classmethod
    def log_evidence(cls, x: torch.Tensor) -> torch.Tensor:
        total = cls.w @ cls.w.T + S**2 * torch.eye(2, dtype=torch.float64)
        return gaussian_log_prob(x, torch.zeros(2, dtype=torch.float64), total)

    @classmethod
    def gap(cls) -> float:
        """Nats that the best diagonal posterior leaves: ½ [Σ log Λ_ii − log det Λ]."""
        diagonal = cls.precision.diagonal().log().sum()
        return float(0.5 * (diagonal - cls.precision.logdet()))


def exact(kind: str) -> VAE:
    """The VAE of `Correlated` with the best posterior of a kind, in closed form."""
    o, posterior = Correlated, make_posterior(kind, 2)
    if kind == "iaf":
        posterior = FlowPosterior(2, num_steps=1, width=4)
    encoder, decoder = nn.Linear(2, posterior.num_parameters), nn.Linear(2, 2, bias=False)
    likelihood, prior = GaussianLikelihood((2,), Real(), S), StandardNormal(2)
    model = VAE(encoder, decoder, likelihood, prior, 2, posterior=posterior).double().eval()
    with torch.no_grad():
        for p in model.posterior.parameters():
            p.zero_()
        encoder.weight.zero_()
        encoder.bias.zero_()
        decoder.weight.copy_(o.w)
        encoder.weight[:2] = o.gain
        if kind == "diagonal":
            encoder.bias[2:] = -0.5 * o.precision.diagonal().log()
        if kind == "full":
            encoder.bias[2:4], encoder.bias[4] = o.factor.diagonal().log(), o.factor[1, 0]
        if kind == "iaf":
            _one_exact_step(model, o)
    return model


def _one_exact_step(model: VAE, o: type[Correlated]) -> None:
    """z = ½ x + ½ m(x) with m₂ = c x₁: silu(a) − silu(−a) = a makes the network linear."""
    net = model.posterior.flow.flows[0].network
    scale = 2 * o.factor.diagonal()
    c = 2 * o.factor[1, 0] / scale[0]
    model.encoder.weight[0] = 2 * o.gain[0]
    model.encoder.weight[1] = 2 * o.gain[1] - c * 2 * o.gain[0]
    model.encoder.bias[2:4] = scale.log()
    net.first.weight[1, 0], net.first.weight[3, 0] = 1, -1
    for row, sign in ((1, 1.0), (3, -1.0)):
        net.second.weight[row, 1], net.second.weight[row, 3] = sign, -sign
    net.last.weight[1, 1], net.last.weight[1, 3] = c, -c


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["full", "iaf"])
def test_a_correlated_posterior_is_reached_and_every_weight_is_the_evidence(kind, x):
    model, evidence = exact(kind), Correlated.log_evidence(x)
    weight = model.log_weight(x, 5)
    torch.testing.assert_close(weight, evidence.expand(5, -1), rtol=0, atol=1e-5)
    spread = weight.detach().std(0).max()
    assert float(spread) < 1e-6  # the fixed sigma is stored in float32


@pytest.mark.parametrize("kind", ["full", "iaf", "diagonal"])
def test_the_bound_misses_the_evidence_by_what_the_posterior_cannot_say(kind, x):
    model, num = exact(kind), 200_000
    rows = x[:1].expand(num, 2)
    value = model.bound(rows, generator=torch.Generator().manual_seed(1)).value.detach()
    gap = Correlated.gap() if kind == "diagonal" else 0.0
    error = float(value.std()) / math.sqrt(num)
    expected = float(Correlated.log_evidence(x[:1])) - gap
    assert float(value.mean()) == pytest.approx(expected, abs=4 * error + 1e-5)
    assert Correlated.gap() > 0.3


def gradients(model: VAE, loss: torch.Tensor) -> torch.Tensor:
    """All of the posterior's: the encoder's, and those of its flow."""
    parts = [*model.encoder.parameters(), *model.posterior.parameters()]
    each = torch.autograd.grad(loss.sum(), parts, allow_unused=True)
    return torch.cat([g.flatten() for g in each if g is not None])


@pytest.mark.parametrize("objective", [stl, dreg])
@pytest.mark.parametrize("kind", ["full", "iaf"])
def test_the_path_gradient_vanishes_draw_by_draw_at_the_true_posterior(kind, objective, x):
    model = exact(kind)
    noise = model.noise(6, 3, torch.Generator().manual_seed(0))
    landed = gradients(model, objective(model, x, None, noise, 3, UNWEIGHTED)[0])
    assert float(landed.abs().max()) < 2e-6
    score = gradients(model, -model.draw(x, 3, noise=noise).log_weight)
    assert float(score.abs().max()) > 0.1


def moved(kind: str, d: int = 3) -> VAE:
    """A VAE in float64, the weights of its posterior away from where they began."""
    model = create_model("vae", (4,), latent_dim=d, width=8, posterior=kind, flow_width=8)
    generator = torch.Generator().manual_seed(1)
    for p in model.double().posterior.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return model


def examples(num: int = 3) -> torch.Tensor:
    return torch.randn(num, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", POSTERIORS)
def test_a_density_is_that_of_the_noise_over_the_volume_of_the_map(kind):
    model = moved(kind)
    noise = model.noise(1, 1, torch.Generator().manual_seed(2))["z"]
    with torch.no_grad():
        q = model.encode(examples(1))
        jacobian = torch.autograd.functional.jacobian(lambda e: q.rsample(e).flatten(), noise)
        volume = torch.linalg.slogdet(jacobian.reshape(3, 3)).logabsdet
        exact_density = StandardNormal(3).double().log_prob(noise) - volume
        z = q.rsample(noise)
        torch.testing.assert_close(q.log_prob(z), exact_density)
        torch.testing.assert_close(q.log_prob(z.clone()), exact_density)


@pytest.mark.parametrize("kind", POSTERIORS)
def test_the_path_leaves_out_the_score_and_nothing_else(kind):
    """log q's whole gradient is along the path plus the score at a fixed z, by any route."""
    model, x = moved(kind), examples()
    noise = model.noise(3, 2, torch.Generator().manual_seed(2))["z"]
    q = model.encode(x)
    z = q.rsample(noise)
    whole = gradients(model, q.log_prob(z))
    fixed = z.detach().clone()
    score = gradients(model, model.encode(x).log_prob(fixed))
    path = gradients(model, model.encode(x).detach().log_prob(model.encode(x).rsample(noise)))
    torch.testing.assert_close(path + score, whole, rtol=1e-6, atol=1e-9)
    assert float((whole - path).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", POSTERIORS)
def test_draws_have_the_mean_and_the_standard_deviations_that_are_promised(kind):
    q, num = moved(kind).encode(examples(1)), 50_000
    noise = torch.randn(num, 1, 3, generator=torch.Generator().manual_seed(3)).double()
    z = q.rsample(noise).detach()
    about = 0.3 if kind == "iaf" else 0.03  # of 64 draws, or in closed form
    scale = float(z.std(0).max())
    torch.testing.assert_close(z.mean(0), q.mean.detach(), atol=about * scale, rtol=0)
    torch.testing.assert_close(z.std(0), q.stddev.detach(), atol=about * scale, rtol=0)
    generator = torch.Generator().manual_seed(0)
    one, two = q.sample(generator), q.sample(torch.Generator().manual_seed(0))
    assert torch.equal(one, two)
    assert not one.requires_grad


def test_the_moments_of_a_flow_are_a_function_of_the_example_alone():
    model, x = moved("iaf"), examples(5)
    together, alone = model.encode(x).mean, model.encode(x[2:3]).mean
    torch.testing.assert_close(together[2:3], alone)
    assert torch.equal(model.encode(x).mean, together)


def test_a_flow_remembers_the_density_of_its_last_draw_alone():
    q, calls = moved("iaf").encode(examples()), []

    def flow(*args, inverse=False):
        calls.append(inverse)
        return q.flow(*args, inverse=inverse)

    counted = FlowedGaussian(q.base, q.context, flow)
    noise = torch.ones(2, 3, 3, dtype=torch.float64)
    first = counted.rsample(noise)
    again = counted.rsample(-noise)
    log_prob = counted.log_prob(again)
    assert calls == [False, False]
    torch.testing.assert_close(counted.log_prob(again.clone()), log_prob)
    assert not torch.allclose(counted.log_prob(first), log_prob)
    assert calls == [False, False, True, True]


def test_the_chain_rule_of_a_kl_is_its_sum_and_each_part_is_a_kl():
    generator = torch.Generator().manual_seed(0)
    triangle = torch.randn(5, 3, 3, generator=generator, dtype=torch.float64).tril(-1)
    scales = torch.rand(5, 3, generator=generator, dtype=torch.float64) + 0.2
    q = FullGaussian(torch.ones(5, 3).double(), triangle + torch.diag_embed(scales))
    p = DiagonalGaussian(torch.full((5, 3), 0.3).double(), torch.full((5, 1), 0.4).double())
    as_full = FullGaussian(p.loc, torch.diag_embed(p.log_scale.expand(5, 3).exp()))
    torch.testing.assert_close(chain_kl(q).sum(-1), kl_full_gaussian(q))
    torch.testing.assert_close(chain_kl(q, p).sum(-1), kl_full_gaussian(q, as_full))
    assert (chain_kl(q, p) >= 0).all()
    straight = FullGaussian(q.loc, torch.diag_embed(scales))
    plain = DiagonalGaussian(q.loc, scales.log())
    torch.testing.assert_close(chain_kl(straight, p), kl_gaussian(plain, p))


def test_a_full_posterior_has_its_kl_in_closed_form():
    model, x = moved("full"), examples(1)
    noise = model.noise(1, 100_000, torch.Generator().manual_seed(0))
    bound = model.bound(x, num_samples=100_000, noise=noise)
    torch.testing.assert_close(bound.rates["kl"], kl_full_gaussian(model.encode(x)))
    torch.testing.assert_close(bound.details["kl"].sum(-1), bound.rates["kl"])
    model.kl = "sampled"
    sampled = model.bound(x, num_samples=100_000, noise=noise)
    torch.testing.assert_close(sampled.rates["kl"], bound.rates["kl"], rtol=0.02, atol=0.02)


BY_NIGHT = {"iaf": [pytest.mark.nightly]}  # many passes through a flow


@pytest.mark.parametrize("kind", [pytest.param(k, marks=BY_NIGHT.get(k, [])) for k in POSTERIORS])
def test_annealing_from_the_encoder_finds_the_evidence(kind):
    model, x = moved(kind, 2), examples()
    from_prior, from_encoder = (
        annealed_importance_sampling(model, x, num_steps=20, num_chains=300, start=start).value
        for start in ("prior", "encoder")
    )
    torch.testing.assert_close(from_encoder, from_prior, atol=0.15, rtol=0)


@pytest.mark.parametrize("kind", POSTERIORS)
def test_extreme_encoders_stay_finite(kind):
    model = create_model("vae", (3,), latent_dim=2, width=8, posterior=kind, flow_width=8)
    for size in (1e4, -1e4):
        with torch.no_grad():
            signs = torch.ones_like(model.encoder.last.bias)
            signs[::2] = -1
            model.encoder.last.bias.copy_(size * signs)
        bound = model.bound(torch.zeros(2, 3))
        model.zero_grad()
        bound.value.sum().backward()
        assert bound.value.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_full_covariance_of_many_dimensions_is_refused():
    with pytest.raises(InputError, match="'latent_dim' must be at most 64 for a full posterior"):
        create_model("vae", (3,), latent_dim=65, posterior="full")
    assert create_model("vae", (3,), latent_dim=64, width=4, posterior="full").latent_dim == 64


@pytest.mark.parametrize("kind", POSTERIORS)
def test_half_precision_networks_leave_draws_and_densities_whole(kind):
    model = create_model("vae", (4,), latent_dim=3, width=8, posterior=kind, prior="flow")
    x = examples().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = model.encode(x)
        z = q.rsample(model.noise(3, 2, torch.Generator().manual_seed(0))["z"])
        log_prob, again = q.log_prob(z), q.log_prob(z.clone())
        assert model.prior.log_prob(z).dtype == torch.float32
    torch.testing.assert_close(log_prob, again, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_prob, q.log_prob(z.clone()), rtol=1e-4, atol=1e-4)


def test_elbo_and_its_terms_train_every_part():
    model, x = moved("iaf"), examples()
    loss, _ = elbo(model, x, None, model.noise(3), 1, UNWEIGHTED)
    loss.mean().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in model.posterior.parameters())


def test_closed_gates_leave_a_way_back():
    model = moved("iaf")
    with torch.no_grad():
        for flow in model.posterior.flow.flows:
            flow.network.last.bias[3:] = -1e6
        q = model.encode(examples())
        z = q.rsample(model.noise(3)["z"])
        assert q.log_prob(z + 0.01).isfinite().all()


def test_draws_of_a_full_gaussian_are_the_same_in_half_precision():
    generator = torch.Generator().manual_seed(0)
    triangle = torch.randn(2, 3, 3, generator=generator).tril(-1) + torch.eye(3)
    q, noise = FullGaussian(torch.zeros(2, 3), triangle), torch.randn(4, 2, 3, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = q.rsample(noise)
    assert torch.equal(half, q.rsample(noise))
    torch.testing.assert_close(q.stddev, q.covariance.diagonal(dim1=-2, dim2=-1).sqrt())


@pytest.mark.parametrize("objective", ["elbo", "iwae", "stl", "dreg"])
@pytest.mark.parametrize("kind", POSTERIORS)
def test_whoever_trains_is_told_of_the_passes_that_a_density_takes(kind, objective):
    """The advice is true: so many passes back through each step, and none where none is given."""
    model, x = moved(kind), examples()
    passes = []
    for step in getattr(getattr(model.posterior, "flow", None), "flows", []):
        step.network.register_forward_hook(lambda *_: passes.append(1))
    OBJECTIVES[objective](model, x, None, model.noise(3, 2), 2, UNWEIGHTED)
    advice = model.advice(objective)
    slow = kind == "iaf" and objective in ("stl", "dreg")
    assert len(advice) == int(slow)
    if kind == "iaf":
        steps = len(model.posterior.flow.flows)
        assert len(passes) == steps * (1 + model.latent_dim if slow else 1)
    if slow:
        assert f"takes {model.latent_dim} passes through the steps of an iaf" in advice[0]


def test_the_advice_is_one_line_before_the_training(capsys, digits):
    model = create_model("vae", digits, latent_dim=2, width=8, posterior="iaf", flow_width=8)
    fit(model, digits, steps=1, objective="stl")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("warning: stl holds the parameters of q fixed") == 1
    fit(model, digits, steps=1)
    assert "warning" not in capsys.readouterr().err
