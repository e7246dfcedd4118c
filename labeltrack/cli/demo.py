"""The demo: a small classifier of handwritten digits, trained in numpy and tracked by class and by slice.

`train` is an ordinary training loop and can be read as an example: what tracking adds are the calls of the tracker.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from labeltrack import History, LabelTracker, TrackerCollection
from labeltrack.errors import need
from labeltrack.plot import plot_grid, plot_history

if TYPE_CHECKING:
    import os

_Tracker = TypeVar("_Tracker", LabelTracker, TrackerCollection)
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = {name: digit for digit, name in enumerate(NAMES)}  # the label mapping of the tracker
FIGURES = {  # file and caption of the figure of each bound
    "std": ("loss_std.png", "mean ± one standard deviation"),
    "range": ("loss_range.png", "mean, from the smallest to the largest sample"),
}
SLICES = "slices.png"
STROKES = {"thin": 0, "medium": 1, "bold": 2}  # thirds of the images by the amount of ink
EPOCHS = 20
_BATCH_SIZE = 32
_SEED = 1  # of the split, the initial weights and the order of samples
_HIDDEN = 32
_LEARNING_RATE = 0.02
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Data:
    """``(N, 64)`` pixels and ``(N,)`` digits to train on and to evaluate on; of the latter, stroke and place."""

    train_x: Floats
    train_y: Integers
    eval_x: Floats
    eval_y: Integers
    eval_stroke: Integers
    eval_id: Integers


@dataclass(frozen=True)
class Written:
    """The files that were written, with a few words on each, and notes on what was left out."""

    files: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Network:
    """A classifier with one hidden layer of rectified linear units, in float32, trained with momentum."""

    def __init__(self, inputs: int, classes: int, rng: np.random.Generator, learning_rate: float) -> None:
        def weights(rows: int, columns: int) -> Floats:
            # He initialisation: the variance of the activations stays the same from layer to layer.
            return rng.normal(0.0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32)

        biases = [np.zeros(n, dtype=np.float32) for n in (_HIDDEN, classes)]
        self.learning_rate = learning_rate
        self.parameters = [weights(inputs, _HIDDEN), biases[0], weights(_HIDDEN, classes), biases[1]]
        self._velocities = [np.zeros_like(parameter) for parameter in self.parameters]

    def losses(self, x: Floats, y: Integers) -> Floats:
        """Return the ``(N,)`` cross-entropies of ``(N, inputs)`` features and ``(N,)`` classes."""
        return self._forward(x, y)[0]

    def judge(self, x: Floats, y: Integers) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the cross-entropies as `losses` does, and whether the most probable class is the right one."""
        losses, _, probabilities = self._forward(x, y)
        return losses, probabilities.argmax(axis=1) == y

    def step(self, x: Floats, y: Integers) -> Floats:
        """Return the cross-entropies as `losses` does, and take a gradient step on their mean."""
        losses, hidden, slope = self._forward(x, y)
        slope[np.arange(len(y)), y] -= 1  # softmax minus one-hot: the gradient with respect to the logits
        slope /= len(y)
        behind = (slope @ self.parameters[2].T) * (hidden > 0)
        gradients = (x.T @ behind, behind.sum(axis=0), hidden.T @ slope, slope.sum(axis=0))
        for k, gradient in enumerate(gradients):
            self._velocities[k] = _MOMENTUM * self._velocities[k] - self.learning_rate * gradient
            self.parameters[k] = self.parameters[k] + self._velocities[k]
        return losses

    def _forward(self, x: Floats, y: Integers) -> tuple[Floats, Floats, Floats]:
        """Return losses, hidden activations and class probabilities."""
        first, first_bias, second, second_bias = self.parameters
        hidden = np.maximum(x @ first + first_bias, 0)
        logits = hidden @ second + second_bias
        logits -= logits.max(axis=1, keepdims=True)  # so that no exponential overflows
        exponentials = np.exp(logits)
        total = exponentials.sum(axis=1, keepdims=True)
        losses = np.log(total[:, 0]) - logits[np.arange(len(y)), y]
        return losses, hidden, exponentials / total


