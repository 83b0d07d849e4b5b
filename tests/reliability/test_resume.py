"""Continuing: the same bits as a run that was never stopped, and nothing but that run."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil

import numpy as np
import pytest

from lowerbound.cli import run_command_line
from lowerbound.config import RunConfig
from lowerbound.data import load_data
from lowerbound.errors import Interrupted
from lowerbound.run import resume, run_config, train
from lowerbound.training import checkpoint, loop
from lowerbound.training.checkpoint import RunLock, checkpoints_of, load_newest
from lowerbound.training.resume import changed_fields, facts_of
from lowerbound.training.step import Step
from tests.reliability.children import Child, before_call, wait_for
from tests.reliability.disk import Disk, dying
from tests.reliability.tiny import (
    CONFIG,
    LOOPED,
    NUM_BATCHES,
    NUM_STEPS,
    first_of_all,
    images,
    labels,
    tensor_digests,
    tiny_model,
    tiny_source,
    train_here,
    untimed_rows,
)

PLACES = {"mid-epoch": 25, "at an epoch's end": 40, "right after a validation": 33, "last": 59}
assert PLACES["at an epoch's end"] % NUM_BATCHES == 0


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case.values, marks=case.marks, id=str(case.values))
        for case in first_of_all(LOOPED, ["float32", "bf16"])
    ],
)
def whole(request, tmp_path_factory):
    """A run of each model that has a loop, with a checkpoint at every step."""
    name, precision = request.param
    config = dataclasses.replace(CONFIG, precision=precision)
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        patch.setattr(checkpoint, "KEEP_LAST", 1000)
        train_here(folder, config, name)
    assert len(checkpoints_of(folder)) == NUM_STEPS
    return folder, config, name


@pytest.mark.parametrize("place", PLACES)
def test_a_resume_anywhere_ends_with_the_same_bits_and_rows(whole, place, tmp_path, monkeypatch):
    folder, config, name = whole
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    chosen = folder / "checkpoints" / f"step-{PLACES[place]:08d}"
    shutil.copytree(chosen, tmp_path / "checkpoints" / chosen.name)
    shutil.copy(folder / "metrics.jsonl", tmp_path)  # longer than the checkpoint knows
    train_here(tmp_path, config, name)
    assert tensor_digests(tmp_path) == tensor_digests(folder)
    assert untimed_rows(tmp_path) == untimed_rows(folder)
    steps = [row["step"] for row in untimed_rows(tmp_path, "train")]
    assert steps == list(range(1, NUM_STEPS + 1))


def test_the_best_weights_before_a_stop_are_those_of_the_end(tmp_path, monkeypatch):
    """A judge that likes the first weights best, so that the best lie behind every resume."""
    real = loop.Judge.__call__
    monkeypatch.setattr(
        loop.Judge, "__call__", lambda *args: (row := real(*args)) | {"bound": -row["bound"]}
    )
    monkeypatch.setattr(checkpoint, "KEEP_LAST", 1000)
    train_here(tmp_path / "whole")
    assert load_newest(tmp_path / "whole")[0].state["position"]["best_step"] == 3
    after = tmp_path / "whole" / "checkpoints" / "step-00000030"
    shutil.copytree(after, tmp_path / "again" / "checkpoints" / after.name)
    train_here(tmp_path / "again")
    assert tensor_digests(tmp_path / "again") == tensor_digests(tmp_path / "whole")


def test_a_torn_row_is_cut_and_the_rows_before_it_are_kept(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    content = path.read_bytes()
    for ending in (content[-20:-10], bytes(30), b"\xff\xfe\n", b"[]\n", b"7"):
        path.write_bytes(content[:-50] + ending)
        train_here(tmp_path / "run")
        assert untimed_rows(tmp_path / "run") == untimed_rows(undisturbed)[:-1]


# --- killed at random ---------------------------------------------------------------------------


def train_and_die(folder, started, in_save, call):
    """Train or continue; die before a call of the disk inside a save, or by the parent's hand."""
    if in_save:

        def arm():
            Disk(folder, dying(call)).__enter__()

        before_call(checkpoint, "_make_folder", in_save, arm)
    before_call(loop.Length, "progress", 1, started.touch)
    train_here(folder)


