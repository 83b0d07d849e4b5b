"""Seconds that a checkpoint costs, beside `torch.save` of the same state, in turns.

The state is that of a model under AdamW with an average and the best weights kept: five tensors
for each weight, 80 MB unless said. Each round writes it by `torch.save`, by `torch.save` and a
flush to the disk, and as a checkpoint (hashed, flushed, renamed); and reads both back, the
checkpoint with every byte verified. The table has medians, and medians of the ratios round by
round: the disk is as busy for one as for the other.

    python benchmarks/saving.py [--megabytes 80] [--rounds 15] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lowerbound.training.checkpoint import load_newest, save_checkpoint

LAYERS = 8


def state_of(megabytes: float) -> dict[str, dict[str, torch.Tensor]]:
    """Groups as a training run has them, of float32 matrices and step counts."""
    side = int((megabytes * 1e6 / (5 * LAYERS * 4)) ** 0.5)
    weights = {f"layers.{i}.weight": torch.randn(side, side) for i in range(LAYERS)}
    moments = {
        f"{name}/{field}": torch.randn(side, side)
        for name in weights
        for field in ("exp_avg", "exp_avg_sq")
    }
    counts = {f"{name}/step": torch.tensor(1.0) for name in weights}
    copies = {name: {k: v.clone() for k, v in weights.items()} for name in ("average", "best")}
    return {"model": weights, "optimizer": moments | counts, **copies}


def flushed_torch_save(state: object, path: Path) -> None:
    with open(path, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def deeds_of(state: dict[str, dict[str, torch.Tensor]], folder: Path) -> dict[str, Callable]:
    """What is timed, by name; files of the round before are gone when it starts."""
    plain, flushed, run = folder / "plain.pt", folder / "flushed.pt", folder / "run"
    return {
        "torch.save": lambda: torch.save(state, plain),
        "torch.save, flushed": lambda: flushed_torch_save(state, flushed),
        "checkpoint": lambda: save_checkpoint(run, 1, state, {"step": 1}),
        "torch.load": lambda: torch.load(flushed, weights_only=True),
        "checkpoint, verified and loaded": lambda: load_newest(run),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=80)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--folder", help="on the disk that is measured; a temporary one unless said"
    )
    args = parser.parse_args()
    state = state_of(args.megabytes)
    seconds: dict[str, list[float]] = {}
    for turn in range(args.rounds + 1):  # the first round warms up
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            for name, deed in deeds_of(state, Path(folder)).items():
                os.sync()  # what others left to write is not ours to wait for
                start = time.perf_counter()
                deed()
                if turn:
                    seconds.setdefault(name, []).append(time.perf_counter() - start)
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
    base = seconds["torch.save, flushed"]
    print(f"{args.megabytes:g} MB, median of {args.rounds} interleaved rounds")
    print(f"{'':34}{'seconds':>9}{'of torch.save, flushed':>24}")
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        print(f"{name:34}{statistics.median(values):>9.3f}{ratio:>24.2f}")


if __name__ == "__main__":
    main()
