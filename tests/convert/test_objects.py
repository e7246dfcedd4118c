"""Lists, objects and columns: each item exactly, of any class and library, or an error that says what to do."""

from __future__ import annotations

import datetime as dt
import enum
import os
from decimal import Decimal

import numpy as np
import pytest
from exact import expected_by_label, rows

import labeltrack as lt
from labeltrack._convert.arrays import read_array, to_values
from labeltrack._convert.objects import value_of


def library(name):
    """Import a library; where all are required, a missing one is a failure and not a skipped test."""
    if os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1":
        return __import__(name)
    return pytest.importorskip(name, reason=f"{name} is not installed")


class Animal(str, enum.Enum):  # noqa: UP042 (an enum.StrEnum is its text)
    CAT = "cat"
    CAR = "car"


class Word(str):
    __slots__ = ()

    def __str__(self):
        return "another text"


class Raw(bytes):
    def __bytes__(self):
        return b"other bytes"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Big(int):
    def __int__(self):
        return 0


class Real(float):
    def __float__(self):
        return 0.0


BIG = 2**53 + 1  # which no double is

# -- what a class makes of its value does not count -------------------------------------------------------

SUBCLASSES = [
    ([Animal.CAT, Animal.CAR, Animal.CAT], ["cat", "car", "cat"]),
    ([Animal.CAT, "car", np.str_("cat")], ["cat", "car", "cat"]),
    ([Word("a"), Word("b"), Word("a")], ["a", "b", "a"]),
    ([Raw(b"a"), Raw(b"b"), b"a"], [b"a", b"b", b"a"]),
    ([Level.LOW, Level.HIGH, Level.LOW], [1, 2, 1]),
    ([Level.LOW, 5, True], [1, 5, 1]),
    ([Big(BIG), Big(BIG - 1), Big(BIG)], [BIG, BIG - 1, BIG]),
    ([Real(0.5), Real(1.5), 0.5], [0.5, 1.5, 0.5]),
    ([Real(0.5), Level.HIGH, 0.5], [0.5, 2.0, 0.5]),
]


@pytest.mark.parametrize(("labels", "values"), SUBCLASSES)
@pytest.mark.parametrize(
    "form", [list, tuple, lambda items: np.array(items, dtype=object), lambda items: [[x] for x in items]]
)
def test_labels_of_a_subclass_are_the_values_that_they_are(labels, values, form):
    wanted = expected_by_label(values, [1, 2, 4])
    given = form(labels)
    assert rows(lt.label_stats(given, [1, 2, 4])) == wanted
    tracker = lt.LabelTracker("y", "ce")
    for _ in range(2):  # the second batch of an epoch takes another path
        tracker.update(given, [1, 2, 4])
    assert rows(tracker.end_epoch(1)) == expected_by_label(values * 2, [1, 2, 4] * 2)


def test_a_single_label_of_a_subclass_is_its_value():
    assert lt.label_stats(Animal.CAT, 1.0).labels.tolist() == ["cat"]
    assert lt.label_stats(Level.HIGH, 1.0).labels.tolist() == [2]


def test_enums_in_mappings_and_groups_are_their_values(tmp_path):
    pytest.importorskip("pyarrow")
    mapping = {"a cat": Animal.CAT, "a car": Word("car")}
    labels = ["cat", "dog", "car", "cat"]
    wanted = expected_by_label(["cat", "car", "cat"], [1, 4, 8])
    for times in (1, 20_000):
        stats = lt.label_stats(np.tile(labels, times), np.tile([1, 2, 4, 8], times), label_mapping=mapping)
        assert stats.names.tolist() == ["a car", "a cat"]
        assert stats.count.tolist() == [times, 2 * times]
    with lt.LabelTracker("y", "ce", label_mapping=mapping, record_to=tmp_path / "run") as tracker:
        tracker.update(labels, [1, 2, 4, 8])
        assert rows(tracker.end_epoch(1)) == wanted
    run = lt.open_run(tmp_path / "run")
    assert run.label_mapping == {"a cat": "cat", "a car": "car"}
    assert rows(run.recompute().at(1, mode="train")) == wanted
    grouped = run.recompute(group={"cat": Animal.CAT, "dog": Animal.CAR, "car": Word("cat")}).at(1, mode="train")
    assert rows(grouped) == expected_by_label(["cat", "car", "cat", "cat"], [1, 2, 4, 8])


@pytest.mark.parametrize(
    ("item", "value"),
    [
        (Animal.CAT, "cat"),
        (Level.LOW, 1),
        (Big(7), 7),
        (Real(0.5), 0.5),
        (Raw(b"a"), b"a"),
        (np.int8(3), 3),
        (True, True),
    ],
)
def test_the_plain_value_of_a_label_is_of_a_plain_type(item, value):
    assert value_of(item) == value
    assert type(value_of(item)) is type(value)


