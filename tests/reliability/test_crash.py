"""A process that dies at any call, and a disk that forgets: the old checkpoint or the new one."""

from __future__ import annotations

import random
import shutil

import pytest

from lowerbound.training import checkpoint
from lowerbound.training.checkpoint import (
    checkpoints_of,
    load_newest,
    prune,
    save_checkpoint,
    sweep,
)
from tests.reliability.children import Child
from tests.reliability.disk import Disk, counting, dying, states_after_power_loss
from tests.reliability.tiny import small_state


def save_and_prune(run, step, best_step=None):
    """What a training does at each of its checkpoints."""
    save_checkpoint(run, step, *small_state(step))
    prune(run, step, best_step)


def save_and_die(run, step, number):
    with Disk(run, dying(number)):
        save_and_prune(run, step, best_step=10)


def prepared(run, how):
    """A run folder before the save that is hurt, and the steps that it may fall back on."""
    for step in {"first": (), "second": (10,), "fifth": (10, 20, 30, 40)}.get(how, (10, 20)):
        save_and_prune(run, step, best_step=10)
    if how == "damaged":  # step 20 is written anew, as a resume from step 10 does
        (run / "checkpoints" / "step-00000020" / "state.json").write_bytes(b"{}")
    return {"first": None, "second": 10, "fifth": 40, "damaged": 10}[how]


@pytest.mark.parametrize("how", ["first", "second", "fifth", "damaged"])
def test_a_kill_before_any_call_leaves_the_old_checkpoint_or_the_new(how, tmp_path):
    new = {"first": 10, "second": 20, "fifth": 50, "damaged": 20}[how]
    old = prepared(tmp_path / "whole", how)
    if how != "first":
        shutil.copytree(tmp_path / "whole", tmp_path / "before")
    with counting(tmp_path / "whole") as disk:
        save_and_prune(tmp_path / "whole", new, best_step=10)
    seen = set()
    for number in range(1, disk.count + 1):
        run = tmp_path / str(number)
        if how != "first":
            shutil.copytree(tmp_path / "before", run)
        assert Child(save_and_die, run, new, number).wait() == -9, number
        sweep(run)
        found, rejected = load_newest(run)
        seen.add(found and found.state["step"])
        assert (found and found.state["step"]) in (old, new), number
        assert rejected == [] or how == "damaged"
        assert not [p for p in (run / "checkpoints").glob(".*")]
        for path in checkpoints_of(run) if how != "damaged" else ():
            checkpoint._verified(path)  # none is half deleted
        save_and_prune(run, new + 10, best_step=10)  # and the run goes on
        assert load_newest(run)[0].state["step"] == new + 10
        shutil.rmtree(run)
    assert disk.count > 30
    assert seen == {old, new}


def power_losses(tmp_path, seed, num):
    """Lose power ``num`` times in the life of a run; how often nothing, old or new was found."""
    run, ends = tmp_path / "run", {}
    with counting(tmp_path) as disk:
        for step in (1, 2, 3, 4, 5, 6):
            save_checkpoint(run, step, *small_state(step))
            ends[step] = len(disk.events)  # from here on the step is promised
            prune(run, step, best_step=2)
    found_steps = []
    states = states_after_power_loss(disk.events, tmp_path, random.Random(seed), num)
    for index, (length, write_to) in enumerate(states):
        awake = tmp_path / f"awake{index}"
        write_to(awake)
        promised = max((s for s, end in ends.items() if end <= length), default=None)
        sweep(awake / "run")
        found, rejected = load_newest(awake / "run")
        step = found and found.state["step"]
        assert (step or 0) >= (promised or 0), (index, length)
        assert rejected == [], (index, length)
        found_steps.append((promised, step))
        shutil.rmtree(awake)
    return found_steps


def test_power_loss_never_costs_a_checkpoint_that_was_promised(tmp_path):
    found = power_losses(tmp_path, 0, 400)
    assert len({promised for promised, _ in found}) == 7
    assert any(step != promised for promised, step in found)  # one may be there earlier


@pytest.mark.nightly
def test_power_loss_five_thousand_times(tmp_path):
    found = power_losses(tmp_path, 1, 5000)
    earlier = sum(step != promised for promised, step in found)
    print(f"\npower lost {len(found)} times: 0 promised checkpoints lost, {earlier} there earlier")


def test_damaged_checkpoints_never_crowd_out_good_ones(tmp_path):
    for step in (10, 20, 30, 40):
        save_and_prune(tmp_path, step)
    for path in checkpoints_of(tmp_path)[:2]:
        (path / "state.json").write_bytes(b"{}")
    assert load_newest(tmp_path)[0].state["step"] == 20
    save_and_prune(tmp_path, 25)  # resumed from 20
    found, rejected = load_newest(tmp_path)
    assert found.state["step"] == 25
    assert rejected == []
    assert [p.name for p in checkpoints_of(tmp_path)] == ["step-00000025", "step-00000020"]


def test_the_last_three_and_the_best_are_kept(tmp_path):
    for step in (1, 2, 3, 4, 5, 6):
        save_and_prune(tmp_path, step, best_step=2)
    names = [path.name for path in checkpoints_of(tmp_path)]
    assert names == [f"step-{step:08d}" for step in (6, 5, 4, 2)]
    assert not list((tmp_path / "checkpoints").glob(".trash-*"))


def test_steps_are_ordered_as_numbers_and_strangers_are_no_checkpoints(tmp_path):
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, step, *small_state(step))
    shutil.copytree(
        tmp_path / "checkpoints" / "step-99999999", tmp_path / "checkpoints" / "step-copy"
    )
    assert [p.name for p in checkpoints_of(tmp_path)] == ["step-100000000", "step-99999999"]
    assert load_newest(tmp_path)[0].state["step"] == 100_000_000


def test_leftovers_of_a_crash_are_swept(tmp_path):
    save_checkpoint(tmp_path, 1, *small_state(1))
    for name in (".tmp-step-00000002-1-ab", ".trash-step-00000000-cd"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / ".tmp-0123abcd-evaluation.json").write_text("{")
    sweep(tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoints"]
