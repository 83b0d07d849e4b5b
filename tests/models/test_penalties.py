"""Penalties: known values, no bias, and never a part of the bound."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.data import Rows, make_source
from lowerbound.distributions import DiagonalGaussian, Real
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate
from lowerbound.models.penalties import PENALTIES, dip, log_aggregate, mmd, total_correlation
from lowerbound.training import fit_model

NOTHING = torch.tensor(1.0)


@pytest.fixture(scope="module")
def source():
    """Four clusters on a diagonal."""
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    x += 20 * (torch.arange(200) % 4)[:, None] * torch.tensor([1.0, 1.0, -1.0])
    return make_source(Rows(x, Real(), "three columns"))


def posteriors(num, d=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(num, d, generator=generator).double()
    return DiagonalGaussian(loc, 0.3 * torch.randn(num, d, generator=generator).double() - 1)


def test_the_total_correlation_of_the_whole_set_is_exact():
    q, num = posteriors(7), torch.tensor(7.0).double()
    z = q.rsample(torch.randn(7, 2, generator=torch.Generator().manual_seed(1)).double())
    by_hand = []
    for one in z:
        densities = torch.stack(
            [
                torch.distributions.Normal(loc, log_scale.exp()).log_prob(one).exp()
                for loc, log_scale in zip(q.loc, q.log_scale, strict=True)
            ]
        )  # (7, d)
        joint, marginals = densities.prod(1).mean(), densities.mean(0)
        by_hand.append((joint / marginals.prod()).log())
    torch.testing.assert_close(total_correlation(q, z, num), torch.stack(by_hand))


def test_the_aggregate_posterior_is_estimated_without_bias():
    """Averaged over every batch of 3 that holds an example, of 6: exactly the mean over all 6."""
    q, num, z = posteriors(6), torch.tensor(6.0).double(), torch.tensor([0.3, -0.8]).double()
    exact = DiagonalGaussian(q.loc, q.log_scale, 0).log_prob(z).exp().mean(0)
    found = []
    for others in itertools.combinations(range(1, 6), 2):
        batch = DiagonalGaussian(q.loc[[0, *others]], q.log_scale[[0, *others]], 0)
        found.append(log_aggregate(batch.log_prob(z).expand(3, 3, 2), num)[0].exp())
    torch.testing.assert_close(torch.stack(found).mean(0), exact)


def test_a_batch_counts_the_example_itself_as_one_of_all():
    """Far apart, each posterior is seen by its own draw alone: log q(z) = log q(z|x) − log N."""
    loc = 1e3 * torch.arange(4.0).double()[:, None] * torch.ones(1, 2).double()
    q, num = DiagonalGaussian(loc, torch.zeros(4, 2).double()), torch.tensor(50.0).double()
    value = total_correlation(q, loc, num)  # (c − log N) − 2 (c/2 − log N)
    torch.testing.assert_close(value, torch.full((4,), math.log(50.0)).double())


def test_codes_of_the_prior_have_no_distance_in_expectation():
    values = []
    for seed in range(400):
        z = torch.randn(30, 3, generator=torch.Generator().manual_seed(seed)).double()
        values.append(float(mmd(posteriors(30, 3), z, NOTHING)[0]))
    values = torch.tensor(values)
    assert values.mean().abs() < 4 * values.std() / math.sqrt(len(values))


def test_the_distance_of_gaussian_codes_is_the_known_one():
    """Of N(m, I) and N(0, I) under a Gaussian kernel the squared distance is known."""
    d, shift = 2, 1.5
    known = 2 * (d / (d + 2)) ** (d / 2) * (1 - math.exp(-(shift**2) * d / (2 * (d + 2))))
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(200):
        z = torch.randn(200, d, generator=generator).double() + shift
        values.append(float(mmd(posteriors(200, d), z, NOTHING)[0]))
    values = torch.tensor(values)
    assert abs(values.mean() - known) < 4 * values.std() / math.sqrt(len(values))


def test_covariances_are_those_of_the_means_or_of_the_codes():
    loc = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]) * 2.0  # cov 4 I
    loc = loc @ torch.tensor([[1.0, 0.5], [0.0, 1.0]])  # cov 4 [[1, .5], [.5, 1.25]]
    q = DiagonalGaussian(loc, torch.full((4, 2), 0.5 * math.log(3.0)))  # variances 3
    apart = 2 * 2.0**2
    first, second = 10 * (3.0**2 + 4.0**2) + apart, 6.0**2 + 7.0**2 + apart
    torch.testing.assert_close(dip(q, loc, NOTHING), torch.full((4,), first))
    torch.testing.assert_close(dip(q, loc, NOTHING, of_codes=True), torch.full((4,), second))


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_is_beside_the_bound_and_never_judged(name, source):
    def model_with(**options):
        return create_model("vae", source, latent_dim=2, width=8, seed=3, **options)

    plain, model = model_with(), model_with(penalty=name, penalty_weight=3.0)
    x = source.train[slice(0, 16)][0]
    for other in (plain, model):
        other.train()
    noise = model.noise(16, 2, torch.Generator().manual_seed(0))
    bound = model.bound(x, noise=noise)
    assert torch.equal(bound.value, plain.bound(x, noise=noise).value)
    assert set(bound.penalties) == {name}
    once = model_with(penalty=name, penalty_weight=1.0).train()
    torch.testing.assert_close(
        bound.penalties[name], 3 * once.bound(x, noise=noise).penalties[name]
    )
    bound.penalties[name].mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    assert not model.eval().bound(x, noise=noise).penalties


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_is_logged_and_moves_what_it_names(name, source):
    """Where no KL keeps them, codes go anywhere; with a large weight they do less of that."""
    config = TrainingConfig(
        steps=120, batch_size=40, validations=1, precision="float32", beta=0.0, average=0.9
    )
    ends = []
    for weight in (0.0, 30.0):
        model = create_model(
            "vae", source, latent_dim=2, width=16, penalty=name, penalty_weight=weight
        )
        history = fit_model(model, source, config)
        row = [row for row in history.rows if row["kind"] == "train"][-1]
        assert math.isclose(row["bound"], row["reconstruction"] - row["kl"], rel_tol=1e-4)
        loss = row[name] - row["reconstruction"]
        assert math.isclose(row["loss"], loss, rel_tol=1e-4, abs_tol=1e-4)
        model.options = create_model(
            "vae", source, latent_dim=2, width=16, penalty=name
        ).options  # weight 1
        x = source.train[slice(0, 96)][0]
        noise = model.train().noise(96, 50, torch.Generator().manual_seed(0))
        with torch.no_grad():
            ends.append(float(model.bound(x, noise=noise).penalties[name].mean()))
    assert ends[1] < ends[0]


def test_a_penalised_run_is_judged_as_any_other(source):
    model = create_model("vae", source, latent_dim=2, width=8, penalty="mmd")
    bound = evaluate(model, source, num_samples=2, baselines=False)["bound"]
    assert set(bound["terms"]) == {"reconstruction", "kl"}
    kept = bound["terms"]["reconstruction"] - bound["terms"]["kl"]
    assert math.isclose(bound["value"], kept, rel_tol=1e-6)


def test_penalties_are_refused_where_they_would_be_forgotten(source):
    with pytest.raises(InputError, match=r"'objective' must be elbo with the penalty 'mmd'"):
        fit_model(
            create_model("vae", source, latent_dim=2, penalty="mmd"),
            source,
            TrainingConfig(steps=1, objective="iwae"),
        )
    with pytest.raises(InputError, match="'penalty_weight' must be 1 without a penalty"):
        create_model("vae", source, penalty_weight=2.0)
    with pytest.raises(InputError, match="'penalty_weight' must be 0 or more"):
        create_model("vae", source, penalty="mmd", penalty_weight=math.nan)
    with pytest.raises(InputError, match="fitted in closed form"):
        fit_model(
            create_model("ppca", source, latent_dim=2), source, TrainingConfig(objective="iwae")
        )
