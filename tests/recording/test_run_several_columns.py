"""Recorded samples of several labels and metrics, and with ids: files, samples, and histories as they were live."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict

import numpy as np
import pytest
from exact import expected
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cli import invoke, refusal
from test_recorder import same

import labeltrack as lt
from labeltrack.recording.part import PartWriter, examine
from labeltrack.recording.storage import FileContent

xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")
pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")

CLASSES, SITES = [3, 5, 5, 2**40], ["a", "b", "a", "b"]
LOSSES, HITS = np.array([0.5, 2.0, -0.25, 8.0], np.float32), [True, False, True, False]
IDS = [70, 71, 72, 73]
NAMES = ("class", "site")


def several(run, **options):
    """Return what records two labels and two metrics."""
    return lt.TrackerCollection(NAMES, ["ce", "correct"], record_to=run, **options)


def recorded(run, steps=(1, 2), ids=IDS, **options):
    """Record four samples per step; return the collection."""
    with several(run, **options) as collection:
        for step in steps:
            for mode in ("train", "eval"):
                collection.update((CLASSES, SITES), {"ce": LOSSES * step, "correct": HITS}, mode=mode, ids=ids)
                collection.end_epoch(step, mode=mode)
    return collection


def parts(run):
    return sorted(run.rglob("part-*"))


def described(run):
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


# -- what is in the files ---------------------------------------------------------------------------------


def test_a_part_has_a_column_per_label_and_metric_and_the_ids(tmp_path):
    recorded(tmp_path / "run", steps=[1])
    first = parts(tmp_path / "run")[0]
    with pa.ipc.open_file(first) as reader:
        table, meta = reader.read_all(), reader.schema.metadata
    assert table.schema.types == [pa.int64(), pa.int32(), pa.float32(), pa.float64(), pa.int64()]
    assert table.to_pydict() == {
        "class": CLASSES,
        "site": [0, 1, 0, 1],
        "ce": LOSSES.tolist(),
        "correct": [1.0, 0.0, 1.0, 0.0],
        "id": IDS,
    }
    said = {key: meta[key.encode()].decode() for key in ("kind", "words", "labels", "metrics", "ids", "id_words")}
    assert said == {
        "kind": "integer,string",
        "words": ",1",
        "labels": "2",
        "metrics": "2",
        "ids": "integer",
        "id_words": "",
    }


@pytest.mark.parametrize(
    ("label", "metrics", "ids", "version", "columns"),
    [
        ("y", ["ce"], None, 1, ["label", "value"]),
        ("y", ["ce"], IDS, 2, ["label", "value", "id"]),
        ("y", ["ce", "hit"], None, 2, ["label", "ce", "hit"]),
        (("y",), ["ce"], None, 2, ["y", "value"]),
        (("y", "z"), ["ce"], None, 2, ["y", "z", "value"]),
        (("y", "z"), ["ce", "hit"], ["x"] * 4, 2, ["y", "z", "ce", "hit", "id"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*duplicates")
def test_only_what_needs_it_is_of_version_2(tmp_path, label, metrics, ids, version, columns):
    with lt.TrackerCollection(label, metrics, record_to=tmp_path / "run", on_duplicate="count") as collection:
        labels = CLASSES if label == "y" else (CLASSES, SITES)[: len(label)]
        collection.update(labels, dict.fromkeys(metrics, LOSSES), ids=ids)
        stats = collection.end_epoch(1)
    assert described(tmp_path / "run")["version"] == version
    run = lt.open_run(tmp_path / "run")
    assert run.samples().column_names == columns
    for metric in metrics:
        found = run.recompute(metric=metric, progress=False).at(1)
        assert found.labels.dtype == stats[metric].labels.dtype
        assert list(found) == list(stats[metric])
    assert run.verify(progress=False).ok


def test_the_first_ids_make_a_run_one_of_version_2(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update(CLASSES, LOSSES)
        tracker.end_epoch(1)
        tracker.flush()
        before = described(tmp_path / "run")
        tracker.update(CLASSES, LOSSES, ids=IDS)
        tracker.end_epoch(2)
    after = described(tmp_path / "run")
    assert [before["version"], after["version"], after["ids"]] == [1, 2, True]
    kept = before.keys() - {"version", "dtypes", "xxh3"}
    assert {key: before[key] for key in kept} == {key: after[key] for key in kept}
    run = lt.open_run(tmp_path / "run")
    assert run.samples()["id"].to_pylist() == [None] * 4 + IDS
    assert run.samples(step=1).column_names == ["label", "value"]
    same(run.recompute(progress=False), tracker.history)
    (tmp_path / "run" / "run.json").unlink()  # the journal has both copies
    run = lt.open_run(tmp_path / "run")
    assert run.info()["ids"]
    run.repair()
    assert described(tmp_path / "run")["version"] == 2
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:  # goes on, and knows already
        tracker.update(CLASSES, LOSSES, ids=IDS)
        tracker.end_epoch(3)
    run = lt.open_run(tmp_path / "run")
    assert run.verify(progress=False).ok
    assert run.samples(step=3)["id"].to_pylist() == IDS


def test_integers_of_64_bits_begin_a_new_part(tmp_path):
    with lt.LabelTracker(NAMES, "ce", record_to=lt.RecordingOptions(tmp_path / "run", flush_rows=1024)) as tracker:
        for first in (0, 2**40, 1):
            tracker.update((np.arange(first, first + 1024), ["x"] * 1024), np.zeros(1024))
        tracker.end_epoch(1)
    assert len(parts(tmp_path / "run")) == 2
    labels = lt.open_run(tmp_path / "run").samples()["class"].to_pylist()
    assert labels == [*range(1024), *range(2**40, 2**40 + 1024), *range(1, 1025)]


# -- histories as they were live ---------------------------------------------------------------------------


def test_the_history_of_each_metric_is_the_live_one(tmp_path):
    collection = recorded(tmp_path / "run")
    run = lt.open_run(tmp_path / "run")
    assert run.metrics == ("ce", "correct")
    for metric in run.metrics:
        again = run.recompute(metric=metric, progress=False)
        assert (again.metric, again.label) == (metric, "class and site")
        same(again, collection[metric].history)
    with pytest.raises(ValueError, match=r"several metrics; pass metric=… \(--metric\), one of 'ce', 'correct'"):
        run.recompute()
    with pytest.raises(KeyError, match="no recorded metric 'acc'"):
        run.recompute(metric="acc")


KINDS = {
    "bool": st.booleans(),
    "small": st.integers(0, 3),
    "wide": st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 2**40]),
    "unsigned": st.sampled_from([0, 7, 2**63, 2**64 - 1]),
    "float": st.floats(allow_nan=False) | st.sampled_from([0.5, -0.0, 0.0]),
    "string": st.text(max_size=2) | st.sampled_from(["a", "b"]),
    "bytes": st.binary(max_size=2) | st.sampled_from([b"a", b"\xff\0"]),
}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_three_labels_of_mixed_types_come_back_as_plain_lists_say(tmp_path_factory, data):
    kinds = data.draw(st.tuples(*[st.sampled_from(sorted(KINDS))] * 3))
    row = st.tuples(*(KINDS[kind] for kind in kinds), st.floats(width=32), st.floats())
    batches = data.draw(st.lists(st.lists(row, min_size=1, max_size=12), min_size=1, max_size=3))
    with_ids = data.draw(st.sampled_from([None, "integer", "string"]))
    names, metrics, path = ("x", "y", "z"), ("ce", "hit"), tmp_path_factory.mktemp("run")
    rows, count = [], 0
    with lt.TrackerCollection(names, metrics, record_to=lt.RecordingOptions(path, fsync="never")) as collection:
        for batch in batches:
            ids = [*range(count, count + len(batch))]
            ids = [f"i{number}" for number in ids] if with_ids == "string" else ids
            count += len(batch)
            *labels, ce, hit = (list(column) for column in zip(*batch, strict=True))
            pairs = zip(kinds, labels, strict=True)
            labels = [np.array(column, np.uint64) if kind == "unsigned" else column for kind, column in pairs]
            values = {"ce": np.array(ce, np.float32), "hit": np.array(hit, np.float64)}
            collection.update(tuple(labels), values, ids=ids if with_ids else None)
            rows += [(*one, name) for one, name in zip(batch, ids, strict=True)]
        collection.end_epoch(1)
    run = lt.open_run(path)
    samples = run.samples()
    wanted = [(*(label + 0.0 if isinstance(label, float) else label for label in one[:3]), *one[3:]) for one in rows]
    if not with_ids:
        wanted = [one[:-1] for one in wanted]
    assert samples.column_names == [*names, *metrics, *(["id"] if with_ids else [])]
    found = list(zip(*(samples[name].to_pylist() for name in samples.column_names), strict=True))
    assert list(map(repr, found)) == list(map(repr, wanted))
    assert run.verify(progress=False).ok
    for place, metric in enumerate(metrics, 3):
        again = run.recompute(metric=metric, progress=False)
        same(again, collection[metric].history)
        groups = defaultdict(list)
        for one in wanted:
            groups[one[:3]].append(one[place])
        stats = again.at(1)
        assert [line.label for line in stats] == sorted(groups)
        for line in stats:
            values = groups[line.label]
            assert line.count == len(values)
            if all(map(math.isfinite, values)):
                assert (line.mean, line.std) == expected(values)[2:4]


def test_kinds_may_differ_from_epoch_to_epoch_and_dataset_to_dataset(tmp_path):
    with lt.LabelTracker(NAMES, "ce", record_to=tmp_path / "run") as tracker:
        tracker.update((["x", "y"], [True, False]), [1.0, 2.0], mode="a")
        tracker.update(([1, 2], [1, 2**40]), [1.0, 2.0], mode="b")
        tracker.update(([1.0, 2.5], [1, 3]), [1.0, 2.0], mode="c")
        tracker.update((np.array([2**63, 5], np.uint64), [1, 3]), [1.0, 2.0], mode="d", ds_id="one")
        tracker.update((np.array([5, 7], np.uint8), [1, 3]), [1.0, 2.0], mode="d", ds_id="two")
        for mode in "abcd":
            tracker.end_epoch(1, mode=mode)
    same(lt.open_run(tmp_path / "run").recompute(progress=False), tracker.history)


@pytest.mark.filterwarnings("ignore:.*have an id that occurred before")
@pytest.mark.parametrize("on_duplicate", [None, "first", "count"])
@pytest.mark.parametrize("ids", ["integer", "string"])
def test_samples_whose_id_occurs_again_count_as_they_did(tmp_path, on_duplicate, ids):
    rng, path = np.random.default_rng(3), lt.RecordingOptions(tmp_path / "run", flush_rows=1024)
    collection = several(path, on_duplicate=on_duplicate, label_mapping={"class": {"zero": 0, "two": 2}, "site": None})
    with collection:
        for step in (1, 2):
            for ds_id in ("", "other"):
                for i in range(8):
                    n = int(rng.integers(1, 800))
                    values = {"ce": rng.normal(size=n).astype(np.float32), "correct": rng.integers(0, 2, n)}
                    names = rng.integers(0, 1500, n)
                    names = [f"i{name}" for name in names] if ids == "string" else names
                    # A label that takes 64 bits begins another part.
                    classes = rng.integers(0, 3, n) + (2**40 if i == 4 else 0)
                    collection.update((classes, rng.choice(SITES, n)), values, ids=names, ds_id=ds_id)
            collection.end_epoch(step)
    run = lt.open_run(tmp_path / "run")
    assert described(tmp_path / "run")["duplicates"] == ("count" if on_duplicate == "count" else "first")
    for metric in run.metrics:
        for threads in (1, 3):
            same(run.recompute(metric=metric, threads=threads, progress=False), collection[metric].history)
    assert run.samples(step=1, ds_id="").num_rows > 1500
    if on_duplicate is None:
        with pytest.raises(ValueError, match="run of on_duplicate 'first', and this is on_duplicate 'count'"):
            several(tmp_path / "run", on_duplicate="count", label_mapping=collection.label_mapping)


@pytest.mark.parametrize("engine", ["local", "dask"])
def test_several_processes_make_one_history(tmp_path, engine):
    if engine == "dask":
        pytest.importorskip("distributed", reason="distributed is not installed (extra 'dask')")
    ranks = [several(lt.RecordingOptions(tmp_path / "run", rank=rank, world_size=2, launch="x")) for rank in range(2)]
    whole = several(None, on_duplicate="first")
    for rank, collection in enumerate(ranks):
        # Words come in another order in each process.
        labels, values = (CLASSES[::-1][rank:], SITES[::-1][rank:]), {"ce": LOSSES[rank:], "correct": HITS[rank:]}
        # The last id of the first process occurs in the second one, too, with another code.
        ids = ["0 0", "0 1", "0 2", "0 3"] if rank == 0 else ["1 0", "0 3", "1 1"]
        collection.update(labels, values, ids=ids)
        whole.update(labels, values, ids=ids)
    for collection in (*ranks, whole):
        collection.end_epoch(1)
        collection.close()
    run = lt.open_run(tmp_path / "run")
    assert run.samples()["id"].to_pylist() == ["0 0", "0 1", "0 2", "0 3", "1 0", "0 3", "1 1"]
    same(run.recompute(metric="ce", engine=engine, progress=False), whole["ce"].history)


def test_mappings_missing_labels_and_quantiles_are_those_of_the_live_run(tmp_path):
    mapping = {"class": {"three": 3, "five": 5}, "site": None}
    options = {"label_mapping": mapping, "missing": {"class": "error", "site": "label"}, "bounds": ["iqr", "std"]}
    with several(tmp_path / "run", **options) as collection:
        for ds_id in ("", "other"):
            sites = ["a", None, "a", None]
            collection.update((CLASSES, sites), {"ce": LOSSES, "correct": HITS}, ids=IDS, ds_id=ds_id)
        collection.end_epoch(1)
    run = lt.open_run(tmp_path / "run")
    assert (run.label_mapping, run.missing) == (mapping, options["missing"])
    again = run.recompute(metric="ce", progress=False)
    same(again, collection["ce"].history)
    assert again.at(1).names.tolist() == collection["ce"].history.at(1).names.tolist()
    for ds_id in (None, "other"):
        for fraction in (0.25, 0.75):
            found, live = (one.at(1, ds_id=ds_id).quantile(fraction) for one in (again, collection["ce"].history))
            np.testing.assert_array_equal(found, live)
    assert run.recompute(metric="ce", label_mapping=None, progress=False).at(1).labels.tolist() == [
        (3, "a"),
        (5, "(missing)"),
        (5, "a"),
        (2**40, "(missing)"),
    ]


# -- asking for something else -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    recorded(path, bounds="std")
    return lt.open_run(path)


def direct(labels, values, **options):
    return lt.label_stats(labels, values, **options)


def test_labels_are_grouped_one_by_one_or_together(run):
    coarse = run.recompute(
        metric="ce", group={"class": lambda label: label % 2, "site": {"a": "A"}}, rest="B", progress=False
    )
    wanted = direct({"class": [1, 1, 1, 0], "site": ["A", "B", "A", "B"]}, LOSSES)
    assert list(coarse.at(1, "train")) == list(wanted)
    named = run.recompute(
        metric="ce",
        group={"site": {"a": 0, "b": 1}},
        label_mapping={"site": {"first": 0}, "class": {"five": 5}},
        progress=False,
    )
    assert [(line.name, line.sum) for line in named.at(1, "train")] == [("five, first", -0.25)]
    one = run.recompute(
        metric="ce", group=lambda pair: f"{pair[0] % 2}{pair[1]}", label_mapping={"odd a": "1a"}, progress=False
    )
    assert [(line.label, line.name, line.sum) for line in one.at(1, "train")] == [("1a", "odd a", 0.25)]


def test_labels_that_a_group_or_mapping_leaves_out_are_told(run):
    with pytest.warns(lt.LabelTrackWarning, match="label 'site': group has no key for 1 of 2 labels, so 8 of 16"):
        run.recompute(metric="ce", group={"site": {"a": "A"}}, progress=False)
    with pytest.warns(lt.LabelTrackWarning, match="no sample has labels that label_mapping maps"):
        run.recompute(metric="ce", label_mapping={"class": {"nine": 9}}, progress=False)
    with pytest.warns(lt.LabelTrackWarning, match="label_mapping has labels that never occurred: 9"):
        run.recompute(metric="ce", label_mapping={"class": {"nine": 9, "three": 3}}, progress=False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"group": {"klass": {}}}, ValueError, "group .*no label 'klass'"),
        ({"group": {"class": 3}}, TypeError, "group must be a mapping"),
        ({"group": {"site": {None: "x"}}}, ValueError, "group has the key None"),
        ({"label_mapping": {"klass": None}}, ValueError, "label_mapping .*no label 'klass'"),
        ({"group": lambda pair: pair}, TypeError, "got tuple"),
        ({"rest": "x"}, ValueError, "pass group, too"),
    ],
)
def test_wrong_questions_are_refused(run, options, error, message):
    with pytest.raises(error, match=message):
        run.recompute(metric="ce", progress=False, **options)


def test_columns_are_chosen_by_name(run, tmp_path):
    table = run.samples("train", 1, columns=["correct", "site", "step", "id"])
    assert table.to_pydict() == {"correct": [1, 0, 1, 0], "site": SITES, "step": [1] * 4, "id": IDS}
    with pytest.raises(ValueError, match=r"unknown 'label'; allowed are 'class', 'site', 'ce', 'correct', 'id', "):
        run.samples(columns=["label"])
    assert run.export(tmp_path / "samples.csv", "train", 1, progress=False) == 4
    with (tmp_path / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[1]) == ["mode", "ds_id", "step", "class", "site", "ce", "correct", "id"]
    assert [row["id"] for row in rows] == ["70", "71", "72", "73"]


def test_the_commands_take_a_metric_and_labels(run, tmp_path):
    shown = invoke("info", run.path).output
    assert "ce and correct by class and site" in shown
    assert "ids       yes" in shown
    assert "int64/string/float32/float64/int64" in shown
    found = json.loads(invoke("recompute", run.path, "--metric", "correct", "--json").output)
    assert [row["sum"] for row in found if (row["mode"], row["step"]) == ("train", 1)] == [1.0, 1.0, 0.0, 0.0]
    assert {row["class"] for row in found} == set(CLASSES)
    group = tmp_path / "group.json"
    group.write_text(json.dumps({"class": {"3": "odd", "5": "odd"}}), encoding="utf-8")
    found = json.loads(
        invoke("recompute", run.path, "--metric", "ce", "--group", str(group), "--rest", "even", "--json").output
    )
    assert {(row["class"], row["site"]) for row in found} == {("odd", "a"), ("odd", "b"), ("even", "b")}
    group.write_text(json.dumps({"3": "odd"}), encoding="utf-8")
    assert "an object" in refusal(invoke("recompute", run.path, "--metric", "ce", "--group", group))
    assert "several metrics" in refusal(invoke("recompute", run.path))
    assert invoke("worst", run.path, "--metric", "ce", "--json").exit_code == 0
    alone = run.recompute(metric="ce", progress=False).by("site").at(1, "train")
    found = json.loads(invoke("recompute", run.path, "--metric", "ce", "--by", "site", "--json").output)
    assert [(row["label"], row["sum"]) for row in found if (row["mode"], row["step"]) == ("train", 1)] == list(
        zip(alone.labels.tolist(), alone.sum.tolist(), strict=True)
    )
    options = ("--metric", "ce", "--mode", "train", "--step", 1, "--by", "site")
    found = json.loads(invoke("worst", run.path, *options, "--json").output)
    assert [(row["label"], row["mean"]) for row in found] == [
        (label, alone[label].mean) for label in alone.labels[alone.order()].tolist()
    ]
    assert "ce by site: train, step 1, worst mean first" in invoke("worst", run.path, *options).output
    assert "no label called 'sight'" in refusal(invoke("recompute", run.path, "--metric", "ce", "--by", "sight"))
    assert invoke("plot", run.path, "-o", tmp_path / "x.svg", "--metric", "ce", "--by", "class").exit_code == 0
    assert (tmp_path / "x.svg").stat().st_size > 1000
    assert invoke("verify", run.path).exit_code == 0


# -- damage ------------------------------------------------------------------------------------------------


def rewrite(path, renamed=None, **said):
    """Write a part anew, with other names of columns or other metadata."""
    part = examine(FileContent(path))
    dtypes = {(renamed or {}).get(name, name): dtype for name, dtype in part.schema.dtypes.items()}
    metadata = {key: text for key, text in part.metadata.items() if key != "hash"} | said
    writer = PartWriter(path.with_name("new"), dtypes, metadata)
    for batch in part.batches:
        writer.write(part.read(batch)[0], {key: batch.metadata[key] for key in ("step",) if key in batch.metadata})
    writer.close(sync=False)
    writer.open_path.replace(path)


@pytest.mark.filterwarnings("ignore:.*damaged; 4 rows are left out:labeltrack.LabelTrackWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"renamed": {"site": "place"}}, "it has columns 'class', 'place', 'ce', 'correct', 'id', and the run 'class'"),
        ({"labels": "1", "metrics": "3"}, "columns class, site, ce, correct, id"),
        ({"kind": "integer"}, "it has labels of kinds 'integer' in columns 'class', 'site'"),
        ({"kind": "integer,float"}, "it has 'float' labels in a column of type i4"),
        ({"words": ",7"}, "its labels are codes, and the journal does not say what they stand for"),
        ({"ids": "float"}, "it has 'float' ids in a column of type i8"),
        ({"ids": "string", "id_words": "7"}, "its ids are codes, and the journal does not say"),
        ({"ids": "string", "id_words": "1"}, "it has codes for which the journal has no words"),
    ],
)
def test_a_part_whose_columns_are_others_than_the_run_has_is_damage(tmp_path, change, message):
    recorded(tmp_path / "run", steps=[1])
    rewrite(parts(tmp_path / "run")[1], **change)
    run = lt.open_run(tmp_path / "run")
    (bad,) = [part for part in run.verify(progress=False).parts if part.state != "intact"]
    assert (bad.state, bad.rows, bad.lost) == ("corrupt", 0, 4)
    assert message in bad.message
    assert run.samples("eval").num_rows == 4
    assert run.samples("train").num_rows == 0
    assert run.recompute(metric="ce", progress=False).modes == ["eval"]


def test_parts_that_are_gone_leave_no_statistics(tmp_path):
    recorded(tmp_path / "run", steps=[1])
    for part in parts(tmp_path / "run"):
        part.unlink()
    run = lt.open_run(tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match="the file is missing"):
        assert not run.recompute(metric="ce", progress=False).modes
    with pytest.warns(lt.LabelTrackWarning, match="the file is missing"):
        assert run.samples(columns=["class", "id"]).to_pydict() == {"class": [], "id": []}


def test_a_line_about_the_run_that_makes_no_sense_is_damage(tmp_path):
    recorded(tmp_path / "run", steps=[1])
    (journal,) = (tmp_path / "run").glob("journal-*")
    lines = journal.read_bytes().splitlines(keepends=True)
    (place,) = [i for i, line in enumerate(lines) if b'"event": "run"' in line]
    text = json.dumps(json.loads(lines[place][17:]) | {"run": ["nothing"]}).encode()
    lines[place] = f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n"
    journal.write_bytes(b"".join(lines))
    (damage,) = lt.open_run(tmp_path / "run").info()["damage"]
    assert "it has no copy of run.json" in damage


# -- another tracker ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "metrics", "message"),
    [
        ("class", ["ce", "correct"], r"run of label \('class', 'site'\), and this is label 'class'"),
        (("site", "class"), ["ce", "correct"], r"and this is label \('site', 'class'\)"),
        (NAMES, ["ce"], r"run of metric \('ce', 'correct'\), and this is metric 'ce'"),
    ],
)
def test_a_run_is_not_continued_with_other_labels_or_metrics(tmp_path, label, metrics, message):
    recorded(tmp_path / "run", steps=[1])
    with pytest.raises(ValueError, match=message):
        lt.TrackerCollection(label, metrics, record_to=tmp_path / "run")
    again = recorded(tmp_path / "run", steps=[2])
    run = lt.open_run(tmp_path / "run")
    assert run.verify(progress=False).ok
    assert (
        run.recompute(metric="ce", progress=False).at(2, "train").labels.tolist()
        == again["ce"].history.at(2, "train").labels.tolist()
    )


def test_names_that_collide_are_refused_where_columns_have_them(tmp_path):
    with pytest.raises(ValueError, match=r"label called 'id'.*rename the label"):
        lt.LabelTracker(("class", "id"), "ce", record_to=tmp_path / "run")
    with pytest.raises(ValueError, match=r"metric called 'mode'.*rename the metric"):
        lt.TrackerCollection("y", ["ce", "mode"], record_to=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with lt.LabelTracker("id", "mode", record_to=tmp_path / "run") as tracker:
        tracker.update(CLASSES, LOSSES)
        tracker.end_epoch(1)
    assert lt.open_run(tmp_path / "run").samples().column_names == ["label", "value"]
