"""Runs that earlier versions wrote: they load, judge and go on as they did then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.cli import run_command_line
from lowerbound.run import run_config, source_of
from lowerbound.training import fit_model
from lowerbound.training.checkpoint import load_newest

VERSIONS = sorted(p.parent for p in Path(__file__).parent.glob("golden/*/x.npz"))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request, tmp_path, monkeypatch):
    """A copy of one version's folder, in which we stand: its data are named from there."""
    shutil.copytree(request.param, tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Path()
    torch.set_num_threads(threads)


def test_there_is_one_and_it_is_small():
    assert VERSIONS
    for version in VERSIONS:
        assert sum(p.stat().st_size for p in version.rglob("*") if p.is_file()) < 100_000


def test_a_stopped_run_goes_on_to_the_weights_that_it_had_then(golden):
    """But for rounding, which another build of PyTorch or another processor may do otherwise."""
    checkpoint, rejected = load_newest(golden / "stopped")
    assert rejected == []
    assert checkpoint.state["position"]["step"] == 20
    config = run_config(golden / "stopped")
    source = source_of(config)
    model = lowerbound.create_model(config.model, source, seed=config.seed, **config.options)
    # What has changed since, of the data or the options, would be refused here.
    fit_model(model, source, config.training(), folder=golden / "stopped", checkpoint=checkpoint)
    now, then = model.state_dict(), lowerbound.load(golden / "finished").state_dict()
    assert now.keys() == then.keys()
    for name in then:
        torch.testing.assert_close(now[name], then[name], rtol=1e-3, atol=1e-4)
    steps = [json.loads(line)["step"] for line in open("stopped/metrics.jsonl")]
    assert steps == sorted(steps)
    assert steps[-1] == 40


def test_a_finished_run_is_judged_as_it_was(golden):
    then = json.loads((golden / "finished" / "evaluation.json").read_text())
    source = source_of(run_config(golden / "finished"))
    now = lowerbound.evaluate(lowerbound.load(golden / "finished"), source, num_samples=100)
    for key in ("bound", "log_likelihood"):
        assert now[key]["value"] == pytest.approx(then[key]["value"], rel=1e-5)


def test_a_newer_format_is_refused_by_its_version(golden, capsys):
    path = golden / "finished" / "config.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    assert run_command_line(["evaluate", "finished"]) == 2
    assert "got 99; upgrade lowerbound" in capsys.readouterr().err
