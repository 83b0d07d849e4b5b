"""What each level holds: which levels are drawn anew, and how it is shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound import plots
from lowerbound.build import create_model
from lowerbound.distributions import Binary
from lowerbound.errors import InputError
from lowerbound.evaluation import evaluate
from lowerbound.generation import redraw_levels
from lowerbound.run import fit
from tests.commands.calling import call

SIZES = {"hvae": {"latent_dims": (3, 2)}, "ladder": {"levels": 2, "latent_dim": 2}}


@pytest.fixture(scope="module", params=SIZES)
def model(request, digits):
    model = create_model(request.param, digits, width=16, **SIZES[request.param])
    fit(model, digits, steps=30, quiet=True)
    return model


def test_a_row_keeps_the_levels_above_and_draws_the_others_anew(model, monkeypatch):
    seen, decode = [], model.decode
    monkeypatch.setattr(model, "decode", lambda z, _=None: seen.append(z) or decode(z))
    frames = redraw_levels(model, 4, seed=1)
    assert frames.shape == (2, 4, 1, 8, 8)
    for level, z in enumerate(seen, 1):
        assert torch.equal(z[0], seen[0][0])  # the draw is the first of every row
        for other, span in enumerate(model.spans(), 1):
            kept = [torch.equal(row[span], z[0, span]) for row in z[1:]]
            assert kept == [other > level] * 3
    torch.testing.assert_close(frames[0, 0], frames[1, 0])
    assert torch.equal(redraw_levels(model, 4, seed=1), frames)
    assert not torch.equal(redraw_levels(model, 4, seed=2), frames)


def test_a_model_without_levels_and_a_row_of_one_are_refused(model, digits):
    with pytest.raises(InputError, match="'levels' must be asked of a model that has them"):
        redraw_levels(create_model("vae", digits, latent_dim=2, width=8), 4)
    with pytest.raises(InputError, match="'num' must be at least 2, got 1"):
        redraw_levels(model, 1)


def test_the_figure_has_the_top_level_first_and_a_bar_for_every_rate():
    frames = torch.zeros(3, 2, 1, 8, 8)
    frames[2] = 1.0  # the top level
    figure = plots.levels_figure(frames, Binary(), [1.0, 2.0, 5.0])
    image, bars = figure.axes
    pixels = image.get_images()[0].get_array()
    assert pixels[10, 10, 0] == 255
    assert pixels[-10, 10, 0] == 0
    names = [text.get_text() for text in image.get_yticklabels()]
    assert names == ["levels 3 to 1", "levels 2 to 1", "level 1"]
    assert [patch.get_width() for patch in bars.patches] == [5.0, 2.0, 1.0]
    middles = [patch.get_y() + patch.get_height() / 2 for patch in bars.patches]
    assert middles == sorted(middles)
    assert bars.yaxis_inverted()
    figure.draw_without_rendering()
    unit = bars.xaxis.label
    assert unit.get_text() == "nats per example"
    assert unit.get_window_extent().y0 >= 0  # inside the picture
    heights = [ax.get_position().height for ax in figure.axes]
    assert heights[0] == pytest.approx(heights[1])


def test_data_that_are_no_images_have_bars_alone_and_nothing_is_refused():
    figure = plots.levels_figure(torch.zeros(2, 3, 5), Binary(), [1.0, -0.1])
    assert [patch.get_width() for patch in figure.axes[0].patches] == [-0.1, 1.0]
    with pytest.raises(InputError, match="'rates' must be given where there are no images"):
        plots.levels_figure(torch.zeros(2, 3, 5), Binary())


def test_the_rates_of_levels_come_in_their_order_from_an_evaluation():
    terms = {"kl_2": 2.0, "reconstruction": -9.0, "kl_1": 1.0}
    assert plots.rates_of_levels({"bound": {"terms": terms}}) == [1.0, 2.0]
    assert plots.rates_of_levels({"bound": None}) == []
    assert plots.rates_of_levels({"bound": {"terms": {"kl": 1.0}}}) == []


def test_active_units_of_a_hierarchy_are_counted_in_units_of_the_prior(digits):
    model = create_model("ladder", digits, levels=2, latent_dim=3, width=8)
    with torch.no_grad():
        for rung in model.network.rungs:
            rung.direct.weight.zero_()
            rung.direct.bias.zero_()
        model.network.rungs[0].prior.bias[:3] = 7.0  # a mean far from zero says nothing
        model.network.rungs[1].direct.weight[0] = 1.0  # and this one follows x
    result = evaluate(model, digits, num_samples=2, max_rows=50, baselines=False)
    assert result["active_units"] == 1
    assert result["latent_dim"] == 6
    assert len(result["rate_per_latent"]) == 6
    paid = [rate > 1e-3 for rate in result["rate_per_latent"]]
    assert paid == [False, False, False, True, False, False]


def test_the_command_draws_the_levels_of_a_run(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--levels", 2, "--latent-dim", 2, "--width", 16, "--steps", 10]
    assert call("train", "digits", "--model", "ladder", *options, "--out", run) == 0
    assert (run / "levels.png").is_file()
    assert "<h2>Levels</h2>" in (run / "report.html").read_text()
    assert call("sample", run, "--levels", "--seed", 2) == 0
    assert Image.open(run / "samples-seed-2-levels.png").size[0] > 300
    assert call("sample", run, "--levels", "--num", 4, "--out", tmp_path / "x.npz") == 0
    assert np.load(tmp_path / "x.npz")["x"].shape == (2, 4, 1, 8, 8)
    capsys.readouterr()
    assert call("sample", run, "--levels", "--mean") == 2
    assert "'mean' must be left out with --levels" in capsys.readouterr().err
    assert json.loads((run / "evaluation.json").read_text())["bound"]["terms"].keys() == {
        "reconstruction",
        "kl_1",
        "kl_2",
    }
