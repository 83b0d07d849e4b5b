"""The loop: same bits twice, same bits after a resume, and nothing non-finite ever kept."""

from __future__ import annotations

import math
import statistics
import time

import pytest
import torch

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.data import Rows, load_data, make_source
from lowerbound.distributions import Real
from lowerbound.engine import Engine
from lowerbound.errors import InputError
from lowerbound.evaluation import Judge
from lowerbound.models import concatenate_noise
from lowerbound.training import fit_model
from lowerbound.training.loop import training_noise
from lowerbound.training.schedule import Length, learning_rate
from lowerbound.training.state import TrainState
from lowerbound.training.step import Step

CONFIG = TrainingConfig(steps=40, validations=8, batch_size=100, precision="float32")


def small(source, **options):
    return create_model("vae", source, latent_dim=3, width=16, **options)


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_seed_gives_the_same_bits_twice(digits, precision):
    config = TrainingConfig(steps=20, precision=precision)
    ends = []
    for _ in range(2):
        model = small(digits)
        fit_model(model, digits, config)
        ends.append(bits(model))
    assert same(*ends)
    other = small(digits)
    fit_model(other, digits, TrainingConfig(steps=20, precision=precision, seed=1))
    assert not same(ends[0], bits(other))


def test_training_raises_the_bound_and_ends_with_the_best_average(digits):
    model = small(digits)
    history = fit_model(model, digits, TrainingConfig(steps=200))
    values = [r["bound"] for r in history.rows if r["kind"] == "validation"]
    assert values[-1] > values[0] + 10
    noise = model.judging_noise(range(len(digits.validation)))
    bound = model.bound(digits.validation.x, noise=noise).value.mean()
    assert float(bound.detach()) == pytest.approx(max(values), abs=1e-3)


def test_fewer_rows_are_judged_on_the_way_where_each_draw_is_a_pass_of_the_network(
    digits, monkeypatch
):
    monkeypatch.setattr("lowerbound.training.loop.MAX_STRATIFIED_ROWS", 7)
    for name, rows in (("diffusion", 7), ("vae", len(digits.validation))):
        model = create_model(name, digits, width=8, network="mlp")
        history = fit_model(model, digits, TrainingConfig(steps=1, validations=1))
        judged = Judge(digits.validation, Engine(torch.device("cpu")), rows)(model)
        assert history.rows[-1]["bound"] == pytest.approx(judged["bound"], rel=1e-6)


def test_every_row_of_the_log_is_a_bound_and_its_terms(digits):
    rows = fit_model(small(digits), digits, TrainingConfig(steps=20, beta=3.0)).rows
    assert {row["kind"] for row in rows} == {"train", "validation"}
    for row in rows:
        assert row["bound"] == pytest.approx(row["reconstruction"] - row["kl"], rel=1e-5)
        assert row["bits_per_dim"] == pytest.approx(-row["bound"] / (64 * math.log(2)), rel=1e-5)
        if row["kind"] == "train":  # the loss is weighted, the bound is not
            assert row["loss"] == pytest.approx(3 * row["kl"] - row["reconstruction"], rel=1e-5)


def test_judging_does_not_count_in_the_speed_of_training(digits, monkeypatch):
    take_in = TrainState.take_in

    def slowly(*given, **named):
        time.sleep(0.5)
        return take_in(*given, **named)

    monkeypatch.setattr(TrainState, "take_in", slowly)
    history = fit_model(small(digits), digits, TrainingConfig(steps=6, validations=6))
    speeds = [row["images_per_second"] for row in history.rows if row["kind"] == "train"]
    assert len(speeds) == 6
    assert statistics.median(speeds) > 2 * 512 / 0.5


def test_training_stops_where_the_validation_bound_stops_improving(digits):
    model = small(digits)
    config = TrainingConfig(
        steps=4000, validations=200, patience=2, learning_rate=0.05, average=0.9
    )
    history = fit_model(model, digits, config)
    assert history.stopped_early
    assert history.steps < 4000


def test_clipping_scales_the_gradient_and_a_small_one_is_left_alone(digits):
    """One step of plain SGD arithmetic: AdamW's first step is the sign, so look at moments."""
    from lowerbound.training.state import TrainState
    from lowerbound.training.update import update

    moments = []
    for clip in (1e-3, 1e9):
        model = small(digits)
        state = TrainState(model, CONFIG)
        x = digits.train.x[:50]
        noise = model.noise(50, 1, torch.Generator().manual_seed(0))
        loss = -model.bound(x, noise=noise).value.mean()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        update(state, loss, 1e-3, clip, Engine(torch.device("cpu")))
        first = [state.optimizer.state[p]["exp_avg"] for p in model.parameters()]
        moments.append(torch.nn.utils.get_total_norm(first) / 0.1)
    assert float(moments[0]) == pytest.approx(1e-3, rel=1e-3)
    assert float(moments[1]) == pytest.approx(float(norm), rel=1e-3)


