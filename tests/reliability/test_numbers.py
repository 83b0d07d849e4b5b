"""Numbers that are not finite never get in; data of every extreme give a finite bound."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowerbound.build import MODELS, create_model
from lowerbound.config import TrainingConfig
from lowerbound.data import Classes
from lowerbound.distributions import Discrete, Real, Support
from lowerbound.errors import DivergedError
from lowerbound.training import checkpoint, fit_model, loop
from lowerbound.training.batches import Batches
from lowerbound.training.checkpoint import checkpoints_of, load_newest
from lowerbound.training.step import Step
from tests.reliability.tiny import (
    CONFIG,
    LOOPED,
    first_of_all,
    small_options,
    tiny_model,
    tiny_source,
)

STEPS = 24
SPOILT = (3, 9, 10, 17)  # steps, from 1
RUN = TrainingConfig(steps=STEPS, validations=4, batch_size=16, precision="float32", seed=3)


def spoil(patch, model, place, value, steps):
    """Put a value that is not finite into a batch, a loss or a gradient at some steps."""
    count = [0]
    real_batch, real_forward = Batches.__call__, Step.forward

    def batch(self, step):
        count[0] = step + 1  # the first thing that a step does
        x, context = real_batch(self, step)
        if place == "batch" and count[0] in steps:
            x = x.clone()
            x[2, 0, 3, 4] = value
        return x, context

    def forward(self, *args):
        loss, bound = real_forward(self, *args)
        if count[0] in steps and place in ("loss", "added to the loss"):
            spoilt = loss * value if place == "loss" else loss + value  # the latter: a gradient
            loss = torch.where(torch.arange(len(loss)) == 1, spoilt, loss)  # that is finite
        return loss, bound

    def gradient(grad):
        if place == "gradient" and count[0] in steps:
            grad = grad.clone()
            grad.view(-1)[7] = value
        return grad

    patch.setattr(Batches, "__call__", batch)
    patch.setattr(Step, "forward", forward)
    next(p for p in model.parameters() if p.numel() > 7).register_hook(gradient)


def groups_at(folder, step):
    path = folder / "checkpoints" / f"step-{step:08d}"
    return checkpoint._verified(path).tensors


@pytest.mark.parametrize("place", ["batch", "loss", "added to the loss", "gradient"])
@pytest.mark.parametrize(("name", "value"), first_of_all(LOOPED, [math.nan, math.inf, -math.inf]))
def test_what_is_not_finite_moves_nothing(name, place, value, tmp_path, monkeypatch):
    source = tiny_source(real=True)
    model = tiny_model(source, name)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    monkeypatch.setattr(checkpoint, "KEEP_LAST", 1000)
    spoil(monkeypatch, model, place, value, SPOILT)
    history = fit_model(model, source, RUN, folder=tmp_path)
    assert len(checkpoints_of(tmp_path)) == STEPS
    for step in range(1, STEPS + 1):
        groups = groups_at(tmp_path, step)
        assert all(t.isfinite().all() for group in groups.values() for t in group.values())
        if step not in SPOILT:
            continue
        before = groups_at(tmp_path, step - 1)
        for group in ("model", "optimizer"):  # weights, moments and their count: untouched
            for key, tensor in groups[group].items():
                assert torch.equal(tensor, before[group][key]), (step, key)
    assert all(t.isfinite().all() for t in model.state_dict().values())
    rows = [row for row in history.rows if row["kind"] == "train"]
    assert rows[-1]["skipped"] == len(SPOILT)
    state = load_newest(tmp_path)[0].state["position"]
    assert (state["skipped_steps"], state["skipped_in_a_row"]) == (list(SPOILT), 0)


@pytest.mark.parametrize(
    ("steps", "words", "ends"),
    [
        (range(5, 15), "10 steps in a row", True),
        (range(5, 14), "", False),
        (range(5, 400, 30), "11 of the last 1,000 steps", True),
        (range(5, 300, 30), "", False),
        ([*range(5, 160, 30), *range(1160, 1311, 30)], "", False),  # twelve, but far apart
    ],
)
def test_a_run_that_skips_too_often_ends_with_advice(steps, words, ends, tmp_path, monkeypatch):
    source = tiny_source(real=True)
    model = create_model("autoencoder", source, latent_dim=1, width=4)
    spoil(monkeypatch, model, "added to the loss", math.nan, set(steps))
    length = 1320 if max(steps) > 400 else 400
    config = TrainingConfig(steps=length, validations=8, batch_size=16, precision="float32")
    if not ends:
        assert fit_model(model, source, config, folder=tmp_path).steps == length
        return
    with pytest.raises(DivergedError) as caught:
        fit_model(model, source, config, folder=tmp_path)
    message = str(caught.value)
    assert caught.value.code == 5
    assert message.startswith(words)
    for advice in ("--learning-rate", "--clip", "--precision float32", str(tmp_path)):
        assert advice in message
    for group in load_newest(tmp_path)[0].tensors.values() if checkpoints_of(tmp_path) else ():
        assert all(t.isfinite().all() for t in group.values())


def test_the_skipped_steps_of_the_last_thousand_outlive_a_resume(tmp_path, monkeypatch):
    source = tiny_source(real=True)
    config = TrainingConfig(steps=200, validations=10, batch_size=16, precision="float32")
    model = create_model("autoencoder", source, latent_dim=1, width=4)
    spoil(
        monkeypatch, model, "added to the loss", math.nan, {*range(3, 150, 24), *range(4, 90, 24)}
    )
    with pytest.raises(DivergedError, match="11 of the last"):
        fit_model(model, source, config, folder=tmp_path)
    found, _ = load_newest(tmp_path)
    assert len(found.state["position"]["skipped_steps"]) == 10
    monkeypatch.undo()
    again = create_model("autoencoder", source, latent_dim=1, width=4)
    second = found.state["position"]["step"] + 2
    spoil(monkeypatch, again, "added to the loss", math.nan, {second})
    with pytest.raises(DivergedError, match="11 of the last"):
        fit_model(again, source, config, folder=tmp_path, checkpoint=found)


@pytest.mark.parametrize(("name", "value"), first_of_all(LOOPED, [math.nan, math.inf, -math.inf]))
def test_a_validation_that_is_not_finite_is_not_the_best_and_blocks_nothing(
    name, value, source, tmp_path, monkeypatch
):
    real, count = loop.Judge.__call__, [0]

    def judge(self, model):
        row = real(self, model)
        count[0] += 1
        spoilt = count[0] in (1, 3)
        return {**row, "bound": value, "loss": -value} if spoilt else row

    monkeypatch.setattr(loop.Judge, "__call__", judge)
    history = fit_model(tiny_model(source, name), source, CONFIG, folder=tmp_path)
    rows = [row for row in history.rows if row["kind"] == "validation"]
    assert [row["best"] for row in rows[:4]] == [False, True, False, True]
    assert history.best_step is not None
    assert history.best_step > 12
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # no NaN, which is not JSON


# --- extremes -----------------------------------------------------------------------------------


@st.composite
def extremes(draw):
    """A support, a batch of it, how to bend the networks, and a precision."""
    size = draw(st.sampled_from([1, 2, 7]))
    shape = (size, *draw(st.sampled_from([(1, 8, 8), (3, 4, 4), (5,), (1,)])))
    kind = draw(st.sampled_from(["lowest", "highest", "noise", "one odd pixel"]))
    support: Support = draw(st.sampled_from([Real(), Discrete(256), Discrete(2)]))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e6])) if isinstance(support, Real) else 1.0
    top = 1.0 if isinstance(support, Real) else support.levels - 1
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = {
        "lowest": torch.zeros(shape),
        "highest": torch.full(shape, float(top)),
        "noise": (torch.rand(shape, generator=generator) * (top + 1)).floor().clamp(0, top),
        "one odd pixel": torch.zeros(shape).index_fill(-1, torch.tensor([0]), float(top)),
    }[kind]
    x = x * scale if isinstance(support, Real) else x.to(torch.uint8)
    bias = draw(st.sampled_from([-1e4, -50.0, 0.0, 50.0, 1e4]))
    return support, x, bias, draw(st.sampled_from(["float32", "bf16"]))


def finite_bound_and_gradients(name, case):
    support, x, bias, precision = case
    context = Classes(3) if MODELS[name].context == "always" else None
    options = {"support": support, "context": context, "width": 8, **small_options(name, 2)}
    model = create_model(name, x.shape[1:], **options).train()
    with torch.no_grad():  # means and log-variances of q, and outputs of the decoder, far out
        for key, parameter in model.named_parameters():
            if key.endswith("last.bias"):
                parameter.add_(bias)
    step = Step(model, TrainingConfig(), precision)
    noise = model.noise(len(x), 1, torch.Generator().manual_seed(0))
    given = None if context is None else torch.arange(len(x)) % 3
    loss, bound = step(x, given, noise, 0.5)
    assert loss.isfinite().all()
    assert bound.value.isfinite().all()
    loss.mean().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", LOOPED)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(case=extremes())
def test_extreme_data_and_networks_have_finite_bounds_and_gradients(name, case):
    finite_bound_and_gradients(name, case)


@pytest.mark.nightly
@pytest.mark.parametrize("name", LOOPED)
def test_a_thousand_extremes(name):
    count = [0]

    @settings(
        max_examples=1000,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=extremes())
    def check(case):
        count[0] += 1
        finite_bound_and_gradients(name, case)

    check()
    print(f"\n{count[0]} extremes of {name}: bound and gradients finite each time")
