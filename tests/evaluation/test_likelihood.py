"""Judging: exactly K samples, any batch, bounded memory, honest errors."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.data import Rows, make_source
from lowerbound.distributions import Real
from lowerbound.engine import Engine
from lowerbound.errors import DivergedError, InputError
from lowerbound.evaluation import base, evaluate, latent_means, log_likelihood
from lowerbound.evaluation.judging import scores
from lowerbound.models import VAE


@pytest.fixture(scope="module")
def model(digits):
    torch.manual_seed(0)
    return create_model("vae", digits, latent_dim=3, width=16).eval()


def test_exactly_k_samples_are_drawn(model, digits, monkeypatch):
    drawn = []
    real = VAE.log_weight

    def counted(self, x, num_samples, context=None, *, noise=None):
        drawn.append(num_samples * len(x))
        return real(self, x, num_samples, context, noise=noise)

    monkeypatch.setattr(VAE, "log_weight", counted)
    monkeypatch.setattr(base, "NUMBERS_AT_ONCE", {"cpu": 512 * 100})
    for k in (1, 99, 100, 101, 250):
        drawn.clear()
        log_likelihood(model, digits.test.x[:7], num_samples=k)
        assert sum(drawn) == 7 * k
        assert max(drawn) <= 100


def test_the_estimate_is_the_log_of_the_mean_weight(model, digits):
    x = digits.test.x[:5]
    weights = model.log_weight(x, 40, noise=model.judging_noise(range(5), 40)).double()
    estimate = log_likelihood(model, x, num_samples=40)
    torch.testing.assert_close(estimate.value, weights.logsumexp(0) - math.log(40))
    w = (weights - weights.max(0).values).exp()
    torch.testing.assert_close(estimate.effective_sample_size, w.sum(0) ** 2 / (w**2).sum(0))
    relative = w.std(0, correction=0) / w.mean(0) / math.sqrt(40)
    torch.testing.assert_close(estimate.standard_error, relative)


@pytest.mark.parametrize("at_once", [7, 120, 10_000])
def test_how_rows_are_batched_changes_nothing(model, digits, monkeypatch, at_once):
    monkeypatch.setattr(base, "NUMBERS_AT_ONCE", {"cpu": 512 * at_once})
    x = digits.test.x[:6]
    whole = log_likelihood(model, x, num_samples=50).value
    few = log_likelihood(model, x[:2], num_samples=50).value
    torch.testing.assert_close(whole[:2], few, rtol=1e-5, atol=1e-5)


def test_another_seed_draws_other_samples(model, digits):
    a, b = (log_likelihood(model, digits.test.x[:4], num_samples=5, seed=s) for s in (0, 1))
    assert (a.value != b.value).all()


def test_the_bound_has_a_monte_carlo_error_that_covers_it(model, digits):
    few = evaluate(model, digits, num_samples=8, baselines=False)["bound"]
    many = evaluate(model, digits, num_samples=16, baselines=False)["bound"]
    assert abs(few["value"] - many["value"]) < 4 * few["monte_carlo_error"]
    assert many["monte_carlo_error"] < few["monte_carlo_error"]
    assert many["standard_error"] > many["monte_carlo_error"]


def test_scores_are_the_bound_of_each_row_in_its_place(model, digits):
    x = digits.test.x[:30]
    nats, bits = scores(model, x, 4)
    noise = model.judging_noise(range(30), 4)
    expected = model.bound(x, num_samples=4, noise=noise).value.double()
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(bits, -nats / (64 * math.log(2)))


def test_both_errors_of_the_bound_are_what_they_are_called(model, digits):
    result = evaluate(model, digits, num_samples=16, baselines=False)
    noise = model.judging_noise(range(len(digits.test)), 16)
    values = torch.stack(
        [
            model.bound(digits.test.x, noise={"z": noise["z"][k : k + 1]}).value.detach().double()
            for k in range(16)
        ]
    )
    n = len(digits.test)
    bound = result["bound"]
    assert bound["value"] == pytest.approx(float(values.mean()), abs=1e-4)
    assert bound["standard_error"] == pytest.approx(float(values.mean(0).std()) / n**0.5, rel=1e-4)
    expected = float((values.var(0) / 16).sum().sqrt()) / n
    assert bound["monte_carlo_error"] == pytest.approx(expected, rel=1e-3)
    estimate = log_likelihood(model, digits.test.x, num_samples=16).value
    error = result["log_likelihood"]["standard_error"]
    assert error == pytest.approx(float(estimate.std()) / n**0.5, rel=1e-6)


def test_what_one_sample_or_one_example_cannot_tell_is_not_told(model, digits):
    result = evaluate(model, digits, num_samples=1, max_rows=1, baselines=False)
    assert result["bound"]["monte_carlo_error"] is None
    assert result["bound"]["standard_error"] is None
    assert result["gap"] is None
    assert log_likelihood(model, digits.test.x[:2], num_samples=1).standard_error.isnan().all()


def test_a_model_that_diverged_is_not_judged(model, digits):
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.encoder.last.bias.fill_(math.nan)
    with pytest.raises(DivergedError, match="is not finite"):
        evaluate(broken, digits, num_samples=2, baselines=False)


def test_data_that_fill_fewer_dimensions_than_latents_have_no_baseline():
    x = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)).expand(300, 4).contiguous()
    source = make_source(Rows(x=x, support=Real(), name="flat"))
    model = create_model("vae", source, latent_dim=2, width=8)
    assert evaluate(model, source, num_samples=2)["baselines"] == {}
    ppca = create_model("ppca", source, latent_dim=2)
    ppca.fit_exactly(source)
    assert "at its floor" in ppca.notes()[0]


def test_latent_means_keep_the_order_of_the_rows(model, digits):
    means = latent_means(model, digits.test, 20)
    torch.testing.assert_close(means, model.encode(digits.test.x[:20]).mean.detach())


def test_the_baseline_beside_a_model_is_probabilistic_pca_on_the_same_rows(blobs):
    model = create_model("vae", blobs, latent_dim=2, width=8)
    result = evaluate(model, blobs, num_samples=3)
    ppca = create_model("ppca", blobs, latent_dim=2)
    ppca.fit_exactly(blobs)
    exact = float(ppca.bound(blobs.test.x).value.mean())
    assert result["baselines"]["ppca"] == {
        "log_likelihood": pytest.approx(exact),
        "kind": "exact",
        "latent_dim": 2,
    }


def test_nats_follow_the_unit_of_the_data():
    """The same model of data in another unit differs by the log of the unit, per column."""
    from lowerbound.config import TrainingConfig
    from lowerbound.training import fit_model

    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    ends = []
    for unit in (1.0, 1000.0):
        source = make_source(Rows(x=x * unit, support=Real(), name="unit"))
        torch.manual_seed(0)
        model = create_model("vae", source, latent_dim=1, width=16)
        fit_model(model, source, TrainingConfig(steps=100, precision="float32"))
        ends.append(evaluate(model, source, num_samples=10)["bound"]["value"])
    assert ends[0] - ends[1] == pytest.approx(2 * math.log(1000), abs=0.05)


def test_no_samples_are_refused(model, digits):
    with pytest.raises(InputError, match="'num_samples' must be at least 1, got 0"):
        log_likelihood(model, digits.test.x[:2], num_samples=0)


def test_judged_numbers_are_never_computed_in_half_precision(model, digits):
    import copy

    from lowerbound.evaluation import Judge, annealed_importance_sampling, prior_monte_carlo

    x, judge = digits.test.x[:4], Judge(digits.validation, Engine(torch.device("cpu")), 20)
    numbers = {
        "log_likelihood": lambda m: log_likelihood(m, x, num_samples=20).value,
        "prior": lambda m: prior_monte_carlo(m, x, num_samples=20).value,
        "ais": lambda m: annealed_importance_sampling(m, x, num_steps=2, num_chains=64).value,
        "scores": lambda m: scores(m, x, 2)[0],
        "judge": lambda m: torch.tensor(judge(m)["bound"]),
        "means": lambda m: latent_means(m, digits.test, 5),
    }
    half = copy.deepcopy(model).bfloat16()
    for name, number in numbers.items():
        expected = number(model)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(number(model), expected), name
        with pytest.raises(
            InputError, match="'model' must be in float32 or float64, got bfloat16"
        ):
            number(half)


def test_a_failure_leaves_the_mode_of_the_model_alone(model, digits, monkeypatch):
    def failing(*args, **kwargs):
        raise RuntimeError("no")

    model.train()
    monkeypatch.setattr(VAE, "log_weight", failing)
    with pytest.raises(RuntimeError, match="no"):
        log_likelihood(model, digits.test.x[:2], num_samples=3)
    assert model.training
    model.eval()


def test_samples_of_a_small_event_do_not_pile_up_in_wide_layers():
    """Two numbers per example, 512 hidden units: the block is bounded by the latter."""
    model = create_model("vae", (2,), support=Real(), latent_dim=2)
    assert base.decoded_at_once(model) * 512 <= base.NUMBERS_AT_ONCE["cpu"]


def test_feature_maps_are_judged_in_smaller_blocks_than_rows_of_numbers():
    dense, maps = (create_model("vae", (1, 28, 28), network=kind) for kind in ("mlp", "conv"))
    assert base.decoded_at_once(maps) * 5 <= base.decoded_at_once(dense)
    assert base.decoded_at_once(maps, 1) == base.decoded_at_once(dense, 1)  # of latents alone


@pytest.mark.nightly
def test_a_hundred_thousand_samples_need_less_than_a_gigabyte():
    import subprocess
    import sys

    code = """
