"""The table of `evaluate`: estimators side by side, each with its error and what carries it."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.evaluation import evaluate
from lowerbound.evaluation.judge import subset
from lowerbound.tables import evaluation_table


@pytest.fixture(scope="module")
def judged(digits):
    model = create_model("vae", digits, latent_dim=2, width=8)
    return evaluate(model, digits, num_samples=20, max_rows=30, ais=2, ais_chains=8)


def rows_of(result):
    return {name.strip(): (value, what) for name, value, what in evaluation_table(result)}


def test_the_three_estimators_and_their_decomposition_stand_side_by_side(judged):
    rows = rows_of(judged)
    for name, key in (
        ("prior Monte Carlo", "prior_monte_carlo"),
        ("bound", "bound"),
        ("log-likelihood", "log_likelihood"),
    ):
        part = judged[key]
        assert rows[name][0] == f"{part['value']:.3f} ± {part['standard_error']:.3f} nats"
    for name in ("prior Monte Carlo", "log-likelihood"):
        assert "20, mean effective sample size" in rows[name][1]
    assert rows["gap"] == (f"{judged['gap']:.3f} nats", "log-likelihood − bound, at least")
    assert "2 steps, 8 chains; on these 30 examples" in rows["AIS"][1]
    assert f"{math.log(30):.3f}" in rows["information"][1]


def test_an_exact_evidence_is_shown_as_exact(blobs):
    model = create_model("ppca", blobs, latent_dim=2)
    model.fit_exactly(blobs)
    rows = rows_of(evaluate(model, blobs, num_samples=3))
    assert rows["log-likelihood"][1] == "exact, in closed form"
    assert rows["gap"] == ("0.000 nats", "log-likelihood − bound")
    assert "latents from the prior" in rows["prior Monte Carlo"][1]


def test_advice_is_told_and_an_older_file_is_read(judged):
    assert rows_of(judged | {"diagnosis": "Do better."})["advice"][1] == "Do better."
    new = "prior_monte_carlo ais mutual_information diagnosis rate_per_latent".split()
    old = rows_of({key: value for key, value in judged.items() if key not in new})
    assert {"prior Monte Carlo", "AIS", "information", "advice"}.isdisjoint(old)
    assert "bound" in old


def test_every_term_has_its_error_over_examples_and_its_bits(judged, digits):
    model = create_model("vae", digits, latent_dim=2, width=8)
    x = subset(digits.test, 30).x
    with torch.no_grad():
        bound = model.bound(x, num_samples=16, noise=model.judging_noise(range(30), 16))
    rows, bits = rows_of(judged), {}
    for name, term in bound.terms().items():
        error = float(term.double().std() / math.sqrt(30))
        assert judged["bound"]["term_errors"][name] == pytest.approx(error, rel=1e-4)
        sign = "+" if name == "reconstruction" else "−"
        value, what = rows[f"{sign} {name}"]
        assert value == f"{judged['bound']['terms'][name]:.3f} ± {error:.3f} nats"
        bits[name] = float(what.split(":")[1].split()[0])
    assert sum(bits.values()) == pytest.approx(judged["bits_per_dim"], abs=2e-4)
    error = judged["bound"]["standard_error"] / (64 * math.log(2))
    assert rows["bits/dim"][0] == f"{judged['bits_per_dim']:.4f} ± {error:.4f}"
