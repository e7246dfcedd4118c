"""Histories to draw, and what is in the figures of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import labeltrack as lt

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


def quartiles(mode, label):
    own = [np.array(values)[np.array(labels) == label] for labels, values in SAMPLES[mode].values()]
    return np.array([np.quantile(some, [0.25, 0.5, 0.75]) for some in own])


APART = [[1000.0, 500.0, 300.0], [1.0, 0.5, 0.25], [0.01, 0.008, 0.002]]


def shares(axes, points):
    """Return the heights of points as fractions of the panel."""
    return axes.transAxes.inverted().transform(axes.transData.transform(points))[:, 1]