import resource, torch
from lowerbound.build import create_model
from lowerbound.distributions import Binary
from lowerbound.evaluation import log_likelihood
torch.set_num_threads(1)
options = dict(network="mlp", latent_dim=20, width=400, depth=0)
model = create_model("vae", (1, 28, 28), support=Binary(), **options)
log_likelihood(model, torch.ones(2, 1, 28, 28), num_samples=100_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # kilobytes
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1e6


def test_memory_does_not_grow_with_the_examples():
    import subprocess
    import sys

    code = """
import resource, torch
from lowerbound.build import create_model
from lowerbound.distributions import Binary
from lowerbound.evaluation import log_likelihood
torch.set_num_threads(1)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
model = create_model("vae", (1, 28, 28), support=Binary(), width=64, network="hybrid")
x = torch.ones(120, 1, 28, 28)
log_likelihood(model, x[:20], num_samples=1000)
before = peak()
log_likelihood(model, x, num_samples=1000)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # 1.3 megabytes per example where every block leaves a hole


def test_the_draws_share_of_the_error_is_how_far_other_draws_move_the_mean(make_linear):
    known = make_linear("wide", d=2)
    runs = [log_likelihood(known.model, known.x, num_samples=60, seed=s) for s in range(150)]
    spread = float(torch.stack([run.value.mean() for run in runs]).std())
    told = sum(run.monte_carlo_error() for run in runs) / len(runs)
    assert told == pytest.approx(spread, rel=0.2)
    assert log_likelihood(known.model, known.x, num_samples=1).monte_carlo_error() is None
