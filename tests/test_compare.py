"""Comparing runs: one table and one picture, for likelihoods and for what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lowerbound.build import MODELS, create_model, save_model
from lowerbound.cli import run_command_line
from lowerbound.config import RunConfig
from lowerbound.evaluation import evaluate
from lowerbound.files import save_json
from lowerbound.tables import comparison_table

SMALL = {"width": 8, "latent_dim": 3}


def finished(folder: Path, name: str, source, data: str = "digits") -> Path:
    """A run folder as `compare` needs it: of a model that is fitted exactly, or not at all."""
    fields = MODELS[name].load()[1].__dataclass_fields__
    options = {key: value for key, value in SMALL.items() if key in fields}
    model = create_model(name, source, **options)
    model.fit_exactly(source)
    folder.mkdir()
    save_model(folder, model)
    (folder / "config.yaml").write_text(RunConfig(data=data, model=name).to_yaml())
    save_json(folder / "evaluation.json", evaluate(model, source, num_samples=2))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits) -> dict[str, Path]:
    """A run of every model that can be made of digits."""
    root = tmp_path_factory.mktemp("runs")
    return {name: finished(root / name, name, digits) for name in MODELS}


def call(*args: object) -> int:
    return run_command_line(["compare", *map(str, args)])


def test_every_model_stands_in_one_table_and_one_picture(runs, capsys):
    assert call(*runs.values()) == 0
    out = capsys.readouterr().out
    heading = "run model data latents bound log-likelihood K bits/dim squared error parameters"
    assert out.splitlines()[0].split() == heading.split()
    assert out.count("not a likelihood") == sum(not e.is_likelihood for e in MODELS.values())
    first = next(iter(runs.values()))
    assert str(first / "comparison.png") in out.replace("\n", "")
    with Image.open(first / "comparison.png") as image:
        assert image.height > 50 * len(runs)


def test_the_table_has_sizes_and_errors_and_no_nats_where_there_are_none(runs):
    judged = {
        name: json.loads((run / "evaluation.json").read_text()) for name, run in runs.items()
    }
    heading, *rows = comparison_table([{"run": n, **r} for n, r in judged.items()])
    for row in rows:
        cells, result = dict(zip(heading, row, strict=True)), judged[row[0]]
        assert cells["squared error"] == f"{result['reconstruction_mse']:.4g}"
        assert cells["latents"] == str(result["latent_dim"])
        if not MODELS[row[0]].is_likelihood:
            assert cells["bound"] == "not a likelihood"
            assert cells["log-likelihood"] == cells["bits/dim"] == cells["K"] == "–"
        else:
            assert cells["bound"].endswith("nats")


def test_likelihoods_come_first_and_the_best_of_them_first(runs, capsys):
    assert call(*runs.values(), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    bounds = [r["bound"] and r["bound"]["value"] for r in document["runs"]]
    nats = [b for b in bounds if b is not None]
    assert bounds == sorted(nats, reverse=True) + [None] * (len(bounds) - len(nats))
    assert document["comparable"]
    assert document["picture"] is None
    assert all(r["reconstruction_mse"] is not None for r in document["runs"])


def test_the_picture_goes_where_it_is_told_also_beside_json(runs, tmp_path, capsys):
    out = tmp_path / "these.png"
    assert call(runs["dct"], runs["ppca"], "--json", "--out", out) == 0
    assert json.loads(capsys.readouterr().out)["picture"] == str(out)
    assert out.exists()
    assert call(runs["dct"], "--out", tmp_path / "these.gif") == 2
    assert "'out' must be a file ending in .png" in capsys.readouterr().err


def test_runs_on_other_data_have_a_table_and_no_picture(runs, tmp_path, capsys):
    from lowerbound.data import load_data

    source = load_data("digits", binarize="threshold")
    other = finished(tmp_path / "other", "ppca", source)
    assert call(other, runs["dct"]) == 0
    out, err = capsys.readouterr()
    assert "not a likelihood" in out
    assert "picture" not in out
    assert "different data" in err
    assert "warning: no picture: 'runs' must be runs on the same data" in err
    assert not (other / "comparison.png").exists()
    assert call(other, runs["dct"], "--out", tmp_path / "x.png") == 2
    assert not (tmp_path / "x.png").exists()


def test_data_that_are_gone_cost_the_picture_only(runs, tmp_path, digits, capsys):
    run = finished(tmp_path / "gone", "ppca", digits, data="nowhere.npy")
    assert call(run) == 0
    out, err = capsys.readouterr()
    assert "ppca" in out
    assert "no picture: " in err
    assert "nowhere.npy" in err
