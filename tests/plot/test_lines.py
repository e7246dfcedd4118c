"""Lines: what is drawn where, in which colour, and named at its end. Small multiples: order, emphasis and axes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from figures import (
    APART,
    SAMPLES,
    assert_looks_like,
    course,
    drawn_lines,
    expected_edges,
    history_of,
    marked,
    of_means,
    pixels,
    polygons,
    shares,
    texts,
    titles,
)
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from labeltrack.plot import plot_history


def test_lines_of_three_labels_look_as_they_did(tmp_path):
    figure = plot_history(course(3, 12), bounds=["std", "range"], units="nats")
    assert_looks_like(figure, "lines.png", tmp_path, dpi=55)


@pytest.mark.parametrize("bound", ["std", "range"])
def test_bands_of_lines_are_drawn_where_the_numbers_say(bound):
    (axes,) = plot_history(history_of(SAMPLES), bounds=bound).axes
    bands = polygons(axes)
    assert len(bands) == 4
    for band, (mode, label) in zip(bands, [(mode, label) for mode in SAMPLES for label in (0, 1)], strict=True):
        corners = band.get_paths()[0].vertices
        edges = expected_edges(mode, label, bound)
        for column, step in enumerate((1, 3)):
            heights = corners[corners[:, 0] == step][:, 1]
            assert heights.min() == pytest.approx(edges[column, 0], rel=1e-15)
            assert heights.max() == pytest.approx(edges[column, 1], rel=1e-15)


def test_lines_join_the_means():
    (axes,) = plot_history(history_of(SAMPLES)).axes
    lines = [line.get_xydata().tolist() for line in drawn_lines(axes)]
    assert lines == [
        [[1.0, 2.5], [3.0, 1.25]],
        [[1.0, 2.25], [3.0, 3.25]],
        [[1.0, 2.5], [3.0, 1.25]],
        [[1.0, 2.5], [3.0, 5.25]],
    ]


def test_no_bound_draws_no_band():
    (axes,) = plot_history(history_of(SAMPLES), bounds=None).axes
    assert polygons(axes) == []
    assert axes.get_title(loc="left") == "mean"


def test_labels_of_few_have_different_colours():
    (axes,) = plot_history(course(6, 2, modes=["train"])).axes
    assert len({to_rgba(line.get_color()) for line in drawn_lines(axes)}) == 6


def test_lines_of_many_labels_colour_the_worst_six_and_grey_the_rest():
    history = of_means([[1.0 + k, 1.0 + k] for k in range(20)])
    figure = plot_history(history, kind="lines")
    (axes,) = figure.axes
    assert len(drawn_lines(axes)) == 6
    (grey,) = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    assert [segment[0, 1] for segment in grey.get_segments()] == [1.0 + k for k in range(14)]
    assert "14 other labels, without band" in texts(figure)
    assert set(texts(figure)) >= {"14", "15", "16", "17", "18", "19"}


@pytest.mark.parametrize("spiking", [1, 6])
def test_a_label_whose_line_ends_beyond_a_cut_axis_is_named_within_the_figure(spiking, tmp_path):
    means = np.tile(1 / np.arange(1.0, 13), (3, 1))
    means[1, spiking - 1 :] = 5000.0, *[np.nan] * (12 - spiking)  # it explodes, and has no finite mean from then on
    figure = of_means(means).plot(bounds=None)
    assert "axis cut" in figure.axes[0].get_title(loc="left")
    figure.savefig(tmp_path / "figure.png")
    page = figure.bbox
    names = [text for text in figure.axes[0].texts if text.get_text()]
    assert len(names) == 3
    for text in names:
        box = text.get_window_extent()
        assert page.y0 < box.y0 < box.y1 < page.y1


def test_a_line_breaks_where_the_label_does_not_occur():
    (axes,) = plot_history(of_means([[1, 1, 1, 1], [None, None, 5, 6]])).axes
    late = drawn_lines(axes)[1]
    assert np.isnan(late.get_ydata()).tolist() == [True, True, False, False]


def test_a_step_without_neighbours_is_marked_and_its_band_is_a_bar():
    samples = {step: ([0, 0, 1, 1], [1.0, 2.0, 3.0, 5.0]) for step in range(1, 31)}
    samples |= {step: ([0, 0], [1.0, 2.0]) for step in (4, 6)}
    figure = plot_history(history_of({"train": samples}), bounds="range")
    (axes,) = figure.axes
    assert marked(axes, "o") == [(5.0, 4.0)]  # 30 steps are too many to mark each
    (bar,) = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    assert [segment.tolist() for segment in bar.get_segments()] == [[[5.0, 3.0], [5.0, 5.0]]]


@pytest.mark.parametrize("mean", [1.0, 1e8, -5.0])
def test_names_at_the_ends_of_lines_do_not_overlap(mean):
    history = of_means([[mean, mean + k * 1e-3 + (k == 5)] for k in range(6)])
    figure = plot_history(history)
    pixels(figure)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    heights = [box.y0 for box in boxes]
    assert heights == sorted(heights)


def test_a_name_stands_at_the_line_that_reaches_furthest():
    samples = {"train": {step: ([0, 1], [1.0, 4.0]) for step in range(9)}, "eval": {3: ([0, 1], [2.0, 3.0])}}
    figure = plot_history(history_of(samples))
    pixels(figure)
    (axes,) = figure.axes
    ends = [text.xy for text in axes.texts if not text.get_text()]
    assert ends == [(8.0, 1.0), (8.0, 4.0)]


def test_names_stand_at_the_ends_of_lines_on_a_logarithmic_axis():
    figure = plot_history(of_means(APART))
    pixels(figure)
    (axes,) = figure.axes
    named = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_text()}
    wanted = shares(axes, [(3.0, means[-1]) for means in APART])
    assert [named[str(label)] for label in range(3)] == pytest.approx(wanted.tolist(), abs=1e-9)


# -- small multiples ----------------------------------------------------------------------------------------


def test_multiples_of_ten_labels_look_as_they_did(tmp_path):
    assert_looks_like(plot_history(course(10, 20), units="nats", x_label="epoch"), "multiples.png", tmp_path, dpi=60)


def test_bands_of_multiples_are_drawn_where_the_numbers_say():
    figure = plot_history(history_of(SAMPLES), kind="multiples", bounds="range", modes="eval")
    assert titles(figure) == ["1", "0"]
    for axes, label in zip(figure.axes, (1, 0), strict=True):
        (band,) = polygons(axes)
        corners = band.get_paths()[0].vertices
        for step, (low, high) in zip((1, 3), expected_edges("eval", label, "range"), strict=True):
            heights = corners[corners[:, 0] == step][:, 1]
            assert (heights.min(), heights.max()) == (low, high)


@pytest.mark.parametrize(("higher_is_worse", "expected"), [(True, ["1", "3", "0", "2"]), (False, ["2", "0", "3", "1"])])
def test_panels_are_worst_first(higher_is_worse, expected):
    history = of_means([[9, 3], [1, 8], [5, 1], [2, 4]])
    assert titles(plot_history(history, kind="multiples", higher_is_worse=higher_is_worse)) == expected


def test_the_worst_panels_are_emphasised():
    figure = plot_history(course(10, 3, modes=["train"]))
    left = [axes._left_title.get_fontweight() for axes in figure.axes]
    assert left == ["bold"] * 3 + ["normal"] * 7
    assert len({to_rgba(drawn_lines(axes)[0].get_color()) for axes in figure.axes[:3]}) == 1
    assert drawn_lines(figure.axes[0])[0].get_color() != drawn_lines(figure.axes[3])[0].get_color()


def test_multiples_share_an_axis_only_where_that_can_be_read():
    near = plot_history(of_means([[1, 2], [2, 3], [1, 4]]), kind="multiples")
    assert len({axes.get_ylim() for axes in near.axes}) == 1
    far = plot_history(of_means([[1e8, 1e8 + 1], [2, 3], [5e7, 5e7 + 3]]), kind="multiples")
    assert len({axes.get_ylim() for axes in far.axes}) == 3
    assert any("each panel has its own scale" in text for text in texts(far))
    assert "the other labels" in texts(near)
    assert "the other labels" not in texts(far)