# -- integers ---------------------------------------------------------------------------------------------

EXACT = [
    (np.array([2**63, 2**63 + 1, 5], dtype=object), [2**63, 2**63 + 1, 5]),
    ([np.uint64(2**63), np.uint64(2**63 + 1), np.int64(5)], [2**63, 2**63 + 1, 5]),
    ([np.uint64(3), np.int64(-5), 7], [3, -5, 7]),
    ([2**63, 2**64 - 1, 0], [2**63, 2**64 - 1, 0]),
    ([[2**63], [5], [2**63 + 1]], [2**63, 5, 2**63 + 1]),
    ([np.array(BIG), np.array(BIG - 1, dtype=np.uint64), np.array(1, dtype=np.int8)], [BIG, BIG - 1, 1]),
    ([2**53, 0.5, 1], [float(2**53), 0.5, 1.0]),
]


@pytest.mark.parametrize(("labels", "values"), EXACT)
def test_integers_of_several_types_are_kept_exactly(labels, values):
    stats = lt.label_stats(labels, [1, 2, 4])
    assert rows(stats) == expected_by_label(values, [1, 2, 4])
    assert set(map(type, stats.labels.tolist())) == {type(values[0])}
    tracker = lt.LabelTracker("y", "ce")
    tracker.update(labels, [1, 2, 4])
    assert rows(tracker.end_epoch(1)) == rows(stats)


INEXACT = [
    [2**53, BIG, 0.5],
    np.array([2**53, BIG, 0.5], dtype=object),
    [np.int64(BIG), np.float32(0.5)],
    [[2**53, 0.5], [BIG, 0.5]],
    [np.array(BIG), np.array(0.5)],
    [np.uint64(2**63), np.int64(-1)],
    np.array([2**64, 1], dtype=object),
    [10**400, 0.5],
]


@pytest.mark.parametrize("data", INEXACT)
def test_integers_that_would_become_other_doubles_are_refused_as_labels(data):
    with pytest.raises(ValueError, match=r"64.bit"):
        lt.label_stats(data, np.zeros(np.shape(data)))


@pytest.mark.parametrize("data", INEXACT[:-1])
def test_integers_of_any_size_are_the_nearest_doubles_as_values(data):
    expected = np.array([float(x) for x in np.ravel(np.array(data, dtype=object))]).reshape(np.shape(data))
    assert to_values(data).dtype == np.float64
    assert to_values(data).tolist() == expected.tolist()


def test_an_integer_beyond_all_doubles_is_refused_as_a_value():
    for data in ([10**400, 0.5], [10**400, 1]):
        with pytest.raises(ValueError, match=r"values holds an integer beyond 64 bits"):
            to_values(data)


def test_an_integer_that_is_no_double_maps_no_float_label():
    stats = lt.label_stats([2.0**53, 0.5], [1.0, 2.0], label_mapping={"next": BIG, "half": 0.5})
    assert stats.names.tolist() == ["half"]


# -- what cannot be taken ---------------------------------------------------------------------------------


class Plain(enum.Enum):
    A = 1


@pytest.mark.parametrize("item", [Plain.A, Decimal(1), dt.date(2020, 1, 1), {}, {"a"}, object()])
def test_other_objects_are_named_with_the_way_out(item):
    for data in ([item], np.array([item, item], dtype=object), [None, item]):
        with pytest.raises(TypeError, match=rf"labels holds Python objects \({type(item).__name__}\).*\.astype\(str\)"):
            lt.label_stats(data, np.ones(len(data)))
        with pytest.raises(
            TypeError, match=rf"values holds Python objects \({type(item).__name__}\).*\.astype\(float\)"
        ):
            to_values(data)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["2020-01-01"], "M8[ns]"),
        np.array([5], "m8[s]"),
        [np.datetime64("2020-01-01")],
        [np.timedelta64(5, "s")],
    ],
)
def test_dates_are_no_labels_and_are_told_to_become_text(labels):
    with pytest.raises(TypeError, match=r"got dtype (datetime|timedelta)64.*convert dates to text.*astype\(str\)"):
        lt.label_stats(labels, [1.0])
    with pytest.raises(TypeError, match=r"(datetime|timedelta)64"):
        lt.label_stats([1], [1.0], label_mapping={"day": np.asarray(labels)[0]})


def test_dates_made_text_are_labels():
    days = np.array(["2020-01-02", "2020-01-01"], "M8[D]").astype(str)
    assert lt.label_stats(days, [1.0, 2.0]).labels.tolist() == ["2020-01-01", "2020-01-02"]


