"""The data map: every sample is in a cell, and what is left out is said."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra 'plot')")

from labeltrack.plot.datamap import plot_datamap


def samples(n, seed=0):
    p = np.random.default_rng(seed).beta(0.5, 0.3, (n, 8))
    return p.std(axis=1), p.mean(axis=1)


def drawn(figure):
    """Return the cells, from confidence 0 up."""
    (image,) = figure.axes[0].images
    assert image.get_extent() == [0.0, 0.5, 0.0, 1.0]
    return image.get_array()


@pytest.mark.parametrize("n", [1, 300, 25_000, 1_000_000])
def test_every_sample_is_in_a_cell(n):
    variability, confidence = samples(n)
    cells = drawn(plot_datamap(variability, confidence, title="map", subtitle=""))
    assert cells.sum() == n
    assert 25 <= cells.shape[0] <= 120
    rows, columns = cells.shape
    expected, _, _ = np.histogram2d(confidence, variability, [rows, columns], [[0, 1], [0, 0.5]])
    assert np.abs(cells.filled(0) - expected).sum() <= 2 + n // 10_000  # rounding at the edges of cells


def test_the_largest_numbers_there_are_belong_to_the_last_cells():
    cells = drawn(plot_datamap(np.array([0.5, 0.0, 0.0]), np.array([0.5, 1.0, 0.0]), title="map", subtitle=""))
    assert cells[-1, 0] == cells[0, 0] == cells[cells.shape[0] // 2, -1] == 1


def test_the_colour_may_be_the_mean_of_forgetting_events():
    figure = plot_datamap(
        np.array([0.0, 0.0, 0.4]), np.array([1.0, 1.0, 0.5]), np.array([1, 2, 5]), title="map", subtitle=""
    )
    cells = drawn(figure)
    assert sorted(cells.compressed().tolist()) == [1.5, 5.0]
    assert figure.axes[1].get_ylabel() == "forgetting events, mean"


def test_samples_without_a_number_are_left_out_and_said():
    figure = plot_datamap(np.array([0.1, np.nan]), np.array([0.5, 0.5]), title="map", subtitle="2 samples")
    assert drawn(figure).sum() == 1
    texts = [text.get_text() for part in figure.subfigs for text in [part._suptitle]]
    assert texts == ["2 samples; 1 with NaN are left out"]
    with pytest.raises(ValueError, match="there is nothing to draw"):
        plot_datamap(np.array([np.nan]), np.array([0.5]), title="map", subtitle="")
