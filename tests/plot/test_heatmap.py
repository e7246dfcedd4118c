"""Heatmaps: rows, columns, cells, and the scale of colours."""

from __future__ import annotations

import numpy as np
import pytest
from figures import (
    SAMPLES,
    assert_looks_like,
    course,
    expected_edges,
    heatmaps,
    history_of,
    of_means,
    quartiles,
    texts,
    titles,
)
from matplotlib.colors import AsinhNorm, LogNorm

from labeltrack.plot import plot_history


def test_a_heatmap_of_a_hundred_labels_looks_as_it_did(tmp_path):
    assert_looks_like(plot_history(course(100, 20), units="nats", x_label="epoch"), "heatmap.png", tmp_path, dpi=50)


def test_heatmaps_show_the_means_and_half_the_bands():
    figure = plot_history(history_of(SAMPLES), kind="heatmap", bounds=["std", "range", None])
    maps = [axes.images[0].get_array().tolist() for axes in heatmaps(figure)]
    std = {
        (mode, label): (expected_edges(mode, label, "std") @ [-0.5, 0.5]).tolist()
        for mode in SAMPLES
        for label in (0, 1)
    }
    assert maps[:2] == [[[2.25, 3.25], [2.5, 1.25]], [[2.5, 5.25], [2.5, 1.25]]]  # label 1 is worst in eval
    assert maps[2:4] == [pytest.approx(np.array([std[mode, 1], std[mode, 0]]), rel=1e-14) for mode in ("train", "eval")]
    assert maps[4:] == [[[0.25, 0.25], [1.5, 0.75]], [[1.5, 0.75], [0.5, 0.25]]]


def test_a_heatmap_shows_medians_and_half_the_distance_of_quantiles():
    history = history_of(SAMPLES, quantiles=[0.25, 0.5, 0.75])
    figure = plot_history(history, kind="heatmap", bounds=["median", ("quantile", 0.25, 0.75)], modes="eval")
    maps = [axes.images[0].get_array().tolist() for axes in heatmaps(figure)]
    worst_first = [quartiles("eval", label) for label in (1, 0)]
    assert maps[1] == [quantiles[:, 1].tolist() for quantiles in worst_first]
    assert maps[2] == [((quantiles[:, 2] - quantiles[:, 0]) / 2).tolist() for quantiles in worst_first]
    assert [title.split("\n")[1] for title in titles(figure)[:3]] == [
        "mean",
        "median",
        "quantile 0.25 0.75, half the band",
    ]


def test_a_heatmap_has_one_scale_for_all_modes():
    train, evaluated, *_ = heatmaps(plot_history(history_of(SAMPLES), kind="heatmap"))
    assert train.images[0].norm is evaluated.images[0].norm
    assert (train.images[0].norm.vmin, train.images[0].norm.vmax) == (1.25, 5.25)


def test_rows_of_a_heatmap_are_worst_at_the_top():
    axes = heatmaps(plot_history(of_means([[9, 3], [1, 8], [5, 1], [2, 4]]), kind="heatmap"))[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "3", "0", "2"]
    assert axes.images[0].get_array()[:, -1].tolist() == [8.0, 4.0, 3.0, 1.0]
    assert axes.images[0].origin == "upper"


def test_a_heatmap_tells_no_samples_from_no_number():
    figure = plot_history(of_means([[1, None, 2], [1, np.inf, np.nan], [4, 4, 4]]), kind="heatmap", bounds=None)
    (axes,) = heatmaps(figure)
    values, marks = axes.images
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "2", "0"]
    assert values.get_array().mask.tolist() == [[False, True, True], [False] * 3, [False, True, False]]
    assert (~marks.get_array().mask).tolist() == [[False, True, True], [False] * 3, [False] * 3]
    assert {"no samples", "NaN or infinite"} <= set(texts(figure))
    whole = plot_history(of_means([[1, 2], [3, 4]]), kind="heatmap")
    assert whole.legends == []
    assert [len(axes.images) for axes in heatmaps(whole)] == [1, 1]


def bar_label(history):
    figure = plot_history(history, kind="heatmap", bounds=None)
    (axes,) = heatmaps(figure)
    (label,) = [axes.get_xlabel() for axes in figure.axes if not axes.images]
    return axes.images[0], label


def test_values_over_several_magnitudes_have_a_log_scale_and_the_bar_says_so():
    image, label = bar_label(of_means([[10.0 ** (k / 10)] for k in range(40)]))
    assert isinstance(image.norm, LogNorm)
    assert image.norm.vmax == pytest.approx(10**3.9)
    assert label.startswith("mean loss\nlog scale")


def test_a_value_without_a_logarithm_is_drawn_as_the_lowest():
    image, label = bar_label(of_means([[10.0 ** (k / 40)] for k in range(99)] + [[0.0]]))
    assert isinstance(image.norm, LogNorm)
    assert not np.ma.getmaskarray(image.get_array()).any()
    assert image.get_array()[-1, 0] == image.norm.vmin > 0
    assert label == "mean loss\nlog scale, what is below its end as one colour"


def test_outliers_about_zero_get_a_scale_that_holds_them():
    image, label = bar_label(of_means([[(-1.0) ** k * k] for k in range(80)] + [[9000.0]]))
    assert isinstance(image.norm, AsinhNorm)
    assert (image.norm.vmin, image.norm.vmax) == (-79.0, 9000.0)
    assert label == "mean loss\nlinear about 0, logarithmic further out"


def test_outliers_far_from_zero_are_cut_off_and_the_bar_says_so():
    image, label = bar_label(of_means([[1e8 + k] for k in range(80)] + [[2e8]]))
    assert (image.norm.vmin, image.norm.vmax) == (1e8, pytest.approx(1e8 + 79, abs=60))
    assert image.get_array()[0, 0] == 2e8
    assert image.colorbar.extend == "max"
    assert label == "mean loss\noutliers beyond the ends as one colour"


def test_even_values_have_a_plain_scale():
    image, label = bar_label(of_means([[float(k)] for k in range(1, 40)]))
    assert (type(image.norm).__name__, image.norm.vmin, image.norm.vmax) == ("Normalize", 1.0, 39.0)
    assert label == "mean loss"


def test_one_value_everywhere_has_a_scale_around_it():
    image, _ = bar_label(of_means([[2.0, 2.0]] * 3))
    assert image.norm.vmin < 2.0 < image.norm.vmax


def test_the_bright_end_is_the_bad_one():
    history = of_means([[1.0], [2.0]])
    for higher_is_worse in (True, False):
        axes = heatmaps(plot_history(history, kind="heatmap", higher_is_worse=higher_is_worse))[0]
        worst, best = (
            sum(axes.images[0].to_rgba(value)[:3]) for value in ((2.0, 1.0) if higher_is_worse else (1.0, 2.0))
        )
        assert worst > best


def test_columns_of_a_heatmap_are_named_by_round_steps_where_there_are():
    axes = heatmaps(plot_history(of_means([[1.0] * 60] * 2), kind="heatmap"))[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["10", "20", "30", "40", "50", "60"]
    assert axes.get_xticks().tolist() == [9, 19, 29, 39, 49, 59]
    odd = history_of({"train": {step: ([0], [1.0]) for step in (1, 2, 5, 40)}})
    axes = heatmaps(plot_history(odd, kind="heatmap"))[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "5", "40"]
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]
    axes = heatmaps(plot_history(history_of({"train": {p: ([0], [1.0]) for p in primes}}), kind="heatmap"))[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "5", "11", "17", "23", "31"]
