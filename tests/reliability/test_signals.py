"""Asked to stop, anywhere: saved within a step, the right exit code, the same bits afterwards."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest

from lowerbound import preparation
from lowerbound import run as run_module
from lowerbound.cli import run_command_line
from lowerbound.training import checkpoint, loop
from lowerbound.training.checkpoint import load_newest
from tests.reliability.children import Child, before_call, wait_for
from tests.reliability.tiny import (
    CONFIG,
    NUM_STEPS,
    images,
    labels,
    tensor_digests,
    train_here,
    untimed_rows,
)

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
PLACES = {  # what is about to be called, for the how-manieth time, and the step that is then saved
    "data load": (preparation, "load_data", 1, None),
    "before the first step": (loop.Length, "progress", 1, 1),
    "first step": (loop.Step, "forward", 1, 1),
    "mid-run": (loop.Step, "forward", 32, 32),
    "validation": (loop.Judge, "__call__", 4, 13),
    "during a save": (checkpoint, "write_flushed", 20, 13),
    "last save": (checkpoint, "write_flushed", 6 * 19 + 3, NUM_STEPS),
    "judging": (run_module, "evaluate", 1, NUM_STEPS),
}


def command(folder):
    """The command that trains on the tiny images as `train_here` does."""
    np.savez(folder / "x.npz", x=images(), labels=labels())
    flags = {
        **{"--steps": NUM_STEPS, "--validations": CONFIG.validations, "--patience": 100},
        **{"--batch-size": CONFIG.batch_size, "--precision": "float32", "--seed": CONFIG.seed},
        **{"--latent-dim": 4, "--width": 64, "--support": "discrete:17"},
    }
    words = [word for pair in flags.items() for word in pair]
    return [str(w) for w in ["train", folder / "x.npz", "--out", folder / "run", *words]]


def trained(args, place, number, nothing=None):
    """Run the command, which sends itself a signal at a place; its exit code."""
    loop.SECONDS_BETWEEN_LOGS = float("inf")
    owner, name, count, _ = PLACES[place]
    before_call(owner, name, count, lambda: os.kill(os.getpid(), number))
    return run_command_line(args)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_saves_and_the_run_continues_to_the_same_bits(
    place, number, tmp_path, undisturbed
):
    args, step = [*command(tmp_path), "--quiet"], PLACES[place][3]
    started = time.monotonic()
    child = Child(trained, args, place, number, err=tmp_path / "err")
    assert child.wait() == SIGNALS[number]
    assert time.monotonic() - started < 30
    said = child.said()
    assert said.count("\n") == 1
    assert "Traceback" not in said
    run = tmp_path / "run"
    if step is None:
        assert not run.exists()
        assert "nothing was left half written" in said
        return
    found, rejected = load_newest(run)
    assert (found.state["position"]["step"], rejected) == (step, [])
    assert not list(run.rglob(".tmp-*"))
    if place != "judging":
        assert f"stopped at step {step} and saved" in said
        assert str(run) in said
    train_here(run)
    assert tensor_digests(run) == tensor_digests(undisturbed)
    assert untimed_rows(run, "validation") == untimed_rows(undisturbed, "validation")
    steps = [row["step"] for row in untimed_rows(run, "train")]
    assert steps == sorted(set(steps))


def slow(folder, marker):
    """A training that has been asked to stop once and is in the middle of a long validation."""

    def wait():
        os.kill(os.getpid(), signal.SIGINT)
        marker.touch()
        time.sleep(30)

    before_call(loop.Judge, "__call__", 3, wait)
    train_here(folder)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_second_signal_ends_the_process_within_a_second(number, tmp_path):
    child = Child(slow, tmp_path / "run", tmp_path / "marker")
    wait_for(tmp_path / "marker")
    started = time.monotonic()
    child.signal(number)
    assert child.wait(10) == -number
    assert time.monotonic() - started < 1.0
    found, rejected = load_newest(tmp_path / "run")
    assert (found.state["position"]["step"], rejected) == (6, [])


class Finalised:
    """What is asked to stop while it is taken away, where nothing can be raised."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        time.sleep(0.001)


def stopped_in_a_finaliser(number):
    def load_data(*args, **options):
        thing = Finalised(number)
        del thing
        time.sleep(20)

    preparation.load_data = load_data
    return run_command_line(["train", "digits", "--quiet"])


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_signal_that_a_finaliser_swallows_is_not_lost(number, tmp_path):
    child = Child(stopped_in_a_finaliser, number, err=tmp_path / "err")
    assert child.wait(15) == SIGNALS[number]
    assert child.said().count("\n") == 1


def stopped_in_an_import(number):
    def load_data(*args, **options):
        try:
            os.kill(os.getpid(), number)
            time.sleep(20)
        except BaseException as error:
            raise ImportError("initialization failed") from error

    preparation.load_data = load_data
    return run_command_line(["train", "digits", "--quiet"])


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_signal_that_an_import_takes_for_a_fault_is_no_bug(number, tmp_path):
    child = Child(stopped_in_an_import, number, err=tmp_path / "err")
    assert child.wait(15) == SIGNALS[number]
    assert "nothing was left half written" in child.said()


@pytest.mark.nightly
def test_a_hundred_signals_at_random_times(tmp_path, undisturbed):
    chosen, saved, ends = random.Random(0), 0, 0
    (tmp_path / "whole").mkdir()
    args = [*command(tmp_path / "whole"), "--quiet"]
    child = Child(run_and_say, args, tmp_path / "began")
    wait_for(tmp_path / "began")
    began = time.monotonic()
    assert child.wait() == 0
    length = time.monotonic() - began
    for turn in range(100):
        folder = tmp_path / str(turn)
        folder.mkdir()
        number = chosen.choice(list(SIGNALS))
        child = Child(
            run_and_say, [*command(folder), "--quiet"], folder / "started", err=folder / "err"
        )
        wait_for(folder / "started")
        child.process.join(chosen.uniform(0.0, length * chosen.choice([0.25, 1.0])))
        asked = time.monotonic()
        child.signal(number)
        code = child.wait()
        assert time.monotonic() - asked < 10
        said = child.said()
        run = folder / "run"
        if code == 0:  # it had ended before
            assert (run / "report.html").exists()
        else:
            assert code == SIGNALS[number], said
            assert said.count("\n") == 1
        if run.exists():
            found, rejected = load_newest(run)
            assert rejected == []
            saved += found is not None and not found.state["position"]["finished"]
            train_here(run)
            assert tensor_digests(run) == tensor_digests(undisturbed)
        ends += code == 0
    assert ends < 50
    assert saved > 10
    print(
        f"\n100 signals at random times: {saved} in training, {ends} after the end, others between"
    )


def run_and_say(args, started):
    loop.SECONDS_BETWEEN_LOGS = float("inf")
    before_call(preparation, "load_data", 1, started.touch)
    return run_command_line(args)
