"""Pictures of sequences are their lines, pictures of volumes their middle slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection

from lowerbound import plots
from lowerbound.distributions.support import Binary, Discrete, Real
from lowerbound.pictures import NUM_COMPARED, NUM_DRAWS, NUM_RECONSTRUCTED

SEQUENCE, VOLUME = (2, 9), (1, 5, 6, 7)


def examples(num, shape, top=17):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, top, (num, *shape), generator=generator).float()


def lines(figure):
    """The layers of a figure of sequences: (N, L, 2) each, in the order of drawing."""
    (ax,) = figure.axes
    found = [c for c in ax.collections if isinstance(c, LineCollection)]
    return [np.stack(c.get_segments()) for c in found]


def grid_of(figure):
    return np.asarray(figure.axes[-1].images[0].get_array())


@pytest.mark.parametrize("shape", [(2, 9), (1, 8, 8), (1, 5, 6, 7), (7, 4, 4)])
def test_what_is_seen_one_by_one_is_counted_so(shape):
    for numbers in (NUM_DRAWS, NUM_RECONSTRUCTED, NUM_COMPARED):
        assert numbers.of(shape) == numbers.images
        assert numbers.of(shape[:1]) == numbers.of((2, *shape, 2, 2)) == numbers.rows


def test_a_line_goes_through_its_values_in_the_frame_of_its_example():
    x = torch.linspace(0, 1, 3 * 4).reshape(3, 1, 4)
    (drawn,) = lines(plots.samples_figure(x, None, Real(), (1, 4), train=x, columns=2))
    # Three frames, two to a row: the third is below the first.
    left, bottom = np.array([0, 1, 0]), np.array([1, 1, 0])
    across, up = drawn[..., 0] - left[:, None], drawn[..., 1] - bottom[:, None]
    assert across == pytest.approx(np.tile(np.linspace(0.05, 0.95, 4), (3, 1)))
    # Upwards they are the values, on one scale for all frames.
    slope, start = np.polyfit(x.flatten().numpy()[1:-1], up.ravel()[1:-1], 1)
    assert up.ravel()[1:-1] == pytest.approx(start + slope * x.flatten().numpy()[1:-1])
    assert slope == pytest.approx(0.9, abs=0.01)


def test_stray_values_are_cut_off_at_the_frame():
    x = torch.zeros(2, 1, 4)
    x[0, 0, 1], x[1, 0, 2] = 100.0, -100.0
    train = torch.linspace(0, 1, 4000).reshape(-1, 1, 4)
    (drawn,) = lines(plots.samples_figure(x, None, Real(), (1, 4), train=train, columns=2))
    assert drawn[..., 1].max() == pytest.approx(0.95)
    assert drawn[..., 1].min() == pytest.approx(0.05)


def test_one_stray_value_of_the_data_does_not_flatten_all_others():
    train = torch.linspace(0, 1, 4000).reshape(-1, 1, 4)
    train[7, 0, 0] = 1e6
    x = torch.tensor([[[0.0, 1.0]]])
    (drawn,) = lines(plots.samples_figure(x, None, Real(), (1, 2), train=train))
    assert drawn[0, 1, 1] - drawn[0, 0, 1] == pytest.approx(0.9, abs=0.01)


def test_what_was_given_is_broad_behind_what_is_ours():
    x = examples(2, (1, 4))
    (ax,) = plots.reconstructions_figure(x, x, Real()).axes
    behind, front = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert behind.get_linewidth()[0] > front.get_linewidth()[0]


def test_means_are_drawn_over_draws_and_every_channel_is_named():
    x = examples(5, SEQUENCE)
    figure = plots.samples_figure(x, x + 1, Discrete(17), SEQUENCE, train=x, labels=list("abcde"))
    draws_1, draws_2, means_1, means_2 = lines(figure)
    assert (means_1[..., 1] >= draws_1[..., 1]).all()
    assert not np.array_equal(draws_1, draws_2)
    assert draws_2.shape == means_2.shape == (5, 9, 2)
    names = [text.get_text() for text in figure.legends[0].texts]
    assert names[2:] == ["channel 1", "channel 2"]
    assert names[0] == "draws from p(x)"
    assert [text.get_text() for text in figure.axes[0].texts] == list("abcde")


@pytest.mark.parametrize("are_means", [False, True])
def test_means_of_sequences_alone_are_not_called_draws(are_means):
    x = examples(4, (1, 6))
    figure = plots.samples_figure(x, None, Real(), (1, 6), are_means=are_means)
    said = figure.axes[0].get_title(loc="left").lower()
    assert ("draws" in said) != are_means
    assert ("means of p(x|z)" in said) == are_means


def test_what_is_left_out_is_said():
    figure = plots.samples_figure(examples(103, (7, 4)), None, Real(), (7, 4))
    assert "the first 100 of 103" in figure.get_suptitle()
    assert "the first 5 of 7 channels" in figure.get_suptitle()
    assert [layer.shape for layer in lines(figure)] == [(100, 4, 2)] * 5


def test_reconstructions_and_comparisons_lie_over_their_examples():
    x = examples(7, (1, 9))
    example, same = lines(plots.reconstructions_figure(x, x, Discrete(17)))
    assert np.array_equal(example, same)
    _, other = lines(plots.reconstructions_figure(x, 0 * x, Discrete(17)))
    assert not np.array_equal(example, other)
    figure = plots.comparison_figure(x, [("a", x), ("b", 0 * x)], Discrete(17))
    example, means = lines(figure)
    assert np.array_equal(example[:6], means[:6])  # six to a row: the model above is perfect
    assert (means[6:, :, 1] < 0.06).all()
    (ax,) = figure.axes
    places = dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    assert places == {"a": 1.5, "b": 0.5}


def test_completions_of_sequences_are_lines_over_what_was_observed():
    x = examples(3, SEQUENCE)
    mask = torch.zeros_like(x)
    mask[..., :4] = 1
    context = torch.stack([x * mask, mask], 1)
    figure = plots.completions_figure(x, context, torch.stack([x] * 5), Discrete(17))
    assert [len(layer) for layer in lines(figure)] == [3, 3, 15, 15]
    patches = [c for c in figure.axes[0].collections if not isinstance(c, LineCollection)]
    frames, shaded = (len(c.get_paths()) for c in patches)
    assert (frames, shaded) == (3, 3 * 4)


def test_walks_and_planes_of_sequences():
    frames = examples(10, SEQUENCE).reshape(2, 5, *SEQUENCE)
    figure = plots.interpolations_figure(frames, Real())
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "1"]
    assert [len(layer) for layer in lines(figure)] == [10, 10]
    decoded = examples(25, SEQUENCE).reshape(5, 5, *SEQUENCE)
    (ax,) = plots.plane_figure(decoded, Real(), torch.linspace(-2, 2, 5)).axes
    assert ax.get_yticks().tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["−2", "−1", "0", "1", "2"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 2)])
def test_sequences_may_be_as_short_and_as_constant_as_they_like(shape):
    x = torch.full((1, *shape), 3.0)
    for figure in (
        plots.samples_figure(x, x, Real(), shape),
        plots.reconstructions_figure(x, x, Real()),
        plots.interpolations_figure(x.unsqueeze(0), Real()),
    ):
        assert all(np.isfinite(layer).all() for layer in lines(figure))
        assert all(layer.shape[1] > 1 for layer in lines(figure))


def test_a_volume_is_shown_as_its_middle_slice_and_said_to_be():
    x = examples(4, VOLUME)
    middle = x[:, :, 2]
    figures = {
        "samples": plots.samples_figure(x, None, Discrete(17), VOLUME),
        "of images": plots.samples_figure(middle, None, Discrete(17), (1, 6, 7)),
    }
    assert (grid_of(figures["samples"]) == grid_of(figures["of images"])).all()
    figures["reconstructions"] = plots.reconstructions_figure(x, x, Discrete(17))
    frames = x.reshape(2, 2, *VOLUME)
    figures["interpolations"] = plots.interpolations_figure(frames, Discrete(17))
    figures["plane"] = plots.plane_figure(frames, Discrete(17), torch.tensor([-1.0, 1.0]))
    figures["comparison"] = plots.comparison_figure(x, [("a", x)], Discrete(17))
    for name, figure in figures.items():
        said = "middle slice, 3 of 5" in figure.get_suptitle()
        assert said == (name != "of images"), name


def test_completions_of_volumes_grey_what_is_not_observed_of_the_slice():
    x = examples(2, VOLUME) + 1
    mask = torch.ones_like(x)
    mask[..., 2, :, :3] = 0  # of the middle slice alone
    context = torch.stack([x * mask, mask], 1)
    figure = plots.completions_figure(x, context, torch.stack([x, x]), Discrete(18))
    grid, cell = grid_of(figure), (48, 56)  # 6×7, enlarged eightfold
    observed = grid[cell[0] + 2 : 2 * cell[0] + 2, : cell[1], 0]
    assert (observed[:, : 3 * 8] == 128).all()
    assert (observed[:, 3 * 8 :] == grid[: cell[0], 3 * 8 : cell[1], 0]).all()


def test_a_line_runs_along_what_is_observed_in_every_completion():
    x = examples(3, (1, 4, 6)) + 1
    mask = torch.zeros_like(x)
    mask[..., 2:, :3] = 1  # the lower left
    mask[2] = 1 - mask[2]
    context = torch.stack([x * mask, mask], 1)
    figure = plots.completions_figure(x, context, torch.stack([x, x]), Discrete(18))
    (ax,) = figure.axes
    (outline,) = (c for c in ax.collections if isinstance(c, LineCollection))
    found = {tuple(map(tuple, line)) for line in outline.get_segments()}
    scale, cells = 12, (4 * 12 + 2, 6 * 12 + 2)
    expected = set()
    for row in (2, 3):  # of the example and what is observed there is none
        for column in range(3):
            top, left = row * cells[0] - 0.5, column * cells[1] - 0.5
            for i in (2, 3):
                side = left + 3 * scale
                expected |= {((side, top + i * scale), (side, top + (i + 1) * scale))}
            for j in range(3):
                edge = top + 2 * scale
                expected |= {((left + j * scale, edge), (left + (j + 1) * scale, edge))}
    assert found == expected


@pytest.mark.parametrize("observed", [0.0, 1.0])
def test_all_or_nothing_observed_has_no_line(observed):
    x = examples(2, (1, 4, 6))
    context = torch.stack([x * observed, torch.full_like(x, observed)], 1)
    figure = plots.completions_figure(x, context, x.unsqueeze(0), Discrete(18))
    assert not any(len(c.get_segments()) for c in figure.axes[0].collections)


@pytest.mark.parametrize("channels", [2, 5])
def test_of_channels_that_are_no_colours_the_first_is_shown_and_said_to_be(channels):
    x = examples(3, (channels, 4, 6))
    figure = plots.samples_figure(x, None, Discrete(17), x.shape[1:])
    assert f"channel 1 of {channels}" in figure.get_suptitle()
    assert (grid_of(figure) == plots.image_grid(x[:, :1] / 16, columns=2)).all()


def test_a_title_fits_into_its_figure():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    x = examples(1, (5, 5, 4, 4), 2)
    figure = plots.completions_figure(x, torch.stack([x, x], 1), x.unsqueeze(0), Binary())
    FigureCanvasAgg(figure).draw()
    assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1