def test_arrays_in_a_list_have_one_shape():
    assert read_array([np.arange(3), [3, 4, 5]], "labels")[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    for data in ([np.arange(3), np.arange(2)], [1, [2]], ["a", ["b"]]):
        with pytest.raises(ValueError, match="items differ in length"):
            read_array(data, "labels")


# -- columns ----------------------------------------------------------------------------------------------


def columns_of_pandas():
    pd, pa = library("pandas"), library("pyarrow")
    words, numbers, flags = ["b", "a", "b"], [BIG, BIG - 1, BIG], [True, False, True]
    for dtype in ("object", "str", "string", "string[pyarrow]", "category", pd.ArrowDtype(pa.large_string())):
        yield dtype, pd.Series(words, dtype=dtype), words
    yield "dictionary", pd.Series(words, dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))), words
    for dtype in ("int64", "object", "Int64", "UInt64", "category", "int64[pyarrow]"):
        yield dtype, pd.Series(numbers, dtype=dtype), numbers
    for dtype in ("bool", "object", "boolean", "bool[pyarrow]", "category"):
        yield dtype, pd.Series(flags, dtype=dtype), flags
    for dtype in ("Float64", "float[pyarrow]", "category", "object"):
        yield dtype, pd.Series([0.5, 1.5, 0.5], dtype=dtype), [0.5, 1.5, 0.5]
    yield "Index", pd.Index(words), words
    yield "Categorical", pd.Categorical(words, categories=["c", "b", "a"], ordered=True), words
    yield "array", pd.array(numbers, dtype="Int64"), numbers
    yield "DataFrame", pd.DataFrame({"y": pd.array(numbers, dtype="Int64")}), numbers


def columns_of_polars():
    pl = library("polars")
    words, numbers = ["b", "a", "b"], [BIG, BIG - 1, BIG]
    for dtype in (pl.String, pl.Categorical, pl.Enum(["c", "b", "a"])):
        yield str(dtype), pl.Series(words, dtype=dtype), words
    for dtype in (pl.Int64, pl.UInt64):
        yield str(dtype), pl.Series(numbers, dtype=dtype), numbers
    yield "bool", pl.Series([True, False, True]), [True, False, True]
    yield "binary", pl.Series([b"b", b"a", b"b"]), [b"b", b"a", b"b"]
    yield "DataFrame", pl.DataFrame({"y": numbers}), numbers


def columns_of_pyarrow():
    pa = library("pyarrow")
    words, numbers = ["b", "a", "b"], [BIG, BIG - 1, BIG]
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        yield str(kind), pa.array(words, kind), words
    yield "dictionary", pa.array(words).dictionary_encode(), words
    yield "chunks", pa.chunked_array([words[:1], words[1:]]), words
    parts = [pa.array(words[:1]).dictionary_encode(), pa.array(words[1:]).dictionary_encode()]
    yield "chunks of dictionaries", pa.chunked_array(parts), words
    yield "int64", pa.array(numbers), numbers
    yield "bool", pa.array([True, False, True]), [True, False, True]
    yield "binary", pa.array([b"b", b"a", b"b"]), [b"b", b"a", b"b"]
    yield "double", pa.array([0.5, 1.5, 0.5]), [0.5, 1.5, 0.5]
    yield "halves", pa.array([0.5, 1.5, 0.5], pa.float16()), [0.5, 1.5, 0.5]
    yield "table", pa.table({"y": numbers}), numbers


LIBRARIES = {"pandas": columns_of_pandas, "polars": columns_of_polars, "pyarrow": columns_of_pyarrow}


@pytest.mark.parametrize("name", LIBRARIES)
def test_columns_of_every_type_are_read_exactly(name):
    for kind, column, values in LIBRARIES[name]():
        assert rows(lt.label_stats(column, [1, 2, 4])) == expected_by_label(values, [1, 2, 4]), kind


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("text", ["a", "a" * 300])
def test_zeros_at_the_end_of_text_in_columns_are_kept(name, text):
    pd, pl, pa = library("pandas"), library("polars"), library("pyarrow")
    make = {
        "pandas": [pd.Series, lambda items: pd.Series(items, dtype="object"), lambda items: pd.array(items, "string")],
        "polars": [pl.Series, lambda items: pl.Series(items, dtype=pl.Categorical)],
        "pyarrow": [pa.array, lambda items: pa.array(items).dictionary_encode()],
    }
    for column in make[name]:
        for words in ([text, text + "\0", text], [text + "\0", text, None]):
            left = [(word, value) for word, value in zip(words, [1, 2, 4], strict=True) if word is not None]
            stats = lt.label_stats(column(words), [1, 2, 4], missing="skip")
            assert rows(stats) == expected_by_label(*zip(*left, strict=True))


