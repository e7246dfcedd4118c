"""Several labels per sample: combinations, their exact marginals, merging, names, mappings."""

from __future__ import annotations

import io
import itertools
import math
import pickle

import numpy as np
import pytest
from combinations import alike, numbers, samples
from conftest import COMPILED
from exact import expected_by_label, quantiles, rows
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt

ANIMALS, SITES = ["cat", "dog", "cat", "dog", "cat"], [1, 2, 1, 1, 3]
LOSSES = [0.5, 2.0, 1.5, 4.0, 8.0]


N = 200_000 if COMPILED else 20_000


@pytest.fixture
def stats():
    return lt.label_stats({"class": ANIMALS, "site": SITES}, LOSSES)


# -- combinations -----------------------------------------------------------------------------------------


def test_each_combination_that_occurs_has_a_row_and_no_other(stats):
    assert rows(stats) == expected_by_label(zip(ANIMALS, SITES, strict=True), LOSSES)
    assert stats.labels.dtype.names == stats.label_names == ("class", "site")
    assert stats.labels["class"].tolist() == ["cat", "cat", "dog", "dog"]
    assert stats.labels["site"].dtype == np.int64


def test_labels_of_a_tuple_are_numbered():
    stats = lt.label_stats((np.array(ANIMALS), np.array(SITES)), LOSSES)
    assert stats.label_names == ("label_0", "label_1")
    assert rows(stats) == expected_by_label(zip(ANIMALS, SITES, strict=True), LOSSES)


def test_a_mapping_of_one_label_has_that_as_its_marginal():
    stats = lt.label_stats({"class": ANIMALS}, LOSSES)
    assert stats.labels.tolist() == [("cat",), ("dog",)]
    assert stats[("cat",)].sum == 10.0
    assert alike(stats.by("class"), lt.label_stats(ANIMALS, LOSSES))


def test_a_tuple_of_labels_is_still_one_label_per_sample():
    assert rows(lt.label_stats(tuple(ANIMALS), LOSSES)) == expected_by_label(ANIMALS, LOSSES)
    assert rows(lt.label_stats(tuple(map(np.array, SITES)), LOSSES)) == expected_by_label(SITES, LOSSES)
    assert len(lt.label_stats((), [])) == 0


@pytest.mark.parametrize("label", [("cat", 1), (np.str_("cat"), np.int32(1)), "cat, 1"])
def test_a_row_is_found_by_its_labels_and_by_its_name(stats, label):
    assert stats[label].label == ("cat", 1)
    assert stats[label].sum == 2.0
    assert label in stats


@pytest.mark.parametrize("label", ["cat", ("cat",), ("cat", 1, 1), ("cat", 2), ("cat", [1]), 1])
def test_other_rows_are_an_error_with_the_nearest(stats, label):
    assert label not in stats
    with pytest.raises(KeyError, match=r"There are: \('cat', 1\)|There are: 'cat, 1'"):
        stats[label]


def test_single_precision_labels_are_found_by_either_number():
    stats = lt.label_stats({"class": [0, 1], "rate": np.array([0.1, 0.25], dtype=np.float32)}, [1.0, 2.0])
    assert stats[0, 0.1].sum == stats[0, float(np.float32(0.1))].sum == 1.0
    assert stats.labels["rate"].tolist() == [0.1, 0.25]


def test_names_with_commas_and_quotation_marks_stay_apart():
    left, right = ["a, b", "a", 'a"', "a"], ["c", "b, c", "c", '"c']
    names = lt.label_stats((left, right), [1, 2, 3, 4]).names.tolist()
    assert sorted(names) == sorted(['"a, b", c', 'a, "b, c"', '"a""", c', 'a, """c"'])


def test_the_table_shows_a_column_for_each_label(stats):
    lines = repr(stats).splitlines()
    assert lines[0] == "LabelStats of 4 combinations of labels"
    assert lines[1].split() == ["class", "site", "count", "sum", "mean", "std", "min", "max"]
    assert lines[2].split()[:3] == ["cat", "1", "2"]
    assert "<th>class</th><th>site</th>" in stats._repr_html_()


