"""Presets: names for settings, resolved into what a run folder holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from lowerbound.build import MODELS, create_model, options_class
from lowerbound.cli import run_command_line, train_flags
from lowerbound.config import TrainingConfig, validated
from lowerbound.errors import InputError
from lowerbound.presets import PRESETS
from lowerbound.run import fit

PAGE = Path(__file__).parent.parent / "docs" / "models" / "presets.md"


def row_of(name: str) -> str:
    """What the page says of a preset: all that the table of the library says."""
    preset = PRESETS[name]
    settings = {**preset.options, **preset.training}
    flags = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in settings.items())
    nats = "" if preset.nats is None else f"{preset.nats:.2f}".replace("-", "−")
    same, python = f"`--model {preset.model} {flags}`", f"`{preset.in_words()}`"
    cells = (f"`{name}`", preset.summary, same, python, preset.reference, nats)
    return f"| {' | '.join(cells)} |"


def call(*args):
    return run_command_line([str(a) for a in args])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_settings_of_a_model_that_differ_from_its_defaults(name):
    preset = PRESETS[name]
    assert name not in MODELS
    options = validated(options_class(preset.model), preset.options, name)
    training = validated(TrainingConfig, preset.training, name)
    assert options != options_class(preset.model)() or training != TrainingConfig()
    assert preset.summary.endswith(".")
    assert preset.reference[-4:].isdecimal()


def test_the_page_of_the_presets_is_their_table():
    heading, *rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert heading.startswith("| `--model` | ")
    assert rows == [row_of(name) for name in PRESETS]


@pytest.mark.parametrize("name", PRESETS)
def test_the_settings_that_the_page_names_are_those_of_the_preset(name):
    cell = row_of(name).split(" | ")[2].strip("`")
    by_preset, by_flags = train_flags(["--model", name]), train_flags(cell.split())
    assert dataclasses.asdict(by_preset) | {"preset": None} == dataclasses.asdict(by_flags)


@pytest.mark.parametrize("name", PRESETS)
def test_the_flag_of_a_preset_is_its_settings(name):
    flags, preset = train_flags(["--model", name]), PRESETS[name]
    assert (flags.model, flags.preset) == (preset.model, name)
    assert {k: getattr(flags.options, k) for k in preset.options} == dict(preset.options)
    assert {k: getattr(flags, k) for k in preset.training} == dict(preset.training)


SUITED = {name: entry.training for name, entry in MODELS.items() if entry.training}


@pytest.mark.parametrize("name", SUITED)
def test_a_model_is_trained_by_its_usual_values_unless_others_are_given(
    name, tmp_path, monkeypatch, digits
):
    usual = SUITED[name]
    assert validated(TrainingConfig, usual, name) != TrainingConfig()
    flags = train_flags(["--model", name])
    assert {k: getattr(flags, k) for k in usual} == usual
    assert train_flags(["--model", name, "--batch-size", "7"]).batch_size == 7
    file = tmp_path / "c.yaml"
    file.write_text(f"model: {name}\nbatch_size: 9\n")
    from_file = train_flags(["--config", str(file)])
    assert (from_file.batch_size, from_file.learning_rate) == (9, usual["learning_rate"])

    configs = []
    monkeypatch.setattr(
        "lowerbound.run.fit_model", lambda m, s, config, **_: configs.append(config)
    )
    model = create_model(name, digits)
    fit(model, digits)
    fit(model, digits, batch_size=7)
    assert {k: getattr(configs[0], k) for k in usual} == usual
    assert (configs[1].batch_size, configs[1].learning_rate) == (7, usual["learning_rate"])


def test_flags_win_over_a_preset_and_a_preset_named_after_a_file_over_the_file(tmp_path):
    assert train_flags(["--model", "iwae", "--num-samples", "7"]).num_samples == 7
    file = tmp_path / "c.yaml"
    file.write_text("model: iwae\nnum_samples: 9\noptions: {latent_dim: 4}\n")
    from_file = train_flags(["--config", str(file)])
    assert (from_file.model, from_file.objective, from_file.num_samples) == ("vae", "iwae", 9)
    assert (from_file.options.latent_dim, from_file.preset) == (4, "iwae")
    file.write_text("model: vae\nobjective: elbo\nbeta: 2.0\noptions: {latent_dim: 4}\n")
    after = train_flags(["--config", str(file), "--model", "beta-tcvae"])
    assert (after.beta, after.options.latent_dim) == (2.0, 4)
    assert (after.options.penalty, after.preset) == ("total-correlation", "beta-tcvae")
    after = train_flags(["--config", str(file), "--model", "beta-vae"])
    assert after.beta == 4.0


def test_another_model_named_after_a_file_drops_preset_and_options(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: vae\npreset: infovae\noptions: {penalty: mmd, width: 7}\n")
    again = train_flags(["--config", str(file)])
    assert (again.preset, again.options.penalty) == ("infovae", "mmd")
    other = train_flags(["--config", str(file), "--model", "ppca"])
    assert (other.model, other.preset) == ("ppca", None)
    fields = {f.name for f in dataclasses.fields(other.options)}
    assert "penalty" not in fields


def test_a_run_is_named_as_it_was_asked_for_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--latent-dim", 2, "--width", 8, "--quiet"]
    assert call("train", "digits", "--model", "beta-vae", "--steps", 1, *small) == 0
    run = tmp_path / "runs" / "digits-beta-vae-1"
    assert (run / "report.html").exists()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"], config["preset"], config["beta"]) == ("vae", "beta-vae", 4.0)
    assert call("train", "--resume", "runs/digits-beta-vae-1") == 0


def test_a_program_is_told_what_to_write(capsys):
    with pytest.raises(InputError, match=r"create_model\('vae', …\) and fit\(…, objective='dreg'"):
        create_model("dreg", (4,))
    assert call("train", "--model", "iwea") == 2
    assert "did you mean 'iwae'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*MODELS, *PRESETS])
def test_every_model_and_preset_has_its_page_and_its_recipe(name):
    root = PAGE.parent.parent.parent
    page = PAGE if name in PRESETS else PAGE.parent / f"{name}.md"
    assert f"`{name}`" in page.read_text() or f"--model {name}" in page.read_text()
    recipes = [yaml.safe_load(path.read_text()) for path in (root / "recipes").glob("*.yaml")]
    assert name in {recipe["model"] for recipe in recipes}


@pytest.mark.parametrize("name", [*MODELS, *PRESETS])
def test_every_model_and_preset_has_an_example_and_what_was_measured(name):
    scripts = [path.read_text() for path in (PAGE.parent.parent.parent / "examples").glob("*.py")]
    if name in PRESETS:  # one script trains them all
        assert PRESETS[name].nats is not None
        assert any("PRESETS" in script for script in scripts)
        return
    entry = MODELS[name]
    assert any(f'"{name}"' in script for script in scripts)
    measured = (entry.nats, entry.bits_per_dim)
    assert (measured == (None, None)) is not entry.is_likelihood
