"""Regrouping: the statistics are those of samples with the new labels, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import invoke, refusal

import labeltrack as lt
from labeltrack.recording.regroup import Grouping, TextKeys

SAMPLES = st.lists(st.tuples(st.integers(-5, 5), st.floats(width=32)), min_size=1, max_size=60)


@given(SAMPLES, st.sampled_from([int, str, float, bool, lambda label: str(label).encode()]))
def test_the_result_is_that_of_samples_with_the_new_labels(samples, kind):
    labels, values = np.array([label for label, _ in samples]), np.array([value for _, value in samples])
    new = [kind(label % 3) for label in labels.tolist()]
    grouped = Grouping(lambda label: kind(label % 3)).apply(lt.label_stats(labels, values))
    direct = lt.label_stats(np.array(new), values)
    assert grouped.labels.tolist() == direct.labels.tolist()
    assert grouped.labels.dtype.kind == direct.labels.dtype.kind
    for name in ("count", "sum", "mean", "std", "min", "max"):
        assert grouped.column(name).tobytes() == direct.column(name).tobytes()


def test_labels_without_a_key_are_left_out_and_a_mapping_names_new_labels():
    stats = lt.label_stats([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
    assert Grouping({1: "a", 2: "a", 3: np.str_("b")}).apply(stats).labels.tolist() == ["a", "b"]
    named = Grouping({1: 7, 2: 7, 3: np.int64(8), 4: 9}).apply(stats, {7: "seven", 8: "eight"})
    assert [(row.name, row.count, row.sum) for row in named] == [("seven", 2, 3.0), ("eight", 1, 3.0)]
    assert len(Grouping({}).apply(stats)) == 0


@pytest.mark.parametrize("gone", [None, float("nan"), np.float32("nan")])
def test_a_label_whose_new_label_is_none_or_nan_is_left_out(gone):
    stats = lt.label_stats([1, 2, 3], [1.0, 2.0, 4.0])
    for group in ({1: 7.5, 2: gone, 3: 7.5}, {1: 7.5, 2: gone, 3: 7.5}.get):
        assert [(row.label, row.sum) for row in Grouping(group).apply(stats)] == [(7.5, 5.0)]


@pytest.mark.parametrize("labels", [[1, None, 3], ["1", None, "3"], [1.0, None, 3.0], [b"1", None, b"3"]])
def test_the_key_none_of_a_mapping_stands_for_samples_without_a_label(labels):
    stats = lt.label_stats(labels, [1.0, 2.0, 4.0], missing="label")
    group = {labels[0]: "some", None: "none", labels[2]: "some"}
    assert [(row.name, row.sum) for row in Grouping(group).apply(stats)] == [("none", 2.0), ("some", 5.0)]


def test_new_labels_that_do_not_fit_one_type_are_refused():
    with pytest.raises(ValueError, match="64-bit"):
        Grouping({1: 2**53 + 1, 2: 0.5}).apply(lt.label_stats([1, 2], [1.0, 2.0]))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (lambda label: (label,), "got tuple"),
        (lambda label: "a" if label == 1 else 2, "got float, str"),
        (lambda label: b"a" if label == 1 else "a", "got bytes, str"),
    ],
)
def test_new_labels_must_be_of_one_kind(group, message):
    with pytest.raises(TypeError, match=message):
        Grouping(group).apply(lt.label_stats([1, 2], [1.0, 2.0]))


def recorded(path, labels):
    """Record a sample of each label, twice."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    with lt.LabelTracker("y", "ce", record_to=path) as tracker:
        for step in (1, 2):
            tracker.update(labels, np.ones(len(labels)))
            tracker.end_epoch(step)
    return lt.open_run(path)


def test_a_warning_counts_labels_without_a_key_and_their_samples(tmp_path):
    run = recorded(tmp_path / "run", np.array([1, 1, 1, 2, 3, 3]))
    with pytest.warns(lt.LabelTrackWarning) as caught:
        history = run.recompute(group={1: "one", 7: "seven"}, progress=False)
    assert history.at(2).count.tolist() == [3]
    (found,) = [str(one.message) for one in caught]
    assert "group has no key for 2 of 3 labels, so 6 of 12 samples are left out: 2, 3" in found
    assert "rest=NAME (--rest NAME)" in found
    assert "These keys match no label: 7" in found


