"""Pictures of training and of a diffusion: what is drawn, what is said, nothing cut."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from lowerbound import plots
from lowerbound.distributions.support import Real
from lowerbound.errors import InputError
from lowerbound.report import write_report

DIGIT = (1, 8, 8)


def row(step, bound, kind="train", **extra):
    return {"kind": kind, "step": step, "bound": bound, "reconstruction": bound + 5, **extra}


def test_a_diffusion_has_no_trade_of_rate_against_distortion():
    rows = [row(i, -3.0, diffusion=5.0, prior=1e-3) for i in range(1, 4)]
    assert not plots.has_halves(rows)
    assert len(plots.training_figure(rows).axes) == 1
    assert plots.has_halves([row(1, -3.0, codes=5.0)])


def test_labels_of_equal_bounds_lie_whole_inside_their_panel():
    rng = np.random.default_rng(0)
    for scale in (1.0, 150.0, 2e4):
        ends = rng.uniform(0, scale, (40, 2))
        rows = [
            {"kind": "train", "step": i, "bound": -a - b, "reconstruction": -a, "kl": b}
            for i, (a, b) in enumerate(ends.tolist())
        ]
        figure = plots.training_figure(rows)
        figure.draw_without_rendering()
        ax = figure.axes[1]
        labels = [t for t in ax.texts if t.get_text()]
        assert labels
        for label in labels:
            box, panel = label.get_window_extent(), ax.get_window_extent()
            assert panel.x0 <= box.x0 < box.x1 <= panel.x1
            assert panel.y0 <= box.y0 < box.y1 <= panel.y1


@pytest.mark.parametrize("shape", [(2,), (3,), (2, 9), DIGIT])
def test_how_draws_were_made_is_in_the_title(shape):
    figure = plots.samples_figure(torch.rand(4, *shape), None, Real(), shape, how="ddim, 3 steps")
    assert "What the model draws: ddim, 3 steps" in figure.get_suptitle()


def test_a_draw_on_its_way_has_a_column_per_level():
    frames, gammas = torch.rand(3, 5, 1, 8, 8), torch.linspace(5, -8, 5)
    figure = plots.denoising_figure(frames, gammas, Real())
    said = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert said == ["5.0", "1.8", "−1.5", "−4.8", "−8.0"]
    close = torch.tensor([0.04, 0.02, -0.04, -1.0, -2.0])
    said = plots.denoising_figure(frames, close, Real()).axes[0].get_xticklabels()
    assert [t.get_text() for t in said] == ["0.0", "", "", "−1.0", "−2.0"]
    with pytest.raises(InputError, match="'gammas' must be 5 levels, one per frame, got 4"):
        plots.denoising_figure(frames, gammas[1:], Real())


def test_the_figure_of_noise_levels_has_an_area_that_is_the_diffusion_term():
    gammas, rates = torch.tensor([-6.0, -5.0, -1.0, 4.0]), torch.tensor([3.0, 8.0, 1.0])
    given = {"reconstruction": -0.5, "prior": 0.25, "num_dims": 4}
    figure = plots.noise_levels_figure(gammas, rates, 0.1 * rates, **given)
    (stairs,) = [p for p in figure.axes[0].patches if hasattr(p, "get_data")]
    heights, edges, _ = stairs.get_data()
    assert (heights * (edges[1:] - edges[:-1])).sum() == pytest.approx(12 / (4 * math.log(2)))
    assert figure.get_suptitle() == "Where the bits go"
    said = plots.noise_levels_figure(gammas, rates, rates, **given, num_examples=1200)
    assert "on 1,200 test examples, another estimate than the table" in said.get_suptitle()
    bars = [bar.get_height() * 4 * math.log(2) for bar in figure.axes[1].patches]
    assert bars == pytest.approx([0.5, 12.0, 0.25])
    with pytest.raises(InputError, match="'gammas' must be 4 edges of 3 bins"):
        plots.noise_levels_figure(gammas[1:], rates, rates, **given)


@pytest.mark.parametrize(("term", "is_diffusion"), [("diffusion", True), ("kl", False)])
def test_the_report_says_of_pictures_what_they_show(term, is_diffusion, tmp_path):
    rows = [row(i, -3.0, **{term: 5.0}) for i in range(1, 4)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    plots.save_figure(plots.training_figure(rows), tmp_path / "training.png")
    plots.save_figure(plots.training_figure(rows), tmp_path / "interpolations.png")
    page = write_report(tmp_path).read_text()
    assert ("ordinary differential equation (ODE)" in page) == is_diffusion
    assert ("Large dots are validations" in page) != is_diffusion
