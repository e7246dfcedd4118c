"""`Run.dynamics` and `Run.hardest`: the course of each sample of recorded runs, against numpy and plain loops."""

from __future__ import annotations

import statistics
import warnings
from itertools import pairwise

import numpy as np
import pytest
from with_ids import Rows, random_rows, record

import labeltrack as lt

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


def contents(dynamics):
    return {name: (column.dtype, column.tolist()) for name, column in dynamics.columns().items()}


def forgotten(course):
    return sum(before and not now for before, now in pairwise(course))


@pytest.mark.parametrize("text", [False, True])
def test_the_table_equals_matrices_of_samples_and_epochs(tmp_path, text):
    rows, ids, labels, losses, right = random_rows(400, 6, text=text)
    found = record(tmp_path, rows).dynamics()
    assert (found.metric, found.correct, found.mode, found.steps) == ("ce", "correct", "train", (0, 1, 2, 3, 4, 5))
    assert found.ids.tolist() == ids.tolist()
    assert found.labels.tolist() == labels.tolist()
    assert found.count.tolist() == [6] * 400
    assert found.mean.tolist() == [statistics.mean(row) for row in losses.tolist()]
    assert found.std.tolist() == [statistics.stdev(row) for row in losses.tolist()]
    assert found.min.tolist() == losses.min(axis=1).tolist()
    assert found.max.tolist() == losses.max(axis=1).tolist()
    assert found.first.tolist() == losses[:, 0].tolist()
    assert found.last.tolist() == losses[:, -1].tolist()
    p = np.exp(-losses)
    assert found.confidence.tolist() == [statistics.mean(row) for row in p.tolist()]
    np.testing.assert_allclose(found.variability, [statistics.pstdev(row) for row in p.tolist()], rtol=5e-16)
    assert found.forgetting.tolist() == [forgotten(row) for row in right.tolist()]
    assert found.ever_correct.tolist() == right.any(axis=1).tolist()
    np.testing.assert_array_equal(found.correctness, right.mean(axis=1))


def test_any_order_within_steps_gives_the_same_bits(tmp_path):
    one = record(tmp_path / "a", random_rows(3000, 4, order=1)[0]).dynamics()
    other = record(tmp_path / "b", random_rows(3000, 4, order=2)[0]).dynamics()
    for name, column in one.columns().items():
        assert np.ascontiguousarray(column).tobytes() == np.ascontiguousarray(other.columns()[name]).tobytes()


def test_steps_and_metrics_can_be_chosen(tmp_path):
    rows, _, _, losses, right = random_rows(50, 5)
    run = record(tmp_path, rows)
    some = run.dynamics("train", step=[3, 1])
    assert some.steps == (1, 3)
    assert some.first.tolist() == losses[:, 1].tolist()
    assert some.last.tolist() == losses[:, 3].tolist()
    hits = run.dynamics(metric="correct")
    assert hits.metric == hits.correct == "correct"
    np.testing.assert_allclose(hits.mean, right.mean(axis=1), rtol=1e-15)
    assert hits.confidence is hits.variability is None
    assert "confidence" not in hits.columns()
    without = run.dynamics(correct=False)
    assert without.correct is without.forgetting is without.ever_correct is without.correctness is None
    with pytest.raises(ValueError, match="no column 'forgetting': no recorded metric is 0 or 1"):
        without.column("forgetting")
    with pytest.raises(ValueError, match="no column 'confidence': the metric has values that no cross-entropy has"):
        hits.column("confidence")
    with pytest.raises(ValueError, match="correct='ce' must be a metric that is 0 or 1 for each sample"):
        run.dynamics(correct="ce")


def test_a_metric_that_is_zero_and_one_at_first_only_says_nothing_of_being_right(tmp_path):
    rows = [Rows([0, 1], ([0.0, 1.0],), [1, 2], step=1), Rows([0, 1], ([0.5, 1.0],), [1, 2], step=2)]
    run = record(tmp_path, rows, metrics=("share",))
    assert run.dynamics().correct is None
    assert run.dynamics(step=1).forgetting.tolist() == [0, 0]


def test_a_metric_below_zero_has_no_confidence(tmp_path):
    found = record(tmp_path, [Rows([0, 1], ([-2.0, 1.0],), [1, 2])], metrics=("logit",)).dynamics()
    assert found.confidence is None
    assert found.mean.tolist() == [-2.0, 1.0]


