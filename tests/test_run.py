"""A run from Python: the same folder, the same promises, nothing left half done."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import safetensors.torch
import torch

import lowerbound
from lowerbound.build import MODELS, create_model
from lowerbound.config import RunConfig
from lowerbound.engine import make_engine
from lowerbound.errors import InputError
from lowerbound.preparation import model_of, source_of
from lowerbound.run import _carry_out, _judging, next_folder, run_config, train
from lowerbound.run_folder import new_folder, nothing_left
from lowerbound.training.checkpoint import RunLock, checkpoints_of
from lowerbound.training.logs import Console, shown

SMALL = {"latent_dim": 2, "width": 16}


def test_fit_without_a_folder_writes_nothing(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = create_model("vae", digits, **SMALL)
    run = lowerbound.fit(model, digits, steps=5, quiet=True)
    assert run.model is model
    assert run.folder is None
    assert run.history.steps == 5
    assert list(tmp_path.iterdir()) == []


def test_fit_with_a_folder_makes_a_whole_run_that_loads(digits, tmp_path):
    model = create_model("vae", digits, **SMALL)
    run = lowerbound.fit(model, digits, steps=5, out=tmp_path / "run", quiet=True)
    assert json.loads((run.folder / "evaluation.json").read_text()) == run.evaluation
    loaded = lowerbound.load(run.folder)
    x = digits.test.x[:5]
    assert torch.equal(loaded.bound(x).value, model.bound(x).value)
    assert run_config(run.folder).steps == 5
    with pytest.raises(InputError, match="'out' must be an empty or new folder"):
        lowerbound.fit(model, digits, steps=5, out=tmp_path / "run", quiet=True)


def test_a_run_made_by_fit_is_repeated_by_its_configuration(tmp_path):
    source = lowerbound.load_data("digits", binarize="threshold", seed=5)
    model = create_model("vae", source, seed=3, **SMALL)
    made = lowerbound.fit(model, source, steps=8, seed=3, out=tmp_path / "fit", quiet=True)
    config = run_config(made.folder)
    assert (config.binarize, config.data_seed, config.data) == ("threshold", 5, "digits")
    train(config, tmp_path / "again", quiet=True)
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("fit", "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vae", "(K = 100)"),
        ("diffusion", "(16 draws of each example)"),
        ("autoencoder", "split"),
    ],
)
def test_the_line_before_judging_says_what_is_drawn(name, said):
    kind = MODELS[name].load()[0]
    assert _judging(kind.__new__(kind)).endswith(said)


def test_numbers_of_ten_digits_are_short_in_a_line_of_progress():
    line = shown({"bound": -1234567890.5, "bits_per_dim": 12.5})
    assert line == "bound -1.235e+09 nats (12.5000 bits/dim)"
    assert (
        shown({"bound": -99.5, "bits_per_dim": 3e12}) == "bound -99.50 nats (3.000e+12 bits/dim)"
    )


def test_fit_names_an_unknown_option_and_data_that_do_not_fit(digits, blobs):
    model = create_model("vae", digits, **SMALL)
    with pytest.raises(InputError, match="'learnin_rate'; did you mean 'learning_rate'"):
        lowerbound.fit(model, digits, steps=5, learnin_rate=1.0)
    with pytest.raises(InputError, match="'blobs' must be examples of shape 1×8×8, got 3"):
        lowerbound.fit(model, blobs, steps=5)


def test_two_runs_of_one_configuration_are_the_same_bits(tmp_path):
    config = RunConfig(steps=8, options=SMALL, seed=3)
    for name in ("a", "b"):
        train(config, tmp_path / name, quiet=True)
        torch.manual_seed(77)
    for file in ("model.safetensors", "config.yaml", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    a, b = (json.loads((tmp_path / n / "evaluation.json").read_text()) for n in "ab")
    assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_the_report_states_the_floor_of_a_learned_sigma(blobs, tmp_path):
    model = create_model("vae", blobs, **SMALL)
    run = lowerbound.fit(model, blobs, steps=5, out=tmp_path / "run", quiet=True)
    assert any("floor of 0.001" in note for note in run.evaluation["notes"])
    assert "floor of 0.001" in (run.folder / "report.html").read_text()


def test_folders_are_named_by_data_and_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(next_folder(RunConfig(data="mnist:some/where"))) == "runs/mnist-vae-1"
    (tmp_path / "runs" / "mnist-vae-1").mkdir(parents=True)
    assert str(next_folder(RunConfig(data="mnist:some/where"))) == "runs/mnist-vae-2"
    assert str(next_folder(RunConfig(data="a/b/table.csv", model="ppca"))) == "runs/table-ppca-1"
    assert str(next_folder(RunConfig(data="folder:pictures/cats"))) == "runs/cats-vae-1"


def test_real_digits_of_mnist_train_and_judge(data_folder, tmp_path):
    config = RunConfig(
        data=f"mnist:{data_folder / 'mnist'}", binarize="dynamic", steps=20, options=SMALL
    )
    source = lowerbound.run.source_of(config)
    assert [len(s) for s in (source.train, source.validation, source.test)] == [55000, 5000, 10000]
    assert set(source.test.x.unique().tolist()) == {0, 1}
    model = create_model("vae", source, latent_dim=2, width=64)
    lowerbound.fit(model, source, steps=40, validations=2, quiet=True)
    result = lowerbound.evaluate(model, source, num_samples=2, max_rows=200, baselines=False)
    assert -543.4 < result["bound"]["value"] < -100  # 784 ln 2 is what knowing nothing costs


@pytest.mark.parametrize("shape", [(1, 5, 5), (3,), (1,)], ids=str)
@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_smallest_data_there_can_be_makes_a_whole_run(shape, method, tmp_path):
    x = torch.arange(10.0).reshape(10, *[1] * len(shape)).expand(10, *shape).contiguous()
    np.save(tmp_path / "x.npy", x.numpy())
    config = RunConfig(data=str(tmp_path / "x.npy"), steps=2, options=SMALL, latents=method)
    run = train(config, tmp_path / "run", quiet=True)
    assert run.evaluation["num_examples"] == 1
    assert (tmp_path / "run" / "report.html").exists()


def test_tied_weights_are_saved_under_each_of_their_names(digits, tmp_path):
    """Two names of one tensor, which the file format knows nothing of; trained as one."""
    model = lowerbound.create_model("vae", digits, latent_dim=2, width=8, network="mlp", depth=1)
    first = next(m for m in model.modules() if isinstance(m, torch.nn.Linear))
    model.tied = torch.nn.Linear(1, 1, bias=False)
    model.tied.weight = first.weight
    run = lowerbound.fit(model, digits, out=tmp_path / "run", steps=2, quiet=True)
    saved = safetensors.torch.load_file(run.folder / "model.safetensors")
    again = lowerbound.load(run.folder, model=copy.deepcopy(model))
    assert torch.equal(saved["tied.weight"], first.weight)
    assert torch.equal(again.tied.weight, first.weight)


def test_a_run_that_is_refused_before_it_saved_anything_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"data": "digits", "model": "vae", "options": {"prior": "flow"}}
    config = RunConfig(steps=2, free_bits=0.1, **given)
    for folder in (None, tmp_path / "named"):
        with pytest.raises(InputError, match="'free_bits' must be 0"):
            train(config, folder, quiet=True)
    assert not list(tmp_path.glob("named"))
    assert not list(tmp_path.glob("runs/*"))
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="'free_bits' must be 0"):
        train(config, tmp_path / "named", overwrite=True, quiet=True)
    assert [p.name for p in (tmp_path / "named").iterdir()] == ["mine.txt"]


def contents(folder):
    return {
        p.relative_to(folder): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "run.lock"
    }


def test_a_run_to_be_replaced_comes_back_where_the_new_one_is_refused(tmp_path):
    run = tmp_path / "run"
    old = RunConfig(steps=2, data="digits", model="vae", options=SMALL)
    train(old, run, quiet=True)
    before = contents(run)
    new = RunConfig(
        steps=2, free_bits=0.1, data="digits", model="vae", options={**SMALL, "prior": "flow"}
    )
    with pytest.raises(InputError, match="'free_bits' must be 0"):
        train(new, run, overwrite=True, quiet=True)
    assert contents(run) == before
    train(RunConfig(steps=3, data="digits", model="vae", options=SMALL), run, overwrite=True)
    assert run_config(run).steps == 3
    assert not (run / ".replaced").exists()


def test_a_run_to_be_replaced_outlives_new_ones_that_are_killed(tmp_path):
    """Killed before they saved anything: nothing of theirs is kept, and the old run is."""
    (tmp_path / "config.yaml").write_text("old")
    for _ in range(2):
        new_folder(tmp_path, overwrite=True)
        (tmp_path / "config.yaml").write_text("killed")
    with pytest.raises(InputError), nothing_left(tmp_path):
        raise InputError("refused")
    assert (tmp_path / "config.yaml").read_text() == "old"


def test_a_run_that_was_killed_after_it_saved_is_what_comes_back(tmp_path):
    """It has a checkpoint: it, and not what it had replaced, is the run that is there."""
    (tmp_path / "config.yaml").write_text("old")
    new_folder(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="'out' must be an empty or new folder"):
        new_folder(tmp_path, overwrite=False)  # what was put aside is still somebody's
    (tmp_path / "config.yaml").write_text("killed")
    (tmp_path / "checkpoints" / "step-0000000003").mkdir(parents=True)
    assert checkpoints_of(tmp_path)
    new_folder(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="refused"), nothing_left(tmp_path):
        raise InputError("refused")
    assert (tmp_path / "config.yaml").read_text() == "killed"
    assert checkpoints_of(tmp_path)
    assert not (tmp_path / ".replaced").exists()


def test_a_run_that_finds_its_folder_taken_touches_nothing_in_it(tmp_path):
    config = RunConfig(steps=2, data="digits", model="vae", options=SMALL)
    with RunLock(tmp_path):  # another process has begun, and has written nothing yet
        source = source_of(config)
        model, engine = model_of(config, source), make_engine("cpu")
        (tmp_path / "config.yaml").write_text("theirs")
        with pytest.raises(InputError):
            _carry_out(config, model, source, tmp_path, Console(quiet=True), engine)
        assert (tmp_path / "config.yaml").read_text() == "theirs"
