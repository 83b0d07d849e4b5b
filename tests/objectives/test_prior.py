"""Prior Monte Carlo: right in mean, and useless beyond a few latents."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from lowerbound._random import generator_for
from lowerbound.errors import InputError
from lowerbound.objectives import OBJECTIVES, prior_log_weight
from tests.objectives.toy import KNOWN, Toy, assert_mean, run, slopes
from tests.oracles import PRIOR_SHORTFALL, importance_bound, importance_slope, prior_shortfall

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_prior_monte_carlo_is_the_weighted_bound_of_the_prior():
    at = {"c": KNOWN.c, "eta": 0.0, "log_tau": 0.0}
    for num_samples in (1, 2, 3):
        _, bound, _ = run("prior-monte-carlo", num_samples, rows=5000)
        assert_mean(bound.value, importance_bound(num_samples, **at))
    grads = slopes("prior-monte-carlo", 2, rows=5000)
    assert_mean(grads["c"], importance_slope(2, "c", **at))
    assert grads["eta"] is None  # it has no use for an encoder


def test_prior_monte_carlo_fails_as_latents_grow_and_the_posterior_does_not():
    errors = []
    for d in (1, 16, 32, 64):
        _, hopeless, _ = run("prior-monte-carlo", 500, rows=40, d=d)
        _, exact, _ = run("iwae", 1, rows=40, d=d, posterior=True)
        torch.testing.assert_close(
            exact.value, torch.full_like(exact.value, d * KNOWN.log_evidence)
        )
        errors.append(d * KNOWN.log_evidence - float(hopeless.value.mean()))
    assert abs(errors[0]) < 0.05
    assert all(more > 2 * abs(fewer) for fewer, more in itertools.pairwise(errors))
    assert errors[-1] > 20


@pytest.mark.parametrize("d", [1, 8, 16])
def test_by_how_much_it_falls_short_is_what_the_page_says(d):
    """One table, three ways: the page, an estimate in numpy, and the library's own."""
    known, error = PRIOR_SHORTFALL[d]
    page = (DOCS / "theory" / "objectives.md").read_text()
    row = next(r for r in page.splitlines() if r.startswith("| nats below log p(x), mean"))
    told = dict(zip(PRIOR_SHORTFALL, row.split("|")[2:-1], strict=True))[d].split("±")
    assert float(told[0]) == pytest.approx(known, abs=error)
    assert float(told[1]) == pytest.approx(error, rel=0.15)
    library = d * KNOWN.log_evidence - run("prior-monte-carlo", 500, rows=1000, d=d)[1].value
    for short in (library.detach().numpy(), prior_shortfall(d, 500, 1000, seed=1)):
        own = float(short.std()) / math.sqrt(len(short))
        assert float(short.mean()) == pytest.approx(known, abs=4 * math.hypot(error, own))


def test_draws_of_the_prior_follow_from_the_example_alone():
    model = Toy(5)
    make = [lambda row=row: generator_for("judge", 0, row) for row in range(5)]
    whole = prior_log_weight(model, model.x, 7, generators=[g() for g in make])
    assert whole.shape == (7, 5)
    assert len(whole.unique()) == 35
    part = Toy(2)
    some = prior_log_weight(part, part.x, 7, generators=[make[3](), make[1]()])
    torch.testing.assert_close(some, whole[:, [3, 1]])
    value = run("prior-monte-carlo", 4, rows=6)[1].value
    assert torch.equal(run("prior-monte-carlo", 4, rows=6)[1].value, value)
    assert len(value.unique()) == 6


def test_prior_monte_carlo_needs_a_prior():
    model = Toy(2)
    del model.prior
    with pytest.raises(InputError, match="needs a model with a prior over its latents"):
        prior_log_weight(model, model.x, 2, generators=[])


def test_prior_monte_carlo_needs_noise_to_be_seeded_by():
    with pytest.raises(InputError, match="needs a model with noise"):
        OBJECTIVES["prior-monte-carlo"](Toy(2), Toy(2).x, None, {}, 2)


def test_a_prior_that_is_conditional_sees_the_context_of_its_example():
    class Conditional:
        def sample(self, num, context, generator):
            assert context.shape == (num, 1)
            return context + 0.1 * torch.arange(num)[:, None]

        def log_prob(self, z, context):
            return 0 * z.sum(-1)

    model = Toy(3)
    model.prior = Conditional()
    context = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    z = context + 0.1 * torch.arange(2)[:, None, None]
    given = prior_log_weight(model, model.x, 2, context, generators=[None] * 3)
    torch.testing.assert_close(given, model.log_likelihood(model.x, z))