def test_runs_without_ids_say_how_to_record_them(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path) as tracker:
        tracker.update([0, 1], [1.0, 2.0])
        tracker.end_epoch(1)
    run = lt.open_run(tmp_path)
    for ask in (run.dynamics, run.hardest):
        with pytest.raises(ValueError, match=r"has no ids of samples; record them with tracker\.update\(.*ids=ids\)"):
            ask()


def test_mistakes_are_named(tmp_path):
    run = record(tmp_path, [Rows([0, 1], ([1.0, 2.0],), [1, 2])], metrics=("ce",))
    with pytest.raises(KeyError, match=r"'acc'.*'ce'"):
        run.dynamics(metric="acc")
    with pytest.raises(KeyError, match=r"'eval'.*'train'"):
        run.dynamics("eval")
    with pytest.raises(KeyError, match="recorded step"):
        run.dynamics(step=7)
    for option, value in {"engine": "spark", "on_duplicate": "last", "nan_policy": "drop"}.items():
        with pytest.raises(ValueError, match=f"{option}: unknown option '{value}'"):
            run.dynamics(**{option: value})


REPEATED = [
    Rows([0, 1, 0, 1], ([1.0, 2.0, 3.0, 4.0],), [7, 8, 7, 9], step=1),
    Rows([0, 1, 1], ([5.0, 6.0, 7.0],), [7, 8, 9], step=2),
]


def test_the_first_sample_of_an_id_counts_in_a_step_with_one_warning(tmp_path):
    run = record(tmp_path, REPEATED, metrics=("ce",))
    with pytest.warns(lt.LabelTrackWarning, match="1 sample has an id .* such as 7 in step 1; only the first") as told:
        found = run.dynamics()
    assert len(told) == 1
    assert found.count.tolist() == [2, 2, 2]
    assert found.mean.tolist() == [3.0, 4.0, 5.5]
    assert contents(run.dynamics(on_duplicate="first")) == contents(found)


def test_repeated_ids_count_or_are_an_error(tmp_path):
    run = record(tmp_path, REPEATED, metrics=("ce",))
    assert run.dynamics(on_duplicate="count").mean.tolist() == [3.0, 4.0, 5.5]
    assert run.dynamics(on_duplicate="count").count.tolist() == [3, 2, 2]
    with pytest.raises(ValueError, match="such as 7 in step 1"):
        run.dynamics(on_duplicate="error")


def test_repeated_ids_count_by_default_if_they_did_in_the_tracker(tmp_path):
    run = record(tmp_path, REPEATED, metrics=("ce",), on_duplicate="count")
    assert run.dynamics().count.tolist() == [3, 2, 2]
    assert run.dynamics(on_duplicate="first").count.tolist() == [2, 2, 2]


def test_samples_without_ids_beside_others_are_an_error(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path) as tracker:
        tracker.update([0, 1], [1.0, 2.0], ids=[5, 6])
        tracker.end_epoch(1)
        tracker.update([0, 1], [1.0, 2.0])
        tracker.end_epoch(2)
    run = lt.open_run(tmp_path)
    with pytest.raises(ValueError, match=r"the samples of mode=train/ds_id=/epoch=2/.* have no ids; choose a mode or"):
        run.dynamics()
    assert run.dynamics(step=1).ids.tolist() == [5, 6]


def test_ids_that_two_processes_record_in_one_step_count_once_the_first_process_first(tmp_path):
    for rank, text in ((1, "ba"), (0, "ab")):
        rows = [Rows([0, 0], ([10.0 * rank + 1, 10.0 * rank + 2],), list(text), step=step) for step in (1, 2)]
        run = record(tmp_path, rows, metrics=("ce",), rank=rank, world_size=2, launch="both")
    with pytest.warns(lt.LabelTrackWarning, match="4 samples have an id that another one has in the same step"):
        found = run.dynamics()
    assert found.ids.tolist() == ["a", "b"]
    assert found.mean.tolist() == [1.0, 2.0]
    assert run.dynamics(on_duplicate="count").mean.tolist() == [6.5, 6.5]


def test_an_id_keeps_the_label_it_had_first_and_others_are_told(tmp_path):
    rows = [Rows([0, 1], ([1.0, 2.0],), [1, 2], step=1), Rows([1, 1], ([1.0, 2.0],), [1, 2], step=2)]
    run = record(tmp_path, rows, metrics=("ce",))
    with pytest.warns(lt.LabelTrackWarning, match="1 sample has another label than the id had"):
        assert run.dynamics().labels.tolist() == [0, 1]


