"""Which kind of figure is drawn, and what all kinds have in common."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from figures import (
    SAMPLES,
    course,
    drawn_lines,
    heatmaps,
    history_of,
    of_means,
    pixels,
    polygons,
    quartiles,
    texts,
    titles,
)
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from labeltrack.plot import plot_history


@pytest.mark.parametrize(
    ("n", "kind"), [(1, "lines"), (6, "lines"), (7, "multiples"), (39, "multiples"), (40, "heatmap")]
)
def test_the_number_of_labels_chooses_the_kind(n, kind):
    figure = plot_history(course(n, 2, modes=["train"]))
    panels = len(figure.axes)
    maps = len(heatmaps(figure))
    assert (panels, maps) == {"lines": (1, 0), "multiples": (n, 0), "heatmap": (4, 2)}[kind]


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_every_kind_can_be_forced(n):
    history = course(n, 3)
    assert len(plot_history(history, kind="lines").axes) == 1
    assert len(plot_history(history, kind="multiples").axes) == n
    assert len(heatmaps(plot_history(history, kind="heatmap"))) == 4


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match="kind: unknown option 'pie'; allowed are 'auto', 'lines', 'multiples', 'heatmap', 'grid'"
    ):
        plot_history(course(2, 1), kind="pie")


def test_more_panels_than_anybody_can_look_at_are_refused():
    with pytest.raises(ValueError, match=r"202 are too many \(at most 200\).*top=20.*kind='heatmap'"):
        plot_history(course(101, 1), kind="multiples", bounds=["std", "range"])


@pytest.mark.parametrize("kind", ["lines", "multiples"])
def test_quartiles_lie_around_the_median(kind):
    history = history_of(SAMPLES, quantiles=[0.25, 0.5, 0.75])
    figure = plot_history(history, bounds=["iqr", "median"], kind=kind, modes="eval")
    panels = [(axes, label) for axes in figure.axes[:1] for label in (0, 1)]
    if kind == "multiples":
        panels = list(zip(figure.axes, (1, 0), strict=False))
    for place, (axes, label) in enumerate(panels):
        wanted = quartiles("eval", label)
        band = polygons(axes)[place if kind == "lines" else 0]
        corners = band.get_paths()[0].vertices
        for step, (low, _, high) in zip((1, 3), wanted, strict=True):
            heights = corners[corners[:, 0] == step][:, 1]
            assert (heights.min(), heights.max()) == (low, high)
        lines = [line.get_xydata().tolist() for line in drawn_lines(axes)]
        assert [[1.0, wanted[0, 1]], [3.0, wanted[1, 1]]] in lines
    if kind == "multiples":  # the courses behind a panel are what the panel shows
        (behind,) = [artist for artist in figure.axes[0].collections if isinstance(artist, LineCollection)]
        shown = {tuple(segment[:, 1].tolist()) for segment in behind.get_segments()}
        assert shown == {tuple(quartiles("eval", label)[:, 1].tolist()) for label in (0, 1)}


@pytest.mark.parametrize(("n", "mode"), [(10, None), (100, "eval"), (1000, "eval")])
def test_highlighted_labels_are_in_colour_and_named_above_all_others_in_grey(n, mode):
    history = course(n, 3, named=False)
    (axes,) = plot_history(history, modes=mode, highlight=[n - 1, 4]).axes
    lines = drawn_lines(axes)
    shown = [history.series(k, mode=of)[1].tolist() for of in ([mode] if mode else history.modes) for k in (4, n - 1)]
    assert [line.get_ydata().tolist() for line in lines] == shown
    assert len({to_rgba(line.get_color()) for line in lines}) == 2
    assert {"4", str(n - 1)} <= {text.get_text() for text in axes.texts}
    behind = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    assert {len(artist.get_segments()) for artist in behind if len(artist.get_segments()) > 2} == {n - 2}
    assert f"{n - 2} other labels, without band" in texts(axes.figure)


@pytest.mark.parametrize(("n", "chosen"), [(10, [3, 8]), (60, [3, 8, 50]), (300, [7, 299])])
def test_highlighted_labels_stand_out_in_every_kind(n, chosen):
    history = course(n, 3, named=False)
    if n == 10:
        figure = plot_history(history, kind="multiples", highlight=chosen)
        bold = {axes.get_title(loc="left") for axes in figure.axes if axes._left_title.get_fontweight() == "bold"}
        assert "highlighted" in texts(figure)
    else:
        axes = plot_history(history, kind="heatmap", highlight=chosen).axes[0]
        bold = {text.get_text() for text in axes.get_yticklabels() if text.get_fontweight() == "bold"}
    assert bold == {str(label) for label in chosen}


@pytest.mark.parametrize("kind", ["lines", "multiples", "heatmap"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_history_without_any_finite_value_is_drawn_all_the_same(kind, steps):
    figure = plot_history(of_means([[np.nan] * steps, [np.inf] * steps]), kind=kind)
    pixels(figure)
    assert any("NaN or infinite" in text for text in texts(figure))
    if kind == "lines":
        assert sum("(no finite mean)" in text for text in texts(figure)) == 2


def test_ten_thousand_labels_are_a_few_artists_with_the_worst_named():
    history = of_means([[float(k), float(k)] for k in range(10_000)])
    figure = plot_history(history)
    pixels(figure)
    assert len(figure.findobj()) < 1500
    top, bottom = heatmaps(figure)[::2]
    assert [tick.get_text() for tick in top.get_yticklabels()] == [str(k) for k in range(9999, 9974, -1)]
    assert bottom.images[0].get_array().shape == (10_000, 2)
    assert [tick.get_text() for tick in bottom.get_yticklabels()] == ["1", "2000", "4000", "6000", "8000", "10000"]
    assert {"the 25 worst", "all 10000 labels, by rank"} <= set(texts(figure))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", ["lines", "multiples", "heatmap"])
def test_a_label_without_samples_is_named_and_said_to_have_none(kind, steps):
    mapping = {"cat": 0, "dog": 1, "eel": 2}
    samples = {"eval": {step: ([0, 1] if step < 2 else [0], [1.0, 2.0][: 1 + (step < 2)]) for step in range(steps)}}
    figure = plot_history(history_of(samples, names=mapping).with_absent(), kind=kind)
    pixels(figure)
    said = texts(figure)
    assert any("eel" in text for text in said)
    assert any("no samples" in text for text in said)
    assert not any("NaN" in text or "no finite" in text for text in said)
    if kind == "heatmap":
        assert [tick.get_text() for tick in heatmaps(figure)[0].get_yticklabels()] == ["dog", "cat", "eel"]
    elif kind == "multiples":
        assert titles(figure) == ["dog", "cat", "eel"]


@pytest.mark.parametrize("kind", ["lines", "multiples", "heatmap"])
@pytest.mark.parametrize(
    "steps",
    [(-(2**62), 2**62), (0, 2**62, 2**63 - 1), (-(2**63), 2**63 - 1), (5, 10**12), (-5 * 10**18, 0, 5 * 10**18)],
)
def test_steps_that_are_far_apart_are_drawn_where_they_are(kind, steps):
    history = history_of({"train": {step: ([0, 1], [1.0, 2.0]) for step in steps}})
    figure = plot_history(history, kind=kind)
    pixels(figure)
    assert not any("counted from" in text for text in texts(figure))
    if kind != "heatmap":
        assert drawn_lines(figure.axes[0])[0].get_xdata().tolist() == [float(step) for step in steps]
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text() and not axes.images]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
