"""A diffusion on the command line: drawn by any sampler, guided, renoised, walked through."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.commands.calling import call, refused

TRAIN = [
    "--model",
    "diffusion",
    "--network",
    "mlp",
    "--width",
    16,
    "--steps",
    20,
    "--validations",
    2,
    "--quiet",
]
LABELS = ["--condition", "labels", "--label-dropout", 0.2, "--sampling-steps", 4]


@pytest.fixture(scope="module")
def guided(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "guided"
    assert call("train", "digits", "--out", folder, *TRAIN, *LABELS) == 0
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "chain"
    assert call("train", "digits", "--out", folder, *TRAIN, "--timesteps", 6) == 0
    return folder


def made(folder: Path, out: Path, command: str, *flags: object) -> np.ndarray:
    assert call(command, folder, "--out", out, *flags) == 0
    with np.load(out) as arrays:
        return arrays["reconstructions" if command == "reconstruct" else "x"]


def test_a_run_has_its_strip_and_its_report_shows_it(guided):
    assert (guided / "denoising.png").is_file()
    assert "From noise to data" in (guided / "report.html").read_text()


def test_draws_follow_the_flags_and_repeat(guided, tmp_path):
    asked = ("--num", 6, "--label", 3)
    each = [
        made(guided, tmp_path / f"{i}.npz", "sample", *asked, *flags)
        for i, flags in enumerate(
            [
                (),
                (),
                ("--steps", 3),
                ("--sampler", "dpm++"),
                ("--sampler", "ddim"),
                ("--sampler", "ddim", "--eta", 0.7),
                ("--guidance", 3),
            ]
        )
    ]
    assert np.array_equal(each[0], each[1])
    for i, one in enumerate(each[1:]):
        for other in each[i + 2 :]:
            assert not np.array_equal(one, other)


def test_each_request_has_its_own_file(guided):
    assert call("sample", guided, "--num", 4, "--steps", 2, "--guidance", 2.5) == 0
    assert (guided / "samples-num-4-steps-2-guidance-2-5.png").is_file()
    assert call("sample", guided, "--num", 4, "--steps", 2, "--guidance", 2) == 0
    assert (guided / "samples-num-4-steps-2-guidance-2.png").is_file()
    assert call("reconstruct", guided, "--num", 4, "--noise-level", 0.3) == 0
    assert (guided / "reconstructions-num-4-noise-level-0-3.png").is_file()


def test_examples_come_back_the_nearer_the_less_noise(guided, chain, tmp_path):
    out = tmp_path / "r.npz"
    for folder in (guided, chain):
        x = made(folder, out, "reconstruct", "--num", 30, "--noise-level", 1)
        with np.load(out) as arrays:
            data = arrays["x"]
        far = np.abs(x - data).mean()
        near = np.abs(made(folder, out, "reconstruct", "--num", 30, "--noise-level", 0.05) - data)
        assert near.mean() < 0.5 * far
        again = made(folder, out, "reconstruct", "--num", 30, "--noise-level", 1)
        assert np.array_equal(again, x)


def test_walks_go_through_noise_along_arcs_or_lines(guided, tmp_path):
    walks = [
        made(guided, tmp_path / f"{i}.npz", "interpolate", "--num", 2, "--steps", 3, *flags)
        for i, flags in enumerate([(), ("--path", "arc"), ("--path", "line")])
    ]
    assert walks[0].shape == (2, 3, 1, 8, 8)
    assert np.array_equal(walks[0], walks[1])
    assert not np.array_equal(walks[0][:, 1], walks[2][:, 1])
    assert np.allclose(walks[0][:, 0], walks[2][:, 0], atol=1e-3)


def test_every_step_of_a_chain_is_kept_with_its_picture(chain, capsys):
    picture = chain / "noise-levels.png"
    picture.unlink()
    assert call("evaluate", chain, "--samples", 2, "--noise-levels", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((chain / "noise-levels.json").read_text())
    assert printed["noise_levels"] == kept
    assert (len(kept["rates"]), len(kept["gammas"])) == (5, 6)
    assert kept["num_examples"] == 179  # all that there are, of 500
    terms = [kept[name]["value"] for name in ("reconstruction", "prior")]
    total = terms[0] - terms[1] - sum(kept["rates"])
    assert kept["bound"]["value"] == pytest.approx(total)
    apart = abs(total - printed["bound"]["value"])
    assert apart < 4 * (kept["bound"]["standard_error"] + printed["bound"]["standard_error"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_quality_is_of_draws_by_the_sampler_that_is_asked_for(guided, capsys, monkeypatch):
    monkeypatch.setattr("lowerbound.evaluation.features.STEPS", 30)
    found = []
    for flags in (("--steps", 2), ("--steps", 2), ("--steps", 4), ("--sampler", "ddim")):
        given = ("--samples", 1, "--quality", "--quality-samples", 40, "--json")
        assert call("evaluate", guided, *given, *flags) == 0
        found.append(json.loads(capsys.readouterr().out)["quality"]["fd"])
    assert found[0] == found[1]
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("sample", "--sampler", "plms"), "'sampler' must be one of ancestral, ddim, dpm++, heun"),
        (("evaluate", "--steps", 6), "'steps' must be at most 5, the steps of a chain of T = 6"),
        (("sample", "--steps", 0), "'steps' must be at least 1, got 0"),
        (("sample", "--steps", 6), "'steps' must be at most 5, the steps of a chain of T = 6 lev"),
        (("sample", "--guidance", 2), "'guidance' must be 1 for a 'diffusion' of p(x), got 2.0"),
        (("sample", "--label", 3), "'label' must be left out for a model that is not conditional"),
        (("reconstruct", "--noise-level", 0), "'noise_level' must be above 0 and at most 1, got"),
        (("encode", "--data", "digits", "--out", "z.npz"), "has no encoder; use `reconstruct"),
    ],
)
def test_what_a_chain_of_p_of_x_cannot_do_is_refused(chain, capsys, flags, message):
    assert message in refused(capsys, flags[0], chain, *flags[1:])


@pytest.mark.parametrize("flag", [("--steps", 5), ("--sampler", "ddim"), ("--guidance", 1)])
def test_a_model_that_draws_in_one_pass_has_no_sampler(run, capsys, flag):
    name = flag[0].removeprefix("--")
    said = refused(capsys, "sample", run, *flag)
    assert f"'{name}' must be left out for a 'vae', which draws in one pass" in said
    said = refused(capsys, "evaluate", run, "--quality", *flag)
    assert f"'{name}' must be left out for a 'vae', which draws in one pass" in said
    assert "'noise_levels' must be left out" in refused(capsys, "evaluate", run, "--noise-levels")
    said = refused(capsys, "reconstruct", run, "--noise-level", 0.5)
    assert "'noise_level' must be left out for a 'vae'" in said