def test_ids_of_different_datasets_are_different_samples(tmp_path):
    rows = [Rows(["x", "y"], ([1.0, 2.0],), [1, 2], ds_id="b"), Rows(["z"], ([3.0],), [1], ds_id="a")]
    run = record(tmp_path, rows, metrics=("ce",))
    found = run.dynamics()
    assert found.ds_ids.tolist() == ["a", "b", "b"]
    assert found.ids.tolist() == [1, 1, 2]
    assert found.labels.tolist() == ["z", "x", "y"]
    assert list(found.columns())[:3] == ["id", "ds_id", "label"]
    assert run.dynamics(ds_id="b").ids.tolist() == [1, 2]
    assert "ds_id" not in run.dynamics(ds_id="b").columns()


def test_datasets_that_differ_in_zeros_at_their_end_are_different(tmp_path):
    rows = [Rows(["x"], ([1.0],), [1], ds_id="a\0"), Rows(["z"], ([3.0],), [1], ds_id="a")]
    found = record(tmp_path, rows, metrics=("ce",)).dynamics()
    assert (found.ds_ids.tolist(), found.mean.tolist()) == (["a", "a\0"], [3.0, 1.0])


def test_a_dataset_of_which_nothing_is_left_does_not_count(tmp_path):
    rows = [Rows(["x"], ([1.0], [1.0]), [1], ds_id="b"), Rows(["z"], ([3.0], [0.0]), [1], ds_id="a")]
    run = record(tmp_path, rows)
    next(tmp_path.glob("mode=train/ds_id=a/**/*.arrow")).unlink()
    with pytest.warns(lt.LabelTrackWarning, match="1 row is left out"):
        found = run.dynamics()
    assert found.ds_ids.tolist() == ["b"]
    assert found.ever_correct.tolist() == [True]


@pytest.mark.parametrize(
    "labels", [[0.1, 2.5], [True, False], [b"a", b"b"], np.array([2**63 + 1, 7], np.uint64), ["a", "a long one"]]
)
def test_labels_of_any_type_come_back(tmp_path, labels):
    run = record(tmp_path, [Rows(labels, ([1.0, 2.0],), [-5, 2**62], step=step) for step in (1, 2)], metrics=("ce",))
    found = run.dynamics()
    stats = lt.label_stats(labels, [1.0, 2.0])
    assert found.labels.tolist() == list(labels)
    assert found.labels.dtype == stats.labels.dtype
    assert run.hardest(1, label=labels[0]).ids.tolist() == [-5]


def test_several_labels_per_sample_have_a_column_each(tmp_path):
    rows = [
        Rows({"first": ["x", "y", "x"], "site": [1, 2, 2]}, ([1.0, 2.0, 4.0],), ["a", "b", "c"], step=1),
        Rows({"first": ["x", "x", "y"], "site": [1, 2, 2]}, ([3.0, 4.0, 2.0],), ["a", "c", "b"], step=2),
    ]
    run = record(
        tmp_path, rows, metrics=("ce",), label=("first", "site"), label_mapping={"first": {"X": "x", "Y": "y"}}
    )
    found = run.dynamics()
    assert found.label_names == ("first", "site")
    assert found.labels.tolist() == [("x", 1), ("y", 2), ("x", 2)]
    assert list(found.columns())[:5] == ["id", "first_label", "site", "count", "mean"]
    assert run.hardest(3, {"first": "X"}).ids.tolist() == ["c", "a"]
    assert run.hardest(3, {"first": "x", "site": 1}).ids.tolist() == ["a"]
    with pytest.raises(KeyError, match=r"label called 'class'.*'first'"):
        run.hardest(3, {"class": "X"})
    with pytest.raises(ValueError, match=r"pass one as {name: label}, got 'X'"):
        run.hardest(3, "X")


def test_words_of_several_launches_are_the_same_ids(tmp_path):
    record(tmp_path, [Rows(["x", "y"], ([1.0, 2.0],), ["a", "b"], step=1)], metrics=("ce",))
    run = record(tmp_path, [Rows(["y", "x", "z"], ([4.0, 3.0, 5.0],), ["b", "a", "c"], step=2)], metrics=("ce",))
    found = run.dynamics()
    assert found.ids.tolist() == ["a", "b", "c"]
    assert found.labels.tolist() == ["x", "y", "z"]
    assert found.mean.tolist() == [2.0, 3.0, 5.0]


