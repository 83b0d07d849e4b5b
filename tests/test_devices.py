"""Two processes on the CPU: the same run as one, and an end with a reason when one dies."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from lowerbound._parallel import global_mean
from lowerbound.data import InMemorySplit
from lowerbound.engine import Engine, available, make_engine
from lowerbound.errors import InputError
from lowerbound.files import load_json
from lowerbound.training.batches import BLOCK, Batches

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(available(CPU) < 2, reason="needs two processor cores")

# Everything that couples a batch: free bits, an optimal sigma, a penalty, noise by blocks.
COUPLED = ["--free-bits", "0.05", "--sigma", "optimal", "--likelihood", "gaussian"]
COUPLED += ["--penalty", "total-correlation", "--penalty-weight", "2"]
SMALL = ["--width", "32", "--depth", "0", "--latent-dim", "3", "--precision", "float32"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "table.npy"
    x = np.random.default_rng(0).normal(size=(2000, 6)) @ np.diag([1, 2, 3, 4, 5, 6.0])
    np.save(path, x.astype(np.float32))
    return path


def command(table, out, *more):
    flags = [*COUPLED, *SMALL, "--batch-size", "200", "--device", "cpu", "--validations", "10"]
    return [
        sys.executable,
        "-m",
        "lowerbound",
        "train",
        str(table),
        "--out",
        str(out),
        *flags,
        *more,
    ]


def environment():
    return {**os.environ, "LOWERBOUND_TIMEOUT": "30", "OMP_NUM_THREADS": "1"}


def run(arguments):
    return subprocess.run(
        arguments, env=environment(), capture_output=True, text=True, timeout=110, check=False
    )


def rows_of(folder, kind):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for line in lines if (row := json.loads(line))["kind"] == kind]


def children_of(pid):
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return [int(n) for n in found.stdout.split()]


def is_alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for_validations(job, out, number):
    log, deadline = out / "metrics.jsonl", time.monotonic() + 60
    while not (log.exists() and log.read_text().count("validation") >= number):
        assert time.monotonic() < deadline
        assert job.poll() is None
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone_and_together(table, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, more in {"1": [], "2": ["--devices", "2"]}.items():
        done = run(command(table, root / name, "--steps", "50", *more))
        assert done.returncode == 0, done.stderr[-2000:]
    return root / "1", root / "2"


@pytest.fixture(scope="module")
def shared_out(table, tmp_path_factory):
    """A run by fsdp that was stopped on the way and resumed."""
    out = tmp_path_factory.mktemp("fsdp") / "run"
    more = ["--steps", "50", "--devices", "2", "--strategy", "fsdp", "--clip", "3"]
    job = subprocess.Popen(command(table, out, *more), env=environment(), stderr=subprocess.PIPE)
    wait_for_validations(job, out, 3)
    job.send_signal(signal.SIGTERM)
    said = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 143, said[-2000:]
    resumed = run([sys.executable, "-m", "lowerbound", "train", "--resume", str(out)])
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    return out


def test_two_processes_see_the_losses_of_one(alone_and_together):
    """Means of the steps between the rows that both have; on a busy machine one has more."""
    alone, together = (rows_of(folder, "train") for folder in alone_and_together)
    shared = sorted({row["step"] for row in alone} & {row["step"] for row in together})
    assert len(shared) >= 10
    for name in ("loss", "bound", "kl"):
        ours, theirs = (means_between(rows, name, shared) for rows in (together, alone))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def means_between(rows, name, steps) -> list[float]:
    """Means of a quantity from one of the steps to the next, by rows that are means themselves."""
    sums, before, total = {0: 0.0}, 0, 0.0
    for row in rows:
        total += row[name] * (row["step"] - before)
        before = row["step"]
        sums[before] = total
    return [(sums[b] - sums[a]) / (b - a) for a, b in itertools.pairwise([0, *steps])]


@pytest.mark.nightly
def test_a_run_goes_on_with_another_number_of_devices(table, alone_and_together, tmp_path):
    out = tmp_path / "moved"
    job = subprocess.Popen(command(table, out, "--steps", "50"), env=environment())
    wait_for_validations(job, out, 3)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 143
    of = [sys.executable, "-m", "lowerbound", "train", "--resume", str(out), "--devices", "2"]
    resumed = run(of)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "not bit-identical" in resumed.stderr
    assert "devices 1 then, 2 now" in resumed.stderr
    ours, theirs = (rows_of(f, "validation") for f in (out, alone_and_together[0]))
    np.testing.assert_allclose(
        [row["bound"] for row in ours], [row["bound"] for row in theirs], rtol=1e-5
    )


@pytest.mark.nightly
def test_shares_of_weights_train_stop_and_resume_as_one_whole(table, shared_out, tmp_path):
    alone = tmp_path / "alone"
    assert run(command(table, alone, "--steps", "50", "--clip", "3")).returncode == 0
    ours, theirs = (rows_of(folder, "validation") for folder in (shared_out, alone))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    np.testing.assert_allclose(
        [row["bound"] for row in ours], [row["bound"] for row in theirs], rtol=1e-5
    )


def test_two_processes_judge_as_one(alone_and_together):
    alone, together = (load_json(folder / "evaluation.json") for folder in alone_and_together)
    for name in ("bound", "log_likelihood", "prior_monte_carlo"):
        assert together[name]["value"] == pytest.approx(alone[name]["value"], rel=1e-4)
        assert together[name]["standard_error"] == pytest.approx(
            alone[name]["standard_error"], rel=1e-3
        )


def test_a_process_that_dies_ends_the_job_with_its_number_and_resuming_gives_the_same_bits(
    table, alone_and_together, tmp_path
):
    out = tmp_path / "killed"
    job = subprocess.Popen(
        command(table, out, "--steps", "50", "--devices", "2"),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_validations(job, out, 3)
    parts = children_of(job.pid)
    assert len(parts) == 2
    os.kill(max(parts), signal.SIGKILL)
    killed = time.monotonic()
    said = job.communicate(timeout=20)[1]
    assert time.monotonic() - killed < 10
    assert job.returncode == 4
    assert re.search(r"error: process 1 died \(SIGKILL\) at step \d+", said)
    assert not any(is_alive(pid) for pid in parts)

    resumed = run([sys.executable, "-m", "lowerbound", "train", "--resume", str(out)])
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    same = alone_and_together[1] / "model.safetensors"
    assert (out / "model.safetensors").read_bytes() == same.read_bytes()


def test_bad_input_of_many_processes_is_told_once(tmp_path):
    done = run(command(tmp_path / "none.npy", tmp_path / "out", "--devices", "2"))
    assert done.returncode == 2
    assert done.stderr.count("none.npy") == 1


def test_more_devices_than_there_are_are_refused_before_any_starts(table, tmp_path):
    done = run(command(table, tmp_path / "out", "--devices", "1000"))
    assert done.returncode == 2
    assert re.search(r"'devices' must be at most the \d+ processor cores", done.stderr)
    assert not (tmp_path / "out").exists()


def test_devices_in_a_script_of_ones_own_need_torchrun():
    with pytest.raises(InputError, match="torchrun --nproc-per-node 2"):
        make_engine("cpu", 2)


def test_shares_are_contiguous_and_whole():
    engine = Engine(CPU)
    for world in (1, 2, 3):
        engine.world, covered = world, []
        for rank in range(world):
            engine.rank = rank
            covered += range(10)[engine.rows(10)]
        assert covered == list(range(10))


def test_batches_of_two_processes_are_the_batch_of_one():
    x = torch.randint(0, 256, (1000, 5), dtype=torch.uint8)
    split = InMemorySplit(x, torch.arange(1000), x, 255)
    size = BLOCK + 72
    with Batches(split, size, 3, CPU) as whole:
        parts = [Batches(split, size, 3, CPU, rank=rank, world=2) for rank in (0, 1)]
        for step in (0, 1, 9):
            x, labels = whole(step)
            assert torch.equal(x, torch.cat([part(step)[0] for part in parts]))
            assert torch.equal(labels, torch.cat([part(step)[1] for part in parts]))


def test_a_mean_over_one_process_is_the_mean():
    x = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(global_mean(x), x.mean(0))


def test_two_processes_evaluate_and_draw_as_one(alone_and_together, tmp_path):
    judged, drawn = [], []
    for devices in ("1", "2"):
        of = [sys.executable, "-m", "lowerbound"]
        to = ["--device", "cpu", "--devices", devices]
        done = run([*of, "evaluate", str(alone_and_together[0]), "--json", *to])
        assert done.returncode == 0, done.stderr[-2000:]
        judged.append(json.loads(done.stdout))
        out = tmp_path / f"{devices}.npz"
        done = run(
            [*of, "sample", str(alone_and_together[0]), "--num", "1200", "--out", str(out), *to]
        )
        assert done.returncode == 0, done.stderr[-2000:]
        drawn.append(np.load(out)["x"])
    for name in ("bound", "log_likelihood", "prior_monte_carlo"):
        assert judged[1][name]["value"] == pytest.approx(judged[0][name]["value"], rel=1e-6)
    np.testing.assert_allclose(drawn[1], drawn[0], rtol=1e-5)
