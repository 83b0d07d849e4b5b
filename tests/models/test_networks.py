"""Which network fits which array, and runs on arrays that are no images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound.build import create_model
from lowerbound.errors import InputError
from tests.commands.calling import call


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((2, 512), "Mlp"),
        ((1, 1031), "ConvEncoder"),
        ((3, 347), "ConvEncoder"),
        ((1, 8, 8, 16), "Mlp"),
        ((1, 7, 11, 17), "ConvEncoder"),
        ((5000,), "Mlp"),
        ((2, 3, 5, 7, 11), "Mlp"),
    ],
    ids=str,
)
def test_the_network_follows_the_shape(shape, kind):
    model = create_model("vae", shape, latent_dim=2, width=8)
    assert type(model.encoder).__name__ == kind
    assert model.bound(torch.randn(2, *shape)).value.isfinite().all()
    assert model.sample(2).shape == (2, *shape)


def test_a_network_for_other_arrays_is_refused_with_those_that_fit():
    for shape, network, fit in (
        ((5,), "conv", "mlp"),
        ((2, 9), "hybrid", "mlp or conv"),
        ((1, 2, 3, 4, 5), "conv", "mlp"),
    ):
        with pytest.raises(InputError, match=f"'network' must be {fit} for data of shape"):
            create_model("vae", shape, network=network)


def test_volumes_in_a_file_are_trained_on_drawn_and_judged(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 1, 5, 7, 3)).astype(np.float32)
    np.save(tmp_path / "volumes.npy", x)
    run, out = tmp_path / "run", tmp_path / "s.npz"
    args = ["--network", "conv", "--steps", 4, "--latent-dim", 2, "--width", 8, "--quiet"]
    assert call("train", tmp_path / "volumes.npy", *args, "--out", run) == 0
    assert call("sample", run, "--num", 3, "--out", out) == 0
    assert np.load(out)["x"].shape == (3, 1, 5, 7, 3)
    assert call("evaluate", run, "--samples", 2, "--json") == 0
    for name in ("samples", "reconstructions", "interpolations", "latents"):
        Image.open(run / f"{name}.png").verify()
