"""Annealed importance sampling: exact in mean, close where the encoder is hopeless."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.errors import InputError
from lowerbound.evaluation import ais, annealed_importance_sampling, evaluate, log_likelihood


@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_its_weights_are_unbiased(make_linear, monkeypatch, start):
    """E w = p(x) holds for any ladder, however short, if the steps leave each rung as it is."""
    monkeypatch.setattr(ais, "TUNING_RUNGS", 15)
    known = make_linear("wide", d=2)
    x, exact = known.x[:1].expand(6, -1), known.log_evidence[0]
    estimate = annealed_importance_sampling(
        known.model, x, num_steps=12, num_chains=1200, start=start
    )
    ratio = (estimate.value - exact).exp()
    errors = ratio * estimate.standard_error
    assert float(estimate.effective_sample_size.min()) > 50
    assert abs(float(ratio.mean()) - 1) < 4 * float(errors.square().sum().sqrt()) / 6


def test_it_finds_the_evidence_that_a_poor_encoder_misses_at_the_same_cost(make_linear):
    known = make_linear("off", d=3, size=6)
    steps, chains = 200, 16
    estimate = annealed_importance_sampling(
        known.model, known.x, num_steps=steps, num_chains=chains
    )
    error = estimate.value - known.log_evidence
    assert (error.abs() < 4 * estimate.standard_error).all()
    assert float(error.mean().abs()) < 0.2
    decoded = (steps + ais.TUNING_RUNGS) * chains * (ais.LEAPFROG_STEPS + 1)
    by_encoder = log_likelihood(known.model, known.x[:4], num_samples=decoded)
    assert float((known.log_evidence[:4] - by_encoder.value).mean()) > 1


def test_one_step_is_plain_importance_sampling(make_linear):
    known = make_linear("off", d=1)
    one = annealed_importance_sampling(
        known.model, known.x, num_steps=1, num_chains=9, start="encoder"
    )
    q = known.model.encode(known.x)
    generators = [ais.generator_for("ais", "main", 0, row) for row in range(12)]
    noise = torch.cat([known.model.noise(1, 9, g)["z"] for g in generators], dim=1)
    weight = known.model.log_weight(known.x, 9, noise={"z": noise})
    torch.testing.assert_close(one.value, (weight.logsumexp(0) - math.log(9)).detach())
    assert q.loc.shape == (12, 1)


def test_more_steps_are_tighter(make_linear):
    known = make_linear("off", d=3, size=6)
    short = [
        float((known.log_evidence - estimate.value).mean())
        for estimate in (
            annealed_importance_sampling(known.model, known.x, num_steps=t, num_chains=4)
            for t in (1, 15, 120)
        )
    ]
    assert short == sorted(short, reverse=True)
    assert short[0] > 3


def test_how_rows_are_batched_changes_nothing(digits, monkeypatch):
    model = create_model("vae", digits, latent_dim=2, width=8).eval()
    x = digits.test.x[:5]
    options = {"num_steps": 4, "num_chains": 16}
    monkeypatch.setattr(ais, "TUNING_RUNGS", 15)
    whole = annealed_importance_sampling(model, x, **options).value
    few = annealed_importance_sampling(model, x[:2], **options).value
    assert torch.equal(few, whole[:2])  # not only nearly: paths are chaotic
    monkeypatch.setattr(ais, "CHAINS_AT_ONCE", 32)  # blocks of two, the last one with a stand-in
    blocked = annealed_importance_sampling(model, x, **options).value
    alone = annealed_importance_sampling(model, x[:3], **options).value
    assert torch.equal(alone, blocked[:3])
    other = annealed_importance_sampling(model, x, **options, seed=1).value
    assert (other != whole).all()


@pytest.mark.parametrize("step", [1e6, 1e40])  # to numbers beyond use, and to no numbers
def test_a_path_that_runs_away_is_refused_and_not_followed(make_linear, monkeypatch, step):
    known = make_linear("off")
    monkeypatch.setattr(ais, "FIRST_STEP", step)
    estimate = annealed_importance_sampling(known.model, known.x, num_steps=5, num_chains=4)
    assert estimate.value.isfinite().all()


def test_the_steps_are_tuned_on_noise_that_does_not_count(make_linear, monkeypatch):
    """With the same noise the weights would choose their own steps, and be biased."""
    known, keys = make_linear(), []
    real = ais.generator_for
    monkeypatch.setattr(
        ais, "generator_for", lambda *key, **kw: (keys.append(key), real(*key, **kw))[1]
    )
    annealed_importance_sampling(known.model, known.x[:1], num_steps=3, num_chains=256)
    assert len(keys) == 2
    assert keys[0] != keys[1]


def test_a_closed_form_is_taken_as_it_is(blobs):
    model = create_model("ppca", blobs, latent_dim=2)
    model.fit_exactly(blobs)
    exact = model.bound(blobs.test.x).value
    estimate = annealed_importance_sampling(model, blobs.test.x, num_steps=3)
    torch.testing.assert_close(estimate.value, exact)


def test_a_closed_form_that_is_a_lower_bound_is_no_estimate_of_it(digits):
    x = digits.test[slice(0, 4)][0]
    for name, options in (("vqvae", {"codebook_size": 16}), ("ppca", {}), ("mixture", {})):
        model = create_model(name, digits, **options)
        model.calibrate(digits)
        with pytest.raises(InputError, match="is a lower bound on these data"):
            annealed_importance_sampling(model, x, num_steps=3)


def test_evaluation_shows_it_when_asked_beside_the_log_likelihood_of_the_same_rows(
    digits, monkeypatch
):
    monkeypatch.setattr(ais, "TUNING_RUNGS", 5)
    model = create_model("vae", digits, latent_dim=2, width=8)
    options = {"num_samples": 5, "baselines": False, "ais": 2, "ais_chains": 3}
    result = evaluate(model, digits, **options)
    part = result["ais"]
    assert (part["num_steps"], part["num_chains"], part["num_examples"]) == (2, 3, 100)
    assert math.isfinite(part["value"])
    whole = evaluate(model, digits, **options, max_rows=20)
    assert whole["ais"]["log_likelihood"] == pytest.approx(whole["log_likelihood"]["value"])
    assert "ais" not in evaluate(model, digits, num_samples=2, baselines=False, max_rows=5)


@pytest.mark.parametrize("wrong", [{"num_steps": 0}, {"num_chains": 0}, {"start": "middle"}])
def test_refusals(make_linear, wrong):
    known = make_linear()
    with pytest.raises(InputError, match=f"'{next(iter(wrong))}' must be"):
        annealed_importance_sampling(known.model, known.x, **wrong)


def test_a_model_without_a_latent_to_anneal_is_refused(make_linear, monkeypatch):
    known = make_linear()
    monkeypatch.setattr(
        type(known.model), "judging_noise", lambda self, rows: {"z_1": 0, "z_2": 0}
    )
    with pytest.raises(InputError, match="no single continuous latent to anneal"):
        annealed_importance_sampling(known.model, known.x)
