"""Classes and parts of images on the command line: trained, drawn by name, completed, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from lowerbound.data import load_data
from tests.commands.calling import call, refused

TRAIN = ["--model", "cvae", "--latent-dim", 3, "--width", 32, "--quiet"]


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "classes"
    assert call("train", "digits", "--steps", 400, "--out", folder, *TRAIN) == 0
    return folder


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "masks"
    args = ["--condition", "mask:2", "--steps", 40, "--out", folder, *TRAIN]
    assert call("train", "digits", *args) == 0
    return folder


def nearest_class(x: np.ndarray) -> np.ndarray:
    """The class whose mean digit is nearest to each of ``x`` (N, 1, 8, 8)."""
    bunch = load_digits()
    means = np.stack([bunch.data[bunch.target == c].mean(0) for c in range(10)])
    return ((x.reshape(len(x), 1, 64) - means) ** 2).sum(-1).argmin(1)


def test_a_class_is_drawn_by_its_name(classes, tmp_path):
    out = tmp_path / "s.npz"
    assert call("sample", classes, "--label", 3, "--mean", "--num", 40, "--out", out) == 0
    made = np.load(out)
    assert made["labels"].tolist() == [3] * 40
    assert (nearest_class(made["x"]) == 3).mean() > 0.8


def test_every_class_is_a_row_of_the_picture(classes, tmp_path):
    out = tmp_path / "s.npz"
    assert call("sample", classes, "--label", "all", "--num", 5, "--mean", "--out", out) == 0
    made = np.load(out)
    assert made["labels"].tolist() == [c for c in range(10) for _ in range(5)]
    assert (nearest_class(made["x"]) == made["labels"]).mean() > 0.8
    picture = tmp_path / "s.png"
    assert call("sample", classes, "--label", "all", "--num", 5, "--mean", "--out", picture) == 0
    assert Image.open(picture).size[1] > 10 * 48  # ten rows of digits
    assert call("sample", classes, "--label", "all", "--num", 20, "--out", picture) == 0
    assert Image.open(picture).size == (20 * 50 - 2, 10 * 50 - 2)  # a bare grid of all 200


def test_draws_without_a_class_say_which_they_are(classes, tmp_path):
    out = tmp_path / "s.npz"
    assert call("sample", classes, "--num", 300, "--mean", "--out", out) == 0
    made = np.load(out)
    assert set(made["labels"]) == set(range(10))
    assert (nearest_class(made["x"]) == made["labels"]).mean() > 0.7


def test_examples_are_reconstructed_as_another_class(classes, tmp_path):
    out, own = tmp_path / "r.npz", tmp_path / "own.npz"
    assert call("reconstruct", classes, "--label", 5, "--num", 60, "--out", out) == 0
    assert call("reconstruct", classes, "--num", 60, "--out", own) == 0
    other, plain = np.load(out), np.load(own)
    assert (other["x"] == plain["x"]).all()
    assert (nearest_class(other["reconstructions"]) == 5).mean() > 0.6
    assert (nearest_class(plain["reconstructions"]) == 5).mean() < 0.3
    assert call("reconstruct", classes, "--label", 5) == 0
    Image.open(classes / "reconstructions-label-5.png").verify()


def test_encode_decode_and_score_are_given_the_classes(classes, tmp_path, capsys):
    z, x, s = tmp_path / "z.npz", tmp_path / "x.npz", tmp_path / "s.csv"
    assert call("encode", classes, "--out", z) == 0
    assert (np.load(z)["context"] == load_digits().target).all()
    assert call("decode", classes, "--latents", z, "--out", x) == 0
    assert (nearest_class(np.load(x)["x"]) == load_digits().target).mean() > 0.7
    assert call("decode", classes, "--latents", z, "--label", 8, "--out", x) == 0
    assert (nearest_class(np.load(x)["x"]) == 8).mean() > 0.7
    assert call("score", classes, "--out", s) == 0
    assert len(s.read_text().splitlines()) == 1 + 1797
    capsys.readouterr()
    assert call("evaluate", classes, "--samples", 3, "--json") == 0
    assert "log p(x | context)" in json.loads(capsys.readouterr().out)["notes"][0]


def test_masked_images_are_completed(masks, tmp_path, capsys):
    out = tmp_path / "r.npz"
    assert call("reconstruct", masks, "--num", 4, "--out", out) == 0
    made = np.load(out)
    x, context, completions = (made[k] for k in ("x", "context", "completions"))
    assert completions.shape == (4, 5, 1, 8, 8)
    observed = context[:, 1] == 1
    assert observed[..., :4].all()  # the left half
    assert not observed[..., 4:].any()
    assert (completions[..., :4] == x[:, None, ..., :4]).all()
    assert (completions[:, 0, ..., 4:] != completions[:, 1, ..., 4:]).any()
    for verb in ("reconstruct", "sample", "interpolate"):
        assert call(verb, masks) == 0
    for name in ("reconstructions", "samples", "interpolations"):
        Image.open(masks / f"{name}.png").verify()
    capsys.readouterr()
    assert call("evaluate", masks, "--samples", 3, "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("not observed" in note for note in notes)


def test_a_mask_that_varies_is_fresh_in_training_and_fixed_when_judging():
    source, again = (load_data("digits", condition="mask") for _ in range(2))
    rows = slice(0, 50)
    assert (source.test[rows][1] == again.test[rows][1]).all()
    shares = source.test[rows][1][:, 1].float().mean((1, 2, 3))
    assert set(shares.tolist()) == {0.25, 0.5, 0.75}


def test_a_class_never_seen_is_refused_with_those_that_were(classes, masks, run, capsys):
    for verb in ("sample", "reconstruct", "decode"):
        error = refused(capsys, verb, classes, "--label", "12")
        assert (
            "'label' must be one of the 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, got 12" in error
        )
        assert "did you mean" not in error  # among numbers none is nearer than another
        assert "'label' must be left out for a model that is not conditional" in refused(
            capsys, verb, run, "--label", "3"
        )
        assert "'label' must be left out for a model that is given mask:2" in refused(
            capsys, verb, masks, "--label", "3"
        )
    for label in ("all", "3"):
        assert "not conditional" in refused(capsys, "sample", run, "--label", label)


def test_names_of_classes_are_spoken(tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = np.array(["cat", "dog", "owl"])[np.arange(90) % 3]
    x = rng.normal(size=(90, 4)).astype(np.float32)
    np.savez(tmp_path / "pets.npz", x=x, y=names)
    run = tmp_path / "pets"
    assert call("train", tmp_path / "pets.npz", "--steps", 5, "--out", run, *TRAIN) == 0
    out = tmp_path / "s.csv"
    assert call("sample", run, "--label", "all", "--num", 2, "--out", out) == 0
    last = [line.rsplit(",", 1)[1] for line in out.read_text().splitlines()]
    assert last == ["label", "cat", "cat", "dog", "dog", "owl", "owl"]
    error = refused(capsys, "sample", run, "--label", "dgo", "--out", tmp_path / "t.csv")
    assert "one of the 3 classes: cat, dog, owl, got dgo; did you mean 'dog'?" in error
    assert not (tmp_path / "t.csv").exists()
    # Other data may hold fewer classes where rows are scored, and must hold the same elsewhere.
    few, strange, bare = tmp_path / "few.npz", tmp_path / "strange.npz", tmp_path / "bare.npz"
    np.savez(few, x=x[1::3], y=names[1::3])
    np.savez(strange, x=x, y=np.where(names == "owl", "cow", names))
    np.savez(bare, x=x)
    assert call("encode", run, "--data", few, "--out", tmp_path / "z.npz") == 0
    assert (np.load(tmp_path / "z.npz")["context"] == 1).all()
    for verb in ("score", "encode"):
        error = refused(capsys, verb, run, "--data", strange, "--out", tmp_path / "t.csv")
        assert "'label' must be one of the 3 classes: cat, dog, owl, got cow" in error
        error = refused(capsys, verb, run, "--data", bare, "--out", tmp_path / "t.csv")
        assert "'labels' must be in the data of a 'cvae'" in error
    for data in (few, strange):
        error = refused(capsys, "evaluate", run, "--data", data)
        assert "'labels' must be of the 3 classes: cat, dog, owl that the model was" in error
    assert "'labels' must be in the data of" in refused(capsys, "evaluate", run, "--data", bare)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["digits", "--condition", "masks"],
            "'condition' must be one of auto, none, labels, mask",
        ),
        (["digits", "--model", "vae", "--condition", "mask"], "add --model cvae"),
        (["BARE"], "'context' must be in the data of a 'cvae', got none; name the labels with"),
        (["BARE", "--condition", "mask:1"], "a mask has quadrants: use images"),
        (["digits", "--label-dropout", "2"], "'label_dropout' must be from 0 to 1, got 2"),
    ],
)
def test_what_cannot_be_conditioned_on_is_refused_before_anything(args, message, tmp_path, capsys):
    np.save(tmp_path / "bare.npy", np.random.default_rng(0).normal(size=(50, 4)))
    args = [tmp_path / "bare.npy" if arg == "BARE" else arg for arg in args]
    model = [] if "--model" in args else TRAIN[:2]
    assert message in refused(capsys, "train", *args, *model, "--out", tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["bare.npy"]