@pytest.mark.parametrize("name", LIBRARIES)
def test_values_that_are_missing_in_a_column_are_nan(name):
    pd, pl, pa = library("pandas"), library("polars"), library("pyarrow")
    columns = {
        "pandas": [
            pd.Series([1, None, 3], dtype=t) for t in ("Int64", "Float64", "int64[pyarrow]", "float64", "object")
        ],
        "polars": [pl.Series([1, None, 3], dtype=t) for t in (pl.Int64, pl.Float32, pl.UInt8)],
        "pyarrow": [pa.array([1, None, 3]), pa.chunked_array([[1.0], [None, 3.0]])],
    }
    for column in columns[name]:
        np.testing.assert_array_equal(to_values(column), [1.0, np.nan, 3.0])
    assert np.isnan(to_values(pl.Series([None, None]))).all()
    assert lt.label_stats([0, 0, 1], columns[name][0], nan_policy="omit").count.tolist() == [1, 1]


def test_columns_that_are_no_labels_are_named_with_the_way_out():
    pd, pl, pa = library("pandas"), library("polars"), library("pyarrow")
    days = pd.to_datetime(["2020-01-01", "2020-01-02"])
    cases = [
        (pd.cut(pd.Series([1, 2]), 2), r"Interval.*astype\(str\)"),
        (pd.Series(days), r"datetime64.*astype\(str\)"),
        (pd.Series(days.tz_localize("UTC")), r"Timestamp.*astype\(str\)"),
        (pd.Series(pd.period_range("2020", periods=2)), r"Period.*astype\(str\)"),
        (pl.Series([dt.date(2020, 1, 1), None]), "datetime64"),
        (pl.Series([Decimal(1), None]), "Decimal"),
        (pl.Series([2**70, 1], dtype=pl.Int128), r"polars.*Series does not become a numpy array \(.*convert it first"),
        (pa.array([dt.date(2020, 1, 1), None]), "datetime64"),
        (pa.array([Decimal(1), Decimal(2)]), "Decimal"),
        (pa.array([[1], [2]]), "ndarray"),
        (pa.array([{"a": 1}, None]), "dict"),
    ]
    for column, message in cases:
        with pytest.raises(TypeError, match=message):
            lt.label_stats(column, [1.0, 2.0])


def test_names_that_are_enums_are_their_values(tmp_path):
    pa = library("pyarrow")
    path = tmp_path / "run"
    with lt.LabelTracker(Word("y"), Animal.CAT, {Animal.CAT: 0, Animal.CAR: 1}, record_to=path) as tracker:
        for _ in range(2):
            tracker.update([0, 1, 1], [1.0, 2.0, 4.0], mode=Animal.CAR, ds_id=Animal.CAT)
            tracker.update([0, 1, 1], [1.0, 2.0, 4.0], mode="car", ds_id="cat")
        stats = tracker.end_epoch(1, mode=Animal.CAR)
    assert (stats.names.tolist(), stats.count.tolist()) == (["cat", "car"], [4, 8])
    assert tracker.outputs == "cat_by_y"
    table = pa.table(tracker.history).to_pydict()
    assert [set(table[name]) for name in ("mode", "ds_id", "name")] == [{"car"}, {"cat"}, {"cat", "car"}]
    again = lt.open_run(path).recompute(progress=False)
    assert pa.table(again).equals(pa.table(tracker.history))
    by_hand = lt.History(metric="cat", label="y")
    by_hand.add(1, stats, mode=Animal.CAR, ds_id=Animal.CAT)
    assert pa.table(by_hand).equals(pa.table(tracker.history))
    assert by_hand.series("cat", mode="car")[1].tolist() == [1.0]


def test_tables_are_read_column_by_column_and_exactly():
    pd, pl, pa = library("pandas"), library("polars"), library("pyarrow")
    columns = {"a": [BIG, 1], "b": [2, None]}
    tables = [
        pd.DataFrame({"a": [BIG, 1], "b": pd.array([2, None], dtype="Int64")}),
        pl.DataFrame(columns),
        pa.table(columns),
        pa.RecordBatch.from_pydict(columns),
    ]
    for table in tables:
        stats = lt.label_stats(table, [[1.0, 2.0], [4.0, 8.0]], missing="skip")
        assert rows(stats) == expected_by_label([BIG, 2, 1], [1.0, 2.0, 4.0])
    losses = pd.DataFrame({"a": np.array([0.5, 1.5], np.float32), "b": [2, 3]})
    assert to_values(losses).tolist() == [[0.5, 2.0], [1.5, 3.0]]


def test_a_sparse_table_is_refused():
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed (it comes with jax)")
    for kind in (sparse.dok_matrix, sparse.csr_matrix):
        with pytest.raises(TypeError, match=r"labels must be an array.* got scipy\.sparse"):
            lt.label_stats(kind(np.eye(3)), np.ones(3))
