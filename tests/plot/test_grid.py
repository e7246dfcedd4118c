"""Grids of two labels per sample: their numbers, order, words and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

import labeltrack as lt
from labeltrack.plot import plot_grid, plot_history

CLASSES, SITES = ["cat", "dog", "cat", "dog", "cat", "cow"], ["zoo", "lab", "lab", "lab", "farm", "zoo"]
LOSSES = [0.5, 2.0, 1.5, 4.0, 8.0, 0.25]


def history_of(*parts, names=("class", "site"), **more):
    """Build a history of a step for each ``(first labels, second labels, values)``."""
    history = lt.History(metric="ce", label=" and ".join(names))
    for step, (first, second, values) in enumerate(parts, start=1):
        history.add(step, lt.label_stats({names[0]: first, names[1]: second}, values, **more), mode="eval")
    return history


@pytest.fixture
def history():
    return history_of((CLASSES, SITES, [9.0] * 6), (CLASSES, SITES, LOSSES))


def names(axes):
    return [[tick.get_text() for tick in ticks] for ticks in (axes.get_yticklabels(), axes.get_xticklabels())]


def numbers(axes):
    """Return the mean of each cell by the names of its row and column; None where it is hatched."""
    down, across = names(axes)
    matrix = np.ma.masked_invalid(axes.images[0].get_array())
    return {(row, column): matrix[i, j] or None for i, row in enumerate(down) for j, column in enumerate(across)}


def mean_of(class_, site):
    chosen = [x for c, s, x in zip(CLASSES, SITES, LOSSES, strict=True) if class_ in (c, "all") and site in (s, "all")]
    return sum(chosen) / len(chosen) if chosen else None


def every_text(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


def test_cells_are_the_means_of_combinations_and_of_either_label(history):
    figure = history.plot(kind="grid")
    assert numbers(figure.axes[0]) == {
        (row, column): mean_of(row, column)
        for row in ("all", "cat", "dog", "cow")
        for column in ("all", "farm", "lab", "zoo")
    }
    assert "no samples" in every_text(figure)


def test_rows_and_columns_are_worst_first(history):
    assert names(history.plot(kind="grid").axes[0]) == [["all", "cat", "dog", "cow"], ["all", "farm", "lab", "zoo"]]
    figure = plot_grid(history, higher_is_worse=False)
    assert names(figure.axes[0]) == [["all", "cow", "dog", "cat"], ["all", "zoo", "lab", "farm"]]


def test_the_order_of_names_says_what_is_down_and_what_across(history):
    axes = history.plot(kind="grid", by=("site", "class")).axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("site", "class")
    assert names(axes) == [["all", "farm", "lab", "zoo"], ["all", "cat", "dog", "cow"]]
    assert numbers(axes)["zoo", "cow"] == 0.25


def test_two_of_three_labels_are_drawn():
    history = lt.History()
    history.add(1, lt.label_stats({"a": [0, 0, 1], "b": [5, 5, 6], "c": [1, 2, 3]}, [1.0, 2.0, 4.0]))
    axes = history.plot(kind="grid", by=["c", "a"]).axes[0]
    assert numbers(axes)["all", "0"] == 1.5
    with pytest.raises(ValueError, match="two labels per sample, one down and one across, got 'a', 'b', 'c'; name two"):
        history.plot(kind="grid")


def test_a_step_can_be_chosen_and_the_figure_says_which(history):
    figure = history.plot(step=1, units="nats")
    assert set(numbers(figure.axes[0]).values()) == {9.0, None}
    assert "step 1;" in every_text(figure)
    assert "mean ce (nats)" in every_text(figure)
    assert "epoch 2;" in every_text(plot_history(history, kind="grid", x_label="epoch"))
    with pytest.raises(KeyError, match="no step in mode 'eval': 3"):
        history.plot(step=3)
    with pytest.raises(ValueError, match=r"step= is for grids.*got step=1 and kind='lines'"):
        history.plot(kind="lines", step=1)


def test_cells_have_mean_and_number_of_samples_where_they_fit(history):
    figure = history.plot(kind="grid")
    found = {text.get_text() for text in figure.axes[0].texts}
    assert {"3\nn 2", "8\nn 1", "2.71\nn 6"} <= found
    assert "numbers of samples in the cells" not in every_text(figure)


def test_small_cells_have_the_number_of_samples_or_nothing():
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 10, 3000), rng.integers(0, 50, 3000)
    second[:1200] = 0
    stats = lt.label_stats({"class": first, "site": second}, np.ones(3000))
    figure = history_of((first, second, np.ones(3000))).plot()
    found = [text.get_text() for text in figure.axes[0].texts]
    assert "numbers of samples in the cells" in every_text(figure)
    assert set(found) == {str(n) for n in [*stats.count, *stats.by("class").count, *stats.by("site").count] if n < 1000}
    one = np.repeat(np.arange(109), 12)
    many = history_of((one, one, np.ones(one.size))).plot(kind="grid")
    assert not many.axes[0].texts
    assert "in the cells" not in every_text(many)


@pytest.mark.parametrize(
    ("n", "text"), [(999, "999"), (1234, "1.2k"), (9_960, "10k"), (123_456, "123k"), (1_240_000, "1.2M")]
)
def test_numbers_of_samples_are_short(n, text):
    figure = history_of((np.zeros(n, dtype=np.uint8), np.zeros(n, dtype=np.uint8), np.ones(n))).plot(kind="grid")
    assert {found.get_text() for found in figure.axes[0].texts} == {f"1\nn {text}"}


def test_a_second_label_with_too_many_values_for_columns_changes_places():
    wide = history_of((np.arange(200) % 30, np.arange(200), np.ones(200)))
    axes = wide.plot().axes
    assert (axes[0].get_ylabel(), axes[1].get_xlabel()) == ("site: the 25 worst", "class")
    assert axes[0].images[0].get_array().shape == (26, 31)
    assert axes[1].images[0].get_array().shape == (201, 31)
    assert names(axes[1])[0][0] == "1"


def test_more_columns_than_can_be_named_are_numbered_by_rank():
    history = history_of((np.arange(300), np.arange(300) % 150, np.ones(300)))
    axes = history.plot().axes[1]
    assert axes.get_xlabel() == "site: all 150, by rank"
    assert names(axes)[1] == ["1", "20", "40", "60", "80", "100", "120", "140"]


def test_bounds_and_modes_have_panels_of_their_own(history):
    history.add(2, lt.label_stats({"class": ["cat", "eel"], "site": ["zoo", "sea"]}, [7.0, 1.0]), mode="train")
    figure = history.plot(kind="grid", modes=["train", "eval"], bounds=["range", "std"])
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes if axes.images]
    assert titles == [
        "train mean",
        "eval mean",
        "train range, half the band",
        "eval range, half the band",
        "train std, half the band",
        "eval std, half the band",
    ]
    down, across = names(figure.axes[0])
    assert (down, across) == (["all", "cat", "dog", "cow", "eel"], ["all", "farm", "lab", "zoo", "sea"])
    assert figure.axes[0].images[0].get_array()[down.index("eel"), across.index("sea")] == 1.0
    halves = figure.axes[3].images[0].get_array()
    assert halves[down.index("cat"), 0] == (8.0 - 0.5) / 2
    assert [axes.get_title(loc="left") for axes in plot_grid(history).axes if axes.images] == ["eval\nmean"]


def test_combinations_can_be_chosen(history):
    axes = history.plot(kind="grid", labels=[("cat", "farm"), "dog, lab"]).axes[0]
    assert numbers(axes) == {
        ("all", "all"): 14 / 3,
        ("all", "farm"): 8.0,
        ("all", "lab"): 3.0,
        ("cat", "all"): 8.0,
        ("cat", "farm"): 8.0,
        ("cat", "lab"): None,
        ("dog", "all"): 3.0,
        ("dog", "farm"): None,
        ("dog", "lab"): 3.0,
    }


def test_absent_labels_are_hatched_and_nan_has_a_colour_of_its_own():
    mapping = {"class": {"Cat": 0, "Dog": 1}, "site": {"Lab": 0, "Zoo": 1}}
    history = history_of(([0, 0], [0, 1], [1.0, np.nan]), label_mapping=mapping)
    figure = history.with_absent().plot(kind="grid")
    assert names(figure.axes[0]) == [["all", "Cat", "Dog"], ["all", "Zoo", "Lab"]]
    assert "no samples" in every_text(figure)
    assert "NaN or infinite" in every_text(figure)
    marks = figure.axes[0].images[1].get_array()
    assert np.argwhere(~marks.mask).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_two_labels_are_a_grid_from_seven_combinations_on():
    few = history_of((np.arange(6), np.arange(6), np.ones(6)))
    many = history_of((np.arange(7), np.arange(7), np.ones(7)))
    assert not few.plot().axes[0].images
    assert len(many.plot().axes[0].images) == 1
    assert not many.plot(by="class").axes[0].images
    assert not many.plot(kind="multiples").axes[0].images


def test_one_of_several_labels_is_drawn_by_itself(history):
    figure = history.plot(None, by="site")
    assert {"farm", "lab", "zoo"} <= {text.get_text() for text in figure.findobj(Text)}
    line = next(line for line in figure.axes[0].get_lines() if 8.0 in line.get_ydata())
    assert line.get_ydata().tolist() == [9.0, 8.0]
    with pytest.raises(KeyError, match=r"no label called 'sight'\. Did you mean 'site'"):
        history.plot(by="sight")


def test_what_has_no_two_labels_or_no_means_is_refused(history):
    with pytest.raises(ValueError, match="got one label per sample"):
        history.by("class").plot(kind="grid")
    with pytest.raises(ValueError, match="one down and one across, got 'class', 'class'"):
        plot_grid(history, by=("class", "class"))
    with pytest.raises(ValueError, match="a grid shows means, not medians"):
        plot_grid(history, bounds="iqr")
    with pytest.raises(ValueError, match="without highlight= and top="):
        history.plot(kind="grid", top=3)
    with pytest.raises(ValueError, match="history is empty"):
        plot_grid(lt.History(), by=("a", "b"))
    with pytest.raises(ValueError, match="no labels at that step"):
        plot_grid(history_of(([], [], [])))


def test_more_cells_than_can_be_drawn_are_refused():
    history = history_of((np.arange(2000), np.arange(2000), np.ones(2000)))
    with pytest.raises(ValueError, match="2,000 × 2,000 cells are too many to draw"):
        history.plot()


@pytest.mark.parametrize("sizes", [(1.7e308, -1.7e308, 1.0, 5e307), (1.7e308,) * 4, (1e-300, 1e306, 1e-200, 1e-290)])
def test_numbers_near_the_ends_of_the_doubles_are_drawn_and_written(sizes, tmp_path):
    extreme = lt.History(metric="loss", label=("a", "b"))
    for step in (1, 2):
        places = [0, 0, 1, 1], [0, 1, 0, 1]
        extreme.add(
            step, lt.label_stats(dict(zip("ab", np.repeat(places, 30, axis=1), strict=True)), np.repeat(sizes, 30))
        )
    figure = extreme.plot(kind="grid")
    figure.savefig(tmp_path / "grid.png")
    assert f"{sizes[0]:.3g} n 30" in every_text(figure)
    extreme.by("a").plot(kind="heatmap").savefig(tmp_path / "heatmap.png")
    pytest.importorskip("scipy", reason="scipy is not installed (extra 'stats')")
    lt.compare(extreme.at(1), extreme.at(2)).plot().savefig(tmp_path / "forest.png")
