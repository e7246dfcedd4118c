"""What a figure shows: modes, labels, steps and ranking, and mistakes in choosing them."""

from __future__ import annotations

import numpy as np
import pytest
from figures import ANIMALS, SAMPLES, course, drawn_lines, heatmaps, history_of, marked, of_means, pixels, texts, titles

import labeltrack as lt
from labeltrack.plot import plot_history


def test_quantiles_that_were_not_computed_are_explained():
    with pytest.raises(ValueError, match=r"no quantile 0\.25: quantiles are computed only on request"):
        plot_history(history_of(SAMPLES), bounds="iqr")


def test_datasets_are_pooled():
    history = lt.History()
    history.add_all(1, {"a": lt.label_stats([0, 0], [1.0, 2.0]), "b": lt.label_stats([0], [6.0])})
    (axes,) = plot_history(history).axes
    assert marked(axes, "o") == [(1.0, 3.0)]


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


def test_long_names_keep_both_ends():
    names = {f"domain/books/english/fiction/nineteenth century/{k}": k for k in range(2)}
    history = lt.History()
    history.add(1, lt.label_stats([0, 1], [1.0, 2.0], label_mapping=names))
    history.add(2, lt.label_stats([0, 1], [1.0, 2.0], label_mapping=names))
    shown = [text for text in texts(plot_history(history)) if text.startswith("domain/")]
    assert [text[-9:] for text in shown] == ["century/0", "century/1"]
    assert all(len(text) == 30 and "…" in text for text in shown)


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
