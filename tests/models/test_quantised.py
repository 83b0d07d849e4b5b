"""The quantised autoencoder: sums over all codes, gradients, batches, and what it refuses."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from lowerbound._random import initialised_by
from lowerbound.build import create_model, load_model
from lowerbound.data import Rows, make_source
from lowerbound.distributions import Binary, Discrete, Real
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate
from lowerbound.objectives import Weights, elbo
from lowerbound.run import fit

TINY = {"places": 2, "codebook_size": 3, "latent_dim": 2, "width": 8, "prior_width": 16}
QUANTISERS = {
    "vq": TINY,
    "vq by gradient": {**TINY, "codebook": "gradient"},
    "rvq": {**TINY, "quantiser": "rvq", "num_codebooks": 2, "places": 1},
    "fsq": {"quantiser": "fsq", "levels": (3,), "places": 2, "width": 8, "prior_width": 16},
}
"""Nine sequences of codes each: two codes of three values."""


def tiny(kind="vq", **options):
    """A model of four bits, whose prior is none in particular."""
    model = create_model("vqvae", (4,), support=Binary(), **{**QUANTISERS[kind], **options})
    with initialised_by(1):
        for parameter in model.prior.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture(params=QUANTISERS)
def kind(request):
    return request.param


def all_bits():
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)))


def all_codes():
    return torch.tensor(list(itertools.product(range(3), repeat=2)))


@pytest.mark.parametrize("prior", ["uniform", "autoregressive"])
def test_the_bound_is_the_term_of_its_code_in_the_sum_over_all_codes(kind, prior):
    model, x, codes = tiny(kind, prior=prior), all_bits(), all_codes()
    log_prior = model.prior.log_prob(codes)
    torch.testing.assert_close(log_prior.logsumexp(0), torch.tensor(0.0), atol=1e-5, rtol=0)
    log_joint = model.log_joint(x, {"z": codes.unsqueeze(1).expand(-1, 16, -1)})
    evidence = log_joint.logsumexp(0)
    torch.testing.assert_close(evidence.logsumexp(0), torch.tensor(0.0), atol=1e-5, rtol=0)
    bound = model.bound(x).value
    assert (bound < evidence).all()
    chosen = 3 * model.codes(x)[:, 0] + model.codes(x)[:, 1]
    torch.testing.assert_close(bound, log_joint[chosen, torch.arange(16)])
    torch.testing.assert_close(model.log_weight(x, 2), bound.expand(2, -1))


def test_a_uniform_prior_costs_log_n_for_each_code(kind):
    bound = tiny(kind, prior="uniform").bound(all_bits())
    torch.testing.assert_close(bound.rates["codes"], torch.full((16,), 2 * math.log(3)))


def test_a_prior_is_as_often_as_it_says(kind):
    prior = tiny(kind).prior
    drawn = prior.sample(20_000, None, torch.Generator().manual_seed(0))
    frequency = torch.bincount(3 * drawn[:, 0] + drawn[:, 1], minlength=9) / len(drawn)
    torch.testing.assert_close(frequency, prior.log_prob(all_codes()).exp(), atol=0.015, rtol=0)


def test_codes_and_their_vectors_decode_to_the_same(kind):
    model, x = tiny(kind), all_bits()
    by_codes = model.decode(model.codes(x)).mean
    torch.testing.assert_close(model.decode(model.encode(x).mean).mean, by_codes)
    q = model.encode(x)
    assert torch.equal(q.log_prob(q.sample()), torch.zeros(16))
    assert (q.log_prob(q.mean + 1) == -math.inf).all()


def test_the_rate_has_no_gradient_but_that_of_the_prior(kind):
    model = tiny(kind).train()
    model.bound(all_bits()).rate.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("prior."), name


def test_penalties_are_beside_the_bound_and_in_the_loss(kind):
    model, x = tiny(kind).train(), all_bits()
    loss, bound = elbo(model, x, None, {}, 1, Weights())
    expected = {"vq by gradient": {"commitment", "codebook"}}
    assert set(bound.penalties) == expected.get(kind, {"commitment"})
    torch.testing.assert_close(loss, sum(bound.penalties.values()) - bound.value)
    torch.testing.assert_close(bound.value, tiny(kind).bound(x).value)


def test_the_commitment_is_a_mean_square_per_dimension_of_the_data():
    model, x = tiny("vq", commitment=0.7), all_bits()
    z = model.encoder(model.likelihood.standardized(x))
    mean_square = (z - model.encode(x).mean).square().mean(1)
    torch.testing.assert_close(model.bound(x).penalties["commitment"], 0.7 * 4 * mean_square)


def gradients(model, x):
    model.zero_grad()
    elbo(model, x, None, {}, 1, Weights())[0].mean().backward()
    return [p.grad.clone() for p in model.parameters()]


def test_a_batch_of_twice_the_same_has_the_same_gradients(kind):
    model, x = tiny(kind).train(), all_bits()
    for once, twice in zip(gradients(model, x), gradients(model, torch.cat([x, x])), strict=True):
        torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("num_places", [1, 2, 8])
def test_the_pull_on_all_places_together_does_not_grow_with_their_number(num_places):
    """The same error everywhere: the penalty is that of one place."""
    options = {"places": num_places, "codebook_size": 2, "latent_dim": 2, "width": 8}
    model = create_model("vqvae", (8,), **options)
    model.quantiser.books[0].vectors.zero_()
    nn.init.zeros_(model.encoder.last.weight)
    nn.init.constant_(model.encoder.last.bias, 3.0)
    penalty = model.bound(torch.zeros(2, 8)).penalties["commitment"]
    torch.testing.assert_close(penalty, torch.full((2,), 0.25 * 8 * 9.0))


# --- training -----------------------------------------------------------------------------------


def test_codebooks_follow_in_training_and_nowhere_else(kind, digits):
    model = create_model("vqvae", digits, **QUANTISERS[kind])
    x = digits.train[slice(0, 20)][0]
    before = {name: t.clone() for name, t in model.named_buffers()}
    model.bound(x)
    assert model.bound(x).observed == {}
    assert all(torch.equal(t, before[name]) for name, t in model.named_buffers())
    rows = fit(model, digits, steps=3, quiet=True).history.rows
    assert any(not torch.equal(t, before[name]) for name, t in model.named_buffers())
    logged = [row for row in rows if row["kind"] == "train"]
    assert logged
    assert all({"codes_used", "code_perplexity"} <= set(row) for row in logged)


def test_a_spoilt_batch_never_reaches_the_codebook(digits):
    model = create_model("vqvae", digits, **TINY)
    calls = []

    def spoil(module, given, output):
        calls.append(module.training)
        return output * math.nan if sum(calls) == 4 and module.training else output

    model.encoder.register_forward_hook(spoil)
    rows = fit(model, digits, steps=8, quiet=True).history.rows
    assert [row for row in rows if row["kind"] == "train"][-1]["skipped"] == 1
    assert all(t.isfinite().all() for t in model.state_dict().values())


LEARNED = {"vq": {"codebook_size": 64}, "fsq": {"quantiser": "fsq", "levels": (4, 4, 4)}}


@pytest.mark.parametrize(
    "quantiser", ["vq", pytest.param("fsq", marks=[pytest.mark.nightly])], ids=LEARNED
)
def test_training_at_the_usual_rate_uses_the_codes_and_is_worth_them(quantiser, digits):
    """Four codes of 64 carry several nats, and gain more than they cost."""
    options = {"places": 4, "width": 128, "prior_width": 32, **LEARNED[quantiser]}
    model = create_model("vqvae", digits, **options)
    fit(model, digits, steps=300, batch_size=128, quiet=True)
    assert model.facts()["code_perplexity"] > 20
    with torch.no_grad():
        bound = model.bound(digits.test[slice(None)][0])
        assert bound.rate.mean() > 5
        shuffled = model.codes(digits.test[slice(None)][0]).roll(1, 0)
        p = model.decode(shuffled)
        lost = bound.reconstruction - p.log_prob(digits.test[slice(None)][0])
    assert lost.mean() > bound.rate.mean()


def test_an_objective_of_draws_is_refused(digits):
    model = create_model("vqvae", digits, **TINY)
    with pytest.raises(InputError, match="'objective' must be elbo for a 'vqvae', got one of"):
        fit(model, digits, steps=3, objective="iwae", num_samples=2, quiet=True)


def test_the_optimal_sigma_is_that_of_the_training_set(blobs):
    model = create_model("vqvae", blobs, sigma="optimal", places=2, codebook_size=8, width=16)
    fit(model, blobs, steps=20, quiet=True)
    model.settle(blobs)
    x = blobs.train[slice(None)][0]
    error = (x - model.decode(model.codes(x)).mean).square().mean()
    p = model.decode(model.codes(x))
    torch.testing.assert_close(p.log_scale.exp().square().mean(), error, rtol=1e-4, atol=0)


def test_it_is_judged_by_one_draw_whose_answer_is_the_bound(digits, monkeypatch):
    model = create_model("vqvae", digits, places=2, codebook_size=8, width=16, prior_width=16)
    monkeypatch.setattr(type(model), "draw", None)  # nobody asks for the same draw K times
    result = evaluate(model, digits, num_samples=100, max_rows=40, baselines=False)
    weighted, bound = result["importance_sampled"], result["bound"]["value"]
    assert weighted["num_samples"] == 1
    assert weighted["effective_sample_size"] == 1
    assert weighted["monte_carlo_error"] == 0
    assert weighted["value"] == result["log_likelihood"]["value"] == pytest.approx(bound, abs=1e-9)


# --- the grid, and what does not fit ------------------------------------------------------------


@pytest.mark.parametrize("halvings", [0, 1, 3])
@pytest.mark.parametrize("quantiser", ["vq", "rvq"])
def test_a_place_of_the_grid_sees_and_draws_its_own_part_of_the_image(halvings, quantiser):
    options = {"network": "grid", "halvings": halvings, "width": 8, "latent_dim": 4, "depth": 0}
    model = create_model("vqvae", (2, 9, 12), support=Discrete(4), quantiser=quantiser, **options)
    rows, columns = model.grid
    assert (rows, columns) == (-(-9 // 2**halvings), -(-12 // 2**halvings))
    codes = model.codes(torch.zeros(3, 2, 9, 12))
    assert codes.shape == (3, rows * columns * model.quantiser.codes_per_place)
    if halvings == 1:
        z = model.encode(torch.zeros(1, 2, 9, 12)).mean
        other = z.clone()
        other[:, :4] += 1  # the vector of the place at the top left
        changed = (model.decoder(other) != model.decoder(z)).flatten(0, 1).any(0)
        assert changed[0, 0]
        assert not changed[-1].any()
        assert not changed[:, -1].any()


def test_a_codebook_larger_than_the_places_of_the_data_is_refused():
    x = torch.zeros(60, 3)
    source = make_source(Rows(x=x + torch.arange(60.0).unsqueeze(1), support=Real(), name="few"))
    most = 2 * len(source.train)
    model = create_model("vqvae", source, places=2, codebook_size=most)
    assert model.decode(torch.zeros(1, 2, dtype=torch.int64)).mean.shape[0] == 1
    with pytest.raises(InputError, match=f"'z' must be codes from 0 to {most - 1}, got codes"):
        model.decode(torch.tensor([[0, most]]))
    with pytest.raises(InputError, match="'z' must be latents of shape N×2, got 1×3"):
        model.decode(torch.zeros(1, 3, dtype=torch.int64))
    message = f"'codebook_size' must be at most the {most} places of the training examples, got"
    with pytest.raises(InputError, match=message):
        create_model("vqvae", source, places=2, codebook_size=most + 1)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4,), {"places": 5}, "'places' must be at most the 4 numbers of an example, got 5"),
        ((4,), {"network": "grid"}, "'network' must be mlp for data with 1 axes, got grid"),
        ((4,), {"halvings": 1}, "'halvings' must be left out where there is no grid, got 1"),
        ((1, 16, 20), {"halvings": 6}, "'halvings' must be at most 5 for an image of 16×20"),
        ((1, 16, 20), {"places": 9}, "'places' must be left out for a grid, got 9"),
        ((4,), {"quantiser": "fsq", "levels": (8, 1)}, "'levels' must be at least 2 each"),
        ((4,), {"levels": (8, 8)}, "'levels' must be left out for quantiser vq"),
        ((4,), {"num_codebooks": 2}, "'num_codebooks' must be left out for quantiser vq"),
        ((4,), {"quantiser": "fsq", "codebook_size": 8}, "'codebook_size' must be left out for"),
        ((4,), {"quantiser": "fsq", "latent_dim": 8}, "'latent_dim' must be left out for"),
        ((4,), {"codebook_size": 1}, "'codebook_size' must be at least 2, got 1"),
        ((4,), {"commitment": -1.0}, "'commitment' must be 0 or more, got -1"),
        ((4,), {"commitment": math.nan}, "'commitment' must be 0 or more, got nan"),
        ((4,), {"places": 0}, "'places' must be at least 1, got 0"),
        (
            (1, 80, 80),
            {"halvings": 0, "network": "grid"},
            "'prior' must be uniform where an example has more than 4,096 codes, got autoregress",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(shape, options, message):
    with pytest.raises(InputError, match=message) as refused:
        create_model("vqvae", shape, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.nightly
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processor cores")
def test_two_processes_end_with_the_codebook_of_one(tmp_path):
    """The first step sets all codes, from rows that either process may have."""
    ended = []
    for devices in (1, 2):
        out = tmp_path / str(devices)
        command = f"""lowerbound train digits --model vqvae --quantiser rvq --num-codebooks 2
            --codebook-size 16 --places 4 --latent-dim 4 --width 16 --prior-width 16 --steps 6
            --batch-size 200 --precision float32 --device cpu --devices {devices} --quiet
            --num-samples 1 --out {out}""".split()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOWERBOUND_TIMEOUT": "30"}
        done = subprocess.run(
            [sys.executable, "-m", *command], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        ended.append(load_model(out).quantiser.state_dict())
    for name, tensor in ended[0].items():
        torch.testing.assert_close(ended[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_a_compiled_step_gives_the_same_loss_and_the_same_vectors():
    model, x = tiny("rvq").train(), all_bits()
    plain, bound = elbo(model, x, None, {}, 1, Weights())
    try:
        compiled = torch.compile(elbo, dynamic=False, backend="aot_eager")
        loss, again = compiled(model, x, None, {}, 1, Weights())
    finally:
        torch._dynamo.reset()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(again.observed["vectors"], bound.observed["vectors"])


def test_more_codes_of_fsq_than_a_prior_has_room_for_are_refused():
    with pytest.raises(
        InputError, match="'levels' must be of at most 65,536 codes, their product"
    ):
        create_model("vqvae", (8,), quantiser="fsq", levels=(1000, 1000))
