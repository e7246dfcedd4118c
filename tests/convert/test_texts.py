"""Text in arrays: fixed width where that is small and exact, objects elsewhere, wherever labels go."""

from __future__ import annotations

import csv
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import labeltrack as lt
from labeltrack._convert.objects import text_array, tight, written
from labeltrack._serialize import plain, with_arrays

StringDType = getattr(np.dtypes, "StringDType", None) if hasattr(np, "dtypes") else None

LONG = "x" * 20_000
NULS = ["a", "a\0", "a\0\0", "", "\0", "b"]


def forms(words):
    """Yield everything that keeps words apart."""
    yield list(words)
    yield tuple(words)
    yield np.array([*words, None], dtype=object)[:-1]
    yield np.array([*words, None], dtype=object)[:-1].reshape(-1, 1)
    yield [np.str_(word) for word in words] if isinstance(words[0], str) else [np.bytes_(word) for word in words]
    if StringDType is not None and isinstance(words[0], str):
        yield np.array(words, dtype=StringDType())


def means(labels, values):
    """Return the mean of each label, by a loop."""
    found = {}
    for label, value in zip(labels, values, strict=True):
        found.setdefault(label, []).append(value)
    return {label: sum(of) / len(of) for label, of in sorted(found.items())}


def as_dict(stats):
    return dict(zip(stats.labels.tolist(), stats.mean.tolist(), strict=True))


words = st.text(st.sampled_from("ab\0é"), max_size=3) | st.just("y" * 200)


@given(st.lists(words), st.booleans())
def test_an_array_of_text_gives_back_what_it_was_made_of(texts, as_bytes):
    texts = [text.encode() for text in texts] if as_bytes else texts
    array = text_array(texts, bytes if as_bytes else str)
    assert array.tolist() == texts
    assert array.dtype.kind in ("OS" if as_bytes else "OU")
    assert tight(array).tolist() == texts
    assert with_arrays(plain(array)).tolist() == texts
    assert pickle.loads(pickle.dumps(array)).tolist() == texts


@pytest.mark.parametrize("kind", "US")
def test_usual_text_has_fixed_width_and_long_text_is_objects(kind):
    unusual = np.array(["a", "b" * 129], dtype=f"{kind}129")
    assert text_array(np.array(["cat", "tiger"], dtype=kind).tolist()).dtype.kind == kind
    assert tight(unusual).dtype == object
    assert tight(unusual).tolist() == unusual.tolist()
    assert tight(np.array(["a", "bc"], dtype=f"{kind}5000")).dtype == np.array(["bc"], dtype=kind).dtype
    assert type(text_array([np.str_(LONG)])[0]) is str


def test_labels_of_any_type_are_written_out():
    assert written(np.array([1, 2])).tolist() == ["1", "2"]
    assert written(np.array([b"a", b"\xff"])).tolist() == ["a", "\\xff"]
    assert written(text_array([b"a", b"a\0"])).tolist() == ["a", "a\0"]


@pytest.mark.parametrize("as_bytes", [False, True])
def test_labels_that_differ_in_nuls_at_their_end_stay_apart(as_bytes, tmp_path):
    labels = [word.encode() for word in NULS] if as_bytes else NULS
    labels = labels * 3 + labels[:2]
    values = np.arange(len(labels), dtype=np.float64)
    right = means(labels, values)
    for form in forms(labels):
        stats = lt.label_stats(form, values)
        assert as_dict(stats) == right
        assert len(set(stats.names.tolist())) == len(right)
        assert [stats[label].mean for label in right] == list(right.values())
    of_numpy = np.bytes_ if as_bytes else np.str_
    assert [stats[of_numpy(label)].mean for label in right] == list(right.values())
    assert as_dict(lt.label_stats(labels, values, label_mapping={"two": of_numpy(labels[2])})) == {
        labels[2]: right[labels[2]]
    }
    part = lt.label_stats(labels[:7], values[:7])
    assert as_dict(part.merge(lt.label_stats(labels[7:], values[7:]))) == right
    chosen = lt.label_stats(labels, values, label_mapping={"one": labels[1]}, quantiles=[0.5])
    assert as_dict(chosen) == {labels[1]: right[labels[1]]}
    assert chosen.names.tolist() == ["one"]

    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run", bounds="iqr") as tracker:
        for form in forms(labels):
            tracker.update(form, values)
        state = pickle.loads(pickle.dumps(tracker.state_dict()))
        assert as_dict(tracker.end_epoch(1)) == right
    again = lt.LabelTracker("y", "ce", bounds="iqr")
    again.load_state_dict(state)
    assert as_dict(again.end_epoch(1)) == right
    again.load_state_dict(pickle.loads(pickle.dumps(tracker.state_dict())))
    assert as_dict(again.history.at(1)) == right
    run = lt.open_run(tmp_path / "run")
    assert as_dict(run.recompute(progress=False).at(1)) == right
    assert run.samples().column("label").to_pylist()[: len(labels)] == labels
    grouped = run.recompute(group={labels[0]: "first", labels[1]: "second"}.get, progress=False).at(1)
    assert as_dict(grouped) == {"first": right[labels[0]], "second": right[labels[1]]}


