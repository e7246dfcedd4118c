"""The demo: it learns, what it records is what it computed, and what it writes is what it recorded."""

from __future__ import annotations

import statistics
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
import pytest

import labeltrack as lt
from labeltrack.cli import demo

if TYPE_CHECKING:
    from pathlib import Path


class SpyTracker(lt.LabelTracker):
    """A tracker that keeps every sample, by mode, epoch and label."""

    samples: dict[tuple[str, int, int], list[float]]
    epoch = 1

    def update(self, labels: Any, values: Any, *, mode: str = "train", ds_id: str = "") -> None:
        """Keep the samples, and record them."""
        assert values.dtype == np.float32
        for label, value in zip(labels.tolist(), values.tolist(), strict=True):
            self.samples.setdefault((mode, self.epoch, label), []).append(value)
        super().update(labels, values, mode=mode, ds_id=ds_id)

    def end_epoch(self, step: int, *, mode: str = "train") -> lt.LabelStats:
        """End the epoch, and with the last mode start the next."""
        self.epoch = step + (mode == "eval")
        return super().end_epoch(step, mode=mode)


Finished: TypeAlias = tuple[lt.History, demo.Written, lt.TrackerCollection]


@pytest.fixture(scope="module")
def data() -> demo.Data:
    return demo.load_data()


