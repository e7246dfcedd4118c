"""Figures: compared with stored ones; and their numbers, order and words, compared with what they must show."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import AsinhNorm, LogNorm, to_rgba
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import labeltrack as lt
from labeltrack.plot import plot_history

BASELINE = Path(__file__).parent / "baseline"
ANIMALS = ["cat", "dog", "horse", "frog", "deer", "bird", "ship", "truck", "plane", "car"]


def history_of(samples, *, names=None, quantiles=(), **kwargs):
    """Build a history from ``{mode: {step: (labels, values)}}``."""
    history = lt.History(metric="loss", label="class", **kwargs)
    for mode, steps in samples.items():
        for step, (labels, values) in steps.items():
            history.add(step, lt.label_stats(labels, values, label_mapping=names, quantiles=quantiles), mode=mode)
    return history


def of_means(means, *, mode="train", first=1):
    """Build a history of one sample per label and step: ``means`` is ``(K, S)``, None where a label does not occur."""
    steps = {}
    for column in range(len(means[0])):
        there = [k for k in range(len(means)) if means[k][column] is not None]
        steps[first + column] = (there, [float(means[k][column]) for k in there])
    return history_of({mode: steps})


def course(n, epochs, *, modes=("train", "eval"), named=True):
    """Build a plausible run of n labels: most get better, one in ten gets worse in eval."""
    rng = np.random.default_rng(7)
    start, rate = rng.uniform(0.8, 1.6, n), rng.uniform(0.03, 0.2, n)
    samples = {mode: {} for mode in modes}
    for epoch in range(1, epochs + 1):
        for mode in modes:
            mean = start * np.exp(-rate * epoch) + 0.1
            if mode == "eval":
                mean = mean + np.where(np.arange(n) % 10 == 1, 0.06 * epoch, 0.05)
            labels = np.repeat(np.arange(n), 20)
            samples[mode][epoch] = (labels, rng.normal(mean[labels], 0.25 * mean[labels]))
    names = {ANIMALS[k] if n <= len(ANIMALS) else f"class_{k:03d}": k for k in range(n)}
    return history_of(samples, names=names if named else None)


def texts(figure):
    """Return all text of a figure, with line breaks as spaces."""
    return [
        " ".join(text.get_text().split("\n")) for text in figure.findobj(Text) if text.get_text() and text.get_visible()
    ]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def heatmaps(figure):
    return [axes for axes in figure.axes if axes.images]


def polygons(axes):
    return [artist for artist in axes.collections if isinstance(artist, PolyCollection)]


def drawn_lines(axes, colour=None):
    """Return the lines that join means: neither markers nor the thin edges of bands."""
    found = [line for line in axes.get_lines() if line.get_linestyle() != "None" and line.get_linewidth() > 1]
    return [line for line in found if colour is None or to_rgba(line.get_color()) == to_rgba(colour)]


def marked(axes, marker):
    """Return the points drawn as a marker, as ``(x, y)`` pairs."""
    lines = [line for line in axes.get_lines() if line.get_marker() == marker]
    return sorted((float(x), float(y)) for line in lines for x, y in line.get_xydata())


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


# -- stored figures ---------------------------------------------------------------------------------------

# Each minor version of matplotlib lays out text a little differently, which moves everything else.
BASELINE_VERSION = "3.11"

# Root mean square difference of colour values from 0 to 255. One missing band of six gives 2.9, solid instead of dashed
# lines 3.8, a moved legend 5, another colour of one label 7.6; slightly different antialiasing much less.
TOLERANCE = 2.0


def assert_looks_like(figure, name, tmp_path, dpi):
    if mpl.__version__.rpartition(".")[0] != BASELINE_VERSION:
        pytest.skip(f"the stored figures are of matplotlib {BASELINE_VERSION}, this is {mpl.__version__}")
    actual = tmp_path / name
    with mpl.rc_context({"font.family": ["DejaVu Sans"]}):
        figure.savefig(actual, dpi=dpi, metadata={"Software": None})
    expected = tmp_path / f"expected-{name}"
    shutil.copy(BASELINE / name, expected)
    difference = compare_images(str(expected), str(actual), TOLERANCE)
    assert difference is None, f"{difference}\nIf the new figure is right, copy {actual} to {BASELINE / name}"


def test_lines_of_three_labels_look_as_they_did(tmp_path):
    figure = plot_history(course(3, 12), bounds=["std", "range"], units="nats")
    assert_looks_like(figure, "lines.png", tmp_path, dpi=55)


def test_multiples_of_ten_labels_look_as_they_did(tmp_path):
    assert_looks_like(plot_history(course(10, 20), units="nats", x_label="epoch"), "multiples.png", tmp_path, dpi=60)


def test_a_heatmap_of_a_hundred_labels_looks_as_it_did(tmp_path):
    assert_looks_like(plot_history(course(100, 20), units="nats", x_label="epoch"), "heatmap.png", tmp_path, dpi=50)


# -- which kind -------------------------------------------------------------------------------------------


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


# -- numbers ----------------------------------------------------------------------------------------------

SAMPLES = {
    "train": {1: ([0, 0, 1, 1], [1.0, 4.0, 2.0, 2.5]), 3: ([0, 0, 1, 1], [0.5, 2.0, 3.0, 3.5])},
    "eval": {1: ([0, 0, 1, 1], [2.0, 3.0, 4.0, 1.0]), 3: ([0, 0, 1, 1], [1.5, 1.0, 6.0, 4.5])},
}


def expected_edges(mode, label, bound):
    edges = []
    for labels, values in SAMPLES[mode].values():
        own = np.array(values)[np.array(labels) == label]
        mean, std = own.mean(), own.std(ddof=1)
        edges.append((mean - std, mean + std) if bound == "std" else (own.min(), own.max()))
    return np.array(edges)


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


def test_bands_of_multiples_are_drawn_where_the_numbers_say():
    figure = plot_history(history_of(SAMPLES), kind="multiples", bounds="range", modes="eval")
    assert titles(figure) == ["1", "0"]
    for axes, label in zip(figure.axes, (1, 0), strict=True):
        (band,) = polygons(axes)
        corners = band.get_paths()[0].vertices
        for step, (low, high) in zip((1, 3), expected_edges("eval", label, "range"), strict=True):
            heights = corners[corners[:, 0] == step][:, 1]
            assert (heights.min(), heights.max()) == (low, high)


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


def quartiles(mode, label):
    own = [np.array(values)[np.array(labels) == label] for labels, values in SAMPLES[mode].values()]
    return np.array([np.quantile(some, [0.25, 0.5, 0.75]) for some in own])


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


def test_quantiles_that_were_not_computed_are_explained():
    with pytest.raises(ValueError, match=r"no quantile 0\.25: quantiles are computed only on request"):
        plot_history(history_of(SAMPLES), bounds="iqr")


def test_a_heatmap_has_one_scale_for_all_modes():
    train, evaluated, *_ = heatmaps(plot_history(history_of(SAMPLES), kind="heatmap"))
    assert train.images[0].norm is evaluated.images[0].norm
    assert (train.images[0].norm.vmin, train.images[0].norm.vmax) == (1.25, 5.25)


def test_datasets_are_pooled():
    history = lt.History()
    history.add_all(1, {"a": lt.label_stats([0, 0], [1.0, 2.0]), "b": lt.label_stats([0], [6.0])})
    (axes,) = plot_history(history).axes
    assert marked(axes, "o") == [(1.0, 3.0)]


# -- modes told apart -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lines", "multiples"])
def test_train_is_solid_and_eval_dashed_and_the_legend_says_so(kind):
    figure = plot_history(history_of(SAMPLES), kind=kind)
    for axes in figure.axes:
        lines = drawn_lines(axes)
        assert [line.is_dashed() for line in lines] == [False] * (len(lines) // 2) + [True] * (len(lines) // 2)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["train", "eval"]
    assert [handle.is_dashed() for handle in legend.legend_handles[:2]] == [False, True]
    thin, thick = (handle.get_linewidth() for handle in legend.legend_handles[:2])  # for print in grey
    assert 1.3 * thin < thick


def test_steps_of_two_modes_are_marked_differently():
    (axes,) = plot_history(history_of(SAMPLES)).axes
    filled = {line.get_markerfacecolor() for line in axes.get_lines() if line.get_marker() == "o"}
    assert filled == {"#0072B2", "#D55E00", "white"}


def test_labels_of_few_have_different_colours():
    (axes,) = plot_history(course(6, 2, modes=["train"])).axes
    assert len({to_rgba(line.get_color()) for line in drawn_lines(axes)}) == 6


# -- order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("higher_is_worse", "expected"), [(True, ["1", "3", "0", "2"]), (False, ["2", "0", "3", "1"])])
def test_panels_are_worst_first(higher_is_worse, expected):
    history = of_means([[9, 3], [1, 8], [5, 1], [2, 4]])
    assert titles(plot_history(history, kind="multiples", higher_is_worse=higher_is_worse)) == expected


def test_rows_of_a_heatmap_are_worst_at_the_top():
    axes = heatmaps(plot_history(of_means([[9, 3], [1, 8], [5, 1], [2, 4]]), kind="heatmap"))[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "3", "0", "2"]
    assert axes.images[0].get_array()[:, -1].tolist() == [8.0, 4.0, 3.0, 1.0]
    assert axes.images[0].origin == "upper"


def test_nan_is_worst_a_label_that_vanished_has_its_last_mean_and_one_of_another_mode_comes_last():
    history = of_means([[1, 2], [7, None], [1, np.nan], [5, 3]], mode="eval")
    history.add(1, lt.label_stats([9], [99.0]), mode="train")
    figure = plot_history(history, kind="multiples", modes=["train", "eval"])
    assert titles(figure) == ["2", "1", "3", "0", "9"]


def test_the_last_mode_listed_ranks_and_the_picture_says_so():
    history = history_of(
        {"train": {1: ([0, 1], [1.0, 2.0])}, "eval": {1: ([0, 1], [2.0, 1.0]), 5: ([0, 1], [4.0, 3.0])}}
    )
    by_eval = plot_history(history, kind="multiples")
    by_train = plot_history(history, kind="multiples", modes=["eval", "train"])
    assert (titles(by_eval), titles(by_train)) == (["0", "1"], ["1", "0"])
    assert "mean ± one standard deviation; worst first by the mean in mode eval at step 5" in texts(by_eval)
    assert "labels worst first by the mean in mode eval at epoch 5" in texts(
        plot_history(history, kind="heatmap", x_label="epoch")
    )


def test_eval_ranks_unless_modes_are_listed():
    history = history_of(
        {"train": {1: ([0, 1], [1.0, 2.0])}, "eval": {1: ([0, 1], [2.0, 1.0])}, "test": {1: ([0, 1], [1.0, 2.0])}}
    )
    assert titles(plot_history(history, kind="multiples")) == ["0", "1"]
    assert titles(plot_history(history, kind="multiples", modes=["eval", "test"])) == ["1", "0"]


def test_the_worst_panels_are_emphasised():
    figure = plot_history(course(10, 3, modes=["train"]))
    left = [axes._left_title.get_fontweight() for axes in figure.axes]
    assert left == ["bold"] * 3 + ["normal"] * 7
    assert len({to_rgba(drawn_lines(axes)[0].get_color()) for axes in figure.axes[:3]}) == 1
    assert drawn_lines(figure.axes[0])[0].get_color() != drawn_lines(figure.axes[3])[0].get_color()


def test_lines_of_many_labels_colour_the_worst_six_and_grey_the_rest():
    history = of_means([[1.0 + k, 1.0 + k] for k in range(20)])
    figure = plot_history(history, kind="lines")
    (axes,) = figure.axes
    assert len(drawn_lines(axes)) == 6
    (grey,) = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    assert [segment[0, 1] for segment in grey.get_segments()] == [1.0 + k for k in range(14)]
    assert "14 other labels, without band" in texts(figure)
    assert set(texts(figure)) >= {"14", "15", "16", "17", "18", "19"}


# -- gaps, single steps, values that are not finite ------------------------------------------------------


# -- highlight and top ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("higher_is_worse", [True, False])
def test_top_draws_only_the_worst_labels_of_the_last_step(higher_is_worse):
    history = course(100, 4, named=False)
    last = history.at(4, "eval")
    worst = last.labels[np.argsort(last.mean)[::-1] if higher_is_worse else np.argsort(last.mean)]
    figure = plot_history(history, top=9, higher_is_worse=higher_is_worse)
    assert titles(figure) == [str(label) for label in worst[:9]]
    both = plot_history(history, top=7, highlight=worst[50], kind="multiples", higher_is_worse=higher_is_worse)
    assert titles(both) == [str(label) for label in [*worst[:7], worst[50]]]
    few = plot_history(history, top=np.array(2), labels=worst[20:40], higher_is_worse=higher_is_worse)
    assert {str(label) for label in worst[20:22]} == {text.get_text() for text in few.axes[0].texts} - {""}


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


def test_what_cannot_be_highlighted_is_refused():
    history = course(20, 2, named=False)
    with pytest.raises(ValueError, match="has colours for 6 labels, and highlight= has 7"):
        plot_history(history, kind="lines", highlight=range(7))
    assert len(plot_history(history, highlight=range(7)).axes) == 20
    with pytest.raises(ValueError, match="top: must be at least 1, got 0"):
        plot_history(history, top=0)
    with pytest.raises(KeyError, match=r"no label in modes .*: 77"):
        plot_history(history, highlight=77)
    with pytest.raises(KeyError, match=r"no label in modes .*: 'a'"):
        plot_history(history, highlight=(1, "a"))
    with pytest.raises(ValueError, match="highlight is an empty iterable, so nothing would be highlighted; pass None"):
        plot_history(history, highlight=[])
    with pytest.raises(TypeError, match=r"top: must be a whole number of labels to show.*got float 2\.5"):
        plot_history(history, top=2.5)


def test_one_combination_of_several_labels_is_chosen_by_its_tuple():
    history = lt.History(label=("class", "site"))
    for step in (1, 2):
        history.add(step, lt.label_stats({"class": [0, 0, 1], "site": ["x", "y", "y"]}, [1.0, 2.0, 3.0]))
    for chosen in ((1, "y"), [(1, "y")], "1, y"):
        assert len(history.plot(labels=chosen, kind="multiples").axes) == 1
    with pytest.raises(KeyError, match=r"no label in mode 'train': 1\. There are: \(0, 'x'\)"):
        history.plot(highlight=(1, "x"))


# -- spikes ----------------------------------------------------------------------------------------------


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


# -- gaps ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["lines", "multiples"])
def test_a_single_step_is_visible_and_on_a_whole_tick(kind):
    history = history_of({"train": {7: ([0, 0, 1, 1], [1.0, 2.0, 3.0, 5.0])}, "eval": {7: ([0, 1], [1.0, 3.0])}})
    figure = plot_history(history, kind=kind)
    points = [point for axes in figure.axes for point in marked(axes, "o")]
    assert sorted(y for _, y in points) == [1.0, 1.5, 3.0, 4.0]
    spots = [{round(x, 6) for x, _ in marked(axes, "o")} for axes in figure.axes]
    assert [len(spot) for spot in spots] == ([4] if kind == "lines" else [2, 2])  # none hides another
    assert all(6.5 < x < 7.5 for x, _ in points)
    pixels(figure)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [7.0]
    assert len(set(texts(figure)) & {"0", "1"}) == 2


@pytest.mark.parametrize("kind", ["lines", "multiples"])
@pytest.mark.parametrize("last", [3, 5, 30])
def test_steps_are_whole_numbers(kind, last):
    figure = plot_history(course(2, last, modes=["train"]), kind=kind)
    pixels(figure)
    for axes in figure.axes:
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


@pytest.mark.parametrize("kind", ["lines", "multiples"])
def test_means_that_are_not_finite_are_marked_at_the_edge_and_explained(kind):
    history = of_means([[1, np.nan, 2, np.inf, 3], [1, 1, 1, 1, 1]])
    figure = plot_history(history, kind=kind)
    crosses = [point for axes in figure.axes for point in marked(axes, "x")]
    assert crosses == [(2.0, 1.0), (4.0, 1.0)]
    assert "mean is NaN or infinite" in texts(figure)
    assert "mean is NaN or infinite" not in texts(plot_history(history, labels=1, kind=kind))


@pytest.mark.parametrize("kind", ["lines", "multiples", "heatmap"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_history_without_any_finite_value_is_drawn_all_the_same(kind, steps):
    figure = plot_history(of_means([[np.nan] * steps, [np.inf] * steps]), kind=kind)
    pixels(figure)
    assert any("NaN or infinite" in text for text in texts(figure))
    if kind == "lines":
        assert sum("(no finite mean)" in text for text in texts(figure)) == 2


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


# -- colour scales ----------------------------------------------------------------------------------------


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


def test_multiples_share_an_axis_only_where_that_can_be_read():
    near = plot_history(of_means([[1, 2], [2, 3], [1, 4]]), kind="multiples")
    assert len({axes.get_ylim() for axes in near.axes}) == 1
    far = plot_history(of_means([[1e8, 1e8 + 1], [2, 3], [5e7, 5e7 + 3]]), kind="multiples")
    assert len({axes.get_ylim() for axes in far.axes}) == 3
    assert any("each panel has its own scale" in text for text in texts(far))
    assert "the other labels" in texts(near)
    assert "the other labels" not in texts(far)


# -- size -------------------------------------------------------------------------------------------------


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


# -- layout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "kind"), [(3, "lines"), (6, "lines"), (10, "multiples"), (13, "multiples"), (50, "heatmap")]
)
def test_nothing_covers_data(n, kind):
    figure = plot_history(course(n, 8), kind=kind, bounds=["std", "range"])
    pixels(figure)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for axes in figure.axes:
        words = [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes._left_title]
        for text in words:
            if text.get_text() and text.get_text().strip():
                assert not any(text.get_window_extent().overlaps(box) for box in boxes), text.get_text()
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.get_tightbbox()) for axes in figure.axes)
        assert figure.bbox.containsx(legend.get_window_extent().x1)


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


def test_long_names_of_modes_break_the_legend_into_rows():
    samples = {f"a rather long name of mode {i}": {1: ([0], [1.0]), 2: ([0], [1.0])} for i in range(5)}
    figure = plot_history(history_of(samples), kind="multiples")
    pixels(figure)
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1


# -- words ------------------------------------------------------------------------------------------------


def test_title_units_and_steps_are_written():
    history = course(2, 2)
    words = texts(plot_history(history, units="nats", x_label="step"))
    assert {"loss by class", "loss (nats)", "step"} <= set(words)
    assert "Mine" in texts(plot_history(history, title="Mine"))
    assert "mean loss (nats)" in texts(plot_history(history, units="nats", kind="heatmap"))


NASTY = ["$x_1$", "100 % of $y$ \\alpha", "_hidden", "a\nb", "{", ""]


@pytest.mark.parametrize("kind", ["lines", "multiples", "heatmap"])
@pytest.mark.parametrize("steps", [1, 2])
def test_what_users_write_is_shown_literally(kind, steps, tmp_path):
    history = lt.History(metric="$loss$_a", label="$do_main$")
    mapping = {name: k for k, name in enumerate(NASTY)}
    for step in range(1, steps + 1):
        for mode in ("_$tr_1$", "ev_%"):
            history.add(step, lt.label_stats(range(6), np.arange(6.0), label_mapping=mapping), mode=mode)
    figure = plot_history(history, kind=kind, x_label="$e_1$", units="$\\%$")
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(tmp_path / "a.svg")
    root = ET.parse(tmp_path / "a.svg").getroot()  # noqa: S314 (written a line above)
    words = {"".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")}
    names = {"$x_1$", "100 % of $y$ \\alpha", "_hidden", "a b", "{", "(no name)"}
    if (kind, steps) == ("lines", 1):
        names = names - {"100 % of $y$ \\alpha"} | {"100 % …alpha"}  # side by side there is less room
    expected = names | {"$loss$_a by $do_main$", "$e_1$", "_$tr_1$", "ev_%"}
    assert not expected - words


def test_long_names_keep_both_ends():
    names = {f"domain/books/english/fiction/nineteenth century/{k}": k for k in range(2)}
    history = lt.History()
    history.add(1, lt.label_stats([0, 1], [1.0, 2.0], label_mapping=names))
    history.add(2, lt.label_stats([0, 1], [1.0, 2.0], label_mapping=names))
    shown = [text for text in texts(plot_history(history)) if text.startswith("domain/")]
    assert [text[-9:] for text in shown] == ["century/0", "century/1"]
    assert all(len(text) == 30 and "…" in text for text in shown)


# -- what the caller chooses ------------------------------------------------------------------------------


def test_labels_are_chosen_by_value_name_or_numpy_scalar_from_any_iterable():
    history = course(10, 2)
    ends = {"cat", "frog", "car"}
    shown = texts(plot_history(history, labels=(label for label in (0, "frog", np.int64(9), "cat"))))
    assert set(shown) & set(ANIMALS) == ends
    assert set(texts(plot_history(history, labels="frog"))) & set(ANIMALS) == {"frog"}
    assert set(texts(plot_history(history, labels=3))) & set(ANIMALS) == {"frog"}


def test_an_unknown_label_is_refused_with_the_nearest():
    with pytest.raises(KeyError, match=r"no label in modes 'train', 'eval': 'frug'\. Did you mean 'frog'\?"):
        plot_history(course(10, 2), labels=["cat", "frug"])
    with pytest.raises(KeyError, match=r"no label in mode 'train': 11\. Did you mean 9, 8, 7\?"):
        plot_history(course(10, 2, named=False), labels=[11], modes=["train"])
    with pytest.raises(KeyError, match=r"no label in mode 'train': \[1, 2\]"):
        plot_history(course(10, 2), labels=[[1, 2]], modes="train")


def test_modes_and_bounds_come_from_any_iterable():
    history = course(2, 2)
    figure = plot_history(history, modes=(m for m in ["eval"]), bounds=(b for b in ["range", None]))
    assert titles(figure) == ["mean, from the smallest to the largest sample", "mean"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["eval"]
    assert [text.get_text() for text in plot_history(history, modes="eval").legends[0].get_texts()] == ["eval"]


def test_an_unknown_mode_is_refused_with_those_there_are():
    with pytest.raises(KeyError, match=r"no mode 'evil'\. Did you mean 'eval'\? There are: 'train', 'eval'"):
        plot_history(course(2, 2), modes=["train", "evil"])
    with pytest.raises(KeyError, match="no mode 3"):
        plot_history(course(2, 2), modes=3)


def test_an_unknown_bound_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="bounds: unknown option 'interval'; allowed are None, 'std', 'range'"):
        plot_history(course(2, 2), bounds=["std", "interval"])


@pytest.mark.parametrize("what", ["modes", "labels", "bounds"])
def test_an_empty_choice_is_refused(what):
    with pytest.raises(ValueError, match=f"^{what}.* an empty iterable"):
        plot_history(course(2, 2), **{what: iter(())})


def test_an_empty_history_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"the history is empty.*call end_epoch\(\)"):
        plot_history(lt.History())


def test_a_history_without_labels_is_refused():
    history = lt.History()
    history.add(1, lt.label_stats([], []))
    with pytest.raises(ValueError, match=r"the history has no labels in mode 'train'.*label_mapping"):
        plot_history(history)


def test_labels_that_are_numbers_in_one_epoch_and_strings_in_another_are_drawn():
    history = lt.History()
    history.add(1, lt.label_stats([1, 2], [1.0, 2.0]))
    history.add(2, lt.label_stats(["2", "x"], [3.0, 4.0]))
    (axes,) = plot_history(history).axes
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["1", "2", "x"]
    assert drawn_lines(axes)[1].get_ydata().tolist() == [2.0, 3.0]


def test_history_plot_draws_the_bounds_of_the_history():
    history = history_of(SAMPLES, bounds=("range", "std"))
    assert titles(history.plot())[0] == "mean, from the smallest to the largest sample"
    assert [len(figure.axes) for figure in (history.plot(), plot_history(history))] == [2, 2]
    assert titles(history.plot(bounds=None)) == titles(plot_history(history, bounds=None)) == ["mean"]
    assert titles(history.plot(bounds="std", modes=["train"], labels=[0])) == ["mean ± one standard deviation"]


# -- files and settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 10, 50])
@pytest.mark.parametrize(("suffix", "head"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_pictures_are_saved_in_every_format(n, suffix, head, tmp_path):
    path = tmp_path / f"picture.{suffix}"
    plot_history(course(n, 3)).savefig(path)
    data = path.read_bytes()
    assert data.startswith(head)
    assert len(data) > 5000


def test_drawing_neither_loads_pyplot_nor_needs_a_display(tmp_path):
    program = f"""