@pytest.mark.parametrize("group", [{"1": "a", "2": "b"}, {}, {7: "x"}])
def test_a_group_that_matches_no_label_warns(tmp_path, group):
    run = recorded(tmp_path / "run", np.array([1, 2, 3]))
    with pytest.warns(lt.LabelTrackWarning, match="no key for 3 of 3 labels, so 6 of 6 samples are left out: 1, 2, 3;"):
        assert run.recompute(group=group, progress=False).modes == []


@pytest.mark.parametrize("bounds", ["std", "median"])
def test_the_rest_is_one_group(tmp_path, bounds):
    run = recorded(tmp_path / "run", ["cat", "dog", "dog", "eel"])
    history = run.recompute(bounds, group={"cat": "pet"}, rest="other", progress=False)
    assert dict(zip(history.at(1).labels.tolist(), history.at(1).count.tolist(), strict=True)) == {"other": 3, "pet": 1}
    history = run.recompute(bounds, group={"cat": "pet", "eel": None}, rest="pet", progress=False)
    assert history.at(1).count.tolist() == [4]
    history = run.recompute(bounds, group=lambda label: None if label > "d" else "c", rest="d", progress=False)
    assert history.at(1).count.tolist() == [1, 3]


def test_what_a_group_leaves_out_on_purpose_does_not_warn(tmp_path):
    run = recorded(tmp_path / "run", ["cat", "dog"])
    assert run.recompute(group={"cat": "pet", "dog": None}, progress=False).at(1).count.tolist() == [1]
    assert run.recompute(group=lambda label: "pet" if label == "cat" else None, progress=False).at(1).labels == ["pet"]


def test_a_rest_that_does_not_fit_is_explained(tmp_path):
    run = recorded(tmp_path / "run", [1, 2])
    with pytest.raises(TypeError, match="group and rest='other' must give only numbers or only strings"):
        run.recompute(group={1: 10}, rest="other", progress=False)
    with pytest.raises(ValueError, match="pass group, too"):
        run.recompute(rest="x", progress=False)


