"""A long run takes no more of anything than a short one; a save, hardly any memory at all."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from lowerbound.build import create_model
from lowerbound.config import TrainingConfig
from lowerbound.training import fit_model, loop
from lowerbound.training.checkpoint import save_checkpoint
from tests.reliability.tiny import tiny_model, tiny_source


def resident_kilobytes() -> int:
    """Memory of this process that is not on loan from a file, from /proc."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


def taken() -> tuple[int, int, int, int]:
    """Kilobytes, open files, threads and objects of this process."""
    gc.collect()
    objects = len(gc.get_objects())
    return (
        resident_kilobytes(),
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        objects,
    )


@pytest.mark.nightly
def test_two_thousand_steps_leak_nothing(tmp_path, monkeypatch):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc")
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_LOGS", float("inf"))
    source, steps, seen = tiny_source(), 2200, []
    model = tiny_model(source)
    real, count = loop.Step.forward, [0]

    def forward(self, *args):
        count[0] += 1
        if count[0] >= 200 and count[0] % 100 == 1:  # after a warm-up, at the same place each time
            seen.append(taken())
        return real(self, *args)

    monkeypatch.setattr(loop.Step, "forward", forward)
    config = TrainingConfig(
        steps=steps, validations=22, patience=100, batch_size=16, precision="float32"
    )
    fit_model(model, source, config, folder=tmp_path)
    kilobytes, files, threads, objects = np.array(seen).T
    slope = np.polyfit(np.arange(len(seen)) * 100, kilobytes, 1)[0]
    rise = (objects[-1] - objects[0]) / (steps - 200)
    print(
        f"\n{steps - 200} steps: {slope:.2f} KB a step, {len(set(files))} count of open files, "
        f"{len(set(threads))} of threads, {rise:.2f} objects a step"
    )
    assert slope <= 1.0
    assert len(set(files)) == 1
    assert len(set(threads)) == 1
    assert rise <= 0.1  # a row of the log per validation, and nothing else


def test_a_save_needs_no_second_copy_of_the_state(tmp_path):
    chosen = torch.Generator().manual_seed(0)
    group = {str(i): torch.randn(250_000, generator=chosen) for i in range(4)}
    twice = {f"{k}/{f}": v.clone() for k, v in group.items() for f in ("a", "b")}
    copies = [{k: v.clone() for k, v in group.items()} for _ in range(3)]
    state = dict(zip(("model", "average", "best"), copies, strict=True)) | {"optimizer": twice}
    size = 5 * 4 * 1_000_000
    tracemalloc.start()
    save_checkpoint(tmp_path, 1, state, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.05 * size


def test_training_leaves_no_file_open_and_no_thread(tmp_path):
    source = tiny_source()
    model = create_model("vae", source, latent_dim=2, width=8)
    fit_model(model, source, TrainingConfig(steps=3), folder=tmp_path / "warm")
    files, threads = len(os.listdir("/dev/fd")), threading.active_count()
    again = create_model("vae", source, latent_dim=2, width=8)
    fit_model(again, source, TrainingConfig(steps=30), folder=tmp_path / "run")
    assert len(os.listdir("/dev/fd")) == files
    assert threading.active_count() == threads