import sys, labeltrack as lt
assert "matplotlib" not in sys.modules
history = lt.History()
history.add(1, lt.label_stats([0, 1], [1.0, 2.0]))
for kind in ("lines", "multiples", "heatmap"):
    from labeltrack.plot import plot_history
    plot_history(history, kind=kind).savefig({str(tmp_path / "a.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND", "WAYLAND_DISPLAY")
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").stat().st_size > 1000


HOSTILE: Any = {
    "axes.facecolor": "black", "axes.grid": False, "axes.spines.left": False, "figure.facecolor": "black",
    "font.size": 30, "image.cmap": "jet", "legend.frameon": True, "lines.linewidth": 9, "savefig.facecolor": "black",
    "text.color": "white", "text.usetex": True, "xtick.labelsize": 30, "ytick.direction": "in",
}  # fmt: skip


@pytest.mark.parametrize("n", [3, 8, 50])
def test_settings_of_the_caller_change_nothing_and_are_not_changed(n, tmp_path):
    history = course(n, 3)
    plot_history(history).savefig(tmp_path / "plain.png")
    with mpl.rc_context(HOSTILE):
        before = dict(mpl.rcParams)
        plot_history(history).savefig(tmp_path / "hostile.png", dpi=100)
        assert dict(mpl.rcParams) == before
    assert compare_images(str(tmp_path / "plain.png"), str(tmp_path / "hostile.png"), 0) is None


def test_a_transparent_background_is_still_possible(tmp_path):
    from matplotlib.image import imread

    plot_history(course(3, 2)).savefig(tmp_path / "a.png", transparent=True)
    plot_history(course(3, 2)).savefig(tmp_path / "b.png")
    assert imread(tmp_path / "a.png")[0, -1, 3] == 0.0
    assert imread(tmp_path / "b.png")[0, -1].tolist() == [1.0, 1.0, 1.0, 1.0]


# -- labels without samples ---------------------------------------------------------------------------------


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


# -- labels that lie decades apart --------------------------------------------------------------------------

APART = [[1000.0, 500.0, 300.0], [1.0, 0.5, 0.25], [0.01, 0.008, 0.002]]


def shares(axes, points):
    """Return the heights of points as fractions of the panel."""
    return axes.transAxes.inverted().transform(axes.transData.transform(points))[:, 1]


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


def test_names_stand_at_the_ends_of_lines_on_a_logarithmic_axis():
    figure = plot_history(of_means(APART))
    pixels(figure)
    (axes,) = figure.axes
    named = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_text()}
    wanted = shares(axes, [(3.0, means[-1]) for means in APART])
    assert [named[str(label)] for label in range(3)] == pytest.approx(wanted.tolist(), abs=1e-9)


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


# -- many modes ---------------------------------------------------------------------------------------------


def looks(handle):
    dashes = handle._dash_pattern[1]
    return (None if dashes is None else tuple(dashes), handle.get_marker(), handle.get_markerfacecolor() == "white")


@pytest.mark.parametrize("kind", ["lines", "multiples"])
@pytest.mark.parametrize("steps", [3, 50])
def test_no_two_of_many_modes_look_alike(kind, steps):
    modes = [f"m{i:02d}" for i in range(40)]
    samples = {mode: {step: ([0, 1], [1.0 + i, 2.0]) for step in range(steps)} for i, mode in enumerate(modes)}
    figure = plot_history(history_of(samples), kind=kind)
    (legend,) = figure.legends
    handles = legend.legend_handles[: len(modes)]
    assert [text.get_text() for text in legend.get_texts()][: len(modes)] == modes
    assert len({looks(handle) for handle in handles}) == len(modes)
    # The drawing matches the legend: each mode has its line, followed by its markers.
    drawn = [line for line in figure.axes[0].get_lines() if line.get_linewidth() > 1 or line.get_linestyle() == "None"]
    lines = [line for line in drawn if line.get_linestyle() != "None"]
    marks = [line for line in drawn if line.get_linestyle() == "None"]
    each = len(lines) // len(modes)
    assert (len(lines), len(marks)) == (each * len(modes),) * 2
    for i, handle in enumerate(handles):
        assert looks(lines[i * each])[0] is looks(handle)[0] is None or lines[i * each].is_dashed()
        assert looks(marks[i * each])[1:] == looks(handle)[1:]
        assert 1 <= len(marks[i * each].get_xdata()) <= 8


def test_four_modes_of_many_steps_are_told_apart_by_lines_alone():
    samples = {mode: {step: ([0], [1.0]) for step in range(50)} for mode in "abcd"}
    (axes,) = plot_history(history_of(samples)).axes
    assert [line.get_marker() for line in axes.get_lines()] == ["None"] * 4


def test_more_modes_than_can_be_told_apart_are_refused():
    samples = {f"m{i}": {1: ([0], [1.0])} for i in range(100)}
    with pytest.raises(ValueError, match=r"100 modes in one panel cannot be told apart .*choose some with modes="):
        plot_history(history_of(samples))
    assert plot_history(history_of(samples), modes=["m1", "m99"]).axes


# -- long steps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lines", "multiples", "heatmap"])
@pytest.mark.parametrize("n", [1, 2, 12])
@pytest.mark.parametrize(
    ("first", "every"), [(2**62, 1), (2**63 - 100, 3), (-(2**62), 1), (1_764_000_000_123_456_789, 10**9)]
)
def test_long_steps_are_counted_from_the_first(kind, n, first, every):
    steps = [first + i * every for i in range(n)]
    history = history_of({mode: {step: ([0, 1], [1.0, 2.0]) for step in steps} for mode in ("train", "eval")})
    figure = plot_history(history, kind=kind)
    pixels(figure)
    said = texts(figure)
    assert any(f"step, counted from {first}" in text for text in said)
    if kind == "heatmap":
        named = [tick.get_text() for tick in heatmaps(figure)[0].get_xticklabels()]
        assert {int(text) for text in named} <= {step - first for step in steps}
        return
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low < 0 <= steps[-1] - first < high
        for line in drawn_lines(axes):
            expected = [float(step - first) for step in steps]
            assert line.get_xdata() == pytest.approx(expected, abs=0.5 if n == 1 else 1e-9)


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