@pytest.fixture(scope="module")
def spied(data: demo.Data) -> SpyTracker:
    """Return a tracker that has seen three epochs."""
    tracker = SpyTracker(label="digit", metric="cross-entropy", label_mapping=demo.DIGITS, bounds=["std", "range"])
    tracker.samples = {}
    assert demo.train(data, 3, tracker=tracker) is tracker.history
    return tracker


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Do what the command does."""
    out = demo.prepare_directory(tmp_path_factory.mktemp("demo") / "new" / "directory")
    tracker, slices, recorded = demo.recording_trackers(out)
    with tracker, slices:
        history = demo.train(demo.load_data(), 2, tracker=tracker, slices=slices)
    written = demo.write_results(history, slices, out)
    return history, demo.Written(written.files | recorded.files, written.notes + recorded.notes), slices


def test_the_split_leaves_every_sample_in_one_of_the_two_sets(data: demo.Data) -> None:
    assert (len(data.train_y), len(data.eval_y)) == (1198, 599)
    assert data.train_x.shape == (1198, 64)
    assert data.eval_x.shape == (599, 64)
    assert set(data.train_y.tolist()) == set(data.eval_y.tolist()) == set(range(10))
    both = np.concatenate([data.train_x, data.eval_x])
    assert len(np.unique(both, axis=0)) == 1797


def test_standardising_does_not_look_at_the_evaluation_set(data: demo.Data) -> None:
    inked = data.train_x.any(axis=0)
    assert inked.sum() > 50
    np.testing.assert_allclose(data.train_x.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(data.train_x[:, inked].std(axis=0, dtype=np.float64), 1, atol=1e-6)
    assert np.abs(data.eval_x.mean(axis=0)).max() > 0.01


def test_the_demo_is_the_same_every_time(data: demo.Data) -> None:
    assert np.array_equal(demo.load_data().train_y, data.train_y)
    one, same = (demo.train(data, 1).columns() for _ in range(2))
    assert all(np.array_equal(one[name], same[name]) for name in one)


def test_training_learns(data: demo.Data) -> None:
    history = demo.train(data)
    assert history.modes == ["train", "eval"]
    assert history.steps("train") == history.steps("eval") == list(range(1, 21))
    for mode, factor in (("train", 20), ("eval", 2)):
        first, last = (history.at(step, mode).total().mean for step in (1, 20))
        assert last < first / factor


def test_the_last_batch_is_not_left_out(data: demo.Data) -> None:
    history = demo.train(data, 1)
    assert [int(history.at(1, mode).count.sum()) for mode in history.modes] == [1198, 599]


def test_losses_are_the_cross_entropy_of_each_sample(data: demo.Data) -> None:
    network = demo.Network(64, 10, np.random.default_rng(0), 0.1)
    first, first_bias, second, second_bias = (part.astype(np.float64) for part in network.parameters)
    scores = np.maximum(data.eval_x.astype(np.float64) @ first + first_bias, 0) @ second + second_bias
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(599), data.eval_y])
    losses = network.losses(data.eval_x, data.eval_y)
    assert losses.dtype == np.float32
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)


def test_losses_of_very_sure_networks_neither_overflow_nor_are_negative() -> None:
    network = demo.Network(2, 3, np.random.default_rng(0), 0.1)
    network.parameters[2] *= 1e6
    losses = network.losses(np.full((3, 2), 100, dtype=np.float32), np.arange(3))
    assert np.isfinite(losses).all()
    assert losses.min() == 0
    assert not np.signbit(losses).any()


def test_a_step_goes_down_the_gradient_of_the_mean_loss(data: demo.Data) -> None:
    x, y = data.train_x[:200], data.train_y[:200]
    network = demo.Network(64, 10, np.random.default_rng(3), 1.0)
    before = [part.astype(np.float64) for part in network.parameters]

    def mean_loss() -> float:
        return float(network.losses(x, y).mean(dtype=np.float64))

    slopes, places = [], [(0, (20, 5)), (1, (3,)), (2, (4, 7)), (3, (2,))]
    for part, place in places:
        ends = []
        for move in (-1e-2, 1e-2):
            network.parameters = [array.astype(np.float32) for array in before]
            network.parameters[part][place] += move
            ends.append(mean_loss())
        slopes.append((ends[1] - ends[0]) / 2e-2)
    network.parameters = [array.astype(np.float32) for array in before]
    network.step(x, y)  # the first step has no momentum yet, and a step size of one
    moved = [before[part][place] - network.parameters[part][place] for part, place in places]
    np.testing.assert_allclose(moved, slopes, rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("digit", range(10))
def test_what_is_recorded_is_what_rational_arithmetic_gives(spied: SpyTracker, mode: str, digit: int) -> None:
    samples = spied.samples[mode, 3, digit]
    name = list(demo.DIGITS)[digit]
    exact = sum(map(Fraction, samples), Fraction(0))
    assert spied.history.at(3, mode)[name] == (
        digit,
        name,
        len(samples),
        float(exact),
        float(exact / len(samples)),
        statistics.stdev(samples),
        min(samples),
        max(samples),
    )


def test_the_callback_is_called_after_each_epoch(data: demo.Data) -> None:
    seen: list[tuple[int, int]] = []
    tracker = demo.make_tracker()
    demo.train(data, 3, tracker=tracker, advance=lambda n: seen.append((n, len(tracker.history))))
    assert seen == [(1, 2), (1, 4), (1, 6)]


def test_the_tracker_of_the_demo_has_both_bounds_and_named_digits() -> None:
    tracker = demo.make_tracker()
    assert tracker.bounds == ("std", "range") == tuple(demo.FIGURES)
    assert list(demo.DIGITS.values()) == list(range(10))
    assert tracker.label_mapping == demo.DIGITS


def test_the_tables_that_are_written_are_the_history(finished: Finished) -> None:
    history, written, _ = finished
    expected = history.columns()
    csv, parquet = (next(file for file in written.files if file.suffix == ending) for ending in (".csv", ".parquet"))
    for table in (pl.read_csv(csv), pl.read_parquet(parquet)):
        assert len(table) == 2 * 2 * 10
        for name in ("step", "mode", "label", "name", "count", "mean", "std"):
            assert table[name].to_list() == expected[name].tolist()


def test_the_figures_are_png_files_of_a_readable_size(finished: Finished) -> None:
    _, written, _ = finished
    figures = [file.read_bytes() for file in written.files if file.suffix == ".png"]
    assert len(set(figures)) == 3
    for content in figures:
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert 600 <= width <= 4000
        assert 400 <= height <= 4000


def test_slices_are_the_losses_and_hits_of_the_evaluation(finished: Finished, data: demo.Data) -> None:
    _, _, slices = finished
    assert slices["accuracy"].history.modes == ["eval"]
    assert slices["cross-entropy"].history.by("digit").at(2).names.tolist() == sorted(
        demo.DIGITS, key=demo.DIGITS.__getitem__
    )
    counts = np.bincount(data.eval_y * 3 + data.eval_stroke, minlength=30)
    stats = slices["accuracy"].history.at(2)
    assert {(digit, stroke): counts[digit * 3 + stroke] for digit, stroke in stats.labels.tolist()} == {
        row.label: row.count for row in stats
    }
    assert int(stats.count.sum()) == 599
    assert 0.5 < stats.total().mean < 1.0
    ink = {stroke: data.eval_x[data.eval_stroke == stroke].mean() for stroke in demo.STROKES.values()}
    assert ink[0] < ink[1] < ink[2]


def test_slices_have_the_same_losses_as_digits(finished: Finished) -> None:
    history, _, slices = finished
    for step in (1, 2):
        one, other = slices["cross-entropy"].history.by("digit").at(step), history.at(step, "eval")
        assert one.names.tolist() == other.names.tolist()
        for name in ("count", "sum", "mean", "std", "min", "max"):
            assert one.column(name).tobytes() == other.column(name).tobytes()


def test_accuracy_counts_the_most_probable_class(data: demo.Data) -> None:
    network = demo.Network(64, 10, np.random.default_rng(0), 0.1)
    losses, correct = network.judge(data.eval_x, data.eval_y)
    assert losses.tobytes() == network.losses(data.eval_x, data.eval_y).tobytes()
    every = np.stack([network.losses(data.eval_x, np.full(599, digit)) for digit in range(10)])
    assert correct.tolist() == (every.argmin(axis=0) == data.eval_y).tolist()


def test_the_worst_slice_is_told_beside_its_digit() -> None:
    slices = demo.make_slices()
    labels = (np.array([4, 4, 4, 7]), np.array([0, 0, 2, 1]))
    metrics = {"cross-entropy": np.array([3.0, 2.0, 0.5, 1.0]), "accuracy": np.array([True, False, True, True])}
    slices.update(labels, metrics, mode="eval")
    slices.end_epoch(1, mode="eval")
    assert demo.worst_slice(slices) == (
        "The worst slice is 'four' with a thin stroke, 2 images: cross-entropy 2.500, 50% correct.\n"
        "All of 'four': 1.833, 67% correct."
    )


def test_a_directory_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    path = demo.prepare_directory(str(tmp_path / "a" / "b"))
    assert path == demo.prepare_directory(path)
    assert list(path.iterdir()) == []


def test_the_run_that_is_recorded_gives_the_same_history(finished: Finished) -> None:
    history, written, _ = finished
    (run,) = (file for file in written.files if file.name == "run")
    recomputed = lt.open_run(run).recompute(progress=False)
    assert recomputed.bounds == ("std", "range")
    for (key, stats), (other_key, other) in zip(history.items(), recomputed.items(), strict=True):
        assert key == other_key
        assert stats.names.tolist() == other.names.tolist()
        for name in ("count", "sum", "mean", "std", "min", "max"):
            assert stats.column(name).tobytes() == other.column(name).tobytes()


def test_the_hardest_images_are_those_of_the_highest_mean_loss(finished: Finished, data: demo.Data) -> None:
    (folder,) = (file for file in finished[1].files if file.name == "slices")
    run = lt.open_run(folder)
    table = run.samples("eval").to_pydict()
    losses = np.array(table["cross-entropy"], dtype=np.float32).astype(np.float64).reshape(2, 599)
    assert table["id"] == [*data.eval_id.tolist()] * 2
    assert table["digit"] == [*data.eval_y.tolist()] * 2
    dynamics = run.dynamics(progress=False)
    mean = np.array([statistics.fmean(column) for column in losses.T])
    hardest = dynamics.hardest(5)
    assert hardest.ids.tolist() == data.eval_id[np.argsort(-mean)[:5]].tolist()
    assert hardest.correctness is not None
    assert dynamics.correct == "accuracy"
    assert dynamics.correctness is not None
    total = finished[2]["accuracy"].history.pooled("eval").total().mean
    assert float(dynamics.correctness.mean()) == pytest.approx(total)


def test_a_demo_replaces_the_run_of_an_earlier_one(tmp_path: Path) -> None:
    for epochs in (2, 1):
        tracker, slices, _ = demo.recording_trackers(tmp_path)
        with tracker, slices:
            demo.train(demo.load_data(), epochs, tracker=tracker, slices=slices)
    for folder in ("run", "slices"):
        assert [epoch.step for epoch in lt.open_run(tmp_path / folder).epochs if epoch.mode == "eval"] == [1]


def test_something_else_in_the_place_of_the_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="no recorded run in it"):
        demo.recording_trackers(tmp_path)
    with lt.LabelTracker("site", "accuracy", record_to=tmp_path / "other" / "run"):
        pass
    with pytest.raises(ValueError, match="a run of metric 'accuracy'"):
        demo.recording_trackers(tmp_path / "other")
    with lt.LabelTracker("site", "accuracy", record_to=tmp_path / "third" / "slices"):
        pass
    for _ in range(2):  # the run beside it is not left in use
        with pytest.raises(ValueError, match="a run of metric 'accuracy'"):
            demo.recording_trackers(tmp_path / "third")
