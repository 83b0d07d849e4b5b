"""The judge of a training: the same noise at every call, the ELBO or L_K."""

from __future__ import annotations

import math

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.engine import Engine
from lowerbound.errors import InputError
from lowerbound.evaluation import Judge, evaluate, log_likelihood, paired_difference
from lowerbound.generation import draw
from lowerbound.models import Model

ENGINE = Engine(torch.device("cpu"))


@pytest.fixture(scope="module")
def model(digits):
    return create_model("vae", digits, latent_dim=3, width=16).eval()


def test_it_judges_the_bound_with_noise_that_never_changes(model, digits):
    judge = Judge(digits.validation, ENGINE, 40)
    first = judge(model)
    assert judge(model) == first
    bound = model.bound(judge.split.x)
    assert first["bound"] == pytest.approx(float(bound.value.detach().mean()), rel=1e-5)
    assert first["kl"] == pytest.approx(float(bound.rate.detach().mean()), rel=1e-5)
    assert first["bits_per_dim"] == pytest.approx(-first["bound"] / (64 * math.log(2)))


def test_more_samples_of_the_bound_are_the_mean_of_them(model, digits):
    judge = Judge(digits.validation, ENGINE, 700, num_samples=4)
    judged = judge(model)
    noise = model.judging_noise(range(len(judge.split)), 4)
    bound = model.bound(judge.split.x, num_samples=4, noise=noise)
    assert judged["bound"] == pytest.approx(float(bound.value.detach().mean()), rel=1e-5)


def test_an_importance_weighted_objective_is_judged_by_what_it_maximises(model, digits):
    judge = Judge(digits.validation, ENGINE, 30, num_samples=20, importance=True)
    judged = judge(model)
    estimate = log_likelihood(model, judge.split.x, num_samples=20)
    assert judged["bound"] == pytest.approx(float(estimate.value.mean()))
    size = float(estimate.effective_sample_size.mean())
    assert judged["effective_sample_size"] == pytest.approx(size)
    assert judged["bits_per_dim"] == pytest.approx(-judged["bound"] / (64 * math.log(2)))
    assert judge(model) == judged
    assert judged["bound"] > Judge(digits.validation, ENGINE, 30)(model)["bound"]


def test_examples_are_worked_on_in_blocks_that_shrink_with_their_size():
    sizes = {
        (1, 28, 28): 500,
        (3, 64, 64): 500,
        (3, 256, 256): 2**24 // (3 * 256 * 256),
        (1, 2**25): 1,
    }
    for shape, rows in sizes.items():
        bare = torch.nn.Module()
        bare.event_shape = shape
        assert Model.rows_together(bare, 500) == rows
        bare.likelihood = torch.nn.Module()
        bare.likelihood.num_outputs = 256
        few = 2**27 // (256 * math.prod(shape))
        assert Model.rows_together(bare, 500) == max(1, min(rows, few))


def test_judging_in_small_blocks_changes_no_number(model, digits, monkeypatch):
    """With the same noise for each example, and never more of them at once than was said."""
    before = evaluate(model, digits, num_samples=8, max_rows=50)
    known, seen = draw(model, 12), []
    judged = Judge(digits.validation, ENGINE, 40)(model)
    bound, decode = model.bound, model.decode
    monkeypatch.setattr(type(model), "rows_together", lambda self, most: 12)
    monkeypatch.setattr(
        model, "bound", lambda x, *a, **k: seen.append(len(x)) or bound(x, *a, **k)
    )
    monkeypatch.setattr(
        model, "decode", lambda z, *a, **k: seen.append(len(z)) or decode(z, *a, **k)
    )
    again = Judge(digits.validation, ENGINE, 40)(model)
    assert again["bound"] == pytest.approx(judged["bound"], rel=1e-6)
    after = evaluate(model, digits, num_samples=8, max_rows=50)
    for key in ("reconstruction_mse", "mutual_information", "active_units"):
        assert after[key] == pytest.approx(before[key], rel=1e-5)
    assert after["bound"]["value"] == pytest.approx(before["bound"]["value"], rel=1e-6)
    assert torch.equal(draw(model, 20)[:12], known)
    assert max(seen) == 12


def test_it_leaves_the_mode_of_the_model_alone(model, digits):
    model.train()
    Judge(digits.validation, ENGINE, 10)(model)
    assert model.training
    model.eval()


def test_no_samples_are_refused(digits):
    with pytest.raises(InputError, match="'num_samples' must be at least 1"):
        Judge(digits.validation, ENGINE, 10, num_samples=0)


def test_a_paired_difference_knows_what_two_means_do_not():
    """Examples differ by 10 nats, models by 0.5 ± 0.1: the error is that of the differences."""
    generator = torch.Generator().manual_seed(0)
    hard = 10 * torch.randn(400, generator=generator)
    a, b = hard + 0.5 + 0.1 * torch.randn(400, generator=generator), hard
    mean, error = paired_difference(a, b)
    assert mean == pytest.approx(0.5, abs=4 * 0.1 / 20)
    assert error == pytest.approx(0.1 / 20, rel=0.2)
    assert paired_difference(b, a) == (pytest.approx(-mean), pytest.approx(error))
    assert paired_difference(a[:1], b[:1])[1] is None


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_values_of_other_examples_have_no_paired_difference(shapes):
    with pytest.raises(InputError, match="'b' must be values of the same"):
        paired_difference(*(torch.zeros(shape) for shape in shapes))


def test_the_values_of_each_example_are_kept_and_average_to_what_is_reported(digits, tmp_path):
    from lowerbound.evaluation import evaluate
    from lowerbound.evaluation.judging import load_scores

    model = create_model("vae", digits, latent_dim=2, width=8)
    path = tmp_path / "scores.safetensors"
    result = evaluate(model, digits, num_samples=4, max_rows=30, baselines=False, keep=path)
    kept = load_scores(path)
    assert set(kept) == {"bound", "log_likelihood"}
    for name, values in kept.items():
        assert values.shape == (30,)
        assert float(values.mean()) == result[name]["value"]
        error = float(values.double().var() / 30) ** 0.5
        assert error == pytest.approx(result[name]["standard_error"])


def test_a_model_without_nats_keeps_none(digits, tmp_path):
    from lowerbound.evaluation import evaluate

    model = create_model("autoencoder", digits, latent_dim=2, width=8)
    evaluate(model, digits, max_rows=30, keep=tmp_path / "scores.safetensors")
    assert not list(tmp_path.iterdir())