def kill_chain(folder, chosen):
    """Kill a run again and again until it ends by itself; (inside a write, at which step)."""
    kills = []
    while True:
        in_save = chosen.choice([0, 0, 1, 1, 2, 3]) if len(kills) < 7 else 0
        started = folder.with_name(f"{folder.name}-started-{len(kills)}")
        child = Child(train_and_die, folder, started, in_save, chosen.randint(1, 60))
        if not in_save and len(kills) < 7:
            wait_for(started)
            child.process.join(chosen.uniform(0.0, 0.1))
            child.signal(9)
        code = child.wait()
        if code == 0:
            return kills
        assert code == -9
        found, rejected = load_newest(folder)
        assert rejected == []
        kills.append((bool(in_save), found.state["position"]["step"] if found else 0))


def chains(tmp_path, undisturbed, seed, num):
    """At least ``num`` kills in chains, each run compared with the one that nobody disturbed."""
    chosen, kills, num_runs = random.Random(seed), [], 0
    while len(kills) < num:
        folder = tmp_path / f"run{num_runs}"
        chain = kill_chain(folder, chosen)
        assert tensor_digests(folder) == tensor_digests(undisturbed)
        assert untimed_rows(folder) == untimed_rows(undisturbed)
        epochs = [step // NUM_BATCHES for _, step in chain]
        if len(chain) >= 5 and len(set(epochs)) < len(epochs):  # two of them in one epoch
            kills += chain
            num_runs += 1
        shutil.rmtree(folder)
    in_write = sum(inside for inside, _ in kills)
    assert in_write >= 0.4 * len(kills)
    return f"{len(kills)} kills in {num_runs} runs, {in_write} of them inside a save"


def test_runs_killed_five_times_and_more_end_with_the_same_bits(tmp_path, undisturbed):
    chains(tmp_path, undisturbed, 0, 12)


@pytest.mark.nightly
def test_two_hundred_kills(tmp_path, undisturbed):
    said = chains(tmp_path, undisturbed, 1, 200)
    print(f"\n{said}: 0 unreadable states, all tensors as in the run that was never stopped")


# --- something has changed ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of the command, stopped in the middle, on data in a file of its own."""
    folder = tmp_path_factory.mktemp("stopped")
    np.savez(folder / "x.npz", x=images(), y=labels())
    config = RunConfig(
        data=str(folder / "x.npz"), options={"latent_dim": 4, "width": 64}, **vars(CONFIG)
    )
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 30)
        with pytest.raises(Interrupted):
            train(config, folder / "run", quiet=True)
    return folder


def stop_after(patch, num_steps):
    """Ask the loop to stop after some steps."""
    real, count = loop.Step.forward, [0]

    def forward(self, *args):
        count[0] += 1
        if count[0] == num_steps:
            os.kill(os.getpid(), 15)
        return real(self, *args)

    patch.setattr(loop.Step, "forward", forward)


CHANGES = {
    "data": {"x": np.flip(images(), 0).copy(), "y": labels()},
    "num_classes": {"x": images(), "y": np.arange(200) % 4},
    "event_shape": {"x": images()[:, :, :7], "y": labels()},
    "support": {"x": images() / 3, "y": labels()},
}


def edited(folder, name, value):
    path = folder / "config.yaml"
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
    lines[at] = lines[at].partition(":")[0] + f": {value}"
    path.write_text("\n".join(lines) + "\n")


def copied(stopped, tmp_path):
    """The stopped run and its data, to be changed."""
    shutil.copytree(stopped, tmp_path / "it")
    edited(tmp_path / "it" / "run", "data", tmp_path / "it" / "x.npz")
    return tmp_path / "it" / "run"


