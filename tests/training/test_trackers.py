"""Trackers: what each library is told, that a resume tells nothing twice, that a failure is small.

Every tracker is tried on a module that takes the place of its library and writes down its calls;
TensorBoard on the real one too, where it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from lowerbound.build import create_model
from lowerbound.config import RunConfig
from lowerbound.errors import InputError
from lowerbound.training.logs import TrackedLog
from lowerbound.training.trackers import LOGGERS, require
from lowerbound.training.tracking import MADE_BY_TRACKERS, Trackers, few_pictures

CONFIG = {"seed": 3, "learning_rate": 0.01, "epochs": None, "options": {"latent_dim": 2}}
FLAT = {"seed": 3, "learning_rate": 0.01, "options.latent_dim": 2}
PIXELS = np.zeros((4, 6, 3), np.uint8)


class Told:
    """What a library was told, whichever it is, and at which call it breaks."""

    def __init__(self):
        self.opened, self.scalars, self.pictures, self.closed = [], [], [], 0
        self.breaks = False

    def open(self, id, config, purge=None, **where):
        self.check()
        self.opened.append(SimpleNamespace(id=id, config=config, purge=purge, **where))

    def check(self):
        if self.breaks:
            raise ConnectionError("no route\nto host")

    def number(self, name, value, step):
        self.check()
        assert type(value) is float
        self.scalars.append((step, name, value))

    def picture(self, name, pixels, step):
        self.check()
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        self.pictures.append((step, name))

    def close(self):
        self.check()
        self.closed += 1

    def steps(self, name="train/bound"):
        return [step for step, key, _ in self.scalars if key == name]


class Image:
    def __init__(self, pixels):
        self.pixels = pixels


def dashboard(told):
    """trackio and wandb: a run from init, with log and finish."""

    class Run:
        def log(self, values, step):
            for name, value in values.items():
                if isinstance(value, Image):
                    told.picture(name, value.pixels, step)
                else:
                    told.number(name, value, step)

        def finish(self):
            told.close()

    module = ModuleType("dashboard")
    module.Image, module.inits = Image, []

    def init(*, project, name, config, resume, id=None, **others):
        print("a library that talks")
        told.open(id or name, config, project=project, resume=resume, others=others)
        return Run()

    module.init, module.finish = init, told.close
    return {"module": module}


def event_files(told):
    """torch.utils.tensorboard: a SummaryWriter."""

    class SummaryWriter:
        def __init__(self, log_dir, purge_step=None):
            told.open(log_dir, None, purge_step)
            self.file_writer = self

        def add_summary(self, summary):
            told.opened[-1].config = summary

        def add_scalar(self, name, value, step):
            told.number(name, value, step)

        def add_image(self, name, pixels, step, dataformats):
            assert dataformats == "HWC"
            told.picture(name, pixels, step)

        def flush(self):
            told.flushed = len(told.scalars)

        def close(self):
            told.close()

    module, summary = ModuleType("tensorboard"), ModuleType("summary")
    module.SummaryWriter, summary.hparams = SummaryWriter, lambda values, metrics: [values]
    return {"module": module, "summary": summary}


FAKES = {"tensorboard": event_files, "trackio": dashboard, "wandb": dashboard}


@pytest.fixture(params=sorted(LOGGERS))
def name(request):
    return request.param


@pytest.fixture
def told(name, monkeypatch):
    told = Told()
    made, module = FAKES[name](told), LOGGERS[name].module
    monkeypatch.setitem(sys.modules, module, made["module"])
    if "summary" in made:
        monkeypatch.setitem(sys.modules, f"{module}.summary", made["summary"])
    return told


@pytest.fixture(scope="module")
def model(digits):
    return create_model("vae", digits, latent_dim=2, width=8).eval()


def listen(name, folder, said=None):
    return Trackers([name], folder, CONFIG, (said if said is not None else []).append)


def steps_of(log, *steps):
    for step in steps:
        log.add(kind="train", step=step, bound=-float(step), loss=float("nan"), note="text")
    return log.flushed_bytes()


def test_every_number_of_every_row_is_told_once_at_its_step(name, told, tmp_path, capsys):
    with listen(name, tmp_path) as trackers:
        log = TrackedLog(tmp_path, 0, trackers)
        steps_of(log, 1, 2)
        log.add(kind="validation", step=2, bound=-1.5, best=True, epoch=0.5)
        if name == "tensorboard":  # a killed run has said what it knew
            assert told.flushed == len(told.scalars)
    assert [t for t in told.scalars if t[1].startswith("train")] == [
        (1, "train/bound", -1.0),
        (2, "train/bound", -2.0),
    ]
    assert {t[1:] for t in told.scalars if t[1].startswith("validation")} == {
        ("validation/bound", -1.5),
        ("validation/best", 1.0),
        ("validation/epoch", 0.5),
    }
    assert told.closed == 1
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()] == log.rows
    assert capsys.readouterr().out == "" or name == "wandb"  # which talks on standard error


def test_the_configuration_is_told_flat_and_once(name, told, tmp_path):
    with listen(name, tmp_path) as trackers:
        steps_of(TrackedLog(tmp_path, 0, trackers), 1)
    (opened,) = told.opened
    assert opened.config == FLAT


def test_pictures_are_those_of_the_model_and_the_same_each_time(
    name, told, tmp_path, model, digits
):
    with listen(name, tmp_path) as trackers:
        log = TrackedLog(tmp_path, 0, trackers)
        log.show(model, digits, 5)
    assert told.pictures == [(5, "samples"), (5, "reconstructions")]
    before = torch.get_rng_state()
    one, two = few_pictures(model, digits), few_pictures(model, digits)
    assert torch.equal(torch.get_rng_state(), before)
    assert all((one[key] == two[key]).all() for key in one)
    assert one["samples"].shape == (98, 8 * 48 + 7 * 2, 3)
    # The upper row are the examples themselves, pixel by pixel.
    x = digits.validation.x[0, 0].float() * 255 / (digits.support.levels - 1)
    assert (one["reconstructions"][3:48:6, 3:48:6, 0] == x.round().byte().numpy()).all()
    assert (one["reconstructions"][53:98:6, 3:48:6, 0] != x.round().byte().numpy()).any()


def test_a_resumed_run_is_the_same_one_and_no_step_is_there_twice(name, told, tmp_path):
    with listen(name, tmp_path) as trackers:
        log = TrackedLog(tmp_path, 0, trackers)
        kept = steps_of(log, 10, 20)
        steps_of(log, 30, 40)  # after the checkpoint, and killed
    told.scalars.clear()
    with listen(name, tmp_path) as trackers:
        log = TrackedLog(tmp_path, kept, trackers)
        assert [row["step"] for row in log.rows] == [10, 20]
        trackers.pictures(30, lambda: {"samples": PIXELS})
        steps_of(log, 30, 40, 41)
        trackers.pictures(41, lambda: {"samples": PIXELS})
    first, second = told.opened
    assert first.id == second.id
    assert first.purge is None
    if LOGGERS[name].hides_repeats:
        assert second.purge == 21
        assert told.steps() == [30, 40, 41]
        assert told.pictures == [(30, "samples"), (41, "samples")]
    else:
        assert second.resume == "allow"
        assert told.steps() == [41]
        assert told.pictures == [(41, "samples")]


def test_a_run_without_a_checkpoint_begins_again(name, told, tmp_path):
    for _ in range(2):
        with listen(name, tmp_path) as trackers:
            steps_of(TrackedLog(tmp_path, 0, trackers), 1, 2)
    assert told.opened[0].id == told.opened[1].id
    if LOGGERS[name].hides_repeats:
        assert told.opened[1].purge == 0
    else:
        assert told.steps() == [1, 2]


def test_a_tracker_that_joins_a_run_is_told_what_was(name, told, tmp_path):
    kept = steps_of(TrackedLog(tmp_path, 0), 1, 2)
    with listen(name, tmp_path) as trackers:
        steps_of(TrackedLog(tmp_path, kept, trackers), 3)
    assert told.steps() == [1, 2, 3]


def test_two_runs_in_folders_of_one_name_are_two_runs(told, name, tmp_path):
    for parent in ("a", "b"):
        folder = tmp_path / parent / "digits vae/"
        with listen(name, folder) as trackers:
            steps_of(TrackedLog(folder, 0, trackers), 1)
    first, second = told.opened
    assert first.id != second.id
    if name != "tensorboard":
        assert first.id.startswith("digits-vae-")


@pytest.mark.parametrize("when", ["open", "row", "picture", "close"])
def test_a_tracker_that_fails_is_dropped_with_one_warning(name, told, tmp_path, when):
    said = []
    with listen(name, tmp_path, said) as trackers:
        told.breaks = when == "open"
        log = TrackedLog(tmp_path, 0, trackers)
        told.breaks = told.breaks or when == "row"
        steps_of(log, 1, 2)
        told.breaks = told.breaks or when == "picture"
        trackers.pictures(2, lambda: {"samples": PIXELS, "others": PIXELS})
        told.breaks = True
    (warning,) = said
    assert warning.startswith(f"warning: {name} failed and is told nothing more (ConnectionError")
    assert "\n" not in warning
    assert [row["step"] for row in log.rows] == [1, 2]
    if when == "open":  # the next attempt is a new run, and is told everything
        told.breaks = False
        with listen(name, tmp_path) as trackers:
            TrackedLog(tmp_path, log.flushed_bytes(), trackers)
        assert told.steps() == [1, 2]


def test_one_that_fails_leaves_the_others_alone(monkeypatch, tmp_path):
    good, bad = Told(), Told()
    monkeypatch.setitem(sys.modules, "trackio", dashboard(bad)["module"])
    monkeypatch.setitem(sys.modules, "wandb", dashboard(good)["module"])
    said = []
    with Trackers(["trackio", "wandb", "wandb"], tmp_path, CONFIG, said.append) as trackers:
        log = TrackedLog(tmp_path, 0, trackers)
        bad.breaks = True
        steps_of(log, 1, 2)
        trackers.pictures(2, lambda: {"samples": PIXELS})
    assert good.steps() == [1, 2]
    assert len(good.opened) == len(good.pictures) == good.closed == len(said) == 1


def test_pictures_that_cannot_be_drawn_cost_a_warning_and_no_run(told, name, tmp_path, digits):
    said = []
    broken = SimpleNamespace()
    with listen(name, tmp_path, said) as trackers:
        log = TrackedLog(tmp_path, 0, trackers)
        for step in (1, 2):
            log.show(broken, digits, step)
        steps_of(log, 3)
    assert len(said) == 1
    assert said[0].startswith("warning: no pictures")
    assert told.steps() == [3]


def test_the_end_is_told_with_its_pictures(name, told, tmp_path):
    from PIL import Image as Pillow

    Pillow.new("RGBA", (5, 4)).save(tmp_path / "samples.png")
    evaluation = {
        "bound": {"value": -9.0},
        "log_likelihood": {"value": -8.0},
        "bits_per_dim": 1.5,
        "reconstruction_mse": None,
    }
    with listen(name, tmp_path) as trackers:  # fitted in closed form: nothing was told before
        trackers.finish(7, evaluation, ["samples.png", "absent.png"])
    assert set(told.scalars) == {
        (7, "test/bound", -9.0),
        (7, "test/log_likelihood", -8.0),
        (7, "test/bits_per_dim", 1.5),
    }
    assert told.pictures == [(7, "final/samples")]
    assert told.closed == 1
    made = {path.name for path in tmp_path.iterdir()} - {"samples.png"}
    assert made <= set(MADE_BY_TRACKERS)


def test_the_end_is_told_where_a_resumed_run_had_nothing_left_to_train(name, told, tmp_path):
    with listen(name, tmp_path) as trackers:
        kept = steps_of(TrackedLog(tmp_path, 0, trackers), 5)
    told.scalars.clear()
    with listen(name, tmp_path) as trackers:
        TrackedLog(tmp_path, kept, trackers)
        trackers.finish(5, {"bits_per_dim": 1.0}, [])
    assert told.scalars == [(5, "test/bits_per_dim", 1.0)]


def test_the_end_of_a_model_without_nats_is_told_too(name, told, tmp_path):
    with listen(name, tmp_path) as trackers:
        trackers.finish(0, {"bound": None, "reconstruction_mse": 0.5}, [])
    assert told.scalars == [(0, "test/reconstruction_mse", 0.5)]


def test_a_library_that_is_missing_is_named_with_the_command_that_brings_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, LOGGERS[name].module, None)  # as where it is not installed
    command = "pip install wandb" if name == "wandb" else r"pip install 'lowerbound\[track\]'"
    with pytest.raises(InputError, match=f"'logger' must be .* got {name}; run `{command}`"):
        require([name])


def test_an_unknown_logger_and_one_without_a_folder_are_refused(monkeypatch):
    with pytest.raises(InputError, match=r"'logger' must be one of .* did you mean 'wandb'"):
        Trackers(["wandd"])
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    with pytest.raises(InputError, match="'out' must be given where there is a logger"):
        Trackers(["wandb"])


@pytest.mark.parametrize("text", ["[]", '{"format_version": 1}', '{"format_version": 2}'])
def test_a_file_of_ids_that_we_did_not_write_is_refused(tmp_path, name, told, text):
    (tmp_path / "trackers.json").write_text(text)
    with pytest.raises(InputError, match=r"trackers.json' must be"):
        listen(name, tmp_path).open()


def test_without_trackers_nothing_is_loaded_drawn_or_written(tmp_path):
    log = TrackedLog(tmp_path, 0)
    log.show(None, None, 1)
    steps_of(log, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_whole_configuration_is_told(name, told, tmp_path):
    import dataclasses

    config = dataclasses.asdict(RunConfig(options={"latent_dim": 2, "columns": ("a",)}))
    with Trackers([name], tmp_path, config) as trackers:
        trackers.open()
    values = told.opened[0].config
    assert values["options.latent_dim"] == 2
    assert values["learning_rate"] == RunConfig().learning_rate
    assert all(type(value) in (bool, int, float, str) for value in values.values())


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="not installed")
def test_tensorboard_reads_back_what_it_was_told(tmp_path, model, digits):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with listen("tensorboard", tmp_path) as trackers:
        log = TrackedLog(tmp_path, 0, trackers)
        kept = steps_of(log, 10, 20)
        log.show(model, digits, 20)
        steps_of(log, 30)
        log.show(model, digits, 30)
    with listen("tensorboard", tmp_path) as trackers:
        log = TrackedLog(tmp_path, kept, trackers)
        steps_of(log, 25, 35)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    bounds = [(event.step, event.value) for event in events.Scalars("train/bound")]
    assert bounds == [(10, -10.0), (20, -20.0), (25, -25.0), (35, -35.0)]
    assert [event.step for event in events.Images("samples")] == [20]
    assert "_hparams_/session_start_info" in events.summary_metadata
