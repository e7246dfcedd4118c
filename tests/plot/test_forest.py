"""The forest plot of a comparison."""

from __future__ import annotations

import numpy as np
import pytest
from sides import compared, history_of_dogs, recorded

import labeltrack as lt

pytest.importorskip("scipy", reason="scipy is not installed (extra 'stats')")

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def _seeded():
    RNG.bit_generator.state = np.random.default_rng(11).bit_generator.state


def test_the_forest_plot_shows_intervals_worst_first():
    found = history_of_dogs().compare(3, 7)
    axes = found.plot().axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["dog", "cat"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top
    drawn = {float(line[0][1]): (line[0][0], line[1][0]) for c in axes.collections for line in c.get_segments()}
    assert drawn == {0.0: (found.low[1], found.high[1]), 1.0: (found.low[0], found.high[0])}
    chosen = found.plot(["cat"], title="x").axes[0]
    assert [tick.get_text() for tick in chosen.get_yticklabels()] == ["cat"]
    with pytest.raises(KeyError, match="no label 'catt'"):
        found.plot(["catt"])


def test_labels_of_few_samples_do_not_flatten_the_forest_plot():
    labels = np.repeat([0, 1], [200, 3])
    values = [RNG.normal(size=203), RNG.normal(size=203) + np.repeat([0.0, 1000.0], [200, 3])]
    found = compared([labels, labels], values)
    assert found.plot().axes[0].get_xlim()[1] < 2 * found.high[0] + 1


def test_the_forest_plot_shows_forty_labels_and_says_how_many_more(tmp_path):
    labels = {1: np.repeat(np.arange(60), 60), 2: np.repeat(np.arange(60), 30)}
    steps = {step: RNG.lognormal(sigma=1.5, size=of.size) for step, of in labels.items()}
    found = lt.compare(recorded(tmp_path / "run", steps, labels))
    figure = found.plot()
    assert len(figure.axes[0].get_yticks()) == 40
    assert "20 more labels are not shown" in figure.subfigs[0]._suptitle.get_text().replace("\n", " ")
