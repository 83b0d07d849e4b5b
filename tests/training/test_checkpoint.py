"""Checkpoints: whole or absent, verified to the byte, the newest good one wins."""

from __future__ import annotations

import json
import os
import random

import pytest
import torch

from lowerbound.errors import CheckpointError, InputError, ResourceError
from lowerbound.training import checkpoint as module
from lowerbound.training.checkpoint import (
    RunLock,
    checkpoints_of,
    load_newest,
    prune,
    save_checkpoint,
    sweep,
)


def save(run, step):
    tensors = {"model": {"w": torch.full((50,), float(step))}, "best": {}}
    return save_checkpoint(run, step, tensors, {"step": step})


def test_what_was_saved_is_loaded(tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 20)
    found, rejected = load_newest(tmp_path)
    assert rejected == []
    assert found.state == {"step": 20}
    assert torch.equal(found.tensors["model"]["w"], torch.full((50,), 20.0))
    assert found.tensors["best"] == {}
    assert load_newest(tmp_path / "nothing") == (None, [])


def test_every_flipped_bit_is_detected_named_and_survived(tmp_path):
    save(tmp_path, 10)
    newest = save(tmp_path, 20)
    chosen = random.Random(0)
    for path in sorted(newest.iterdir()):
        content = path.read_bytes()
        for _ in range(60):
            at, bit = chosen.randrange(len(content)), 1 << chosen.randrange(8)
            damaged = bytearray(content)
            damaged[at] ^= bit
            path.write_bytes(bytes(damaged))
            found, rejected = load_newest(tmp_path)
            assert found.state == {"step": 10}, (path.name, at, bit)
            assert len(rejected) == 1
            assert "step-00000020" in rejected[0]
        path.write_bytes(content)
    assert load_newest(tmp_path)[0].state == {"step": 20}


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "extra", "link", "swapped"])
def test_every_kind_of_damage_falls_back(tmp_path, name, damage):
    older, newest = save(tmp_path, 10), save(tmp_path, 20)
    path = newest / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "extra":
        (newest / "stranger").write_bytes(b"x")
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes((older / name).read_bytes())
    if (damage, name) == ("link", "MANIFEST.json"):
        return  # the manifest may lie elsewhere: what it vouches for is still verified
    found, rejected = load_newest(tmp_path)
    assert found.state == {"step": 10}
    assert len(rejected) == 1


def test_when_all_are_bad_nothing_starts_from_scratch(tmp_path):
    for step in (10, 20):
        (save(tmp_path, step) / "state.json").write_bytes(b"{}")
    before = sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(CheckpointError, match=r"step-00000020.*step-00000010") as caught:
        load_newest(tmp_path)
    assert caught.value.code == 3
    assert sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()) == before


def test_a_newer_format_is_refused_and_not_called_damaged(tmp_path):
    path = save(tmp_path, 10) / "MANIFEST.json"
    body = json.loads(path.read_text())
    body.pop("sha256")
    body["format_version"] = 99
    path.write_text(json.dumps({**body, "sha256": module._digest(body)}))
    with pytest.raises(InputError, match="format_version 1 or older, got 99"):
        load_newest(tmp_path)


def test_a_crash_at_any_call_leaves_the_old_checkpoint_or_the_new(tmp_path, monkeypatch):
    """Every operation of a save fails in its turn, as a crash and as a full disk would."""
    real = {name: getattr(os, name) for name in ("fsync", "rename", "open")}
    raised = []
    for turn in range(200):
        run = tmp_path / str(turn)
        save(run, 10)
        count = [0]

        def failing(name, turn=turn, count=count):
            def call(*args, **kwargs):
                count[0] += 1
                if count[0] > turn:
                    raise OSError(28, "No space left on device")
                return real[name](*args, **kwargs)

            return call

        for name in real:
            monkeypatch.setattr(module.os, name, failing(name))
        finished = True
        try:
            save(run, 20)
        except ResourceError as error:
            finished = False
            raised.append(error)
        monkeypatch.undo()
        found, rejected = load_newest(run)
        assert rejected == []
        assert found.state["step"] in ((20,) if finished else (10, 20))
        assert not finished or not list((run / "checkpoints").glob(".tmp-*"))
        if finished:
            break
    assert finished
    assert len(raised) > 5
    assert all(error.code == 4 and "No space left" in str(error) for error in raised)


def test_the_last_three_and_the_best_are_kept(tmp_path):
    for step in (1, 2, 3, 4, 5, 6):
        save(tmp_path, step)
        prune(tmp_path, step, best_step=2)
    assert [p.name for p in checkpoints_of(tmp_path)] == [
        f"step-{step:08d}" for step in (6, 5, 4, 2)
    ]
    assert not list((tmp_path / "checkpoints").glob(".trash-*"))


def test_leftovers_of_a_crash_are_swept(tmp_path):
    save(tmp_path, 1)
    for name in (".tmp-step-00000002-1-ab", ".trash-step-00000000-cd"):
        (tmp_path / "checkpoints" / name).mkdir()
    sweep(tmp_path)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_two_trainers_never_share_a_folder(tmp_path):
    with RunLock(tmp_path), pytest.raises(InputError, match="nobody else writes to"):
        RunLock(tmp_path).__enter__()
    with RunLock(tmp_path):
        pass
