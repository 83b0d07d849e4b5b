"""The mixture of Gaussians: its bound against torch, scipy and integrals, its fit against EM's."""

from __future__ import annotations

import math

import pytest
import sklearn.mixture
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from lowerbound.build import create_model
from lowerbound.distributions import Binary, Discrete, Real
from lowerbound.distributions.support import Counts, Product, Unit
from lowerbound.errors import InputError
from lowerbound.evaluation import log_likelihood
from lowerbound.models.classical.components import Components, OneHot
from tests.models.test_classical import whole
from tests.oracles import integral

REAL = Real()
COVARIANCES = ["spherical", "diagonal", "full"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(num: int = 600) -> torch.Tensor:
    """Three clusters of unequal size and shape in four columns, float64."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2]).repeat(num // 6)
    centers = torch.tensor([[0.0, 0, 0, 0], [6.0, 0, 2, 0], [0.0, 7, 0, -3]]).double()
    spread = torch.tensor([[1.0, 0.5, 1, 2], [0.5, 1.0, 1, 1], [2.0, 1.0, 0.3, 1]]).double()
    noise = torch.randn(num, 4, generator=generator(), dtype=torch.float64)
    noise[:, 1] += 0.8 * noise[:, 0]
    return centers[labels] + spread[labels] * noise


def fitted(x: torch.Tensor, support=REAL, **options):
    options = {"components": 3} | options
    model = create_model("mixture", tuple(x.shape[1:]), support=support, **options)
    model.fit_exactly(whole(x, support))
    return model


def covariances(model) -> torch.Tensor:
    if model.covariance == "full":
        return model.scales @ model.scales.mT
    return model.scales.square().expand_as(model.means).diag_embed()


def by_torch(model) -> MixtureSameFamily:
    parts = MultivariateNormal(model.means, covariances(model))
    return MixtureSameFamily(Categorical(model.weights), parts)


def levels(num: int = 300) -> torch.Tensor:
    """Integers from 0 to 8 in three dependent columns."""
    x = torch.randint(0, 9, (num, 3), generator=generator())
    x[:, 1] = (x[:, 0] + x[:, 1]) // 2
    return x.to(torch.uint8)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_bound_is_the_exact_log_density(covariance):
    x = drawn()
    model = fitted(x, covariance=covariance)
    exact = by_torch(model).log_prob(x)
    torch.testing.assert_close(model.bound(x).value, exact)
    torch.testing.assert_close(model.decode(model.weights.expand(600, -1)).log_prob(x), exact)
    torch.testing.assert_close(model.log_weight(x[:9], 5), exact[:9].expand(5, -1))
    assert model.evidence_kind == "exact"


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_posterior_is_that_of_bayes_and_its_terms_are_the_bound(covariance):
    x = drawn()[::7]
    model = fitted(drawn(), covariance=covariance)
    joint = model.weights.log() + MultivariateNormal(model.means, covariances(model)).log_prob(
        x.unsqueeze(1)
    )
    q = joint.softmax(1)
    torch.testing.assert_close(model.encode(x).mean, q)
    bound = model.bound(x)
    torch.testing.assert_close(bound.rates["kl"], (q * (q / model.weights).log()).nansum(1))
    torch.testing.assert_close(bound.value, joint.logsumexp(1))
    # The code that takes the likeliest component loses −log max q, at most the entropy.
    hard = torch.nn.functional.one_hot(q.argmax(1), 3).double()
    gap = bound.value - model.log_joint(x, {"z": hard.unsqueeze(0)}).squeeze(0)
    torch.testing.assert_close(gap, -q.max(1).values.log(), atol=1e-9, rtol=1e-6)
    assert (gap <= model.encode(x).entropy() + 1e-9).all()


def test_in_one_dimension_the_density_integrates_to_one():
    model = fitted(drawn()[:, :1])
    grid = torch.linspace(-40, 40, 20_001, dtype=torch.float64).unsqueeze(1)
    assert integral(model.bound(grid).value.exp(), grid.squeeze(1)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_no_step_lowers_the_bound_and_the_last_is_at_rest(covariance, monkeypatch):
    x = drawn()
    model = create_model("mixture", (4,), components=5, covariance=covariance, iterations=60)
    monkeypatch.setattr(type(model), "TOLERANCE", -math.inf)
    source = whole(x, Real())
    bounds = []
    steps = model._steps
    monkeypatch.setattr(
        model, "_steps", lambda x, blur: (bounds.append(s[0]) or s for s in steps(x, blur))
    )
    model.fit_exactly(source)
    rises = torch.tensor(bounds).diff()
    assert len(bounds) == 60
    assert float(rises.min()) > -1e-9
    assert float(rises[:5].min()) > 0
    assert float(rises[-1]) < 0.01


def test_em_ends_where_more_of_it_would_not_matter(monkeypatch):
    x = drawn()
    ended = float(fitted(x, components=5).bound(x).value.mean())
    monkeypatch.setattr(type(fitted(x)), "TOLERANCE", -math.inf)
    converged = float(fitted(x, components=5, iterations=500).bound(x).value.mean())
    assert ended == pytest.approx(converged, abs=2e-3)


def test_the_start_does_not_depend_on_the_units_of_columns():
    x = drawn()
    unit = torch.tensor([1e-4, 1.0, 1e3, 1e6]).double()
    model = create_model("mixture", (4,), components=3)
    one, other = model._clusters(x), model._clusters(x * unit)
    assert torch.equal(one @ one.mT, other @ other.mT)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_scikit_learn_finds_nothing_better_from_there(covariance):
    x = drawn()
    model = fitted(x, covariance=covariance)
    kind = {"spherical": "spherical", "diagonal": "diag", "full": "full"}[covariance]
    precisions = torch.linalg.inv(covariances(model))
    if covariance != "full":
        precisions = precisions.diagonal(dim1=1, dim2=2)
        precisions = precisions[:, 0] if covariance == "spherical" else precisions
    theirs = sklearn.mixture.GaussianMixture(
        3,
        covariance_type=kind,
        weights_init=model.weights.numpy(),
        means_init=model.means.numpy(),
        precisions_init=precisions.numpy(),
        tol=1e-9,
        max_iter=500,
    ).fit(x.numpy())
    ours = float(model.bound(x).value.mean())
    assert ours == pytest.approx(theirs.score(x.numpy()), abs=5e-3)
    assert model.num_parameters == theirs._n_parameters()


def test_a_known_mixture_is_recovered():
    weights = torch.tensor([0.5, 0.3, 0.2]).double()
    centers = torch.tensor([[-4.0, 0], [4.0, 1], [0.0, 6]]).double()
    roots = torch.tensor([[[1.0, 0], [0.5, 0.5]], [[0.7, 0], [0, 0.7]], [[1, 0], [-0.8, 1]]])
    truth = MultivariateNormal(centers, scale_tril=roots.double())
    labels = torch.multinomial(weights, 6000, True, generator=generator())
    noise = torch.randn(6000, 2, 1, generator=generator(1), dtype=torch.float64)
    x = centers[labels] + (roots.double()[labels] @ noise).squeeze(-1)
    model = fitted(x, covariance="full")
    order = torch.cdist(centers, model.means).argmin(1)
    torch.testing.assert_close(model.weights[order], weights, atol=0.02, rtol=0)
    torch.testing.assert_close(model.means[order], centers, atol=0.1, rtol=0)
    found = covariances(model)[order]
    torch.testing.assert_close(found, truth.covariance_matrix, atol=0.2, rtol=0)


SUPPORTS = [Discrete(9), Counts(), Product((Discrete(9), Counts(), Real()))]


@pytest.mark.parametrize("support", SUPPORTS, ids=str)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_of_one_component_the_bound_is_the_mean_over_the_uniform_noise(covariance, support):
    x = levels().double()
    model = fitted(x, support, components=1, covariance=covariance)
    some, u = x[:10], torch.rand(20_000, 10, 3, generator=generator(), dtype=torch.float64)
    width = torch.tensor([float(name != "real") for name in _columns(support)]).double()
    sampled = by_torch(model).log_prob(some + width * u)
    error = sampled.std(0) / len(u) ** 0.5
    assert ((model.bound(some).value - sampled.mean(0)).abs() < 4.5 * error).all()
    # And the fit is that of the blurred data.
    expected = x.T.cov(correction=0) + (width / 12).diag()
    if covariance == "full":
        torch.testing.assert_close(covariances(model)[0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.means[0], x.mean(0) + 0.5 * width)


def _columns(support) -> list[str]:
    return [str(p) for p in support.parts] if isinstance(support, Product) else [str(support)] * 3


def test_discrete_nats_are_bounds_on_the_mass_of_the_cell():
    x = levels()
    model = fitted(x, Discrete(9), components=4)
    some = x[:6]
    edges = [Normal(model.means, model.scales).cdf(some.double().unsqueeze(1) + e) for e in (0, 1)]
    exact = ((edges[1] - edges[0]).prod(-1) @ model.weights).log()
    assert model.evidence_kind == "lower bound"
    bound = model.bound(some).value
    assert (bound < exact).all()
    weights = model.log_weight(some, 40_000)
    mean = weights.mean(0)  # the single-sample bound with the same q: the same expectation
    assert ((bound - mean).abs() < 4.5 * weights.std(0) / 200).all()
    torch.testing.assert_close(weights.logsumexp(0) - math.log(40_000), exact, atol=0.03, rtol=0)
    # A weight is what it says: log p(x, z, u) − log q(z|x).
    draw = model.draw(some, 7)
    log_q = model.encode(some).log_prob(draw.latents["z"])
    torch.testing.assert_close(model.log_joint(some, draw.latents) - log_q, draw.log_weight)
    assert "dequantised" in model.notes()[0]


def test_the_likelihood_needs_no_samples():
    x = levels()
    model = fitted(x, Discrete(9))
    torch.testing.assert_close(log_likelihood(model, x, num_samples=2).value, model.bound(x).value)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_draws_have_the_moments_of_the_mixture(covariance):
    x = drawn()
    model = fitted(x, covariance=covariance)
    draws = model.sample(40_000, generator=generator())
    between = (model.means - model.weights @ model.means).mT
    between = between * model.weights @ between.mT
    within = (model.weights[:, None, None] * covariances(model)).sum(0)
    torch.testing.assert_close(draws.mean(0), model.weights @ model.means, atol=0.06, rtol=0)
    torch.testing.assert_close(draws.T.cov(), within + between, atol=0.25, rtol=0.03)
    means = model.sample(2000, generator=generator(), mean=True)
    shares = (torch.cdist(means, model.means) < 1e-6).double().mean(0)
    torch.testing.assert_close(shares, model.weights, atol=0.04, rtol=0)


def test_draws_of_a_full_component_have_its_covariance():
    root = torch.tensor([[[1.0, 0.0], [2.0, 0.5]]]).double()
    noise = torch.randn(20_000, 2, generator=generator(), dtype=torch.float64)
    index = torch.zeros(20_000, dtype=torch.long)
    draws = Components(torch.zeros(1, 2).double(), root).drawn(index, noise)
    torch.testing.assert_close(draws.T.cov(), (root @ root.mT)[0], atol=0.15, rtol=0)


def test_draws_of_levels_have_the_moments_of_the_levels():
    x = levels(3000)
    draws = fitted(x, Discrete(9), components=6).sample(20_000, generator=generator()).double()
    torch.testing.assert_close(draws.mean(0), x.double().mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(draws.std(0), x.double().std(0), atol=0.15, rtol=0)


@pytest.mark.parametrize(
    "support",
    [Binary(), Discrete(4), Counts(), Unit(), Product((Unit(), Binary(), Counts()))],
    ids=str,
)
def test_draws_are_values_of_the_support(support):
    x = torch.randint(0, 2, (200, 3), generator=generator()).double()
    draws = fitted(x, support).sample(500, generator=generator())
    assert support.contains(draws)
    assert len(draws.unique()) > 1


def test_a_one_hot_code_decodes_to_its_component_and_weights_to_their_mixture():
    x = drawn()
    model = fitted(x, covariance="full")
    p = model.decode(torch.eye(3))
    expected = MultivariateNormal(model.means, covariances(model)).log_prob(x[:3])
    torch.testing.assert_close(p.log_prob(x[:3]), expected)
    torch.testing.assert_close(p.mean, model.means)
    q = model.encode(x).mean
    torch.testing.assert_close(model.decode(q).mean, q @ model.means)
    torch.testing.assert_close(model.decode(2 * q).mean, q @ model.means)


def test_a_choice_is_the_categorical_of_torch_as_one_hot_vectors():
    logits = torch.randn(4, 3, generator=generator(), dtype=torch.float64)
    q, theirs = OneHot(logits), torch.distributions.OneHotCategorical(logits=logits)
    torch.testing.assert_close(q.mean, theirs.mean)
    torch.testing.assert_close(q.entropy(), theirs.entropy())
    torch.testing.assert_close(q.log_scale.exp(), theirs.stddev)
    chosen = q.chosen(torch.rand(20_000, 4, 1, generator=generator(1), dtype=torch.float64))
    assert (chosen.sum(-1) == 1).all()
    torch.testing.assert_close(chosen.mean(0), q.mean, atol=0.015, rtol=0)
    torch.testing.assert_close(q.log_prob(chosen[0]), theirs.log_prob(chosen[0]))


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_nats_follow_the_unit(covariance, unit):
    x = drawn()
    one, other = fitted(x, covariance=covariance), fitted(x * unit, covariance=covariance)
    expected = one.bound(x).value - 4 * math.log(unit)
    torch.testing.assert_close(other.bound(x * unit).value, expected, rtol=1e-5, atol=1e-5)


def test_columns_of_very_different_units_are_no_obstacle():
    x = drawn()
    unit = torch.tensor([1e-4, 1.0, 1e3, 1e6]).double()
    one, other = fitted(x, covariance="full"), fitted(x * unit + unit, covariance="full")
    expected = one.bound(x).value - float(unit.log().sum())
    torch.testing.assert_close(other.bound(x * unit + unit).value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_constant_columns_and_repeated_examples_stay_finite_and_are_told(covariance):
    x = torch.cat([drawn(60)[:, :2], torch.full((60, 1), 5.0).double()], 1)
    x[40:, :2] = 50.0
    model = fitted(x, covariance=covariance)
    assert model.bound(x).value.isfinite().all()
    assert any("no more spread than the floor" in note for note in model.notes())
    assert not fitted(drawn(), covariance=covariance).notes()


def test_where_em_starts_follows_from_the_seed():
    x = drawn()
    one, two, other = (fitted(x, components=7, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.means, two.means)
    assert not torch.equal(one.means, other.means)


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="'components' must be at least 1, got 0"):
        create_model("mixture", (4,), components=0)
    with pytest.raises(InputError, match="'components' must be at most the 12 training examples"):
        fitted(drawn(12), components=13)
