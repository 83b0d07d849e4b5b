"""Vectors, sequences, images and volumes, odd sides and all: every command, from one file."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from lowerbound.models.networks import AXES
from tests.commands.calling import call, refused

NUM = 60
SHAPES = {"vectors": (11,), "sequences": (2, 29), "images": (3, 9, 13), "volumes": (2, 3, 5, 7)}
NETWORKS = [
    (name, network)
    for name, shape in SHAPES.items()
    for network in ("auto", "conv")
    if network == "auto" or len(shape) in AXES["conv"]
]


def saved(folder, shape, name="x.npz"):
    x = np.random.default_rng(0).normal(size=(NUM, *shape)).astype(np.float32)
    np.savez(folder / name, x=x, y=np.arange(NUM) % 2)
    return folder / name, x


@pytest.mark.parametrize(("name", "network"), NETWORKS)
def test_one_command_trains_and_all_others_follow(name, network, tmp_path, capsys):
    shape = SHAPES[name]
    path, x = saved(tmp_path, shape)
    run, table = tmp_path / "run", tmp_path / "scores.csv"
    model = ["--network", network, "--latent-dim", 2, "--width", 8, "--model", "cvae"]
    train = ["train", path, "--layout", "arrays", "--steps", 2, "--out", run, "--quiet"]
    assert call(*train, *model) == 0
    assert json.loads((run / "config.json").read_text())["event_shape"] == list(shape)
    assert yaml.safe_load((run / "config.yaml").read_text())["layout"] == "arrays"
    capsys.readouterr()
    assert call("evaluate", run, "--samples", 2, "--json") == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["num_examples"] == NUM // 10
    assert np.isfinite(judged["bound"]["value"])
    assert call("score", run, "--out", table) == 0
    with table.open() as file:
        assert len(list(csv.DictReader(file))) == NUM
    for verb, made in (
        ("sample", {"x": (4, *shape)}),
        ("reconstruct", {"x": (4, *shape), "reconstructions": (4, *shape)}),
    ):
        assert call(verb, run, "--num", 4, "--out", tmp_path / f"{verb}.npz") == 0
        arrays = np.load(tmp_path / f"{verb}.npz")
        assert {key: arrays[key].shape for key in made} == made
        assert call(verb, run, "--num", 4, "--out", tmp_path / f"{verb}.png") == 0
        Image.open(tmp_path / f"{verb}.png").verify()
    assert {a.tobytes() for a in arrays["x"]} <= {a.tobytes() for a in x}
    assert call("interpolate", run, "--num", 2, "--steps", 3) == 0
    z = tmp_path / "z.npz"
    assert call("encode", run, "--out", z) == 0
    assert call("decode", run, "--latents", z, "--out", tmp_path / "decoded.npz") == 0
    assert np.load(tmp_path / "decoded.npz")["x"].shape == x.shape
    assert call("compare", run, run) == 0
    for picture in ("samples", "plane", "interpolations", "comparison"):
        Image.open(run / f"{picture}.png").verify()


def test_the_same_file_is_images_unless_it_is_said_to_be_sequences(tmp_path, capsys):
    path, _ = saved(tmp_path, SHAPES["sequences"])
    train = ["train", path, "--steps", 1, "--latent-dim", 2, "--width", 8]
    assert call(*train, "--out", tmp_path / "auto") == 0
    assert "--layout arrays says so" in capsys.readouterr().err
    assert json.loads((tmp_path / "auto/config.json").read_text())["event_shape"] == [1, 2, 29]
    assert call(*train, "--config", tmp_path / "auto/config.yaml", "--layout", "arrays",
                "--out", tmp_path / "arrays") == 0  # fmt: skip
    assert json.loads((tmp_path / "arrays/config.json").read_text())["event_shape"] == [2, 29]
    # Other data for the run are read as its own were.
    other, _ = saved(tmp_path, SHAPES["sequences"], "other.npz")
    out = tmp_path / "r.npz"
    args = ["--data", other, "--num", 3, "--out", out]
    assert call("reconstruct", tmp_path / "arrays", *args) == 0
    assert np.load(out)["x"].shape == (3, *SHAPES["sequences"])
    long, _ = saved(tmp_path, (2, 31), "long.npz")
    args[1] = long
    assert "must be examples of shape 2×29, got 2×31" in refused(
        capsys, "reconstruct", tmp_path / "arrays", *args
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["digits", "--layout", "arrays"], "'layout' must be auto unless data are .npz, .npy"),
        (["BOX", "--layout", "arrays", "--network", "hybrid"], "'network' must be mlp or conv"),
        (["BOX", "--layout", "arrays", "--condition", "mask", "--model", "cvae"], "has quadrants"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything(args, message, tmp_path, capsys):
    path, _ = saved(tmp_path, SHAPES["sequences"])
    args = [path if arg == "BOX" else arg for arg in args]
    assert message in refused(capsys, "train", *args, "--out", tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]
