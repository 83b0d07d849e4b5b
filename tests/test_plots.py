"""Pictures show the numbers they were given, under the right titles."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from lowerbound import plots
from lowerbound.data import load_data
from lowerbound.distributions.support import Binary, Discrete, Real
from lowerbound.errors import InputError
from lowerbound.models import ProbabilisticPCA
from lowerbound.pictures import draw_pictures

DIGIT = (1, 8, 8)


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def images(num, shape=DIGIT, levels=17):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, levels, (num, *shape), generator=generator).float()


def test_every_byte_lands_on_its_own_grey():
    levels = torch.arange(256).reshape(1, 1, 16, 16).to(torch.uint8)
    grid = plots.image_grid(plots.displayable(levels, Discrete(256)), columns=1)
    assert (grid[::3, ::3, 0] == np.arange(256).reshape(16, 16)).all()


@pytest.mark.parametrize(("value", "grey"), [(300.0, 1.0), (-20.0, 0.0), (math.nan, 0.0)])
def test_values_outside_are_clipped_not_wrapped(value, grey):
    assert plots.displayable(torch.full((1, 1, 2, 2), value), Discrete(256)).unique() == grey


def test_displayable_scales_real_images_by_the_limits_given():
    x = torch.tensor([-1.0, 0.0, 1.0, 5.0]).reshape(1, 1, 2, 2)
    assert plots.displayable(x, Real(), -1, 1).flatten().tolist() == [0, 0.5, 1, 1]
    assert plots.displayable(torch.ones(1, 1, 2, 2), Binary()).unique() == 1


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_displayable_shows_one_channel_or_three(channels, shown):
    assert plots.displayable(torch.zeros(2, channels, 4, 4), Binary()).shape == (2, shown, 4, 4)


def test_displayable_refuses_what_is_no_image():
    with pytest.raises(InputError, match="'x' must be images"):
        plots.displayable(torch.zeros(2, 7), Binary())


def test_grid_geometry_is_exact():
    grid = plots.image_grid(torch.zeros(5, 1, 8, 8), columns=3)
    assert grid.shape == (2 * 48 + 2, 3 * 48 + 2 * 2, 3)
    assert grid.dtype == np.uint8
    assert (grid[:48, :48] == 0).all()
    assert (grid[48:50] == 255).all()  # the gap
    assert (grid[50:, 100:] == 255).all()  # the place of the sixth
    assert plots.image_grid(torch.zeros(4, 3, 64, 64), columns=2).shape == (130, 130, 3)


def test_grid_refuses_no_columns():
    with pytest.raises(InputError, match="'columns' must be at least 1"):
        plots.image_grid(torch.zeros(1, 1, 8, 8), columns=0)


def test_samples_of_images_say_which_are_draws_and_which_are_means():
    x = images(9)
    figure = plots.samples_figure(x, x, Discrete(17), DIGIT, labels=torch.arange(9))
    assert titles(figure) == ["Draws from p(x)", "Means of p(x|z), z from the prior"]
    assert [text.get_text() for text in figure.axes[0].texts] == [str(i) for i in range(9)]
    shown = figure.axes[0].images[0].get_array()
    assert (shown == plots.image_grid(x / 16, columns=3)).all()


def test_samples_of_two_real_columns_are_points_in_one_frame():
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    figure = plots.samples_figure(x, None, Real(), (2,), train=2 * x, column_names=["a", "b"])
    left, right = figure.axes
    assert titles(figure) == ["Training data", "Draws from p(x)"]
    assert left.get_xlim() == right.get_xlim()
    assert left.get_aspect() == right.get_aspect() == 1
    assert left.get_xlabel() == "a (data units)"


@pytest.mark.parametrize("support", [Binary(), Discrete(300), Real()])
def test_samples_of_a_wide_table_say_that_they_are_cut(support):
    x = images(40, (13,), 2)
    figure = plots.samples_figure(x, None, support, (13,), train=x)
    assert len(figure.axes) == 12
    assert "the first 12 of 13 columns" in figure.get_suptitle()
    assert titles(figure)[11] == "x₁₂"


def test_reconstructions_stand_under_their_examples():
    x = images(13)
    figure = plots.reconstructions_figure(x, x, Discrete(17))
    (ax,) = figure.axes
    assert titles(figure) == ["Means of p(x|z), z the mean of q(z|x)"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["example", "reconstruction"] * 2
    grid = np.asarray(ax.images[0].get_array())
    assert (grid[:48] == grid[50:98]).all()


def test_reconstructions_of_a_table_have_the_diagonal():
    figure = plots.reconstructions_figure(images(9, (3,)), images(9, (3,)), Real(), "abc")
    assert titles(figure) == ["a", "b", "c"]
    assert figure.axes[0].get_xlim() == figure.axes[0].get_ylim()
    assert len(figure.axes[0].lines) == 1


@pytest.mark.parametrize(
    ("width", "method", "title"),
    [
        (1, "pca", "The latent"),
        (2, "pca", "The latents"),
        (5, "pca", "The 5 latents: their PCA"),
        (5, "tsne", "The 5 latents: t-SNE"),
    ],
)
def test_latents(width, method, title):
    z = torch.randn(30, width, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    figure = plots.latents_figure(z, z[:, :1].repeat(1, 2), labels, ["u", "v", "w"], method)
    assert titles(figure) == [title, "The data: its PCA"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["u", "v", "w"]
    assert len(plots.latents_figure(z, method=method).axes) == 1


def test_latents_refuse_an_unknown_method():
    with pytest.raises(InputError, match="'method' must be pca or tsne, got umap"):
        plots.latents_figure(torch.zeros(3, 2), method="umap")


def test_more_classes_than_hues_keep_their_own_colours():
    figure = plots.latents_figure(torch.rand(12, 2), labels=torch.arange(12))
    assert len(np.unique(figure.axes[0].collections[0].get_facecolors(), axis=0)) == 12


def test_interpolations_of_images_and_of_columns():
    frames = images(10).reshape(2, 5, *DIGIT)
    (ax,) = plots.interpolations_figure(frames, Discrete(17)).axes
    assert ax.images[0].get_array().shape == (98, 5 * 50 - 2, 3)
    figure = plots.interpolations_figure(images(10, (3,)).reshape(2, 5, 3), Real(), "abc")
    assert titles(figure) == ["a", "b", "c"]
    assert len(figure.axes[0].lines) == 2


@pytest.mark.parametrize("shape", [DIGIT, (3,)])
def test_plane_has_rising_quantiles_on_both_axes(shape):
    quantiles = torch.linspace(-2, 2, 5)
    decoded = images(25, shape).reshape(5, 5, *shape)
    ax = plots.plane_figure(decoded, Discrete(17), quantiles).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z₁", "z₂")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["−2", "−1", "0", "1", "2"]
    heights = ax.transData.transform([(0, y) for y in ax.get_yticks()])[:, 1]
    assert (np.diff(heights) > 0).all()


def row(step, bound, kind="train", **extra):
    return {"kind": kind, "step": step, "bound": bound, "reconstruction": bound + 5, **extra}


def test_training_marks_the_best_and_ignores_the_wild_beginning():
    rows = [row(i, -100 - 1e6 / i**4, kl_1=2.0, kl_2=3.0) for i in range(1, 100)]
    rows += [row(50, -99.0, "validation", kl_1=2.0, kl_2=3.0), row(99, -101.0, "validation")]
    left, right, _ = plots.training_figure(rows).axes
    assert "best: −99.00 at step 50" in [t.get_text() for t in left.get_legend().texts]
    assert left.get_ylim()[0] > -1_000
    assert left.get_ylabel() == "bound (nats per example)"
    dots = right.collections[-1].get_offsets()
    assert dots[98].tolist() == pytest.approx([5.0, 95.0], abs=0.1)


@pytest.mark.parametrize("extra", [{}, {"kl": 5.0}])
def test_training_works_with_one_row(extra):
    assert len(plots.training_figure([row(1, -3.0, **extra)]).axes) == 1 + len(extra)


def test_training_of_a_model_without_a_bound_shows_its_loss():
    figure = plots.training_figure([{"kind": "train", "step": 1, "loss": 2.0, "bound": None}])
    assert figure.axes[0].get_ylabel() == "loss (as the model defines it)"
    with pytest.raises(InputError, match="'rows' must be rows with a step"):
        plots.training_figure([{"step": 1, "bound": math.nan}])


STEPLESS = {"bound": -3.0}
NOT_FINITE = {"step": 1, "bound": None, "loss": math.nan}


@pytest.mark.parametrize("rows", [[], [NOT_FINITE], [STEPLESS], [NOT_FINITE, STEPLESS]])
def test_nothing_to_draw_is_known_beforehand(rows):
    assert not plots.has_curve(rows)
    with pytest.raises(InputError, match="'rows' must be rows with a step"):
        plots.training_figure(rows)


@pytest.mark.parametrize("measured", [{"bound": -3.0}, {"loss": 2.0}])
def test_one_finite_row_is_enough_to_draw(measured):
    rows = [NOT_FINITE, STEPLESS, {"step": 2, **measured}]
    assert plots.has_curve(rows)
    (ax,) = plots.training_figure(rows).axes
    assert ax.get_ylabel().startswith(next(iter(measured)))


@pytest.mark.parametrize(
    ("rows", "drawn"),
    [([], False), ([NOT_FINITE], False), ([NOT_FINITE, {"step": 2, "loss": 2.0}], True)],
)
def test_a_run_has_a_training_picture_only_of_finite_rows(rows, drawn, tmp_path):
    source = load_data("digits")
    model = ProbabilisticPCA(source.event_shape, source.support, 2)
    model.fit_exactly(source)
    draw_pictures(model, source, tmp_path, rows)
    assert (tmp_path / "samples.png").exists()
    assert (tmp_path / "training.png").exists() == drawn


def test_a_saved_figure_is_a_png_and_pyplot_knows_nothing_of_it(tmp_path):
    plots.save_figure(plots.training_figure([row(1, -3.0)]), tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as image:
        assert image.size == (900, 630)
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]

    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def estimate(value, error=0.25, **extra):
    return {"value": value, "standard_error": error, **extra}


JUDGED = {
    "bound": estimate(-88.79),
    "log_likelihood": estimate(-85.1, num_samples=1000, kind="lower bound"),
    "prior_monte_carlo": estimate(-212.4, 0.8),
}
EXACT = {
    "bound": estimate(-9.5),
    "log_likelihood": estimate(-8.5, num_samples=None, kind="exact"),
    "prior_monte_carlo": None,
}


def said(ax):
    return " ".join(text.get_text() for text in ax.texts)


def test_the_decomposition_shades_the_gap_between_the_bound_and_the_line_above_it():
    left, right = plots.decomposition_figure(JUDGED).axes
    assert {round(line.get_ydata()[0], 2) for line in right.lines} == {-85.1, -88.79}
    (shaded,) = right.patches
    low, high = sorted({corner[1] for corner in shaded.get_corners()})
    assert (low, high) == (pytest.approx(-88.79), pytest.approx(-85.1))
    assert "at least 3.69 nats" in said(right)
    assert "log p(x) = −85.10 ± 0.25, estimate (lower bound)" in said(right)
    assert "ELBO = −88.79 ± 0.25" in said(right)
    assert "−212.40 ± 0.80" in said(left)
    assert left.get_ylabel() == right.get_ylabel() == "nats per example"
    assert left.get_ylim()[0] < -212.4
    assert right.get_ylim()[0] < -88.79 < -85.1 < right.get_ylim()[1]


def test_an_exact_evidence_is_called_so_and_its_gap_is_the_whole_gap():
    (ax,) = plots.decomposition_figure(EXACT).axes
    assert "log p(x) = −8.50 ± 0.25, exact" in said(ax)
    assert "at least" not in said(ax)
    same = {**EXACT, "bound": estimate(-8.5, None)}
    (ax,) = plots.decomposition_figure(same).axes
    assert "= ELBO: no gap" in said(ax)
    assert "gap = KL" not in said(ax)


NOT_JUDGED = [{}, {"bound": None, "log_likelihood": None}, {**JUDGED, "bound": estimate(math.nan)}]


@pytest.mark.parametrize("evaluation", NOT_JUDGED)
def test_without_a_bound_there_is_nothing_to_decompose(evaluation):
    assert not plots.has_decomposition(evaluation)
    with pytest.raises(InputError, match="'evaluation' must be one with a bound"):
        plots.decomposition_figure(evaluation)


def test_a_judged_run_has_its_decomposition_drawn(tmp_path):
    source = load_data("digits")
    model = ProbabilisticPCA(source.event_shape, source.support, 2)
    model.fit_exactly(source)
    (tmp_path / "evaluation.json").write_text(json.dumps(JUDGED))
    draw_pictures(model, source, tmp_path, [])
    assert (tmp_path / "decomposition.png").exists()


def test_a_comparison_has_a_row_of_images_per_model_under_the_examples():
    x = images(14)
    rows = [
        ("ppca, 2 latents\nsquared error 3", x / 2),
        ("vae, 2 latents\nsquared error 4", 0 * x),
    ]
    (ax,) = plots.comparison_figure(x, rows, Discrete(17)).axes
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["examples", *(title for title, _ in rows)]
    grid = np.asarray(ax.images[0].get_array())
    assert grid.shape == (3 * 50 - 2, 12 * 50 - 2, 3)
    for i, shown in enumerate((x, x / 2, 0 * x)):
        expected = plots.image_grid(shown[:12] / 16, columns=12)
        assert (grid[50 * i : 50 * i + 48] == expected).all()
        assert ax.get_yticks()[i] == pytest.approx(50 * i + 23.5)


def test_a_comparison_of_tables_has_a_panel_per_model_and_its_diagonal():
    x = images(40, (3,))
    rows = [(f"model {i}", x) for i in range(5)]
    figure = plots.comparison_figure(x, rows, Real())
    assert titles(figure) == [f"model {i}" for i in range(5)]
    points = figure.axes[0].collections[0].get_offsets()
    assert points.shape == (120, 2)
    assert np.allclose(points[:, 0], points[:, 1])
    assert float(points[:, 0].std()) == pytest.approx(1)


@pytest.mark.parametrize("rows", [[], [("one", torch.zeros(3, *DIGIT))]])
def test_a_comparison_without_a_reconstruction_of_each_example_is_refused(rows):
    with pytest.raises(InputError, match="must be"):
        plots.comparison_figure(images(4), rows, Discrete(17))


@pytest.mark.parametrize("num", [1, 2, 5, 6, 7, 9])
def test_the_rows_of_a_legend_differ_by_one_entry_at_most(num):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    frames = torch.rand(num, 4, 3)
    figure = plots.interpolations_figure(frames, Real())
    legend = figure.legends[0]
    assert len(legend.texts) == num
    FigureCanvasAgg(figure).draw()
    heights = [round(text.get_window_extent().y0) for text in legend.texts]
    rows = [heights.count(height) for height in set(heights)]
    assert len(rows) == -(-num // 5)
    assert max(rows) - min(rows) <= 1


@pytest.mark.parametrize("shape", [(2,), (3,), DIGIT])
def test_means_alone_are_not_called_draws(shape):
    x = torch.rand(20, *shape)
    for are_means in (False, True):
        figure = plots.samples_figure(x, None, Real(), shape, train=x, are_means=are_means)
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        titles += [t.get_text() for legend in figure.legends for t in legend.texts]
        said = " ".join(titles).lower()
        assert ("draws from p(x)" in said) != are_means
        assert ("means of p(x|z)" in said) == are_means
