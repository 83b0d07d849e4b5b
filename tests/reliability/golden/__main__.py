"""Write the golden run of this version; refuses to replace one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

import lowerbound
from lowerbound.config import RunConfig
from lowerbound.run import train
from tests.reliability.tiny import images, labels

KEPT = {
    "stopped": ("config.yaml", "metrics.jsonl", "checkpoints/step-00000020"),
    "finished": ("config.yaml", "config.json", "model.safetensors", "evaluation.json"),
}
CONFIG = RunConfig(
    data="x.npz",
    steps=40,
    validations=4,
    batch_size=16,
    seed=3,
    device="cpu",
    precision="float32",
    compile="never",
    options={"latent_dim": 2, "width": 8, "depth": 1},
)


def main() -> None:
    target = Path(__file__).parent.resolve() / lowerbound.__version__
    target.mkdir()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        np.savez_compressed("x.npz", x=images(), y=labels())
        train(CONFIG, Path("run"), quiet=True)
        shutil.copy("x.npz", target)
        for name, members in KEPT.items():
            for member in members:
                source, copy = Path("run", member), target / name / member
                copy.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    print(target)


if __name__ == "__main__":
    main()
