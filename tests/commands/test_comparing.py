"""Comparing runs: one table and one picture, for likelihoods and for what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lowerbound.build import MODELS, create_model, save_model
from lowerbound.cli import run_command_line
from lowerbound.config import RunConfig
from lowerbound.data import load_data
from lowerbound.evaluation import evaluate
from lowerbound.files import save_json
from lowerbound.tables import comparison_notes, comparison_table

SMALL = {"width": 8, "latent_dim": 3, "sampling_steps": 2}


def finished(folder: Path, name: str, source, data: str = "digits") -> Path:
    """A run folder as `compare` needs it: of a model that is fitted exactly, or not at all."""
    fields = MODELS[name].load()[1].__dataclass_fields__
    options = {key: value for key, value in SMALL.items() if key in fields}
    model = create_model(name, source, **options)
    model.fit_exactly(source)
    folder.mkdir()
    save_model(folder, model)
    (folder / "config.yaml").write_text(RunConfig(data=data, model=name).to_yaml())
    result = evaluate(model, source, num_samples=2, keep=folder / "scores.safetensors")
    save_json(folder / "evaluation.json", result)
    return folder


def told(capsys, *args: object) -> dict:
    """What `compare --json` says."""
    capsys.readouterr()
    assert call(*args, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits) -> dict[str, Path]:
    """A run of every model that can be made of digits."""
    root = tmp_path_factory.mktemp("runs")
    return {name: finished(root / name, name, digits) for name in MODELS}


@pytest.fixture
def comparable(runs) -> list[Path]:
    """Those that were all judged by log p(x)."""
    return [run for name, run in runs.items() if MODELS[name].context != "always"]


def call(*args: object) -> int:
    return run_command_line(["compare", *map(str, args)])


def test_every_model_stands_in_one_table_and_one_picture(runs, capsys):
    assert call(*runs.values()) == 0
    out = capsys.readouterr().out
    heading = "run model data latents bound to the best log-likelihood K bits/dim"
    heading += " squared error parameters"
    assert out.splitlines()[0].split() == heading.split()
    assert out.count("not a likelihood") == sum(not e.is_likelihood for e in MODELS.values())
    first = next(iter(runs.values()))
    assert str(first / "comparison.png") in out.replace("\n", "")
    absent = [line for line in out.splitlines() if line.startswith("not in it:")]
    without = [n for n in runs if not MODELS[n].load()[0].has_encoder]
    assert len(absent) == len(without) > 0
    for name, line in zip(sorted(without), sorted(absent), strict=True):
        assert f"{runs[name]} ({name}), which has no encoder" in line
    with Image.open(first / "comparison.png") as image:
        reconstructing = [n for n in runs if MODELS[n].load()[0].has_encoder]
        assert image.height > 50 * len(reconstructing)


def test_the_table_has_sizes_and_errors_and_no_nats_where_there_are_none(runs):
    judged = {
        name: json.loads((run / "evaluation.json").read_text()) for name, run in runs.items()
    }
    heading, *rows = comparison_table([{"run": n, **r} for n, r in judged.items()])
    for row in rows:
        cells, result = dict(zip(heading, row, strict=True)), judged[row[0]]
        if MODELS[row[0]].load()[0].has_encoder:
            assert cells["squared error"] == f"{result['reconstruction_mse']:.4g}"
            assert cells["latents"] == str(result["latent_dim"])
        else:
            assert cells["squared error"] == cells["latents"] == "–"
        if not MODELS[row[0]].is_likelihood:
            assert cells["bound"] == "not a likelihood"
            assert cells["log-likelihood"] == cells["bits/dim"] == cells["K"] == "–"
        else:
            dequantised = row[0] in ("ppca", "mixture")
            assert cells["bound"].endswith("nats *" if dequantised else "nats")
            assert ("dequantised" in " ".join(result["notes"])) == dequantised


def test_likelihoods_come_first_and_the_best_of_them_first(comparable, capsys):
    assert call(*comparable, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    bounds = [r["bound"] and r["bound"]["value"] for r in document["runs"]]
    nats = [b for b in bounds if b is not None]
    assert bounds == sorted(nats, reverse=True) + [None] * (len(bounds) - len(nats))
    assert document["comparable"]
    assert document["picture"] is None
    errors = [r["reconstruction_mse"] for r in document["runs"]]
    assert None not in errors[len(nats) :]
    assert errors[len(nats) :] == sorted(errors[len(nats) :])


def test_the_picture_goes_where_it_is_told_also_beside_json(runs, tmp_path, capsys):
    out = tmp_path / "these.png"
    assert call(runs["dct"], runs["ppca"], "--json", "--out", out) == 0
    assert json.loads(capsys.readouterr().out)["picture"] == str(out)
    assert out.exists()
    assert call(runs["dct"], "--out", tmp_path / "these.gif") == 2
    assert "'out' must be a file ending in .png" in capsys.readouterr().err


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, Path]:
    """Runs on the same digits, cut in the middle."""
    root, source = tmp_path_factory.mktemp("others"), load_data("digits", binarize="threshold")
    return {name: finished(root / name, name, source) for name in ("ppca", "dct", "mixture")}


def test_runs_on_other_data_have_a_table_and_no_picture(runs, others, tmp_path, capsys):
    for more in ([], ["--out", tmp_path / "x.png"]):
        assert call(others["ppca"], runs["dct"], *more) == (2 if more else 0)
        out, err = capsys.readouterr()
        assert "not a likelihood" in out
        assert "A: digits" in out
        assert "B: digits" in out
        assert (
            "A and B are different data, or the same prepared, split or conditioned on differently"
            in out
        )
        assert "picture" not in out
        assert "'runs' must be runs on the same data for a picture of them" in err
        assert err.startswith("lowerbound: error: " if more else "note: no picture: ")
        assert err.count("\n") == 1
    assert not (others["ppca"] / "comparison.png").exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["fingerprint", "support", "split", "num_examples", "context"])
def test_whatever_runs_were_judged_on_puts_them_into_sets(key, runs, tmp_path, digits, capsys):
    run = finished(tmp_path / "run", "ppca", digits)
    result = json.loads((run / "evaluation.json").read_text())
    save_json(run / "evaluation.json", {**result, key: 7 if key == "num_examples" else "other"})
    document = told(capsys, runs["ppca"], run)
    assert not document["comparable"]
    assert [r["set"] for r in document["runs"]] == ["A", "B"]


def test_runs_are_ordered_within_their_own_data_alone(runs, others, capsys):
    mixed = [runs["dct"], others["dct"], runs["ppca"], others["mixture"], others["ppca"]]
    document = told(capsys, *mixed)
    assert not document["comparable"]
    assert [r["set"] for r in document["runs"]] == ["A", "A", "B", "B", "B"]
    for name, members in (("A", runs), ("B", others)):
        inside = [r for r in document["runs"] if r["set"] == name]
        assert {r["run"] for r in inside} <= {str(run) for run in members.values()}
        assert [r["run"] for r in inside] == [r["run"] for r in told(
            capsys, *reversed([r["run"] for r in inside]))["runs"]]  # fmt: skip
        assert inside[-1]["model"] == "dct"


def test_a_model_that_is_given_something_stands_in_a_set_of_its_own(runs, capsys):
    found = {r["model"]: r["set"] for r in told(capsys, *runs.values())["runs"]}
    for name, entry in MODELS.items():
        assert (found[name] == found["vae"]) == (entry.context != "always")


def test_the_difference_to_the_best_is_paired_by_example(comparable, runs, capsys):
    first, *rest = [r for r in told(capsys, *comparable)["runs"] if r["bound"]]
    assert first["difference"] is None
    best = load_file(Path(first["run"]) / "scores.safetensors")["bound"]
    assert rest
    for r in rest:
        values = load_file(Path(r["run"]) / "scores.safetensors")["bound"]
        difference = values - best
        assert r["difference"]["to"] == first["run"]
        gap = r["bound"]["value"] - first["bound"]["value"]
        assert r["difference"]["value"] == pytest.approx(gap)
        error = float(difference.var() / len(difference)) ** 0.5
        assert r["difference"]["standard_error"] == pytest.approx(error)
    assert told(capsys, runs["dct"], runs["vae"])["runs"][1]["difference"] is None


def test_models_that_find_the_same_examples_hard_differ_with_a_small_error(
    tmp_path, runs, digits, capsys
):
    twin = finished(tmp_path / "twin", "ppca", digits)
    values = load_file(twin / "scores.safetensors")
    shift = 0.1 * torch.randn(len(values["bound"]), generator=torch.Generator().manual_seed(0))
    moved = values["bound"] - 1 + shift.double()
    save_file({**values, "bound": moved}, twin / "scores.safetensors")
    result = json.loads((twin / "evaluation.json").read_text())
    result["bound"]["value"] = float(moved.mean())
    save_json(twin / "evaluation.json", result)
    difference = told(capsys, runs["ppca"], twin)["runs"][1]["difference"]
    assert difference["value"] == pytest.approx(-1, abs=0.05)
    assert difference["standard_error"] < 0.05 * result["bound"]["standard_error"]
    assert call(runs["ppca"], twin) == 0
    assert "with the error of their difference over the same examples" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["missing", "damaged", "of another model", "too few", "no nats"])
def test_values_that_are_not_those_of_the_run_are_not_paired(
    fault, tmp_path, digits, runs, capsys
):
    run = finished(tmp_path / "run", "mixture", digits)
    path = run / "scores.safetensors"
    assert told(capsys, runs["ppca"], run)["runs"][1]["difference"]
    values = load_file(path)
    match fault:
        case "missing":
            path.unlink()
        case "damaged":
            path.write_bytes(path.read_bytes()[:-9])
        case "of another model":
            path.write_bytes((runs["vae"] / "scores.safetensors").read_bytes())
        case "too few":
            mean = values["bound"].mean().expand(5).clone()
            save_file({**values, "bound": mean}, path)
        case "no nats":
            save_file({"log_likelihood": values["log_likelihood"]}, path)
    assert call(runs["ppca"], run, "--json") == 0
    out, err = capsys.readouterr()
    assert [r["difference"] for r in json.loads(out)["runs"]] == [None, None]
    assert ("scores.safetensors" in err) == (fault in ("damaged", "no nats"))


def test_evaluate_keeps_what_an_older_run_lacks_and_nothing_else(tmp_path, digits, capsys):
    run = finished(tmp_path / "run", "ppca", digits)
    path = run / "scores.safetensors"
    before = load_file(path)
    path.unlink()
    evaluate_run = ["evaluate", str(run), "--json", "--samples"]
    for more in (["2"], ["16", "--split", "train"], ["16", "--data", "digits"]):
        assert run_command_line([*evaluate_run, *more]) == 0
        assert not path.exists()
    assert run_command_line([*evaluate_run, "16"]) == 0
    assert torch.allclose(load_file(path)["bound"], before["bound"], rtol=1e-12)
    path.write_bytes(b"mine")
    assert run_command_line([*evaluate_run, "16"]) == 0
    assert path.read_bytes() == b"mine"


def test_the_picture_names_the_nats_of_each_model(runs, monkeypatch, tmp_path):
    from lowerbound import plots

    seen = []
    draw = plots.comparison_figure
    monkeypatch.setattr(
        plots,
        "comparison_figure",
        lambda x, rows, support: seen.extend(t for t, _ in rows) or draw(x, rows, support),
    )
    assert call(runs["ppca"], runs["dct"], "--out", tmp_path / "x.png") == 0
    nats = json.loads((runs["ppca"] / "evaluation.json").read_text())["bound"]["value"]
    assert f"{nats:.2f} nats".replace("-", "−") in seen[0]
    assert "no likelihood" in seen[1]


def test_the_notes_say_only_what_the_table_shows(runs):
    one = {"set": "A", **json.loads((runs["vae"] / "evaluation.json").read_text())}
    assert comparison_notes([one]) == []
    (note,) = comparison_notes([one, {**one, "set": "B"}, {**one, "set": "C"}])
    assert note.startswith("A, B and C are different data")


def test_data_that_are_gone_cost_the_picture_only(runs, tmp_path, digits, capsys):
    run = finished(tmp_path / "gone", "ppca", digits, data="nowhere.npy")
    assert call(run) == 0
    out, err = capsys.readouterr()
    assert "ppca" in out
    assert "no picture: " in err
    assert "nowhere.npy" in err
