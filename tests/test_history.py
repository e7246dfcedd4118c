"""`History`: entries, series, ranking, tables, looks, state."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from exact import expected, fingerprint, rows

import labeltrack as lt
from labeltrack.plot import plot_history
from labeltrack.report import history_table


@pytest.fixture(name="history")
def _history():
    history = lt.History(metric="ce", label="y", bounds=["std", "range"])
    history.add(2, lt.label_stats([0, 1], [0.25, 3.0]), mode="train")
    history.add(1, lt.label_stats([0, 1, 1], [0.5, 2.0, 4.0]), mode="train")
    history.add_all(2, {"a": lt.label_stats([0, 5], [1.0, 9.0]), "b": lt.label_stats([0], [2.0])}, mode="eval")
    return history


def test_the_contents_are_listed(history):
    assert (len(history), history.modes, history.ds_ids) == (4, ["train", "eval"], ["", "a", "b"])
    assert history.steps() == [1, 2]
    assert history.steps("eval") == [2]
    assert history.names() == {0: "0", 1: "1", 5: "5"}
    assert lt.History().names() == {}


def test_statistics_of_a_step_are_found(history):
    assert rows(history.at(1, "train")) == {0: expected([0.5]), 1: expected([2.0, 4.0])}
    assert rows(history.at(2, mode="eval", ds_id="b")) == {0: expected([2.0])}


def test_datasets_are_pooled_unless_one_is_named(history):
    assert rows(history.at(2, mode="eval")) == {0: expected([1.0, 2.0]), 5: expected([9.0])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, "trian"), r"no mode 'trian'\. Did you mean 'train'"),
        ((9, "train"), "no step in mode 'train': 9. Did you mean 2, 1"),
        ((2, "eval", "c"), "no ds_id in mode 'eval': 'c'. There are: 'a', 'b'"),
    ],
)
def test_what_is_not_there_names_what_is(history, arguments, message):
    with pytest.raises(KeyError, match=message):
        history.at(*arguments)


def test_a_series_has_the_steps_at_which_the_label_occurs(history):
    steps, values = history.series(1, "mean", mode="train")
    assert (steps.tolist(), values.tolist()) == ([1, 2], [3.0, 3.0])
    steps, values = history.series(5, "count", mode="eval")
    assert (steps.tolist(), values.tolist()) == ([2], [1])
    assert history.series(0, "max", mode="eval", ds_id="b")[1].tolist() == [2.0]


def test_a_series_is_found_by_display_name():
    history = lt.History()
    history.add(1, lt.label_stats([3], [1.5], label_mapping={"cat": 3}))
    assert history.series("cat")[1].tolist() == [1.5]
    with pytest.raises(KeyError, match=r"no label in mode 'train': 'cta'\. Did you mean 'cat'"):
        history.series("cta")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((7,), KeyError, "no label in mode 'eval': 7. Did you mean 5"),
        ((0, "variance"), ValueError, "unknown statistic 'variance'"),
        ((0, "mean", "test"), KeyError, "no mode 'test'"),
        ((0, "mean", "train", "z"), KeyError, "no ds_id in mode 'train': 'z'"),
    ],
)
def test_a_series_that_does_not_exist_says_why(history, arguments, error, message):
    with pytest.raises(error, match=message):
        history.series(*arguments)


def test_the_worst_labels_of_the_last_step_come_first(history):
    assert history.worst(5, by="mean", mode="eval") == [5, 0]
    assert history.worst(1, mode="eval") == [5]
    assert history.worst(2, by="mean", mode="train", higher_is_worse=False) == [0, 1]
    assert history.worst(1, by="max", mode="train", step=1) == [1]
    assert history.worst(1, mode="eval", ds_id="b") == [0]


def test_the_worst_of_several_labels_are_combinations_or_values_of_one_or_some():
    labels = {"class": [0, 0, 1, 1], "site": ["a", "b", "a", "c"], "hour": [3, 3, 4, 4]}
    history = lt.History()
    history.add(1, lt.label_stats(labels, [1.0, 8.0, 5.0, 2.0]))
    assert history.worst(1) == [(0, "b", 3)]
    assert history.worst(1, by="max", higher_is_worse=False) == [(0, "a", 3)]
    assert history.worst(by="class") == [0, 1]
    assert history.worst(by="site") == ["b", "a", "c"]
    assert history.worst(1, by=["site", "hour"]) == [("b", 3)]
    assert history.worst(by=()) == ["all"]
    assert history.by("site").worst(1, by="count") == ["a"]
    assert history.label_names == ("class", "site", "hour")
    with pytest.raises(
        ValueError, match=r"unknown statistic 'sight'; there are .*; the labels are 'class', 'site', 'hour'"
    ):
        history.worst(by="sight")
    with pytest.raises(KeyError, match="no label called 'mean'"):
        history.worst(by=("class", "mean"))


def test_a_label_with_nan_is_worst_either_way():
    history = lt.History()
    history.add(1, lt.label_stats([0, 1, 2], [3.0, math.nan, 1.0]))
    assert history.worst(3) == [1, 0, 2]
    assert history.worst(3, higher_is_worse=False) == [1, 2, 0]


def test_a_ranking_that_makes_no_sense_is_refused(history):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        history.worst(0)
    with pytest.raises(KeyError, match="no mode 'test'"):
        history.worst(mode="test")
    with pytest.raises(ValueError, match="unknown statistic"):
        history.worst(by="loss")


@pytest.mark.parametrize(
    ("modes", "read"), [(["train", "eval", "test"], "eval"), (["train", "eval"], "eval"), (["test"], "test")]
)
def test_unless_a_mode_is_named_eval_is_read_or_the_only_one(modes, read):
    history = lt.History()
    for i, mode in enumerate(modes):
        history.add(1, lt.label_stats([0, i], [i, i + 0.5]), mode=mode)
        history.add(2, lt.label_stats([0, i], [i + 1, i]), mode=mode)
    assert fingerprint(history.at(1)) == fingerprint(history.at(1, read))
    assert history.datasets(2) == history.datasets(2, read)
    assert history.series(0)[1].tolist() == history.series(0, mode=read)[1].tolist()
    assert history.worst() == history.worst(mode=read)
    assert history_table(history).title == history_table(history, mode=read).title
    assert history.steps() == [1, 2]


@pytest.mark.parametrize(
    "read",
    [
        lambda history: history.at(1),
        lambda history: history.datasets(1),
        lambda history: history.series(0),
        lambda history: history.worst(),
        history_table,
    ],
)
def test_one_of_several_modes_has_to_be_named_if_none_is_eval(read):
    history = lt.History()
    for mode in ("train", "test"):
        history.add(1, lt.label_stats([0], [1]), mode=mode)
    with pytest.raises(ValueError, match=r"which mode\? There is no 'eval'.*'train', 'test'; pass mode \(--mode\)"):
        read(history)


@pytest.mark.parametrize("read", [lambda h: h.at(1), lambda h: h.series(0), lambda h: h.worst(), history_table])
def test_a_history_without_any_mode_says_so(read):
    with pytest.raises(KeyError, match="there is no mode to read: no epoch has ended yet"):
        read(lt.History())
    with pytest.raises(KeyError, match="no mode 'eval': the history is empty"):
        lt.History().at(1, "eval")
    assert lt.History().datasets(1) == {}


# -- steps together ---------------------------------------------------------------------------------------

SAMPLES = {
    (1, "eval", "a"): ([0, 1, 1], [0.1, 1e300, -2.5]),
    (2, "eval", "a"): ([1, 2], [1e-300, 3.0]),
    (2, "eval", "b"): ([0, 0], [0.3, 1e16]),
    (5, "eval", "b"): ([2, 1], [-7.0, 0.7]),
    (2, "train", ""): ([0, 9], [5.0, 6.0]),
}


@pytest.fixture(name="several")
def _several():
    history = lt.History()
    for (step, mode, ds_id), (labels, values) in SAMPLES.items():
        history.add(step, lt.label_stats(labels, np.array(values)), mode=mode, ds_id=ds_id)
    return history


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ({}, {1, 2, 5}),
        ({"mode": "eval"}, {1, 2, 5}),
        ({"mode": "train"}, {2}),
        ({"steps": [5, 1, 5]}, {1, 5}),
        ({"steps": range(1, 3)}, {1, 2}),
        ({"steps": np.array([2])}, {2}),
        ({"steps": slice(-2, None)}, {2, 5}),
        ({"steps": slice(None, None, 2)}, {1, 5}),
        ({"ds_id": "b"}, {2, 5}),
        ({"ds_id": "a", "steps": [2]}, {2}),
    ],
)
def test_steps_are_pooled_as_if_all_samples_had_come_at_once(several, arguments, taken):
    mode, ds_id = arguments.get("mode", "eval"), arguments.get("ds_id")
    found = {}
    for (step, of, dataset), (labels, values) in SAMPLES.items():
        if step in taken and of == mode and ds_id in (None, dataset):
            for label, value in zip(labels, values, strict=True):
                found.setdefault(label, []).append(value)
    before = fingerprint(several)
    assert rows(several.pooled(**arguments)) == {label: expected(values) for label, values in sorted(found.items())}
    assert fingerprint(several) == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": [1, 3, 4]}, KeyError, r"no step in mode 'eval': 3, 4\. There are: 1, 2, 5"),
        ({"steps": [1], "ds_id": "b"}, KeyError, r"no step in mode 'eval': 1\. There are: 2, 5"),
        ({"ds_id": "z"}, KeyError, "no ds_id in mode 'eval': 'z'"),
        ({"mode": "test"}, KeyError, "no mode 'test'"),
        ({"steps": []}, ValueError, r"steps=\[\] selects none of the steps of mode 'eval', which are 1, 2, 5"),
        ({"steps": slice(3, None)}, ValueError, "selects none of the steps"),
        ({"steps": 1}, TypeError, "steps must be None, a slice or an iterable of steps, got int 1"),
        ({"steps": "12"}, TypeError, "step must be an integer"),
    ],
)
def test_steps_that_cannot_be_pooled_are_named(several, arguments, error, message):
    with pytest.raises(error, match=message):
        several.pooled(**arguments)


def test_pooling_one_step_keeps_its_quantiles_and_pooling_several_says_why_there_are_none():
    history = lt.History()
    for step in (1, 2):
        history.add(step, lt.label_stats([0, 0], [step, 3.0], quantiles=[0.5]))
    assert history.pooled(steps=[2]).median.tolist() == [2.5]
    with pytest.raises(ValueError, match="quantiles"):
        history.pooled().quantile(0.5)


def test_a_step_is_entered_once(history):
    with pytest.raises(ValueError, match="step 2 of mode 'eval' of ds_id 'b' is already in the history"):
        history.add_all(2, {"c": lt.label_stats([0], [1]), "b": lt.label_stats([0], [1])}, mode="eval")
    assert len(history) == 4
    with pytest.raises(ValueError, match="step 1 of mode 'train' is already"):
        history.add(1, lt.label_stats([0], [1]))


@pytest.mark.parametrize("step", ["one", 1.5, None])
def test_a_step_is_an_integer(step):
    with pytest.raises(TypeError, match="step must be an integer"):
        lt.History().add(step, lt.label_stats([0], [1]))


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1])
def test_a_step_has_at_most_64_bits(step):
    with pytest.raises(ValueError, match=f"step must be from .* to .*, got {step}"):
        lt.History().add(step, lt.label_stats([0], [1]))


def test_a_numpy_integer_is_a_step():
    history = lt.History()
    history.add(np.int32(3), lt.label_stats([0], [1]))
    assert history.steps() == [3]


# -- tables -----------------------------------------------------------------------------------------------

COLUMNS = ["step", "mode", "ds_id", "label", "name", "count", "sum", "mean", "std", "min", "max"]


def test_the_table_has_a_row_for_each_step_dataset_and_label(history):
    columns = history.columns()
    assert list(columns) == COLUMNS
    assert columns["step"].tolist() == [1, 1, 2, 2, 2, 2, 2]
    assert columns["mode"].tolist() == ["train"] * 4 + ["eval"] * 3
    assert columns["ds_id"].tolist() == [""] * 4 + ["a", "a", "b"]
    assert columns["label"].tolist() == [0, 1, 0, 1, 0, 5, 0]
    assert columns["mean"].tolist() == [0.5, 3.0, 0.25, 3.0, 1.0, 9.0, 2.0]


def test_an_empty_history_has_an_empty_table():
    pa = pytest.importorskip("pyarrow")
    assert pa.table(lt.History()).column_names == COLUMNS
    assert pa.table(lt.History()).num_rows == 0


def test_epochs_with_other_types_of_labels_share_a_table():
    history = lt.History()
    history.add(1, lt.label_stats([1, 2], [1, 2]))
    history.add(2, lt.label_stats(["a"], [1]))
    assert history.columns()["label"].tolist() == ["1", "2", "a"]
    assert list(history.names()) == [1, 2, "a"]


def test_labels_beyond_63_bits_keep_their_last_digits_in_the_table():
    history = lt.History()
    history.add(1, lt.label_stats(np.array([2**63 + 1, 2**63 + 3, 5], dtype=np.uint64), [1, 2, 3]))
    history.add(2, lt.label_stats(np.array([5]), [1]))
    assert history.columns()["label"].tolist() == [5, 2**63 + 1, 2**63 + 3, 5]
    history.add(3, lt.label_stats([-1], [1]))  # no numeric type holds them all
    assert history.columns()["label"].tolist() == ["5", str(2**63 + 1), str(2**63 + 3), "5", "-1"]


def test_the_worst_of_a_dataset_are_those_of_its_own_last_step(history):
    history.add_all(3, {"a": lt.label_stats([1], [1.0])}, mode="eval")
    assert history.worst(1, mode="eval", ds_id="b") == [0]
    with pytest.raises(KeyError, match="no ds_id in mode 'eval': 'z'"):
        history.worst(1, mode="eval", ds_id="z")


def test_pyarrow_polars_pandas_and_duckdb_read_the_table(history):
    pa, pl, duckdb, pd = (pytest.importorskip(name) for name in ("pyarrow", "polars", "duckdb", "pandas"))
    wanted = {name: column.tolist() for name, column in history.columns().items()}
    assert duckdb.sql("select max(mean) from history where mode = 'train'").fetchall() == [(3.0,)]
    if hasattr(pd.DataFrame, "from_arrow"):  # since pandas 3
        assert pd.DataFrame.from_arrow(history).to_dict("list") == wanted
    arrow = pa.table(history)
    assert arrow.to_pydict() == wanted
    assert pl.DataFrame(history).to_dict(as_series=False) == wanted
    assert arrow.to_pandas().to_dict("list") == wanted
    assert duckdb.sql("select max(mean) from arrow where mode = 'train'").fetchall() == [(3.0,)]


def test_csv_reads_back_to_the_same_numbers(history, tmp_path):
    history.to_csv(tmp_path / "h.csv")
    with (tmp_path / "h.csv").open(newline="", encoding="utf-8") as file:
        header, *body = csv.reader(file)
    assert header == COLUMNS
    columns = history.columns()
    for name, cells in zip(COLUMNS, zip(*body, strict=True), strict=True):
        assert [type(value)(cell) for value, cell in zip(columns[name].tolist(), cells, strict=True)] == columns[
            name
        ].tolist()


def test_parquet_reads_back_to_the_same_numbers(history, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    history.to_parquet(tmp_path / "h.parquet")
    assert pq.read_table(tmp_path / "h.parquet").to_pydict() == {k: v.tolist() for k, v in history.columns().items()}


# -- looks and state --------------------------------------------------------------------------------------


def test_the_repr_says_what_is_there_and_who_is_worst(history):
    lines = repr(history).splitlines()
    assert lines[0] == "History of 'ce' by 'y': 4 entries"
    assert lines[2].split() == ["train", "-", "2", "1", "2", "2", "5", "1", "(mean", "3)"]
    assert history._repr_html_().startswith("<table>")
    assert repr(lt.History()) == "History of 'metric' by 'label': 0 entries"


def test_the_state_brings_every_bit_back(history):
    again = lt.History()
    again.load_state_dict(history.state_dict())
    assert (again.metric, again.label, again.bounds) == ("ce", "y", ("std", "range"))
    assert fingerprint(again) == fingerprint(history)


def test_a_loaded_state_replaces_everything(history, several):
    several.load_state_dict(history.state_dict())
    assert fingerprint(several) == fingerprint(history)
    assert (several.modes, several.steps(), several.metric) == (["train", "eval"], [1, 2], "ce")
    history.add(9, lt.label_stats([0], [1.0]))
    assert several.steps() == [1, 2]


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (lambda _: None, TypeError),
        (lambda _: {}, TypeError),
        (lambda state: without(state, "pooled"), TypeError),
        (lambda state: state | {"entries": [*state["entries"], {"step": 3}]}, TypeError),
        (lambda state: state | {"entries": [*state["entries"], state["entries"][-1] | {"step": "x"}]}, TypeError),
        (lambda state: state | {"entries": 2 * state["entries"]}, ValueError),
    ],
)
def test_a_state_that_cannot_be_loaded_changes_nothing(history, several, broken, error):
    before = fingerprint(several)
    with pytest.raises(error):
        several.load_state_dict(broken(history.state_dict()))
    assert fingerprint(several) == before


def test_a_state_of_something_else_says_what_is_expected():
    with pytest.raises(TypeError, match=r"expected the state_dict\(\) of a History, but it cannot be read: KeyError"):
        lt.History().load_state_dict({"version": 1})


def test_a_step_done_again_takes_the_place_of_what_was_there_of_it():
    history = lt.History(metric="ce", label="y")
    first, second = lt.label_stats([0, 1], [1.0, 2.0]), lt.label_stats([0, 2], [3.0, 4.0])
    history.add_all(1, {"a": first, "b": first}, mode="eval")
    history.add_all(2, {"a": first}, mode="eval")
    history.add(1, first, mode="train")
    history.add_all(1, {"b": second}, mode="eval", replace=True)
    assert rows(history.at(1, "eval")) == rows(second)
    assert rows(history.at(2, "eval")) == rows(first)
    assert rows(history.at(1, "train")) == rows(first)
    assert history.steps("eval") == [1, 2]
    history.add(2, second, mode="eval", ds_id="b", replace=True)
    history.add(2, second, mode="eval", ds_id="a", replace=True)
    assert rows(history.at(2, "eval", "a")) == rows(history.at(2, "eval", "b")) == rows(second)
    with pytest.raises(TypeError, match="step must be an integer"):
        history.add("2", second, mode="eval", ds_id="a", replace=True)
    with pytest.raises(ValueError, match="replace=True"):
        history.add(2, second, mode="eval", ds_id="a")


# -- many steps ---------------------------------------------------------------------------------------------


def lines_run(call):
    """Return how many lines a call executes within the package; the same number every time, with every Python."""
    counted = 0
    inside = str(Path(lt.__file__).parent)

    def trace(frame, event, _argument):
        nonlocal counted
        if not frame.f_code.co_filename.startswith(inside):
            return None
        counted += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return counted


PART = lt.label_stats([0, 0, 1, 2], [0.5, 1.0, 2.0, 3.0])


def long_history(n):
    history = lt.History()
    for step in range(n):
        for mode in ("train", "eval"):
            history.add_all(step, {"a": PART, "b": PART} if step % 2 else {"a": PART}, mode=mode)
    return history


def each(call):
    return lambda history: [call(history, step) for step in history.steps("eval")]


LOOKS = {
    "add": lambda history: long_history(len(history.steps("train"))),
    "replace": each(lambda history, step: history.add(step, PART, mode="eval", ds_id="a", replace=True)),
    "replace all": each(lambda history, step: history.add_all(step, {"b": PART}, mode="eval", replace=True)),
    "at": each(lambda history, step: history.at(step, "eval")),
    "at of a dataset": each(lambda history, step: history.at(step, "eval", "a")),
    "datasets": each(lambda history, step: history.datasets(step, "eval")),
    "pooled": lambda history: history.pooled("eval", ds_id="a"),
    "worst": each(lambda history, step: history.worst(mode="eval", ds_id="b" if step % 2 else None)),
    "series": lambda history: history.series(1, "mean", "eval"),
    "columns": lambda history: history.columns(),
    "names": lambda history: history.names(),
    "repr": repr,
    "state": lambda history: lt.History().load_state_dict(history.state_dict()),
    "table": lambda history: history_table(history, mode="eval"),
    "lines": lambda history: plot_history(history, kind="lines"),
    "multiples": lambda history: plot_history(history, kind="multiples", bounds=["std", "range"]),
    "heatmap": lambda history: plot_history(history, kind="heatmap"),
}


@pytest.mark.parametrize("name", LOOKS)
def test_four_times_the_steps_are_at_most_about_four_times_the_work(name):
    look = LOOKS[name]
    look(long_history(4))  # what is loaded or computed once
    histories = [long_history(n) for n in (40, 160)]
    few, many = (lines_run(lambda history=history: look(history)) for history in histories)
    assert 0 < many < 5 * few + 1000


def reference(entries, mode, step):
    """Return what a plain search through all that was recorded, newest last, finds of a step."""
    return {ds_id: stats for (of, ds_id, at), stats in entries if (of, at) == (mode, step)}


def test_whatever_is_added_and_replaced_a_plain_search_finds_the_same():
    rng = np.random.default_rng(5)
    history, entries = lt.History(), []
    for i in range(600):
        step, mode = int(rng.integers(-4, 8)), "ab"[rng.integers(2)]
        ds_ids = [ds_id for ds_id in ("", "x", "y") if rng.random() < 0.5]
        stats = lt.label_stats([0], [float(i)])
        there, replace = reference(entries, mode, step), bool(rng.random() < 0.5)
        one = len(ds_ids) == 1 and rng.random() < 0.5
        if not replace and set(there) & set(ds_ids):
            with pytest.raises(ValueError, match="already in the history"):
                history.add_all(step, dict.fromkeys(ds_ids, stats), mode=mode)
            continue
        if one:
            history.add(step, stats, mode=mode, ds_id=ds_ids[0], replace=replace)
        else:
            history.add_all(step, dict.fromkeys(ds_ids, stats), mode=mode, replace=replace)
        gone = {(mode, ds_id, step) for ds_id in (ds_ids if one else there)} if replace else set()
        entries = [entry for entry in entries if entry[0] not in gone]
        entries += [((mode, ds_id, step), stats) for ds_id in ds_ids]
        assert list(history.items()) == entries
        assert history.steps() == sorted({key[2] for key, _ in entries})
        assert set(history.modes) == {key[0] for key, _ in entries}
        for of in "ab":
            steps = sorted({key[2] for key, _ in entries if key[0] == of})
            assert history.steps(of) == steps
            for at in range(-4, 8):
                assert history.datasets(at, of) == reference(entries, of, at)
            if steps:
                last = reference(entries, of, steps[-1])
                assert history.at(steps[-1], of).count.sum() == len(last)
                assert history.series(0, "count", of)[0].tolist() == steps


def test_repeating_the_first_epoch_of_a_mode_leaves_the_modes_in_the_order_they_were_first_recorded():
    tracker = lt.LabelTracker("y", "ce")
    for mode, replace in (("train", False), ("eval", False), ("train", True)):
        tracker.update([0, 1], [1.0, 2.0], mode=mode)
        tracker.end_epoch(1, mode=mode, replace=replace)
    assert tracker.history.modes == ["train", "eval"]
    assert tracker.history.columns()["mode"].tolist() == ["train"] * 2 + ["eval"] * 2
    tracker.history.add_all(1, {}, mode="train", replace=True)
    assert tracker.history.modes == ["eval"]


# -- labels without samples ---------------------------------------------------------------------------------


@pytest.fixture(name="vanishing")
def _vanishing():
    """Of three labels of the mapping one never occurs, and one vanishes after the first step."""
    mapping = {"cat": 0, "dog": 1, "eel": 2}
    history = lt.History(metric="ce", label="y")
    for step, labels in ((1, [0, 1, 1]), (2, [0, 0])):
        history.add(step, lt.label_stats(labels, np.full(len(labels), step / 2), label_mapping=mapping))
    return history


def test_a_label_that_vanished_is_in_every_table(vanishing, tmp_path):
    whole = vanishing.with_absent()
    assert whole.columns()["name"].tolist() == ["cat", "dog", "eel"] * 2
    assert whole.columns()["count"].tolist() == [1, 2, 0, 2, 0, 0]
    steps, counts = whole.series("dog", "count")
    assert (steps.tolist(), counts.tolist()) == ([1, 2], [2, 0])
    whole.to_csv(tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["count"], row["mean"]) for row in rows[3:]] == [
        ("cat", "2", "1.0"),
        ("dog", "0", "nan"),
        ("eel", "0", "nan"),
    ]
    assert whole.worst(2) == [0, 1]
    assert whole.worst(1, by="count", higher_is_worse=False) == [1]
    assert vanishing.columns()["name"].tolist() == ["cat", "dog", "cat"]


def test_without_a_mapping_what_occurs_at_any_step_is_in_all():
    history = lt.History()
    history.add(1, lt.label_stats(["a", "b"], [1.0, 2.0]), mode="train")
    history.add_all(2, {"x": lt.label_stats(["b"], [1.0]), "y": lt.label_stats(["c"], [3.0])}, mode="eval")
    whole = history.with_absent(["d"])
    for stats in (stats for _, stats in whole.items()):
        assert stats.labels.tolist() == ["a", "b", "c", "d"]
    assert whole.at(2, "eval").count.tolist() == [0, 1, 1, 0]
    assert lt.History().with_absent().names() == {}


def test_quantiles_of_several_datasets_together_stay():
    tracker = lt.LabelTracker("y", "ce", {"a": 0, "b": 1, "c": 2}, bounds="median")
    tracker.update([0, 0], [1.0, 2.0], ds_id="x")
    tracker.update([0, 1], [6.0, 3.0], ds_id="y")
    tracker.end_epoch(1)
    medians = tracker.history.with_absent().at(1).median.tolist()
    assert medians[:2] == [2.0, 3.0]
    assert math.isnan(medians[2])


@pytest.mark.parametrize(
    ("batches", "names", "counts"),
    [
        ((["a", None], ["b"]), ["(missing)", "a", "b"] * 2, [1, 1, 0, 0, 0, 1]),
        ((["a"], ["b"]), ["a", "b"] * 2, [1, 0, 0, 1]),
        (([1.5, math.nan], [2.5]), ["(missing)", "1.5", "2.5"] * 2, [1, 1, 0, 0, 0, 1]),
    ],
)
def test_missing_labels_are_a_row_only_where_there_are_some_at_any_step(batches, names, counts):
    tracker = lt.LabelTracker("y", "ce", missing="label")
    for step, labels in enumerate(batches):
        tracker.update(labels, [1.0] * len(labels))
        tracker.end_epoch(step)
    columns = tracker.history.with_absent().columns()
    assert (columns["name"].tolist(), columns["count"].tolist()) == (names, counts)