def test_ids_of_several_types_are_an_error(tmp_path):
    record(tmp_path, [Rows([0], ([1.0],), ["a"], step=1)], metrics=("ce",))
    run = record(tmp_path, [Rows([0], ([1.0],), [1], step=2)], metrics=("ce",))
    with pytest.raises(TypeError, match="ids are of several types, integer and string; select steps with one"):
        run.dynamics()
    assert run.dynamics(step=1).ids.tolist() == ["a"]


def test_the_mode_is_eval_or_the_only_one(tmp_path):
    rows = [Rows([0], ([1.0],), [1], mode="train"), Rows([0], ([2.0],), [1], mode="eval")]
    run = record(tmp_path, rows, metrics=("ce",))
    assert run.dynamics().mean.tolist() == [2.0]
    assert run.dynamics("train").mean.tolist() == [1.0]


def test_nan_follows_the_policy(tmp_path):
    rows = [
        Rows([0, 0, 0], ([np.nan, 2.0, np.inf],), [1, 2, 3], step=1),
        Rows([0, 0, 0], ([4.0, 2.0, 1.0],), [1, 2, 3], step=2),
    ]
    run = record(tmp_path, rows, metrics=("ce",))
    found = run.dynamics()
    np.testing.assert_array_equal(found.mean, [np.nan, 2.0, np.inf])
    np.testing.assert_array_equal(found.first, [np.nan, 2.0, np.inf])
    np.testing.assert_array_equal(found.count, [2, 2, 2])
    np.testing.assert_array_equal(np.isnan(found.confidence), [True, False, False])
    omitted = run.dynamics(nan_policy="omit")
    assert omitted.mean.tolist() == [4.0, 2.0, np.inf]
    assert omitted.first.tolist() == [4.0, 2.0, np.inf]
    assert omitted.count.tolist() == [1, 2, 2]
    with pytest.raises(ValueError, match=r"1 NaN samples under nan_policy='raise', by label .*: 1 "):
        run.dynamics(nan_policy="raise")


def test_damaged_rows_and_unfinished_epochs_are_left_out_with_a_warning(tmp_path):
    run = record(tmp_path, random_rows(2000, 2)[0])
    part = next(tmp_path.glob("mode=train/ds_id=/epoch=1/*.arrow"))
    content = bytearray(part.read_bytes())
    content[5000] ^= 1
    part.write_bytes(content)
    with pytest.warns(lt.LabelTrackWarning, match="is damaged; 1,984 rows are left out"):
        found = run.dynamics()
    assert sorted(set(found.count.tolist())) == [1, 2]
    assert found.count.sum() == 4000 - 1984


# -- the worst samples --------------------------------------------------------------------------------------


def test_the_hardest_samples_come_worst_first(tmp_path):
    rows, ids, labels, losses, _ = random_rows(300, 4)
    run = record(tmp_path, rows, label_mapping={"cat": 3, "dog": 1})
    means = [statistics.mean(row) for row in losses.tolist()]
    order = sorted(range(300), key=lambda i: (-means[i], ids[i]))
    worst = run.hardest(7)
    assert worst.ids.tolist() == ids[order[:7]].tolist()
    assert worst.mean.tolist() == [means[i] for i in order[:7]]
    assert worst.labels.tolist() == labels[order[:7]].tolist()
    cats = [i for i in order if labels[i] == 3]
    assert run.hardest(5, "cat").ids.tolist() == run.hardest(5, 3).ids.tolist() == ids[cats[:5]].tolist()
    assert len(run.hardest(1000, label="cat")) == len(cats)
    at_two = sorted(range(300), key=lambda i: (-losses[i, 2], ids[i]))
    assert run.hardest(3, step=2).ids.tolist() == ids[at_two[:3]].tolist()
    assert run.hardest(3, step=2).mean.tolist() == losses[at_two[:3], 2].tolist()
    best = run.hardest(2, higher_is_worse=False)
    assert best.ids.tolist() == ids[order[:-3:-1]].tolist()
    events = run.hardest(4, by="forgetting").forgetting
    assert events.tolist() == sorted(run.dynamics().forgetting.tolist(), reverse=True)[:4]
    with pytest.raises(KeyError, match="'cow'"):
        run.hardest(1, "cow")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        run.hardest(0)
    with pytest.raises(ValueError, match="no column 'median'"):
        run.hardest(by="median")


def test_nan_is_the_hardest_and_ties_are_in_the_order_of_ids(tmp_path):
    run = record(tmp_path, [Rows([0] * 5, ([2.0, np.nan, 9.0, 2.0, 2.0],), [5, 4, 3, 2, 1])], metrics=("ce",))
    assert run.hardest(4).ids.tolist() == [4, 3, 1, 2]
    assert run.hardest(4, higher_is_worse=False).ids.tolist() == [4, 1, 2, 5]