def load_data() -> Data:
    """Return scikit-learn's handwritten digits, standardised: two thirds to train on, one third to evaluate on."""
    pixels, digits = need("sklearn.datasets", "the demo", "demo").load_digits(return_X_y=True)
    order = np.random.default_rng(_SEED).permutation(len(digits))
    train, held_out = np.split(order, [2 * len(digits) // 3])
    mean, std = pixels[train].mean(axis=0), pixels[train].std(axis=0)  # of the training set alone
    std[std == 0] = 1  # pixels in the corners that are always blank
    scaled = ((pixels - mean) / std).astype(np.float32)
    labels = digits.astype(np.int64)
    ink = pixels.mean(axis=1)
    stroke = np.searchsorted(np.quantile(ink, [1 / 3, 2 / 3]), ink[held_out]).astype(np.int64)
    return Data(scaled[train], labels[train], scaled[held_out], labels[held_out], stroke, held_out)


def make_tracker(record_to: str | os.PathLike[str] | None = None) -> LabelTracker:
    """Return the tracker of the demo: cross-entropy by digit, with two bounds."""
    return LabelTracker("digit", "cross-entropy", label_mapping=DIGITS, bounds=list(FIGURES), record_to=record_to)


def make_slices(record_to: str | os.PathLike[str] | None = None) -> TrackerCollection:
    """Return what tracks slices: cross-entropy and accuracy of the evaluation, by digit and stroke."""
    names, metrics = ("digit", "stroke"), ["cross-entropy", "accuracy"]
    return TrackerCollection(names, metrics, label_mapping={"digit": DIGITS, "stroke": STROKES}, record_to=record_to)


def recording_trackers(out: Path) -> tuple[LabelTracker, TrackerCollection, Written]:
    """Return trackers that save every sample in folders of `out`, in the place of earlier runs, and what they write."""
    files = {
        out / "run": "every sample, for the other commands: labeltrack report, check, plot, …",
        out / "slices": "cross-entropy and accuracy of every image: labeltrack hardest, dynamics, …",
    }
    run, sliced = files
    try:
        tracker = _recording(make_tracker, run)
    except ImportError as error:
        return make_tracker(), make_slices(), Written(notes=[f"no recorded run: {error}"])
    try:
        return tracker, _recording(make_slices, sliced), Written(files)
    except BaseException:
        tracker.close()
        raise


def _recording(make: Callable[[Path], _Tracker], run: Path) -> _Tracker:
    """Return a tracker that records to a folder, in the place of the run of an earlier demo."""
    tracker = make(run)  # before anything is deleted, as it raises if this is no run of a demo
    if (run / "journal-0002-0000.log").exists():
        tracker.close()
        shutil.rmtree(run)
        tracker = make(run)
    return tracker


def train(
    data: Data,
    epochs: int = EPOCHS,
    *,
    tracker: LabelTracker | None = None,
    slices: TrackerCollection | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> History:
    """Train a network, track all losses, those of the evaluation by slices, too, and return the history.

    `advance` is called with 1 after each epoch.
    """
    tracker = make_tracker() if tracker is None else tracker
    slices = make_slices() if slices is None else slices
    rng = np.random.default_rng(_SEED)
    network = Network(data.train_x.shape[1], len(DIGITS), rng, _LEARNING_RATE)
    for epoch in range(1, epochs + 1):
        order = rng.permutation(len(data.train_y))
        for x, y in _batches(data.train_x[order], data.train_y[order]):
            tracker.update(y, network.step(x, y), mode="train")
        tracker.end_epoch(epoch, mode="train")
        held_out = data.eval_x, data.eval_y, data.eval_stroke, data.eval_id
        for x, y, stroke, ids in _batches(*held_out):
            losses, correct = network.judge(x, y)
            tracker.update(y, losses, mode="eval")
            slices.update((y, stroke), {"cross-entropy": losses, "accuracy": correct}, mode="eval", ids=ids)
        tracker.end_epoch(epoch, mode="eval")
        slices.end_epoch(epoch, mode="eval")
        advance(1)
    return tracker.history


def _batches(*columns: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    for start in range(0, len(columns[0]), _BATCH_SIZE):
        yield tuple(column[start : start + _BATCH_SIZE] for column in columns)


def prepare_directory(out: str | os.PathLike[str]) -> Path:
    """Create the output directory if it is not there, and check that it is writable, or raise an OSError."""
    path = Path(out)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except (FileExistsError, NotADirectoryError):
        inside = next((part for part in (path, *path.parents) if part.exists() and not part.is_dir()), path)
        msg = f"cannot write to {path}: {inside} is a file, not a directory; choose another directory"
        raise NotADirectoryError(msg) from None
    except OSError as error:
        msg = f"cannot write to {path} ({error.strerror}); choose another directory"
        raise OSError(msg) from error


def write_results(history: History, slices: TrackerCollection, out: Path) -> Written:
    """Write the history as CSV and, with pyarrow, as Parquet, and figures; replace earlier files."""
    history.to_csv(out / "history.csv")
    written = Written({out / "history.csv": "one row for each mode, step and digit"})
    try:
        history.to_parquet(out / "history.parquet")
        written.files[out / "history.parquet"] = "the same"
    except ImportError as error:
        written.notes.append(f"no history.parquet: {error}")
    for bound, (name, caption) in FIGURES.items():
        figure = plot_history(history, bounds=bound, title="Cross-entropy by digit", x_label="epoch", units="nats")
        figure.savefig(out / name, dpi=150)
        written.files[out / name] = caption
    by_slice = slices["cross-entropy"].history
    figure = plot_grid(by_slice, title="Cross-entropy by digit and stroke", x_label="epoch", units="nats")
    figure.savefig(out / SLICES, dpi=150)
    written.files[out / SLICES] = "mean of each slice, such as fours of thin strokes"
    return written


def finding(history: History) -> str:
    """Return in words how the mean over all classes developed, and which class got worse."""
    means = {step: history.at(step).total().mean for step in history.steps("eval")}
    last, best = max(means), min(means, key=means.__getitem__)
    if best == last:
        text = f"The mean over all digits is at its best: {means[last]:.3f}."
    else:
        text = f"The mean over all digits is {means[last]:.3f}; it was {means[best]:.3f} at epoch {best}."
    courses = {name: history.series(label, mode="eval") for label, name in history.names().items()}
    name = max(courses, key=lambda of: courses[of][1][-1] - np.nanmin(courses[of][1]))
    steps, values = courses[name]
    lowest = int(np.nanargmin(values))
    if values[-1] == values[lowest]:
        return f"{text} So is every single digit." if best == last else text
    return f"{text}\nBut '{name}' got worse: {values[lowest]:.3f} at epoch {steps[lowest]}, {values[-1]:.3f} now."


def worst_slice(slices: TrackerCollection) -> str:
    """Return in words which slice has the highest loss at the end, and how it compares with its digit."""
    loss, accuracy = slices["cross-entropy"].history, slices["accuracy"].history
    (worst,) = loss.worst(1)
    last = loss.steps()[-1]
    row, right = loss.at(last)[worst], accuracy.at(last)[worst]
    digit, alone = loss.by("digit").at(last), accuracy.by("digit").at(last)
    name, stroke = digit[worst[0]].name, loss.by("stroke").at(last)[worst[1]].name
    return (
        f"The worst slice is '{name}' with a {stroke} stroke, {row.count} images: cross-entropy {row.mean:.3f}, "
        f"{right.mean:.0%} correct.\nAll of '{name}': {digit[worst[0]].mean:.3f}, {alone[worst[0]].mean:.0%} correct."
    )