THIRD = np.float32(1) / np.float32(3)


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        (np.array([1, -2, 2**40]), ["1", "-2", "1099511627776"]),
        (np.array([1, 2], np.uint8), [" 1", "2.0"]),
        (np.array([2**63 + 1, 5], np.uint64), [str(2**63 + 1), "5"]),
        (np.array([True, False]), ["true", "False"]),
        (np.array([True, False]), ["1", "0"]),
        (["cat", "3", "dög"], ["cat", "3", "dög"]),
        (np.array([b"cat", b"\xff", b"x"]), ["cat", "b'\\xff'", "b'x'"]),
        (np.array([0.1, 3.0, 1e300, np.inf, -0.0]), ["0.1", "3", "1e300", "inf", "0"]),
        (np.array([0.1, 0.2, 3.0], np.float32), ["0.1", "0.2", "3"]),
        (np.array([0.1, THIRD, 1e-3], np.float32), ["0.10000000149011612", str(1 / 3), "0.001"]),
        (np.array([0.1, THIRD, 1e-3], np.float32).astype(np.float64), ["0.1", str(1 / 3), "0.001"]),
        (np.array([0.1, 0.3, 2.0], np.float16), ["0.1", "0.3", "2"]),
    ],
)
def test_keys_in_a_file_mean_labels_of_the_recorded_type(tmp_path, labels, keys):
    run = recorded(tmp_path / "run", labels)
    (tmp_path / "group.json").write_text(json.dumps({key: f"g{i}" for i, key in enumerate(keys)}), encoding="utf-8")
    result = invoke("recompute", tmp_path / "run", "--group", tmp_path / "group.json", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = json.loads(result.stdout)
    assert [row["label"] for row in rows] == [f"g{i}" for i in range(len(keys))] * 2
    for i, label in enumerate(labels):  # each key has the label that stands beside it
        only = run.recompute(group=TextKeys({keys[i]: "here"}), rest="rest", progress=False).at(1)
        assert only["here"].count == 1, label


def test_numeric_keys_match_in_the_precision_of_the_labels(tmp_path):
    singles = np.array([0.1, 0.2], np.float32)
    for name, labels in (
        ("single", singles),
        ("run", singles.astype(np.float64)),
    ):  # which versions before made of them
        run = recorded(tmp_path / name, labels)
        assert run.recompute(group={0.1: "a", 0.2: "b"}, progress=False).at(1).count.tolist() == [1, 1]
    widened = 0.10000000149011612
    history = run.recompute(group={0.1: "a", widened: "c", 0.2: "b"}, progress=False)
    assert history.at(1).labels.tolist() == ["b", "c"]  # of the keys that mean a label, the one that is equal
    with pytest.raises(ValueError, match=r"one label twice, as 0.1 and 0.1000000001, for 'a' and 'c'"):
        run.recompute(group={0.1: "a", 0.1000000001: "c", 0.2: "b"}, progress=False)
    with pytest.raises(ValueError, match=r"one label twice, as 0.1 and .*0.1.*, for 'a' and 'c'"):
        run.recompute(group={0.1: "a", np.float32(0.1): "c"}, progress=False)
    fine = recorded(tmp_path / "fine", np.array([0.1, 0.1000000001]))
    assert fine.recompute(group={0.1: "a", 0.1000000001: "c"}, progress=False).at(1).labels.tolist() == ["a", "c"]
    for near in (1e-60, 1e300, 0.25 + 1e-6):  # none of which is one of the labels
        other = recorded(tmp_path / f"other{near}", np.array([0.0, 0.25, np.inf]))
        with pytest.warns(lt.LabelTrackWarning, match="no key for 3 of 3 labels"):
            assert not other.recompute(group={near: "wrong"}, progress=False).modes


def test_the_command_warns_about_what_is_left_out_and_has_a_group_for_the_rest(tmp_path):
    recorded(tmp_path / "run", np.array([1, 2, 3]))
    (tmp_path / "few.json").write_text('{"1": 10, "01": 10}')
    (tmp_path / "none.json").write_text('{"one": "a"}')
    (tmp_path / "twice.json").write_text('{"1": 10, "1.0": 20}')
    base = ("recompute", tmp_path / "run", "--json", "--group")
    result = invoke(*base, tmp_path / "few.json")
    assert [(row["label"], row["count"]) for row in json.loads(result.stdout)] == [(10, 1)] * 2
    assert "warning: group has no key for 2 of 3 labels, so 4 of 6 samples" in result.stderr
    result = invoke(*base, tmp_path / "few.json", "--rest", "-1")
    assert [(row["label"], row["count"]) for row in json.loads(result.stdout)] == [(-1, 2), (10, 1)] * 2
    assert result.stderr == ""
    result = invoke(*base, tmp_path / "none.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no key for 3 of 3 labels" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("labeltrack: error: nothing of ")
    result = invoke(*base, tmp_path / "none.json", "--rest", "all")
    assert [(row["label"], row["count"]) for row in json.loads(result.stdout)] == [("all", 3)] * 2
    assert "as '1' and '1.0', for 10 and 20" in refusal(invoke(*base, tmp_path / "twice.json"))
    assert "--rest requires --group" in refusal(invoke("recompute", tmp_path / "run", "--rest", "x"))
    assert invoke("worst", tmp_path / "run", "--group", tmp_path / "few.json", "--rest", "-1").stderr == ""


def test_the_key_none_is_refused_in_a_run_without_missing_labels(tmp_path):
    run = recorded(tmp_path / "run", [1, 2])
    with pytest.raises(ValueError, match="with missing='error' the run has no samples without a label"):
        run.recompute(group={1: "one", None: "none"}, progress=False)
