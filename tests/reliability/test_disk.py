"""A disk that refuses: exit code 4 with path and bytes, the state before intact, nothing left."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from lowerbound import files
from lowerbound.cli import run_command_line
from lowerbound.errors import ResourceError
from lowerbound.files import atomic_output, save_text
from lowerbound.training.checkpoint import load_newest, prune, save_checkpoint, sweep
from lowerbound.training.logs import MetricsLog
from tests.reliability.children import Child
from tests.reliability.disk import Disk, counting, failing
from tests.reliability.tiny import contents, images, small_state, train_here

ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EACCES", "EMFILE")


def saved(run, step=10):
    save_checkpoint(run, step, *small_state(step))


def hidden(run):
    return [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ERRORS)
def test_a_save_that_fails_at_any_call_leaves_what_was_before(name, tmp_path):
    code, outcomes = getattr(errno, name), set()
    saved(tmp_path / "whole")
    with counting(tmp_path / "whole") as disk:
        saved(tmp_path / "whole", 20)
    for number in range(1, disk.count + 1):
        for forever in (False, True):
            run = tmp_path / f"{number}-{forever}"
            saved(run)
            before = contents(run)
            with (
                Disk(run, failing(number, code, forever)) as hurt,
                pytest.raises(ResourceError) as caught,
            ):
                saved(run, 20)
            message = str(caught.value)
            assert caught.value.code == 4
            assert str(run / "checkpoints" / "step-00000020") in message
            assert os.strerror(code) in message
            assert " bytes needed, " in message
            assert " free there" in message
            assert "\n" not in message
            found, rejected = load_newest(run)
            assert rejected == []
            outcomes.add(found.state["step"])
            if found.state["step"] == 20:  # whole, but the disk did not confirm its name
                assert "does not confirm" in message
            elif not forever:
                assert contents(run) == before, hurt.events
            assert forever or hidden(run) == []
            sweep(run)
            assert hidden(run) == []
            saved(run, 30)  # once there is room again
            assert load_newest(run)[0].state["step"] == 30
    assert outcomes == {10, 20}
    assert disk.count > 30


def test_a_failed_flush_is_never_tried_again(tmp_path):
    saved(tmp_path)
    for turn in range(1, 9):
        flushed = []

        def react(number, call, path, turn=turn, flushed=flushed):
            if call == "fsync":
                flushed.append(path)
                if len(flushed) == turn:
                    raise OSError(errno.EIO, "the disk lost it")

        with Disk(tmp_path, react), pytest.raises(ResourceError):
            saved(tmp_path, 20)
        assert len(flushed) == turn  # nothing was flushed after the one that failed
        assert turn == 8 or not os.path.exists(flushed[-1])


def test_short_writes_are_completed(tmp_path):
    def react(number, call, path):
        return 7 if call == "write" else None

    with Disk(tmp_path, react) as disk:
        saved(tmp_path)
    assert load_newest(tmp_path)[0].state == {"step": 10}
    assert sum(event.call == "write" for event in disk.events) > 100


def test_a_checkpoint_that_cannot_be_removed_stops_nothing(tmp_path):
    for step in (10, 20, 30, 40):
        saved(tmp_path, step)

    def react(number, call, path):
        if call in ("rename", "unlink", "rmdir"):
            raise OSError(errno.EACCES, "no")

    with Disk(tmp_path, react):
        prune(tmp_path, 40, None)
    assert load_newest(tmp_path)[0].state["step"] == 40
    prune(tmp_path, 40, None)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    saved(tmp_path)
    real = files.shutil.disk_usage
    monkeypatch.setattr(files.shutil, "disk_usage", lambda p: real(p)._replace(free=1000))
    with counting(tmp_path) as disk, pytest.raises(ResourceError) as caught:
        saved(tmp_path, 20)
    assert "1,000 free there" in str(caught.value)
    assert "No space left" in str(caught.value)
    assert {event.call for event in disk.events} <= {"statvfs"}


@pytest.mark.parametrize("name", ERRORS)
def test_an_output_that_fails_at_any_call_leaves_the_old_file(name, tmp_path, monkeypatch):
    path, code = tmp_path / "out" / "a.txt", getattr(errno, name)
    save_text(path, "old")
    calls = [(owner, call) for call in ("fsync", "replace", "open") for owner in (os,)]
    for owner, call in calls:
        with monkeypatch.context() as patch:
            real = getattr(owner, call)

            def fail(*args, real=real, **kwargs):
                if str(tmp_path) in str(args[0]) or isinstance(args[0], int):
                    raise OSError(code, os.strerror(code))
                return real(*args, **kwargs)

            patch.setattr(owner, call, fail)
            with pytest.raises(ResourceError) as caught:
                save_text(path, "new")
        assert str(path) in str(caught.value)
        assert " free there" in str(caught.value)
        assert contents(tmp_path) == {"out/a.txt": b"old"}


def write_half(path, error):
    with atomic_output(path) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_an_output_whose_writer_fails_leaves_nothing(tmp_path):
    for error in (OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError("x")):
        with pytest.raises((ResourceError, KeyboardInterrupt, ValueError)):
            write_half(tmp_path / "a.npz", error)
        assert contents(tmp_path) == {}


def test_a_disk_that_fills_up_during_training_is_exit_code_4(tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "x.npz", x=images())
    run = tmp_path / "run"
    args = ["train", tmp_path / "x.npz", "--out", run, "--steps", 60, "--latent-dim", 2]
    count = [0]

    def react(number, call, path):
        if call == "open" and path.endswith("optimizer.safetensors"):
            count[0] += 1
            if count[0] != 3:
                return
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Disk(run / "checkpoints", react):
        code = run_command_line([str(a) for a in [*args, "--width", 16, "--quiet"]])
    err = capsys.readouterr().err
    assert code == 4
    assert err.count("\n") == 1
    assert "checkpoints/step-00000009" in err
    assert "bytes needed" in err
    assert hidden(run) == []
    assert load_newest(run)[0].state["position"]["step"] == 6


def test_a_metrics_file_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path)
    log.add(step=1)
    with monkeypatch.context() as patch:

        def fail(*args):
            raise OSError(errno.EIO, "bad disk")

        patch.setattr(os, "fsync", fail)
        with pytest.raises(ResourceError, match=r"metrics.jsonl.*bad disk"):
            log.flushed_bytes()
    if os.path.exists("/dev/full"):
        log.path.unlink()
        log.path.symlink_to("/dev/full")
        with pytest.raises(ResourceError, match=r"metrics.jsonl.*No space left"):
            log.add(step=2)


# --- real limits --------------------------------------------------------------------------------


def save_within(run, limit):
    """Save under a limit on the size of a file; the exit code of what comes of it."""
    none = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, none))
    try:
        saved(run, 20)
    except ResourceError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (none, none))
        sys.stderr.write(str(error))
        return error.code
    return 0


def test_a_limit_on_the_size_of_files_is_an_error_and_no_signal(tmp_path):
    saved(tmp_path)
    child = Child(save_within, tmp_path, 100, err=tmp_path / "err")
    assert child.wait() == 4
    assert "File too large" in child.said()
    assert load_newest(tmp_path)[0].state == {"step": 10}
    assert hidden(tmp_path) == []


TMPFS = """
set -e
mount -t tmpfs -o size=2m none {folder}
{python} -c '
import sys
from pathlib import Path
from tests.reliability.test_disk import fill
sys.exit(fill(Path("{folder}")))'
"""


def fill(folder):
    """Train on a disk of 2 MB until it is full, and see what is left; the exit code."""
    (folder / "run").mkdir()
    try:
        train_here(folder / "run")
    except ResourceError as error:
        print(error)
    found, rejected = load_newest(folder / "run")
    assert rejected == []
    assert hidden(folder / "run") == []
    print("fell back on step", found.state["position"]["step"])


@pytest.mark.nightly
def test_a_real_disk_of_two_megabytes(tmp_path):
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespaces: a small disk cannot be mounted")
    script = TMPFS.format(folder=tmp_path, python=sys.executable)
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No space left" in done.stdout
    print(f"\na real disk of 2 MB: {done.stdout.strip()}")


@pytest.mark.nightly
def test_every_limit_on_the_size_of_files(tmp_path):
    saved(tmp_path)
    limits = range(0, 1200, 16)
    for limit in limits:
        code = Child(save_within, tmp_path, limit, err=tmp_path / "err").wait()
        found, rejected = load_newest(tmp_path)
        assert rejected == []
        assert (code, found.state["step"]) in ((4, 10), (0, 20))
        assert hidden(tmp_path) == []
        if code == 0:
            break
    print(f"\n{limit // 16} limits on the size of files: checkpoint before intact each time")