def test_noise_is_drawn_by_blocks_of_the_global_batch(digits):
    model = small(digits)
    whole = training_noise(model, 192, CONFIG, 7)
    half = training_noise(model, 128, CONFIG, 7)
    assert torch.equal(whole["z"][:, :128], half["z"])
    again = training_noise(model, 192, CONFIG, 8)
    assert not torch.equal(whole["z"], again["z"])
    joined = concatenate_noise([half, half])
    assert joined["z"].shape == (1, 256, 3)


def test_dynamic_binarisation_is_drawn_anew_and_judged_images_once():
    source = load_data("digits", binarize="dynamic")
    indices = torch.arange(50)
    a, _ = source.train.draw(indices, torch.Generator().manual_seed(0))
    b, _ = source.train.draw(indices, torch.Generator().manual_seed(1))
    assert not torch.equal(a, b)
    assert set(a.unique().tolist()) == {0, 1}
    assert source.test.intensities is None
    again = load_data("digits", binarize="dynamic")
    assert torch.equal(source.test.x, again.test.x)


def test_a_pixel_is_one_as_often_as_its_level_says():
    from lowerbound.data.base import binarize

    levels = torch.arange(17, dtype=torch.uint8).expand(40_000, 17)
    share = binarize(levels, 16, torch.Generator().manual_seed(0)).double().mean(0)
    assert share[0] == 0
    assert share[16] == 1
    assert (share - torch.arange(17) / 16).abs().max() < 0.012


def test_the_learning_rate_and_beta_are_functions_of_progress(digits):
    assert learning_rate(0.0, 1.0, 0.1) < 0.02
    assert learning_rate(0.1, 1.0, 0.1) == 1.0
    assert learning_rate(0.55, 1.0, 0.1) == pytest.approx(0.5)
    assert learning_rate(1.0, 1.0, 0.1) == pytest.approx(0.0)
    step = Step(small(digits), TrainingConfig(beta=2.0, beta_warmup=0.5), "float32")
    assert [step.weights(p).beta for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 1.0, 2.0, 2.0]


def test_the_length_of_a_run():
    assert Length.of(TrainingConfig(epochs=2), 7).steps == 14
    assert Length.of(TrainingConfig(steps=5), 7).steps == 5
    assert Length.of(TrainingConfig(minutes=0.5), 7).seconds == 30
    assert Length.of(TrainingConfig(), 5).steps == 1500
    assert Length.of(TrainingConfig(), 1000).steps == 5000


def test_minutes_end_the_run(digits):
    history = fit_model(small(digits), digits, TrainingConfig(minutes=0.01))
    assert 0.5 < history.seconds < 10


def test_the_optimal_sigma_is_the_error_of_decoded_draws_on_all_of_the_training_set():
    x = torch.arange(26_000.0).unsqueeze(-1).expand(-1, 2).contiguous()  # sorted on purpose
    source = make_source(Rows(x=x, support=Real(), name="sorted"))
    model = create_model("vae", source, latent_dim=1, width=8, sigma="optimal")
    model.settle(source)
    train = source.train.x
    z = model.encode(train).rsample(model.noise(len(train), 1, torch.Generator())["z"])[0]
    expected = (train - model.decode(z).mean).square().mean().sqrt()
    sigma = model.decode(z[:1]).log_scale.exp()
    assert float(sigma.detach()) == pytest.approx(float(expected.detach()), rel=0.02)


def test_the_optimal_sigma_is_settled_before_it_is_judged(blobs):
    model = create_model("vae", blobs, latent_dim=2, width=16, sigma="optimal")
    fit_model(model, blobs, TrainingConfig(steps=60))
    kept = float(model.likelihood.log_sigma)
    model.settle(blobs)
    assert float(model.likelihood.log_sigma) == pytest.approx(kept, abs=1e-5)
    assert kept != 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("beta", -1.0), ("learning_rate", math.nan), ("batch_size", 0), ("devices", 0)],
)
def test_a_training_option_that_is_none_is_refused(field, value):
    with pytest.raises(InputError, match=f"'{field}' must be"):
        TrainingConfig(**{field: value})


def test_two_lengths_are_refused():
    with pytest.raises(InputError, match="'epochs' and 'steps' exclude each other"):
        TrainingConfig(epochs=1, steps=2)
