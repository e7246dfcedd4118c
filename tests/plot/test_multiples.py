"""Small multiples: order, emphasis and axes of the panels."""

from __future__ import annotations

import pytest
from figures import (
    SAMPLES,
    assert_looks_like,
    course,
    drawn_lines,
    expected_edges,
    history_of,
    of_means,
    polygons,
    texts,
    titles,
)
from matplotlib.colors import to_rgba

from labeltrack.plot import plot_history


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
