"""Prior Monte Carlo: right where the latents are few, hopeless where they are many."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import Rows, make_source
from lowerbound.distributions import LIKELIHOODS, Binary, Discrete, Product, Real
from lowerbound.errors import InputError
from lowerbound.evaluation import base, evaluate, log_likelihood, nats, prior, prior_monte_carlo
from lowerbound.models import VAE


def test_it_finds_the_evidence_where_the_latents_are_few(make_linear):
    known = make_linear(d=1)
    estimate = prior_monte_carlo(known.model, known.x, num_samples=20_000)
    error = (estimate.value - known.log_evidence).abs()
    assert (error < 4 * estimate.standard_error).all()
    assert float(estimate.standard_error.max()) < 0.1


def test_it_is_unbiased_before_the_logarithm(make_linear):
    """The mean over seeds of p̂/p is 1, also with two samples each."""
    known = make_linear(d=1)
    x = known.x[:1]
    draws = [prior_monte_carlo(known.model, x, num_samples=2, seed=s) for s in range(2000)]
    ratio = (torch.cat([d.value for d in draws]) - known.log_evidence[0]).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(2000)


def test_it_fails_as_the_latents_grow_where_the_encoder_does_not(make_linear):
    """The bias and the draws that count: worse with every dimension; the posterior is exact."""
    short, sizes = [], []
    for d in (1, 2, 4, 8):
        known = make_linear(d=d, size=10)
        estimate = prior_monte_carlo(known.model, known.x, num_samples=300)
        short.append(float((known.log_evidence - estimate.value).mean()))
        sizes.append(float(estimate.effective_sample_size.mean()))
        by_encoder = log_likelihood(known.model, known.x, num_samples=3)
        torch.testing.assert_close(by_encoder.value, known.log_evidence)
    assert short[-1] > 5
    assert short[1:] == sorted(short[1:])
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 3
    assert 1 <= float(estimate.effective_sample_size.min()) < 1.2


@pytest.mark.parametrize("num_samples", [100, 300, 1000])
def test_the_error_of_shared_codes_is_how_far_other_codes_move_the_mean(make_linear, num_samples):
    """The same examples under other seeds; an error as if of codes of their own is far off."""
    known = make_linear(d=1)
    x = known.x.repeat(20, 1)
    runs = [prior_monte_carlo(known.model, x, num_samples=num_samples, seed=s) for s in range(150)]
    spread = float(torch.stack([run.value.mean() for run in runs]).std())
    told = math.sqrt(sum(run.monte_carlo_error() ** 2 for run in runs) / len(runs))
    assert told == pytest.approx(spread, rel=0.25)
    apart = [float(r.standard_error.square().mean() / len(r.value)) for r in runs]
    assert math.sqrt(sum(apart) / len(apart)) < 0.5 * spread


def test_the_standard_error_has_both_the_examples_and_the_codes_in_it(make_linear):
    """Other examples and codes each time: the examples are many, so codes are most of it."""
    model = make_linear(d=1, sigma=1.0).model  # wide: no code carries all the weight
    values, told, over_examples = [], [], []
    for seed in range(80):
        x = model.sample(15_000, generator=torch.Generator().manual_seed(seed)).double()
        summary = nats._summary(prior_monte_carlo(model, x, num_samples=30, seed=seed), 30)
        values.append(summary["value"])
        told.append(summary["standard_error"] ** 2)
        over_examples.append(told[-1] - summary["monte_carlo_error"] ** 2)
    spread = float(torch.tensor(values).std())
    assert math.sqrt(sum(told) / len(told)) == pytest.approx(spread, rel=0.3)
    assert math.sqrt(sum(over_examples) / len(over_examples)) < 0.7 * spread


def test_groups_of_codes_differ_from_all_by_what_they_are_apart_from_it(make_linear, monkeypatch):
    """Their mean, each by its number of codes, is 1; blocks of another size change nothing."""
    known = make_linear(d=2)
    for num_samples in (1, 7, 32, 45, 300, 700):
        estimate = prior_monte_carlo(known.model, known.x, num_samples=num_samples)
        num = min(num_samples, prior.GROUPS)
        assert estimate.groups.shape == (12, num)
        sizes = torch.tensor([len(range(g, num_samples, num)) for g in range(num)])
        mean = (estimate.groups * sizes).sum(1) / num_samples
        torch.testing.assert_close(mean, torch.ones(12, dtype=torch.float64))
        with monkeypatch.context() as patched:
            patched.setattr(base, "NUMBERS_AT_ONCE", {"cpu": 40})
            patched.setattr(base, "SMALLEST_FOOTPRINT", 1)
            blocked = prior_monte_carlo(known.model, known.x, num_samples=num_samples)
        torch.testing.assert_close(blocked.groups, estimate.groups)
    assert prior_monte_carlo(known.model, known.x, num_samples=1).monte_carlo_error() is None


def linear_data(k: int, size: int = 12):
    """Real vectors with k directions that stand out of noise, and their probabilistic PCA."""
    generator = torch.Generator().manual_seed(k)
    z = torch.randn(500, k, generator=generator)
    x = z @ torch.linalg.qr(torch.randn(size, k, generator=generator)).Q.mT
    x = x + 0.2 * torch.randn(500, size, generator=generator)
    source = make_source(Rows(x=x, support=Real(), name="linear"))
    model = create_model("ppca", source, latent_dim=k)
    model.fit_exactly(source)
    return model, source


def test_beside_the_exact_evidence_the_weights_are_exact_and_the_prior_fails_with_k():
    """Probabilistic PCA has its posterior: one draw is enough, and none from the prior is."""
    short = []
    for k in (1, 3, 9):
        model, source = linear_data(k)
        result = evaluate(model, source, num_samples=200)
        exact, by_q = result["log_likelihood"]["value"], result["importance_sampled"]
        assert by_q["value"] == pytest.approx(exact, abs=1e-9)
        assert by_q["num_samples"] == 100
        assert by_q["effective_sample_size"] == pytest.approx(100)
        assert by_q["monte_carlo_error"] == pytest.approx(0, abs=1e-6)
        short.append(exact - result["prior_monte_carlo"]["value"])
    assert abs(short[0]) < 0.2
    assert short[-1] > 4
    assert short == sorted(short)


@pytest.mark.parametrize("name", ["ppca", "mixture"])
def test_of_levels_the_weights_climb_above_the_closed_form_and_the_prior_is_not_defined(
    name, digits
):
    """E log p(x + u) is exact; L_K also averages over u, inside the logarithm."""
    model = create_model(name, digits, **({"latent_dim": 5} if name == "ppca" else {}))
    model.fit_exactly(digits)
    result = evaluate(model, digits, num_samples=100, max_rows=30)
    by_q = result["importance_sampled"]
    assert by_q["value"] > result["log_likelihood"]["value"] + 10 * by_q["monte_carlo_error"]
    assert result["prior_monte_carlo"] is None


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_shared_codes_give_what_each_example_would_get(name):
    """Every likelihood broadcasts: codes decoded once are scored as if decoded per example."""
    kind = LIKELIHOODS[name].supports[0]
    made = {Discrete: lambda: Discrete(5), Product: lambda: Product((Real(), Binary(), Real()))}
    support = made.get(kind, kind)()
    model = create_model("vae", (3,), support=support, latent_dim=2, width=8, likelihood=name)
    x = model.eval().sample(5, generator=torch.Generator().manual_seed(0))
    shared = prior_monte_carlo(model, x, num_samples=7).value
    generator = prior.generator_for("prior", 0, 0)
    z = model.prior.sample(prior.CODES_AT_ONCE, None, generator)[:7]
    with torch.no_grad():
        alone = [model.decode(z).log_prob(one.expand(7, -1)).double() for one in x]
    expected = torch.stack([w.logsumexp(0) - math.log(7) for w in alone])
    torch.testing.assert_close(shared, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("numbers", [64 * 3, 64 * 50, 64 * 1000])
def test_how_codes_and_examples_are_blocked_changes_nothing(digits, monkeypatch, numbers):
    model = create_model("vae", digits, latent_dim=3, width=16).eval()
    x = digits.test.x[:7]
    whole = prior_monte_carlo(model, x, num_samples=300)
    monkeypatch.setattr(base, "NUMBERS_AT_ONCE", {"cpu": numbers})
    monkeypatch.setattr(base, "SMALLEST_FOOTPRINT", 1)
    blocked = prior_monte_carlo(model, x, num_samples=300)
    torch.testing.assert_close(blocked.value, whole.value, rtol=1e-5, atol=1e-5)
    few = prior_monte_carlo(model, x[:2], num_samples=300)
    torch.testing.assert_close(few.value, whole.value[:2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        few.effective_sample_size, whole.effective_sample_size[:2], rtol=1e-4, atol=1e-4
    )


def test_exactly_m_samples_are_drawn_and_decoded(digits, monkeypatch):
    model = create_model("vae", digits, latent_dim=3, width=16).eval()
    decoded = []
    real = VAE.decode
    monkeypatch.setattr(
        VAE, "decode", lambda self, z, c=None: (decoded.append(len(z)), real(self, z))[1]
    )
    for m in (1, 255, 256, 257, 700):
        decoded.clear()
        prior_monte_carlo(model, digits.test.x[:3], num_samples=m)
        assert sum(decoded) == m


def test_evaluation_puts_it_beside_the_others(make_linear, digits):
    model = create_model("vae", digits, latent_dim=3, width=16)
    result = evaluate(model, digits, num_samples=20, baselines=False, max_rows=30)
    part = result["prior_monte_carlo"]
    assert set(part) == {
        "value",
        "standard_error",
        "monte_carlo_error",
        "num_samples",
        "effective_sample_size",
    }
    assert part["num_samples"] == 20
    assert 1 <= part["effective_sample_size"] <= 20
    ppca = create_model("ppca", digits, latent_dim=3)
    ppca.fit_exactly(digits)
    assert evaluate(ppca, digits, num_samples=2, max_rows=20)["prior_monte_carlo"] is None


def test_refusals(digits):
    model = create_model("vae", digits, latent_dim=3, width=16)
    with pytest.raises(InputError, match="'num_samples' must be at least 1, got 0"):
        prior_monte_carlo(model, digits.test.x[:2], num_samples=0)
    ppca = create_model("ppca", digits, latent_dim=3)
    with pytest.raises(InputError, match="'ppca' has no prior to draw latents from"):
        prior_monte_carlo(ppca, digits.test.x[:2], num_samples=2)
    with pytest.raises(InputError, match="'x' must be examples of shape 1×8×8"):
        prior_monte_carlo(model, torch.zeros(2, 3), num_samples=2)