def test_many_labels_that_are_long_or_short_have_the_statistics_of_a_loop():
    rng = np.random.default_rng(0)
    some = [f"{i}" * (1 + i % 7) for i in range(300)] + ["z" * 129, "z" * 500, "a\0"]
    labels = [some[i] for i in rng.integers(0, len(some), 40_000)]
    values = rng.integers(0, 9, 40_000).astype(np.float64)
    right = means(labels, values)
    for form in forms(labels):
        assert as_dict(lt.label_stats(form, values)) == right
    fixed = np.array([label.rstrip("\0") for label in labels])  # what numpy keeps
    assert as_dict(lt.label_stats(fixed, values)) == means(fixed.tolist(), values)
    assert as_dict(lt.label_stats(fixed, values, quantiles=[0.5])) == means(fixed.tolist(), values)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_missing_labels_have_their_own_beside_long_ones(as_bytes):
    labels = [LONG, None, "a\0", "a", None]
    labels = [label.encode() if as_bytes and label else label for label in labels]
    missing = b"(missing)" if as_bytes else "(missing)"
    values = [1.0, 2.0, 3.0, 4.0, 6.0]
    right = means([missing if label is None else label for label in labels], values)
    for form in (labels, np.array(labels, dtype=object)):
        assert as_dict(lt.label_stats(form, values, missing="label")) == right
        skipped = lt.label_stats(form, values, missing="skip")
        assert as_dict(skipped) == {label: mean for label, mean in right.items() if label != missing}
        tracker = lt.LabelTracker("y", "ce", missing="label")
        tracker.update(form, values)
        assert as_dict(tracker.end_epoch(1)) == right


def peak(work):
    """Return how many bytes were allocated at once, at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def lopsided():
    """Twenty thousand labels, of which one has twenty thousand characters; each numpy array of them has 1.6 GB."""
    return [f"l{i}" for i in range(19_999)] + [LONG], np.arange(20_000, dtype=np.float32)


ROOM = 64 * 2**20


@pytest.mark.parametrize("as_bytes", [False, True])
def test_one_long_label_does_not_make_all_of_them_long(lopsided, as_bytes):
    labels, values = lopsided
    labels = [label.encode() for label in labels] if as_bytes else labels

    def work():
        for form in forms(labels):
            stats = lt.label_stats(form, values)
            assert stats[labels[-1]].mean == values[-1]
        others = lt.label_stats(labels[:100], values[:100])
        merged = lt.merge_stats([others, stats, others])
        assert merged.count.sum() == 20_200
        assert len(merged.names) == 20_000
        repr(merged)
        again = pickle.loads(pickle.dumps(merged))
        assert again.labels.tolist() == merged.labels.tolist()
        with pytest.raises(KeyError) as error:
            merged["w" * 20_000]
        assert len(str(error.value)) < 5_000
        assert len(repr(lt.label_stats(labels[-9:], values[-9:]))) < 10_000
        named = lt.label_stats(labels, values, label_mapping={str(label) + "!": label for label in labels})
        assert max(map(len, named.names)) > 20_000

    assert peak(work) < ROOM


def test_one_long_label_costs_a_history_and_a_recorded_run_what_it_has_as_text(lopsided, tmp_path):
    labels, values = lopsided
    run = tmp_path / "run"

    def work():
        with lt.LabelTracker("y", "ce", record_to=run) as tracker:
            for epoch in (1, 2, 3):
                tracker.update(labels, values)
                tracker.update(np.array(labels, dtype=object), values)
                tracker.end_epoch(epoch)
        history = tracker.history
        assert history.series(LONG, "mean")[1].tolist() == [19_999.0] * 3
        assert len(history.columns()["name"]) == 60_000
        again = lt.LabelTracker("y", "ce")
        again.load_state_dict(tracker.state_dict())
        assert again.history.at(3)[LONG].count == 2
        recomputed = lt.open_run(run).recompute(progress=False)
        assert recomputed.at(2).labels.tolist() == history.at(2).labels.tolist()
        history.to_csv(tmp_path / "history.csv")
        lt.open_run(run).export(tmp_path / "samples.csv", progress=False)

    assert peak(work) < 3 * ROOM
    csv.field_size_limit(10**6)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["label"] == LONG for row in rows) == 3


def test_long_modes_and_datasets_are_repeated_as_text():
    history = lt.History()
    stats = lt.label_stats(np.arange(20_000), np.zeros(20_000))
    for step, ds_id in enumerate(["a", LONG]):
        history.add(step, stats, ds_id=ds_id)
    assert peak(lambda: history.columns()["ds_id"]) < ROOM
    assert history.columns()["ds_id"][-1] == LONG


def test_tables_of_arrow_have_text_of_any_length():
    pa = pytest.importorskip("pyarrow")
    for labels in (["a", "a\0", LONG], [b"a", b"a\0", LONG.encode()]):
        table = pa.table(lt.label_stats(labels, [1.0, 2.0, 3.0]))
        assert table.column("label").to_pylist() == labels
        assert table.column("name").to_pylist() == ["a", "a\0", LONG]
        assert table.schema.field("label").type == (pa.string() if isinstance(labels[0], str) else pa.binary())


def test_labels_of_several_types_in_a_history_are_written_out_in_full():
    history = lt.History()
    history.add(1, lt.label_stats([1, 2], [0.0, 0.0]))
    history.add(2, lt.label_stats(["a", "a\0", LONG], [0.0, 0.0, 0.0]))
    assert history.columns()["label"].tolist() == ["1", "2", "a", "a\0", LONG]
    assert len(history.names()) == 5
    history.plot()
