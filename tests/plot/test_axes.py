"""Value axes: cut, logarithmic or linear, so that most labels can be read."""

from __future__ import annotations

import numpy as np
import pytest
from figures import APART, history_of, of_means, pixels, shares, texts

import labeltrack as lt
from labeltrack.plot import plot_history


def with_spike(n, at, *, low=0.0):
    """Return a history of 20 steps of means from 1 to 3, and one sample of the middle label that is far off."""
    labels = np.repeat(np.arange(n), 20)
    steps = {}
    for step in range(1, 21):
        values = 1 + np.tile(np.linspace(0.0, 1.0, 20), n) + labels / n + 1 / step
        if step == at:
            values[labels.size // 2] = 1e4
            values[labels.size // 2 - 1] -= low
        steps[step] = (labels, values)
    return history_of({"train": steps, "eval": steps})


@pytest.mark.parametrize(("n", "kind"), [(3, "lines"), (10, "lines"), (10, "multiples")])
def test_an_early_spike_flattens_no_figure_and_the_axis_says_that_it_is_cut(n, kind):
    figure = plot_history(with_spike(n, 1), bounds="range", kind=kind)
    for axes in figure.axes:
        assert axes.get_ylim()[1] < 5
    said = " ".join(texts(figure))
    assert "axis cut, step 1 reaches 10,000" in said
    assert "loss, axis cut" in said


def test_an_axis_is_cut_at_both_ends_if_need_be():
    figure = plot_history(with_spike(3, 1, low=2e4), bounds="range")
    assert "step 1 reaches \u221219,997 and 10,000" in figure.axes[0].get_title(loc="left")
    low, high = figure.axes[0].get_ylim()
    assert 0 < low < 2 < high < 5


def test_a_spike_of_the_last_step_and_a_steep_start_are_not_cut():
    assert plot_history(with_spike(3, 20), bounds="range").axes[0].get_ylim()[1] > 1e4
    spiked = with_spike(3, 12)
    few = lt.History(metric="loss", label="class")
    for step in range(1, 21):
        few.add(step, spiked.at(step if step != 12 else 11, "train"), mode="train")
        if step <= 12:
            few.add(step, spiked.at(step, "eval"), mode="eval")
    assert plot_history(few, bounds="range").axes[0].get_ylim()[1] > 1e4  # the last of eval
    assert plot_history(spiked, bounds="range").axes[0].get_ylim()[1] < 5
    steep = of_means([[8 * 0.5**step for step in range(12)]] * 2)
    assert plot_history(steep).axes[0].get_ylim()[1] > 8


def test_labels_that_lie_decades_apart_have_a_logarithmic_axis_instead_of_a_cut_one():
    means = [[1e4, *[level] * 9] for level in (0.1, 1.0, 10.0, 100.0)]
    (axes,) = plot_history(of_means(means)).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[1] > 1e4


def test_means_that_wide_bands_would_make_one_line_have_a_logarithmic_axis():
    rng = np.random.default_rng(7)
    labels = np.repeat(np.arange(10), 50)
    skewed = {step: (labels, rng.lognormal(-3.0, 2.0, 500) * (10 / step**2)) for step in range(1, 11)}
    figure = plot_history(history_of({"eval": skewed}), bounds=["range", "std"])
    ranges, deviations = figure.axes[:10], figure.axes[10:]
    assert {axes.get_yscale() for axes in ranges} == {"log"}
    assert {axes.get_yscale() for axes in deviations} == {"linear"}  # those reach below zero
    assert "loss, log scale" in texts(figure)
    alike = {step: (labels, rng.lognormal(-3.0, 2.0, 500) * 10 + 5) for step in range(1, 11)}
    assert plot_history(history_of({"eval": alike}), bounds="range").axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("kind", ["lines", "multiples"])
@pytest.mark.parametrize(("last", "note"), [(0.002, ", log scale"), (0.0, ", log scale, linear at 0")])
def test_labels_that_lie_decades_apart_are_told_apart_on_a_logarithmic_axis(kind, last, note):
    means = [*APART[:2], [*APART[2][:2], last]]
    figure = plot_history(of_means(means), kind=kind, bounds=["std", "range"])
    pixels(figure)
    assert any(text.endswith(f"loss{note}") for text in texts(figure))
    for axes in figure.axes[: 1 if kind == "lines" else 3]:
        for label in range(3):
            points = [(1.0 + step, mean) for step, mean in enumerate(means[label])]
            heights = shares(axes, points)
            assert ((heights > 0) & (heights < 1)).all()
            assert heights[0] - heights[-1] > 0.05
        assert all(float(text.get_text()) >= 0 for text in axes.get_yticklabels() if text.get_text())


@pytest.mark.parametrize(
    "means",
    [
        [[3.0, 2.0], [2.9, 0.01], [2.8, 0.02]],  # each spans the whole panel
        [[0.9, 0.95], [0.8, 0.9], [0.85, 0.9], [0.001, 0.002]],  # one of four is small
        [[-3.0, 2.0], [1.0, -2.0]],
        [[1e8, 1e8 + 1], [1e8 + 5, 1e8 + 9]],
        [[5.0, 0.001]],
        [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]],
        [[np.nan, np.inf], [np.nan, np.nan]],
    ],
)
@pytest.mark.parametrize("kind", ["lines", "multiples"])
def test_labels_that_can_be_read_on_a_linear_axis_have_one(means, kind):
    figure = plot_history(of_means(means), kind=kind)
    pixels(figure)
    assert {axes.get_yscale() for axes in figure.axes} == {"linear"}


def test_a_band_that_reaches_zero_ends_where_a_logarithmic_panel_does():
    history = history_of({"train": {step: ([0, 0, 1, 1], [500.0, 900.0, 0.0, 0.5]) for step in (1, 2, 3)}})
    (axes,) = plot_history(history, bounds=["range"]).axes
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert 0.005 < low < 0.25
    assert 900 < high < 2000


@pytest.mark.parametrize("kind", ["lines", "multiples"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_label_without_finite_means_beside_some_that_lie_decades_apart_is_named(kind, steps):
    figure = plot_history(of_means([[np.inf] * steps, *(means[:steps] for means in APART)]), kind=kind)
    pixels(figure)
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert any("no finite mean" in text or text == "0" for text in texts(figure))
    for axes in figure.axes:
        for text in axes.texts:
            assert not text.get_text() or figure.bbox.contains(*text.get_window_extent().min)


@pytest.mark.parametrize("kind", ["lines", "multiples"])
@pytest.mark.parametrize(
    "means", [[5e-324, 1e-323, 1e-300], [1e-310, 1e-320, 1.0], [0.0, 1e-320, 1e280], [-1e-320, 1e5, 1.0]]
)
def test_the_smallest_doubles_do_not_break_an_axis(kind, means):
    for steps in (1, 3):
        pixels(plot_history(of_means([[mean] * steps for mean in means]), kind=kind))


@pytest.mark.parametrize("kind", ["lines", "multiples", "heatmap"])
@pytest.mark.parametrize("means", [[-1e308, 1.0, 1e308], [1e308, 1.5e308, 1.7e308], [0.0, 2.0, -1.7e308]])
def test_the_largest_doubles_are_drawn_as_infinite_ones_and_do_not_break_a_figure(kind, means):
    figure = plot_history(of_means([[mean] * 3 for mean in means]), kind=kind)
    pixels(figure)
    assert any("NaN or infinite" in text for text in texts(figure))


def test_a_single_step_of_labels_that_lie_decades_apart_is_logarithmic():
    for kind in ("lines", "multiples"):
        figure = plot_history(of_means([means[:1] for means in APART]), kind=kind)
        pixels(figure)
        assert {axes.get_yscale() for axes in figure.axes} == {"log"}
