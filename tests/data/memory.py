"""Memory of its own that a process takes to learn from a file: ``python -m tests.data.memory``.

What is mapped from a file is not counted: the system takes it back when it needs it.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.data import load_data
from lowerbound.training import fit_model

STATUS = Path("/proc/self/smaps_rollup")


def anonymous() -> float:
    """MiB of anonymous memory of this process, now."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def learned(path: Path | str) -> tuple[float, float]:
    """MiB before, and the most of them while a small VAE is trained for 20 steps on a file."""
    before, seen, done = anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        source = load_data(path)
        assert not source.train.in_memory
        model = create_model("vae", source, latent_dim=2, width=16)
        fit_model(model, source, TrainingConfig(steps=20, validations=1, batch_size=64))
    finally:
        done.set()
        watcher.join()
    return before, max(seen)


if __name__ == "__main__":
    print(*learned(sys.argv[1]))