def test_arrow_tables_have_a_column_for_each_label(stats):
    pa = pytest.importorskip("pyarrow")
    table = pa.table(stats)
    assert table.column_names[:4] == ["class", "site", "name", "count"]
    assert table.column("class").to_pylist() == ["cat", "cat", "dog", "dog"]
    assert table.column("site").to_pylist() == [1, 3, 1, 2]


def test_order_and_bounds_are_those_of_the_rows(stats):
    assert stats.labels[stats.order("mean")[:2]].tolist() == [("cat", 3), ("dog", 1)]
    low, centre, high = stats.bounds("range")
    assert (low.tolist(), centre.tolist(), high.tolist()) == ([0.5, 8, 4, 2], [1, 8, 4, 2], [1.5, 8, 4, 2])


# -- against tracking each label alone --------------------------------------------------------------------


@given(samples, st.sampled_from(["propagate", "omit"]))
def test_marginals_are_bit_for_bit_the_statistics_of_each_label_alone(drawn, policy):
    labels, values = drawn
    stats = lt.label_stats(labels, values, nan_policy=policy)
    for name, column in labels.items():
        assert alike(stats.by(name), lt.label_stats(column, values, nan_policy=policy))
    for names in itertools.permutations(labels, 2):
        two = {name: labels[name] for name in names}
        assert alike(stats.by(*names), lt.label_stats(two, values, nan_policy=policy))
    assert stats.by(*labels) is stats
    everything = lt.label_stats(np.zeros(len(values)), values, nan_policy=policy)
    assert numbers(stats.by()) == numbers(everything)
    assert repr(stats.total()[2:]) == repr(everything[0][2:])


@given(samples, st.data())
def test_rows_are_exact_in_any_order_and_batches(drawn, data):
    labels, values = drawn
    values = np.nan_to_num(np.array(values), nan=1.0, posinf=2.0, neginf=-0.0)
    stats = lt.label_stats(labels, values)
    assert rows(stats) == expected_by_label(zip(*map(plain, labels.values()), strict=True), values)
    order = data.draw(st.permutations(range(len(values))))
    edges = sorted(data.draw(st.sets(st.integers(1, len(values)), max_size=2)) | {0, len(values)})
    parts = []
    for start, stop in itertools.pairwise(edges):
        some = order[start:stop]
        columns = {
            name: column[some] if isinstance(column, np.ndarray) else [column[i] for i in some]
            for name, column in labels.items()
        }
        parts.append(lt.label_stats(columns, values[some], threads=data.draw(st.integers(1, 3))))
    for each in itertools.permutations(parts):
        merged = lt.merge_stats(each)
        assert numbers(merged) == numbers(stats)
        assert merged.labels.tolist() == stats.labels.tolist()


def plain(labels):
    """Return labels as statistics have them."""
    if isinstance(labels, np.ndarray):
        return [float(str(label)) for label in labels] if labels.dtype == np.float32 else labels.tolist()
    return labels


# -- many combinations ------------------------------------------------------------------------------------


def test_a_million_combinations_are_exact():
    rng, side = np.random.default_rng(0), 1000 if COMPILED else 30
    items = np.arange(side) * 7919 - 4_000_000
    left, right = np.repeat(np.arange(side), side), np.tile(np.arange(side), side)
    left = np.concatenate([left, rng.integers(0, side, side**2)]).astype(np.int32)
    right = np.concatenate([right, rng.integers(0, side, side**2)])
    order = rng.permutation(left.size)
    left, right, values = left[order], right[order], rng.integers(-4, 5, left.size).astype(np.float32)
    columns = {"user": left, "item": items[right]}
    stats = lt.label_stats(columns, values)
    assert len(stats) == side**2
    assert stats.labels["user"].tolist() == np.repeat(np.arange(side), side).tolist()
    assert stats.labels["item"].tolist() == np.tile(items, side).tolist()
    slots = left * side + right
    assert stats.count.tolist() == np.bincount(slots).tolist()
    assert stats.sum.tolist() == np.bincount(slots, weights=values).tolist()
    assert alike(stats.by("item"), lt.label_stats(columns["item"], values))
    halves = [lt.label_stats({name: c[i::2] for name, c in columns.items()}, values[i::2]) for i in range(2)]
    assert numbers(lt.merge_stats(halves)) == numbers(stats)
    assert stats[side - 1, items[-1]].count == stats.count[-1]


