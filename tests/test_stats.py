"""`LabelStats`: columns, rows, policies, merging, looks, Arrow, state."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from exact import expected, expected_by_label, fingerprint, rows
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._core.accumulator import Accumulator

LABELS = [4, 7, 4, 9, 4, 7]
VALUES = [0.5, 2.0, 1.5, 8.0, -1.0, 4.0]


@pytest.fixture(name="stats")
def _stats():
    return lt.label_stats(LABELS, VALUES)


# -- reading ----------------------------------------------------------------------------------------------


def test_columns_are_sorted_by_label_and_typed(stats):
    assert stats.labels.tolist() == [4, 7, 9]
    assert stats.names.tolist() == ["4", "7", "9"]
    assert [stats.labels.dtype, stats.count.dtype] == [np.int64, np.int64]
    assert all(stats.column(name).dtype == np.float64 for name in ("sum", "mean", "std", "min", "max"))
    assert rows(stats) == expected_by_label(LABELS, VALUES)


def test_one_sample_has_no_deviation(stats):
    assert stats[9].std == 0.0


def test_columns_cannot_be_written_to(stats):
    for name in ("labels", "names", "count", "mean", "nan_count"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(stats, name)[0] = 0


def test_a_row_is_found_by_value_or_display_name():
    stats = lt.label_stats(LABELS, VALUES, label_mapping={"seven": 7, "four": 4})
    assert stats["seven"] == stats[7] == stats[np.int64(7)]
    assert stats[7] == (7, "seven", *expected([2.0, 4.0]))
    assert 7 in stats
    assert "seven" in stats
    assert "7" not in stats
    assert [1] not in stats
    assert len(stats) == 2


def test_a_label_wins_over_a_display_name():
    stats = lt.label_stats(["a", "b"], [1, 2], label_mapping={"b": "a", "a": "b"})
    assert stats["a"].mean == 1.0


def test_a_missing_label_names_the_nearest(stats):
    with pytest.raises(KeyError, match=r"no label 6\. Did you mean 7, 4, 9"):
        stats[6]
    named = lt.label_stats(LABELS, VALUES, label_mapping={"seven": 7, "four": 4})
    with pytest.raises(KeyError, match=r"no label 'sevn'\. Did you mean 'seven'"):
        named["sevn"]


def test_labels_are_ranked_by_any_statistic(stats):
    assert stats.order("mean").tolist() == [2, 1, 0]
    assert stats.order("count", descending=False).tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="unknown statistic 'variance'; there are 'count', 'sum'"):
        stats.order("variance")


def test_labels_that_are_nan_on_average_rank_first():
    stats = lt.label_stats([0, 1, 2], [5.0, math.nan, 7.0])
    assert stats.order("mean").tolist() == [1, 2, 0]
    assert stats.order("mean", descending=False).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([True, False], ["False", "True"]),
        ([0.5, -2.0], ["-2.0", "0.5"]),
        ([b"caf\xc3\xa9", b"\xff"], ["café", "\\xff"]),
        (["b", "a"], ["a", "b"]),
    ],
)
def test_labels_without_a_mapping_are_called_what_they_are(labels, names):
    assert lt.label_stats(labels, [1, 2]).names.tolist() == names


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=30)
)
def test_the_total_is_exact_over_all_labels(pairs):
    labels, values = zip(*pairs, strict=True)
    assert lt.label_stats(labels, values).total() == (None, "all", *expected(values))


def test_the_total_of_nothing_is_empty():
    assert lt.label_stats([], []).total().count == 0


# -- NaN and infinities -----------------------------------------------------------------------------------

WILD_LABELS = [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5]
WILD_VALUES = [1.0, math.nan, 3.0, math.inf, 2.0, -math.inf, math.inf, -math.inf, 1.0, math.nan, math.inf]


def same(got, wanted):
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_propagate_by_default(dtype):
    stats = lt.label_stats(WILD_LABELS, np.array(WILD_VALUES, dtype=dtype))
    nan, inf = math.nan, math.inf
    assert stats.count.tolist() == [3, 2, 2, 2, 1, 1]
    assert same(stats.sum, [nan, inf, nan, -inf, nan, inf])
    assert same(stats.mean, [nan, inf, nan, -inf, nan, inf])
    assert same(stats.std, [nan, nan, nan, nan, nan, nan])
    assert same(stats.min, [nan, 2.0, -inf, -inf, nan, inf])
    assert same(stats.max, [nan, inf, inf, 1.0, nan, inf])
    assert stats.nan_count.tolist() == [1, 0, 0, 0, 1, 0]


def test_nan_are_left_out_on_request_and_infinities_are_not():
    stats = lt.label_stats(WILD_LABELS, WILD_VALUES, nan_policy="omit")
    assert stats[0][2:] == expected([1.0, 3.0])
    assert stats.count.tolist() == [2, 2, 2, 2, 0, 1]
    assert same(stats[4][2:], (0, 0.0, math.nan, math.nan, math.nan, math.nan))
    assert stats[1].mean == math.inf


def test_nan_are_an_error_on_request_that_says_where_and_how_many():
    with pytest.raises(
        ValueError, match=r"2 NaN samples under nan_policy='raise', by label \(how many\): 0 \(1\), 4 \(1\)"
    ):
        lt.label_stats(WILD_LABELS, WILD_VALUES, nan_policy="raise")
    with pytest.raises(ValueError, match=r"cat \(1\)"):
        lt.label_stats([0], [math.nan], label_mapping={"cat": 0}, nan_policy="raise")
    with pytest.raises(ValueError, match=r"… \(20 labels in all\)"):
        lt.label_stats(np.arange(20), np.full(20, math.nan), nan_policy="raise")


def test_the_policy_acts_on_reading_so_another_costs_nothing():
    stats = lt.label_stats(WILD_LABELS, WILD_VALUES)
    assert stats.nan_policy == "propagate"
    assert stats.with_nan_policy("omit")[0].mean == 2.0
    with pytest.raises(ValueError, match="NaN samples under"):
        stats.with_nan_policy("raise")


# -- merging ----------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 6), st.floats(allow_nan=False, allow_infinity=False)), max_size=20),
        min_size=1,
        max_size=5,
    ),
    st.randoms(),
)
def test_merging_equals_one_pass_whatever_the_order_of_merges(parts, random):
    together = [pair for part in parts for pair in part]
    whole = lt.label_stats([k for k, _ in together], [v for _, v in together])
    separate = [lt.label_stats([k for k, _ in part], [v for _, v in part]) for part in parts]
    wanted = fingerprint(whole)
    assert fingerprint(lt.merge_stats(separate)) == wanted
    while len(separate) > 1:
        random.shuffle(separate)
        separate.append(separate.pop().merge(separate.pop()))
    assert fingerprint(separate[0]) == wanted


def test_merging_leaves_its_inputs_alone_and_shares_nothing(stats):
    other = lt.label_stats([7, 1], [100.0, 1e-300])
    before = fingerprint(stats), fingerprint(other)
    merged = stats.merge(other)
    assert (fingerprint(stats), fingerprint(other)) == before
    assert rows(merged) == expected_by_label([*LABELS, 7, 1], [*VALUES, 100.0, 1e-300])
    for a in (merged._labels, merged._accumulator.rows, merged._accumulator.nonfinite):
        for b in (stats, other):
            assert not np.shares_memory(a, b._labels)
            assert not np.shares_memory(a, b._accumulator.rows)
            assert not np.shares_memory(a, b._accumulator.nonfinite)


def test_merging_a_single_part_gives_a_new_object(stats):
    merged = lt.merge_stats([stats])
    assert fingerprint(merged) == fingerprint(stats)
    assert not np.shares_memory(merged._accumulator.rows, stats._accumulator.rows)


def test_merging_empty_and_disjoint_statistics_works(stats):
    empty = lt.label_stats([], [])
    assert len(empty.merge(empty)) == 0
    assert rows(empty.merge(stats)) == rows(stats.merge(empty)) == rows(stats)
    assert rows(stats.merge(lt.label_stats([1], [1.0])))[1] == expected([1.0])


def test_nan_and_infinities_add_up_over_merges():
    stats = lt.label_stats(WILD_LABELS, WILD_VALUES)
    assert stats.merge(stats).nan_count.tolist() == [2, 0, 0, 0, 2, 0]
    assert stats.merge(stats).count.tolist() == [6, 4, 4, 4, 2, 2]


def test_names_come_from_whichever_part_has_them():
    named = lt.label_stats([0], [1], label_mapping={"cat": 0})
    plain = lt.label_stats([0, 1], [1, 2])
    assert plain.merge(named).names.tolist() == ["cat", "1"]


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (list, ValueError, "got nothing to merge; pass at least one"),
        (lambda: [lt.label_stats([0], [1]), 3], TypeError, "expected a LabelStats to merge, got int"),
        (
            lambda: [lt.label_stats([0], [1], label_mapping={name: 0}) for name in ("cat", "dog")],
            ValueError,
            "label 0 is called 'cat' in one part and 'dog' in another",
        ),
        (
            lambda: [lt.label_stats([0], [1], nan_policy=p) for p in ("omit", "propagate")],
            ValueError,
            "cannot merge nan_policy 'omit' with 'propagate'; use with_nan_policy",
        ),
        (
            lambda: [lt.label_stats([0], [1]), lt.label_stats(["a"], [1])],
            TypeError,
            "cannot put integer and string labels",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused(parts, error, message):
    with pytest.raises(error, match=message):
        lt.merge_stats(parts())


# -- looks ------------------------------------------------------------------------------------------------


def test_the_repr_is_a_table_with_names_and_numbers():
    text = repr(lt.label_stats(LABELS, VALUES, label_mapping={"seven": 7, "four": 4}))
    assert text.splitlines()[0] == "LabelStats of 2 labels"
    assert text.splitlines()[1].split() == ["label", "name", "count", "sum", "mean", "std", "min", "max"]
    assert text.splitlines()[3].split() == ["7", "seven", "2", "6", "3", "1.41421", "2", "4"]


def test_a_long_table_is_cut_in_the_middle():
    text = repr(lt.label_stats(np.arange(100), np.arange(100)))
    assert len(text.splitlines()) == 2 + 8 + 1 + 4
    assert text.splitlines()[10].split()[0] == "…"


def test_an_empty_table_still_has_a_repr():
    assert repr(lt.label_stats([], [])) == "LabelStats of 0 labels"


def test_the_repr_shows_nan_even_where_they_are_an_error():
    stats = lt.LabelStats(*_raw([0, 1], [math.nan, 1.0]), nan_policy="raise")
    assert "nan" in repr(stats)


def _raw(labels, values):
    stats = lt.label_stats(labels, values)
    return stats._labels, stats._accumulator


def test_notebooks_get_a_table_with_markup_escaped():
    html = lt.label_stats(["<b>", "x"], [1, 2])._repr_html_()
    assert html.startswith("<table>")
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "…" in lt.label_stats(np.arange(100), np.arange(100))._repr_html_()


# -- other programs ---------------------------------------------------------------------------------------


def test_pyarrow_polars_pandas_and_duckdb_read_the_columns(stats):
    pa, pl, duckdb, pd = (pytest.importorskip(name) for name in ("pyarrow", "polars", "duckdb", "pandas"))
    wanted = {name: column.tolist() for name, column in stats.columns().items()}
    table = pa.table(stats)
    assert table.to_pydict() == wanted
    assert pl.DataFrame(stats).to_dict(as_series=False) == wanted
    assert duckdb.sql("select sum(count), max(mean) from stats").fetchall() == [(6, 8.0)]
    if hasattr(pd.DataFrame, "from_arrow"):  # since pandas 3
        assert pd.DataFrame.from_arrow(stats).to_dict("list") == wanted
    assert pd.DataFrame(table.to_pandas()).to_dict("list") == wanted
    reader = pa.RecordBatchReader.from_stream(stats)
    assert duckdb.from_arrow(reader).aggregate("sum(count), max(mean)").fetchall() == [(6, 8.0)]


@pytest.mark.parametrize("labels", [["a", "b"], [b"a", b"\xff"], [True, False], [0.5, 1.5], [2**64 - 1, 3]])
def test_labels_of_every_type_go_to_arrow(labels):
    pa = pytest.importorskip("pyarrow")
    stats = lt.label_stats(np.array(labels, dtype=np.uint64 if max(labels) == 2**64 - 1 else None), [1, 2])
    assert pa.table(stats)["label"].to_pylist() == sorted(labels)


def test_without_pyarrow_the_error_says_how_to_get_it(stats, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "labeltrack\[arrow\]"'):
        stats.__arrow_c_stream__()


# -- state ------------------------------------------------------------------------------------------------


def test_pickle_keeps_every_bit_and_goes_on_merging():
    stats = lt.label_stats(WILD_LABELS, WILD_VALUES, label_mapping={"zero": 0, "one": 1, "five": 5}, nan_policy="omit")
    again = pickle.loads(pickle.dumps(stats))
    assert fingerprint(again) == fingerprint(stats)
    assert again.nan_policy == "omit"
    assert fingerprint(again.merge(stats)) == fingerprint(stats.merge(stats))


def test_pickle_is_read_in_a_fresh_process(stats, tmp_path):
    path = tmp_path / "stats.pickle"
    path.write_bytes(pickle.dumps(stats))
    code = f"import pickle, pathlib; print(pickle.loads(pathlib.Path({str(path)!r}).read_bytes()).mean.tolist())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(stats.mean.tolist())


def test_quantiles_are_part_of_the_state_and_of_tables():
    stats = lt.label_stats([0, 1, 1], [5.0, 1.0, 2.0], quantiles=[0.5, 0.1])
    other = pickle.loads(pickle.dumps(stats))
    assert other.quantiles == (0.1, 0.5)
    assert list(other.columns())[-2:] == ["q0.1", "q0.5"]
    assert fingerprint(other) == fingerprint(stats)
    assert other.column("q0.1").tolist() == [5.0, np.quantile([1.0, 2.0], 0.1)]
    assert other.column("median").tolist() == other.column("q0.5").tolist() == [5.0, 1.5]
    assert other.order("median").tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        other.median[0] = 0.0


@pytest.mark.parametrize("statistic", ["variance", "q", "qq", "0.5", "qnan", "medians"])
def test_what_is_no_statistic_is_refused_with_those_there_are(statistic):
    stats = lt.label_stats([0], [5.0], quantiles=[0.25])
    with pytest.raises(ValueError, match=r"unknown statistic .*'max', 'median', 'q0\.25'"):
        stats.column(statistic)
    with pytest.raises(
        ValueError, match=r"there is no quantile 0\.75: available are 0\.25; quantiles are computed only on"
    ):
        stats.column("q0.75")


def test_merging_and_regrouping_lose_quantiles_and_say_so():
    stats, plain = lt.label_stats([0], [5.0], quantiles=[0.5]), lt.label_stats([0], [5.0])
    for merged in (stats.merge(plain), plain.merge(stats), lt.merge_stats([stats, stats]).merge(plain)):
        assert merged.quantiles == ()
        with pytest.raises(ValueError, match="these statistics were merged, and quantiles cannot be merged"):
            merged.quantile(0.5)
    with pytest.raises(ValueError, match="quantiles are computed only on request"):
        plain.merge(plain).quantile(0.5)


def test_statistics_with_quantiles_are_rounded_once(monkeypatch):
    rounded = []
    totals = Accumulator.totals
    monkeypatch.setattr(Accumulator, "totals", lambda self: rounded.append(self) or totals(self))
    stats = lt.label_stats([0, 1, 1], [0.5, 2.0, 3.0], quantiles=[0.5])
    assert (stats.mean.tolist(), stats.median.tolist()) == ([0.5, 2.5], [0.5, 2.5])
    assert stats._under("omit").std.tolist() == stats.std.tolist()
    assert len(rounded) == 2  # once for the other policy


@pytest.mark.parametrize("labels", [3, 5000])
def test_columns_cannot_be_made_writable(labels):
    stats = lt.label_stats(np.arange(labels), np.ones(labels))
    for column in (stats.count, stats.sum, stats.mean, stats.std, stats.min, stats.max):
        with pytest.raises(ValueError, match="WRITEABLE"):
            column.flags.writeable = True


# -- labels without samples ---------------------------------------------------------------------------------


def test_labels_without_samples_have_rows_of_count_zero_and_are_ranked_last():
    mapping = {"cat": 3, "dog": 5, "eel": 1}
    stats = lt.label_stats([3, 3, 5, 9], [1.0, 2.0, 4.0, 8.0], label_mapping=mapping, quantiles=[0.5])
    assert stats.names.tolist() == ["cat", "dog"]
    whole = stats.with_absent()
    assert whole.names.tolist() == ["eel", "cat", "dog"]
    assert whole.count.tolist() == [0, 2, 1]
    assert whole.sum.tolist() == [0.0, 3.0, 4.0]
    assert whole.present.tolist() == [False, True, True]
    for name in ("mean", "std", "min", "max", "sem", "median"):
        column = getattr(whole, name)
        assert math.isnan(column[0])
        np.testing.assert_array_equal(column[1:], getattr(stats, name))
    for bound in (None, "std", "range", "sem", "ci95", "median"):
        assert all(math.isnan(edge[0]) for edge in whole.bounds(bound))
    for by in ("mean", "min", "sum", "median"):
        assert [whole.order(by, descending=up).tolist()[-1] for up in (True, False)] == [0, 0]
    assert whole.order("count", descending=False).tolist() == [0, 2, 1]
    assert whole.total() == stats.total()
    assert whole["eel"].count == 0
    assert (len(stats), len(whole.with_absent())) == (2, 3)
    again = pickle.loads(pickle.dumps(whole))
    assert fingerprint(again) == fingerprint(whole)
    assert lt.merge_stats([whole, stats]).count.tolist() == [0, 4, 2]


@pytest.mark.parametrize(
    ("labels", "also", "expected"),
    [
        ([1, 2], [2, 7, 0, 7], [0, 1, 2, 7]),
        ([1, 2], [2**63], [1, 2, 2**63]),
        (["b"], ["a", "bbb"], ["a", "b", "bbb"]),
        ([b"b"], [b"a"], [b"a", b"b"]),
        ([True], [False], [False, True]),
        ([0.5], [1, 0.25], [0.25, 0.5, 1.0]),
        ([], ["a"], ["a"]),
        ([2, 1], [], [1, 2]),
    ],
)
def test_labels_of_every_kind_can_be_absent(labels, also, expected):
    found = np.array(labels) if labels else np.empty(0, dtype=np.int64)
    stats = lt.label_stats(found, np.ones(len(labels))).with_absent(also)
    assert stats.labels.tolist() == expected
    assert stats.count.tolist() == [int(label in labels) for label in expected]


def test_a_label_with_nothing_but_nan_is_not_absent():
    stats = lt.label_stats([0, 1], [np.nan, 1.0], label_mapping={"a": 0, "b": 1, "c": 2}, nan_policy="omit")
    whole = stats.with_absent()
    assert (whole.count.tolist(), whole.present.tolist()) == ([0, 1, 0], [True, True, False])
    assert whole.names[whole.order("mean")].tolist() == ["a", "b", "c"]
    quiet = stats._under("raise").with_absent()
    with pytest.raises(ValueError, match=r"1 NaN samples under nan_policy='raise'.*a \(1\)"):
        quiet.count  # noqa: B018


def test_absent_labels_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="cannot put integer and string labels into one table"):
        lt.label_stats([1], [1.0]).with_absent(["a"])