def line_of(capsys, *args, code=2):
    """The one line with which the command refuses."""
    capsys.readouterr()
    assert run_command_line([str(a) for a in args]) == code
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("lowerbound: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize("name", CHANGES)
def test_changed_data_are_refused_by_the_name_of_what_changed(name, stopped, tmp_path, capsys):
    run = copied(stopped, tmp_path)
    np.savez(run.parent / "x.npz", **CHANGES[name])
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    line = line_of(capsys, "train", "--resume", run, "--quiet")
    assert f"'{name}' must be " in line
    assert "--allow-changed" in line
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.01),
        ("batch_size", 31),
        ("steps", 61),
        ("seed", 4),
        ("data_seed", 1),
        ("precision", "bf16"),
        ("latent_dim", 5),
        ("kl", "sampled"),
    ],
)
def test_a_changed_option_is_refused_by_its_name(name, value, stopped, tmp_path, capsys):
    run = copied(stopped, tmp_path)
    edited(run, name, value)
    assert f"'{name}' must be as the run began" in line_of(
        capsys, "train", "--resume", run, "--quiet"
    )


def test_every_fact_of_a_run_is_compared(source):
    model = tiny_model(source)
    step = Step(model, CONFIG, "float32")
    facts = facts_of(model, source, CONFIG, step)
    for name in facts:
        assert changed_fields(facts, {**facts, name: "another"}) == [name]
    fields = {f.name for f in dataclasses.fields(CONFIG)} - {
        "device",
        "devices",
        "strategy",
        "logger",
    }
    assert fields | {"latent_dim", "data", "num_classes", "support", "model"} <= set(facts)
    assert (
        changed_fields(facts, facts_of(model, source, CONFIG, Step(model, CONFIG, "float32")))
        == []
    )


def test_allow_changed_continues_with_the_change_and_writes_it_down(
    stopped, tmp_path, capsys, monkeypatch
):
    run = copied(stopped, tmp_path)
    np.savez(run.parent / "x.npz", **CHANGES["data"])
    stop_after(monkeypatch, 3)
    args = ["train", "--resume", run, "--quiet", "--allow-changed", "--learning-rate", 1e-3]
    assert run_command_line([str(a) for a in args]) == 143
    assert load_newest(run)[0].state["position"]["step"] == 33
    assert run_config(run).learning_rate == 1e-3
    facts = load_newest(run)[0].state["facts"]
    assert facts["data"] == load_data(run.parent / "x.npz").fingerprint
    assert facts["learning_rate"] == 1e-3


def test_weights_that_do_not_fit_are_refused_whatever_is_allowed(stopped, tmp_path, capsys):
    run = copied(stopped, tmp_path)
    before = (run / "config.yaml").read_bytes()
    line = line_of(
        capsys, "train", "--resume", run, "--quiet", "--allow-changed", "--latent-dim", 5
    )
    assert "does not fit the model" in line
    assert (run / "config.yaml").read_bytes() == before


def test_an_unchanged_run_resumes_without_a_word(stopped, tmp_path):
    run = copied(stopped, tmp_path)
    assert resume(run, quiet=True).history.steps == NUM_STEPS
    assert (run / "report.html").exists()


# --- two at once --------------------------------------------------------------------------------


def test_a_second_trainer_is_turned_away(stopped, tmp_path, capsys):
    run = copied(stopped, tmp_path)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with RunLock(run):
        for args in (["--resume", run], [run.parent / "x.npz", "--out", run, "--overwrite"]):
            line = line_of(capsys, "train", *args, "--quiet")
            assert "nobody else writes to" in line
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    with RunLock(run):
        pass


def hold(folder, marker):
    with RunLock(folder):
        marker.touch()
        os.kill(os.getpid(), 9)


def test_the_lock_of_a_dead_trainer_is_free(tmp_path):
    child = Child(hold, tmp_path, tmp_path / "held")
    assert child.wait() == -9
    assert (tmp_path / "held").exists()
    with RunLock(tmp_path):
        pass


def test_checkpoints_hold_no_copy_of_what_they_do_not_need(undisturbed):
    size = sum(p.stat().st_size for p in checkpoints_of(undisturbed)[0].iterdir())
    model = tiny_model(tiny_source())
    weights = 4 * model.num_parameters  # the model, its average, the best, and two moments
    assert 5 * weights < size < 5.2 * weights