@pytest.mark.parametrize("threads", [1, 3])
def test_labels_whose_product_takes_more_than_64_bits_are_combined(threads):
    rng = np.random.default_rng(1)
    wide = [rng.integers(-(2**63), 2**63 - 1, 50)[rng.integers(0, 50, 3000)] for _ in range(2)]
    narrow = [
        rng.integers(0, 3 * 10**6, 3000) for _ in range(5)
    ]  # 10**17 together, if only those that occur are numbered
    columns = {f"x{i}": column for i, column in enumerate([*wide, *narrow])}
    values = rng.integers(0, 9, 3000).astype(np.float32)
    stats = lt.label_stats(columns, values, threads=threads)
    assert rows(stats) == expected_by_label(zip(*(c.tolist() for c in columns.values()), strict=True), values)
    assert alike(stats.by("x0", "x1"), lt.label_stats({"x0": wide[0], "x1": wide[1]}, values))


@pytest.mark.parametrize("threads", [1, 2])
def test_rare_labels_beyond_the_others_are_counted(threads):
    left, right = np.zeros(N, dtype=np.int64), np.ones(N, dtype=np.uint8)
    left[N // 3], right[N // 2] = -900, 255
    stats = lt.label_stats((left, right), np.ones(N), threads=threads)
    assert {row.label: row.count for row in stats} == {(-900, 1): 1, (0, 1): N - 2, (0, 255): 1}


def test_no_samples_have_no_combinations():
    stats = lt.label_stats({"class": [], "site": np.array([], dtype="U3")}, [])
    assert len(stats) == len(stats.by("class")) == 0
    assert stats.total().count == 0
    both = stats.merge(lt.label_stats({"class": [1], "site": ["a"]}, [2.0]))
    assert rows(both) == {(1, "a"): (1, 2.0, 2.0, 0.0, 2.0, 2.0)}


# -- merging, states --------------------------------------------------------------------------------------


def test_merging_makes_room_for_other_labels_and_longer_words(stats):
    other = lt.label_stats({"class": ["elephant", "cat"], "site": [1.5, 1]}, [1.0, 3.0])
    merged = stats.merge(other)
    labels, values = [*ANIMALS, "elephant", "cat"], [*LOSSES, 1.0, 3.0]
    assert rows(merged) == expected_by_label(zip(labels, [*SITES, 1.5, 1], strict=True), values)
    assert rows(merged.by("class")) == expected_by_label(labels, values)


def test_statistics_by_other_labels_are_not_merged(stats):
    for other in (stats.by("class"), stats.by("site", "class"), lt.label_stats((ANIMALS, SITES), LOSSES)):
        with pytest.raises(TypeError, match=r"cannot put statistics by 'class', 'site' and by .* into one table"):
            stats.merge(other)


def test_pickled_statistics_are_the_same(stats):
    named = lt.label_stats({"dtype": ["a", "x" * 300], "site": [1, 2]}, [1.0, 2.0], label_mapping={"site": {"one": 1}})
    for each in (stats, named, lt.label_stats((ANIMALS, SITES), LOSSES, quantiles=[0.5])):
        again = pickle.loads(pickle.dumps(each))
        assert alike(again, each)
        assert again.quantiles == each.quantiles
        assert rows(again.by(each.label_names[1])) == rows(each.by(each.label_names[1]))


def test_a_history_of_combinations_survives_its_state(stats):
    history = lt.History()
    history.add(1, stats, mode="eval")
    assert history.worst(1, mode="eval") == [("cat", 3)]
    assert history.series(("dog", 1), "mean", mode="eval")[1].tolist() == [4.0]
    again = lt.History()
    again.load_state_dict(history.state_dict())
    assert alike(again.at(1, "eval"), stats)


def test_a_history_of_combinations_is_a_table_with_a_column_for_each_label(stats):
    history = lt.History()
    history.add(1, stats, mode="eval")
    history.add(2, lt.label_stats({"class": ["cow"], "site": [1]}, [3.0], quantiles=[0.5]), mode="eval")
    columns = history.columns()
    assert list(columns)[:6] == ["step", "mode", "ds_id", "class", "site", "name"]
    assert columns["class"].tolist() == ["cat", "cat", "dog", "dog", "cow"]
    assert columns["site"].tolist() == [1, 3, 1, 2, 1]
    assert columns["name"].tolist()[-1] == "cow, 1"
    assert columns["q0.5"].tolist()[-1] == 3.0
    assert history.pooled().count.tolist() == [2, 1, 1, 1, 1]
    assert history.with_absent().at(2).count.tolist() == [0, 0, 1, 0, 0]
    assert "cow, 1 (mean 3)" in repr(history)
    history.add(3, stats.by("class"), mode="eval")
    with pytest.raises(ValueError, match="steps with different labels: 'class', 'site' and 'label'"):
        history.columns()


def test_histories_of_combinations_are_drawn(stats):
    pytest.importorskip("matplotlib")
    history = lt.History()
    history.add(1, stats)
    history.add(2, stats.merge(lt.label_stats({"class": ["cow"], "site": [1]}, [3.0])))
    texts = {text.get_text() for axes in history.plot().axes for text in [axes.title, *axes.texts]}
    shown = {name for name in ("cat, 1", "cat, 3", "dog, 1", "dog, 2", "cow, 1") if any(name in text for text in texts)}
    assert len(shown) == 5


def test_states_of_combinations_are_loaded_by_torch(stats):
    torch = pytest.importorskip("torch")
    history, file = lt.History(), io.BytesIO()
    history.add(1, stats)
    torch.save(history.state_dict(), file)
    file.seek(0)
    again = lt.History()
    again.load_state_dict(torch.load(file))
    assert alike(again.at(1, "train"), stats)


# -- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapping", [{"site": {"north": 1, "south": 3}}, (None, {"north": 1, "south": 3})])
def test_each_label_has_a_mapping_of_its_own(mapping):
    stats = lt.label_stats({"class": ANIMALS, "site": SITES}, LOSSES, label_mapping=mapping)
    kept = [i for i, site in enumerate(SITES) if site in (1, 3)]
    assert rows(stats) == expected_by_label([(ANIMALS[i], SITES[i]) for i in kept], [LOSSES[i] for i in kept])
    assert stats.names.tolist() == ["cat, north", "cat, south", "dog, north"]
    assert stats["cat", "north"] == stats["cat", 1] == stats["cat, north"]
    assert stats.by("site").names.tolist() == ["north", "south"]
    assert repr(stats).splitlines()[1].split()[:3] == ["class", "site", "name"]


def test_mappings_of_all_kinds_of_labels_keep_what_they_map():
    columns = {
        "b": [True, False, True],
        "f": [0.1, 0.2, 0.1],
        "s": ["x", "y", "z"],
        "u": np.array([2**63, 1, 2**63], "u8"),
    }
    mapping = {"b": {"yes": True}, "f": {"low": 0.1}, "s": {"ex": "x", "zed": "z", "none": "q"}, "u": {"big": 2**63}}
    stats = lt.label_stats(columns, [1.0, math.nan, 4.0], label_mapping=mapping, nan_policy="raise")
    assert stats.labels.tolist() == [(True, 0.1, "x", 2**63), (True, 0.1, "z", 2**63)]
    assert stats["yes", "low", "zed", "big"].sum == 4.0


def test_absent_combinations_are_those_of_the_mappings(stats):
    named = lt.label_stats(
        {"class": ANIMALS, "site": SITES}, LOSSES, label_mapping=({"Cat": "cat", "Owl": "owl"}, None)
    )
    whole = named.with_absent()
    assert whole.labels.tolist() == [("cat", 1), ("cat", 3), ("owl", 1), ("owl", 3)]
    assert whole.count.tolist() == [2, 1, 0, 0]
    assert whole.by("class").count.tolist() == [3, 0]
    assert stats.with_absent() is stats
    assert stats.with_absent([("ox", 2), ("cat", 1)]).labels.tolist() == [*stats.labels.tolist(), ("ox", 2)]
    with pytest.raises(TypeError, match=r"expected tuples of 2 labels \('class', 'site'\), got 'ox'"):
        stats.with_absent(["ox"])


def test_more_absent_combinations_than_anybody_reads_are_refused():
    mapping = {name: {f"{name} {i}": i for i in range(1001)} for name in ("class", "site")}
    stats = lt.label_stats({"class": [1], "site": [2]}, [3.0], label_mapping=mapping)
    message = (
        "1,002,001 rows, one for every combination of 1,001 of 'class' × 1,001 of 'site', and makes at most 1,000,000"
    )
    with pytest.raises(ValueError, match=message):
        stats.with_absent()
    history = lt.History()
    history.add(1, stats)
    with pytest.raises(ValueError, match="1,002,001 rows"):
        history.with_absent()
    assert len(history.by("class").with_absent().at(1)) == 1001


def test_missing_labels_are_treated_label_by_label():
    labels = {"class": ["cat", None, "dog", None], "site": [1.0, 2.0, math.nan, math.nan]}
    values = [1.0, 2.0, 4.0, 8.0]
    with pytest.raises(ValueError, match="label 'class': 2 of 4 labels are missing"):
        lt.label_stats(labels, values)
    assert rows(lt.label_stats(labels, values, missing="skip")) == {("cat", 1.0): (1, 1.0, 1.0, 0.0, 1.0, 1.0)}
    kept = lt.label_stats(labels, values, missing={"class": "label", "site": "skip"})
    assert kept.labels.tolist() == [("(missing)", 2.0), ("cat", 1.0)]
    both = lt.label_stats(labels, values, missing=("label", "label"))
    assert alike(both.by("site"), lt.label_stats(labels["site"], values, missing="label"))
    assert alike(both.by("class"), lt.label_stats(labels["class"], values, missing="label"))
    assert both["(missing)", "(missing)"].sum == 8.0


def test_quantiles_are_those_of_the_samples_and_marginals_have_none():
    rng = np.random.default_rng(2)
    columns = {"class": rng.choice(["a", "b", "c"], 500), "site": rng.integers(0, 4, 500)}
    values = rng.normal(size=500)
    stats = lt.label_stats(columns, values, quantiles=[0.1, 0.5], label_mapping=({"A": "a", "C": "c"}, None))
    here = columns["class"] != "b"
    codes = np.unique(np.stack([columns["class"] == "c", columns["site"]]), axis=1, return_inverse=True)[1].reshape(-1)
    codes = (columns["class"] == "c") * 4 + columns["site"]
    wanted = quantiles(codes[here], values[here], [0.1, 0.5])
    assert stats.quantile(0.1).tolist() == wanted[0].tolist()
    assert stats.median.tolist() == wanted[1].tolist()
    assert stats.columns()["q0.1"].tolist() == wanted[0].tolist()
    with pytest.raises(ValueError, match=r"there is no quantile 0.5: by\(\) merges"):
        _ = stats.by("class").median
    with pytest.raises(ValueError, match="only on request"):
        _ = lt.label_stats(columns, values).by("class").median


def test_nan_under_raise_names_the_combination():
    with pytest.raises(ValueError, match=r"cat, 2 \(1\)"):
        lt.label_stats((["cat", "dog"], [2, 3]), [math.nan, 1.0], nan_policy="raise")


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        ({}, {}, ValueError, "labels is an empty mapping"),
        ({"count": [1]}, {}, ValueError, "a label cannot be called 'count'"),
        ({"median": [1]}, {}, ValueError, "a label cannot be called 'median'"),
        ({"q0.25": [1]}, {}, ValueError, "a label cannot be called 'q0.25'"),
        ({1: [1]}, {}, TypeError, "with a string as name, got 1"),
        ({"a": [1], "b": [1, 2]}, {}, ValueError, "label 'b': got a single metric value for 2 labels"),
        ({"a": [1], "b": np.array([1j])}, {}, TypeError, "label 'b': labels must be integers"),
        ({"a": [1]}, {"label_mapping": {"cat": 1}}, ValueError, "there is no label 'cat', but 'a'"),
        (
            ([1], [2]),
            {"label_mapping": ({"x": 1},)},
            ValueError,
            r"one for each of 2 labels \(label_0, label_1\), got 1",
        ),
        (([1], [2]), {"label_mapping": 3}, TypeError, r"label_mapping must be a mapping .* or a tuple, got int"),
        (([1], [2]), {"missing": "drop"}, ValueError, "missing: unknown option 'drop'"),
        (([1], [2]), {"missing": {"label_7": "skip"}}, ValueError, "there is no label 'label_7'"),
    ],
)
def test_mistakes_are_told(labels, options, error, message):
    with pytest.raises(error, match=message):
        lt.label_stats(labels, [0.5], **options)


