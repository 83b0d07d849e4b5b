"""Data that cannot be used: named before the first step, in one line that says what to do."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

import lowerbound
from lowerbound.build import MODELS, create_model
from lowerbound.cli import run_command_line
from lowerbound.data import Rows, load_data, make_source
from lowerbound.distributions import Discrete, Real
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate, log_likelihood
from lowerbound.evaluation.judging import scores
from tests.data.test_images import make_bad
from tests.reliability.tiny import images, labels

# --- images that are bad ------------------------------------------------------------------------

BAD = (
    *("empty", "not an image", "truncated", "noise", "50k", "9k", "text"),
    *("broken link", "not a file", "32-bit", "format"),
)
NUM_GOOD = 60


def folder_of(path, bad):
    """Good images in every mode that we read, and bad ones of the given kinds among them."""
    path.mkdir()
    chosen = np.random.default_rng(0)
    for i in range(NUM_GOOD):
        levels = chosen.integers(0, 256, (6, 8), dtype=np.uint8)
        image = Image.fromarray(levels)
        kind = ("L", "1", "P", "LA", "I;16")[i % 5]
        if kind == "I;16":
            image = Image.fromarray(levels.astype(np.uint16) * 257)
        elif kind != "L":
            image = image.convert(kind)
        image.save(path / f"good{i}.png")
    for i, kind in enumerate(bad):
        make_bad(path / f"bad{i:02d}.png", kind)
    if os.geteuid() != 0:
        (path / "bad99.png").write_bytes((path / "good0.png").read_bytes())
        (path / "bad99.png").chmod(0)
    return path


def call(*args):
    return run_command_line([str(arg) for arg in args])


def test_every_bad_image_is_counted_and_five_are_named_before_the_first_step(tmp_path, capsys):
    data, out = folder_of(tmp_path / "images", BAD), tmp_path / "run"
    assert call("train", f"folder:{data}", "--out", out, "--steps", 2) == 2
    err = capsys.readouterr().err
    num_bad = len(list(data.glob("bad*")))
    assert err.count("\n") == 1
    assert f"{num_bad} bad of {num_bad + NUM_GOOD}" in err
    for i in range(5):
        assert f"bad{i:02d}.png (" in err
    assert "bad05.png" not in err
    assert "--on-bad skip" in err
    assert not out.exists()


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_of_bad_image_is_named_with_its_reason(kind, tmp_path):
    data = folder_of(tmp_path / "images", [kind])
    with pytest.raises(InputError, match=r"bad00\.png \([a-zA-Z0-9].*\)") as caught:
        load_data(data)
    assert "\n" not in str(caught.value)


def test_skipping_keeps_the_order_and_says_how_many(tmp_path, capsys):
    clean, dirty = folder_of(tmp_path / "clean", []), folder_of(tmp_path / "dirty", BAD)
    flags = ["--on-bad", "skip", "--steps", 2, "--latent-dim", 2, "--width", 8]
    for folder in (clean, dirty):
        assert (
            call("train", f"folder:{folder}", "--out", tmp_path / f"{folder.name}-run", *flags)
            == 0
        )
    err = capsys.readouterr().err
    num_bad = len(list(dirty.glob("bad*")))
    assert f"Skipped {num_bad} bad of {num_bad + NUM_GOOD} images" in err
    weights = [
        (tmp_path / f"{n}-run" / "model.safetensors").read_bytes() for n in ("clean", "dirty")
    ]
    assert weights[0] == weights[1]


# --- data that do not fit the model -------------------------------------------------------------

WRONG = {
    "larger": torch.zeros(20, 1, 9, 9, dtype=torch.uint8),
    "three channels": torch.zeros(20, 3, 8, 8, dtype=torch.uint8),
    "flat": torch.zeros(20, 64, dtype=torch.uint8),
    "no channels": torch.zeros(20, 8, 8, dtype=torch.uint8),
    "channels last": torch.zeros(20, 8, 8, 1, dtype=torch.uint8),
    "too many levels": torch.full((20, 1, 8, 8), 200, dtype=torch.uint8),
    "fractions": torch.full((20, 1, 8, 8), 0.5),
    "negative": torch.full((20, 1, 8, 8), -3.0),
    "not finite": torch.full((20, 1, 8, 8), float("nan")),
    "scalars": torch.zeros(20),
}


def small(name):
    """A model of a kind, made for labelled 8×8 images of 17 levels."""
    rows = Rows(torch.from_numpy(images()), Discrete(17), "tiny", torch.from_numpy(labels()))
    options = {
        "mixture": {"components": 2},
        "hvae": {"latent_dims": (2, 1)},
        "diffusion": {"network": "mlp", "width": 8},
    }.get(name, {"latent_dim": 2})
    return create_model(name, make_source(rows), **options)


def refused(deed):
    """The one line of a refusal."""
    with pytest.raises(InputError) as caught:
        deed()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert " must be " in message
    assert ", got " in message
    assert "mat1" not in message
    return message


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", MODELS)
def test_wrong_data_are_one_line_with_what_was_expected(name, wrong):
    x = WRONG[wrong]
    model = small(name)
    rows = Rows(x, Discrete(256) if x.dtype == torch.uint8 else Real(), "other")
    judge = log_likelihood if model.has_weights else scores
    deeds = [lambda: model.check(x), lambda: judge(model, x, num_samples=2)]
    if wrong != "scalars":
        other = make_source(rows)
        deeds += [
            lambda: lowerbound.fit(model, other, steps=2, quiet=True),
            lambda: evaluate(model, other, num_samples=2),
        ]
    for deed in deeds:
        message = refused(deed)
        assert "1×8×8" in message or "discrete:17" in message


@pytest.mark.parametrize("wrong", ["larger", "three channels", "flat", "scalars"])
@pytest.mark.parametrize("name", MODELS)
def test_a_bound_of_another_shape_is_refused_too(name, wrong):
    assert "1×8×8" in refused(lambda: small(name).bound(WRONG[wrong]))


@pytest.mark.nightly
@pytest.mark.parametrize("support", ["discrete:17", "binary", "real", "counts"])
def test_models_of_every_support_refuse_what_is_not_theirs(support):
    count = 0
    for name in MODELS:
        for shape in ((1, 8, 8), (5,)):
            try:
                model = create_model(name, shape, support=support)
            except InputError:
                continue  # a likelihood that does not fit
            for x in WRONG.values():
                fits = tuple(x.shape[1:]) == shape and model.support.contains(x)
                if not fits:
                    judge = log_likelihood if model.has_weights else scores
                    refused(lambda m=model, x=x, judge=judge: judge(m, x, num_samples=2))
                    refused(lambda m=model, x=x: m.check(x))
                    count += 1
    print(f"\n{count} combinations of model, {support} and data: one line each")
