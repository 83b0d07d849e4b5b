"""A run of seconds to be hurt in every way: small images, a small VAE, many checkpoints."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lowerbound.build import MODELS, create_model
from lowerbound.config import TrainingConfig
from lowerbound.data import Rows, Source, make_source
from lowerbound.distributions import Discrete, Real
from lowerbound.models import Model
from lowerbound.training import fit_model, loop
from lowerbound.training.checkpoint import RunLock, load_newest, sweep

NUM_STEPS, NUM_BATCHES = 60, 10
CONFIG = TrainingConfig(
    steps=NUM_STEPS, validations=20, patience=100, batch_size=16, precision="float32", seed=3
)
LOOPED = [
    name for name, entry in MODELS.items() if entry.load()[0].fit_exactly is Model.fit_exactly
]
"""Names of the models that have a training loop."""


def first_of_all(names: list[str], values: list) -> list:
    """Pairs of a name and a value: all of them by night; by day the first name with every value,
    and the others with the first."""
    return [
        pytest.param(name, value, marks=[pytest.mark.nightly] if i and j else [])
        for i, name in enumerate(names)
        for j, value in enumerate(values)
    ]


def images() -> np.ndarray:
    """200 images of a bright spot on a grey slope, levels 0 to 16, uint8 (200, 1, 8, 8)."""
    place = np.random.default_rng(0).integers(1, 7, (200, 2))
    row, column = np.indices((8, 8))
    distance = np.hypot(row - place[:, :1, None], column - place[:, 1:, None])
    return np.clip(16 - 5 * distance + row, 0, 16).astype(np.uint8)[:, None]


def labels() -> np.ndarray:
    """A class of three for each image."""
    return np.arange(200) % 3


def tiny_source(real: bool = False) -> Source:
    """160 examples to train on: ten batches an epoch."""
    x = torch.from_numpy(images())
    support = Real() if real else Discrete(17)
    return make_source(
        Rows(x.float() if real else x, support, "tiny", labels=torch.from_numpy(labels()))
    )


def tiny_model(source: Source, name: str = "vae") -> Model:
    """A model of about 20,000 parameters."""
    return create_model(name, source, **small_options(name, 4), width=64, seed=CONFIG.seed)


def small_options(name: str, latent_dim: int) -> dict:
    """What makes a model of a kind small, beside its width."""
    own = {
        "hvae": {"latent_dims": (latent_dim, 2)},
        "diffusion": {"network": "mlp", "sampling_steps": 3},
    }
    return own.get(name, {"latent_dim": latent_dim})


def train_here(folder: Path, config: TrainingConfig = CONFIG, name: str = "vae") -> Model:
    """Train or continue in ``folder`` as the command does, but draw and judge nothing."""
    torch.set_num_threads(1)
    loop.SECONDS_BETWEEN_LOGS = float("inf")  # rows then depend on steps alone, not on the clock
    source = tiny_source()
    model = tiny_model(source, name)
    with RunLock(folder):
        sweep(folder)
        checkpoint, _ = load_newest(folder)
        fit_model(model, source, config, folder=folder, checkpoint=checkpoint)
    return model


def tensor_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every tensor of the newest checkpoint: weights, average, optimiser, best."""
    found, rejected = load_newest(folder)
    assert found is not None
    assert rejected == []
    return {
        f"{group}/{name}": hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        for group, tensors in found.tensors.items()
        for name, tensor in tensors.items()
    }


def untimed_rows(folder: Path, kind: str | None = None) -> list[dict]:
    """Rows of metrics.jsonl without what a clock has measured."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if "second" not in k}
        for row in rows
        if kind in (None, row["kind"])
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to see that nothing was touched."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def small_state(step: int) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, int]]:
    """Groups of tensors, two of which share memory, and values: a checkpoint of kilobytes."""
    value = torch.full((40,), float(step))
    groups = {"model": {"w": value, "b": value[:3]}, "average": {"w": value}, "best": {}}
    return {**groups, "optimizer": {"w/step": torch.tensor(float(step))}}, {"step": step}