def test_labels_that_are_not_there_are_an_error(stats):
    with pytest.raises(KeyError, match=r"no label called 'clas'\. Did you mean 'class'"):
        stats.by("clas")
    with pytest.raises(KeyError, match="no label called 'class'"):
        stats.by("site").by("class")
    with pytest.raises(ValueError, match="by\\(\\) expects each name once, got 'site', 'site'"):
        stats.by("site", "site")


def test_mappings_of_which_nothing_occurs_warn():
    labels = {"class": ["cat", "dog"], "site": [1, 2]}
    with pytest.warns(lt.LabelTrackWarning, match=r"'site': '1'; none has one of 'site'") as caught:
        assert len(lt.label_stats(labels, [1, 2], label_mapping={"site": {"one": "1"}})) == 0
    assert caught[0].filename == __file__
    with pytest.warns(lt.LabelTrackWarning, match=r"which are 'class': 'cat', 'site': 2$"):
        assert len(lt.label_stats(labels, [1, 2], label_mapping=({"Cat": "cat"}, {"two": 2}))) == 0


def test_labels_that_look_multi_hot_warn_unless_another_one_tells_columns_apart():
    rng = np.random.default_rng(8)
    hot, values, site = rng.random((8, 3)) < 0.3, rng.normal(size=(8, 3)), np.repeat([0, 1], 4)[:, np.newaxis]
    tracker = lt.LabelTracker(("hit", "site"), "ce")
    for tell in (lt.label_stats, tracker.update):
        with pytest.warns(lt.LabelTrackWarning, match="multi-hot.*pass np.arange") as caught:
            tell({"hit": hot, "site": site}, values)
        assert [one.filename for one in caught] == [__file__]
    tracker.update({"hit": hot, "site": site}, values)
    stats = lt.label_stats({"hit": hot, "class": np.arange(3)[np.newaxis]}, values)
    assert stats[True, 2].count == hot[:, 2].sum()
    lt.label_stats({"hit": hot, "site": site}, values, label_mapping={"hit": {"yes": True}})
