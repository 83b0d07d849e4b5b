"""An objective that begins as the elbo: the same numbers as each of the two, in its turn."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.build import MODELS, create_model
from lowerbound.cli import train_flags
from lowerbound.config import TrainingConfig
from lowerbound.errors import InputError
from lowerbound.objectives import OBJECTIVES
from lowerbound.training import checkpoint, fit_model, loop
from lowerbound.training.loop import training_noise
from lowerbound.training.step import Step
from tests.reliability.tiny import CONFIG, NUM_STEPS, tensor_digests, train_here, untimed_rows

TWO = {"objective": "iwae", "num_samples": 4, "elbo_first": 0.5, "precision": "float32"}


def tiny(source):
    return create_model("vae", source, latent_dim=3, network="mlp", width=16)


@pytest.mark.parametrize(("progress", "name", "num"), [(0.0, "elbo", 1), (0.5, "iwae", 4)])
def test_a_step_is_that_of_the_objective_whose_turn_it_is(digits, progress, name, num):
    model, config = tiny(digits).train(), TrainingConfig(**TWO, beta=2.0)
    x = digits.train[slice(0, 32)][0]
    noise = training_noise(model, 32, config, 3, progress=progress)
    assert noise["z"].shape[0] == num
    step = Step(model, config, "float32")
    loss, bound = step(x, None, noise, progress)
    alone, expected = OBJECTIVES[name](model, x, None, noise, num, step.weights(progress))
    assert torch.equal(loss, alone)
    assert torch.equal(bound.value, expected.value)


def test_up_to_the_turn_the_run_is_one_of_the_elbo_and_afterwards_it_is_not(digits):
    rows = {}
    for name, config in (("both", TWO), ("elbo", {"precision": "float32"})):
        told = []
        model = tiny(digits)

        def stepped(self, x, context, noise, progress, told=told, run=Step.forward):
            loss, bound = run(self, x, context, noise, progress)
            told.append(float(loss.detach().mean()))
            return loss, bound

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Step, "forward", stepped)
            fit_model(model, digits, TrainingConfig(steps=10, batch_size=100, **config))
        rows[name] = told
    assert rows["both"][:5] == rows["elbo"][:5]
    assert all(a != b for a, b in zip(rows["both"][5:], rows["elbo"][5:], strict=True))


def test_a_run_that_is_stopped_before_the_turn_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    monkeypatch.setattr(checkpoint, "KEEP_LAST", 1000)
    config = dataclasses.replace(CONFIG, **TWO)
    train_here(tmp_path / "whole", config, "vae")
    before = Path("checkpoints") / f"step-{NUM_STEPS // 2 - 5:08d}"
    shutil.copytree(tmp_path / "whole" / before, tmp_path / "stopped" / before)
    shutil.copy(tmp_path / "whole" / "metrics.jsonl", tmp_path / "stopped")
    train_here(tmp_path / "stopped", config, "vae")
    assert tensor_digests(tmp_path / "stopped") == tensor_digests(tmp_path / "whole")
    assert untimed_rows(tmp_path / "stopped") == untimed_rows(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elbo_first": 0.5}, "'elbo_first' must be 0 for the objective elbo"),
        ({**TWO, "elbo_first": 1.5}, "'elbo_first' must be from 0 to 1"),
        ({**TWO, "elbo_first": 0.0, "beta": 2.0}, "'beta' must be 1 for the objective iwae"),
        ({**TWO, "mix": 0.5}, "'mix' must be 0 for the objective iwae"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        TrainingConfig(**options)


def test_a_model_is_asked_about_both(digits):
    model = create_model("vae", digits, latent_dim=3, penalty="dip-i")
    with pytest.raises(InputError, match="must be elbo with the penalty"):
        fit_model(model, digits, TrainingConfig(steps=4, **TWO))


def test_the_turn_may_come_between_validations_where_the_terms_change_their_names(digits):
    """The elbo of a hierarchy has a rate for each level, L_K one of all."""
    model = create_model("hvae", digits, latent_dims=(3, 2), width=16)
    config = TrainingConfig(**{**TWO, "elbo_first": 0.33}, steps=30, validations=2)
    rows = [row for row in fit_model(model, digits, config).rows if row["kind"] == "train"]
    assert all(row["bound"] == pytest.approx(row["reconstruction"] - row["kl"]) for row in rows)
    assert "kl_1" not in rows[-1]


def test_what_is_usual_of_a_model_weighs_rates_only_where_the_elbo_is_climbed(digits):
    entry = MODELS["ladder"]
    assert entry.usual() == dict(entry.training)
    assert entry.usual("iwae", elbo_first=True) == dict(entry.training)
    assert set(entry.training) - set(entry.usual("iwae")) == {"beta_warmup", "kl_balancing"}
    model = create_model("ladder", digits, levels=2, width=16)
    run = lowerbound.fit(model, digits, objective="iwae", steps=2, quiet=True)
    assert run.history.steps == 2
    assert train_flags(["digits", "--model", "ladder"]).kl_balancing
    assert not train_flags(["digits", "--model", "ladder", "--objective", "stl"]).kl_balancing