def test_nan_is_harder_than_any_number(tmp_path):
    inf = np.inf
    run = record(tmp_path, [Rows([0] * 5, ([inf, np.nan, -inf, inf, 1.0],), [1, 2, 3, 4, 5])], metrics=("ce",))
    assert run.hardest(3).ids.tolist() == [2, 1, 4]
    assert run.hardest(2, higher_is_worse=False).ids.tolist() == [2, 3]
    assert run.hardest(1).ids.tolist() == [2]


# -- tables -------------------------------------------------------------------------------------------------


def test_other_libraries_take_the_table(tmp_path):
    polars, pq = pytest.importorskip("polars"), pytest.importorskip("pyarrow.parquet")
    found = record(tmp_path / "run", random_rows(30, 3, text=True)[0]).dynamics()
    columns = {name: column.tolist() for name, column in found.columns().items()}
    assert polars.DataFrame(found).to_dict(as_series=False) == columns
    found.to_parquet(tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").to_pydict() == columns
    found.to_csv(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(columns)
    assert list(columns) == [
        *("id", "label", "count", "mean", "std", "min", "max", "first", "last", "confidence", "variability"),
        *("forgetting", "ever_correct", "correctness"),
    ]


def test_what_is_printed_shows_the_first_and_last_samples(tmp_path):
    found = record(tmp_path, random_rows(30, 3)[0]).dynamics()
    lines = repr(found).splitlines()
    assert lines[0] == "Dynamics of 'ce' in mode 'train': 30 samples, steps 0, 1, 2"
    assert len(lines) == 2 + 8 + 1 + 4
    assert lines[2].split()[:2] == [str(found.ids[0]), str(found.labels[0])]
    assert "<table>" in found._repr_html_()
    assert len(found.text(20).splitlines()) == 22


def test_no_samples_are_an_empty_table(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record(tmp_path, [Rows([0], ([1.0],), [1], mode="train"), Rows([0], ([1.0],), [1], mode="eval")], ("ce",))
        next(tmp_path.glob("mode=eval/**/*.arrow")).unlink()
        found = lt.open_run(tmp_path).dynamics("eval")
    assert len(found) == 0
    assert found.confidence.tolist() == []
    assert len(found.hardest(3)) == 0


# -- on a cluster -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
def test_a_cluster_gives_the_same_bits(tmp_path, text):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed (extra 'dask')")
    rows = random_rows(500, 10, text=text)[0]
    for step in (2, 7):  # ids that come late, and one that comes twice
        more = ["zz", "aa", "aa"] if text else [10**15, -4, -4]
        one = rows[step]
        metrics = tuple([*column, 1.0, 0.0, 1.0] for column in one.metrics)
        rows[step] = one._replace(labels=[*one.labels, 7, step, 9], metrics=metrics, ids=[*one.ids, *more])
    run = record(tmp_path, rows)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
        pytest.warns(lt.LabelTrackWarning) as told,
    ):
        found = run.dynamics(engine="dask")
    here = [str(one.message) for one in told]
    with pytest.warns(lt.LabelTrackWarning) as told:
        local = run.dynamics()
    assert [str(one.message) for one in told] == here
    assert len(here) == 2
    for name, column in local.columns().items():
        assert np.ascontiguousarray(column).tobytes() == np.ascontiguousarray(found.columns()[name]).tobytes()


def test_samples_that_came_after_a_run_was_opened_are_treated_alike_on_a_cluster(tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed (extra 'dask')")
    found = {}
    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(tmp_path, flush_rows=1024)) as tracker:
        tracker.update(["x"] * 2, [1.0, 2.0], ids=["a", "b"])
        tracker.flush()
        run = lt.open_run(tmp_path)
        tracker.update(["x", "y"], [3.0, 4.0], ids=["c", "d"])
        tracker.flush()
        with (
            distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
            distributed.Client(cluster),
        ):
            for engine in ("local", "dask"):
                with pytest.warns(lt.LabelTrackWarning, match="the journal has no words") as told:
                    ids = run.dynamics(incomplete=True, engine=engine).ids.tolist()
                    history = run.recompute(incomplete=True, engine=engine)
                found[engine] = ids, history.at(1).count.tolist(), [str(one.message) for one in told]
    assert found["local"] == found["dask"]
    assert found["local"][:2] == (["a", "b"], [2])
