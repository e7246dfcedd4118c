"""The demo: a small classifier of handwritten digits, trained in numpy and tracked by class.

Everything happens in the open, so that it can be read as an example: `train` is an ordinary training loop, and
the two calls of the tracker in it are all there is to add to one of your own.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from labeltrack import History, LabelTracker

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    OnEpoch = Callable[[int, History], object]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

DIGITS = {
    name: digit
    for digit, name in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
}
"""Display names of the classes: the tracker's label mapping."""

FIGURES = {
    "std": ("loss_std.png", "mean ± one standard deviation"),
    "range": ("loss_range.png", "mean, from the smallest to the largest sample"),
}
"""File name and caption of the figure of each bound."""

_HIDDEN = 32
_LEARNING_RATE = 0.02
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Settings:
    """Settings of the demo.

    Attributes:
        epochs: Number of passes over the training set.
        batch_size: Samples per batch.
        seed: Random seed of the split, the initial weights and the order of the samples.

    Raises:
        ValueError: A number that is too small.
    """

    epochs: int = 20
    batch_size: int = 32
    seed: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                msg = f"{name.replace('_', '-')} must be at least {least}, got {value}"
                raise ValueError(msg)


@dataclass(frozen=True)
class Data:
    """Training and evaluation samples, standardised in the same way.

    Attributes:
        train_x: ``(N, 64)`` pixels to train on.
        train_y: ``(N,)`` their digits.
        eval_x: ``(M, 64)`` pixels to evaluate on.
        eval_y: ``(M,)`` their digits.
    """

    train_x: Floats
    train_y: Integers
    eval_x: Floats
    eval_y: Integers


@dataclass(frozen=True)
class Written:
    """What `write_results` wrote.

    Attributes:
        files: The files, with a few words on each.
        notes: What was left out, and how to get it.
    """

    files: dict[Path, str]
    notes: list[str]


class Network:
    """A classifier with one hidden layer of rectified units, in float32.

    Args:
        inputs: Number of features.
        classes: Number of classes.
        rng: Draws the first weights.
        learning_rate: Step size of the momentum gradient descent.
    """

    def __init__(self, inputs: int, classes: int, rng: np.random.Generator, learning_rate: float) -> None:
        def weights(rows: int, columns: int) -> Floats:
            # With this scale the activations are as spread behind the layer as before it.
            return rng.normal(0.0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32)

        self.learning_rate = learning_rate
        self.parameters = [
            weights(inputs, _HIDDEN),
            np.zeros(_HIDDEN, dtype=np.float32),
            weights(_HIDDEN, classes),
            np.zeros(classes, dtype=np.float32),
        ]
        self._velocities = [np.zeros_like(parameter) for parameter in self.parameters]

    def losses(self, x: Floats, y: Integers) -> Floats:
        """Return the cross-entropy of every sample.

        Args:
            x: ``(N, inputs)`` features.
            y: ``(N,)`` classes.
        """
        return self._forward(x, y)[0]

    def step(self, x: Floats, y: Integers) -> Floats:
        """Return the cross-entropy of every sample, then move the parameters down its mean.

        Args:
            x: ``(N, inputs)`` features.
            y: ``(N,)`` classes.
        """
        losses, hidden, slope = self._forward(x, y)
        slope[np.arange(len(y)), y] -= 1  # softmax minus one-hot: the derivative by the scores
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
        scores = hidden @ second + second_bias
        # log-softmax: with the largest score at zero no exponential overflows, and the sum of them is at least 1.
        scores -= scores.max(axis=1, keepdims=True)
        exponentials = np.exp(scores)
        total = exponentials.sum(axis=1, keepdims=True)
        losses = np.log(total[:, 0]) - scores[np.arange(len(y)), y]
        return losses, hidden, exponentials / total


def load_data(seed: int) -> Data:
    """Return scikit-learn's handwritten digits: two thirds to train on, one third to evaluate on.

    Args:
        seed: Of the split.

    Raises:
        ImportError: scikit-learn is missing; the message says how to get it.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = f'the demo needs scikit-learn, which could not be imported ({error}): pip install "labeltrack[demo]"'
        raise ImportError(msg) from error
    pixels, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(digits))
    train, held_out = np.split(order, [2 * len(digits) // 3])
    # Mean and deviation are those of the training set alone: the evaluation set must not tell anything in advance.
    mean, std = pixels[train].mean(axis=0), pixels[train].std(axis=0)
    std[std == 0] = 1  # pixels in the corners that are never inked
    scaled = ((pixels - mean) / std).astype(np.float32)
    labels = digits.astype(np.int64)
    return Data(scaled[train], labels[train], scaled[held_out], labels[held_out])


def make_tracker(record_to: str | os.PathLike[str] | None = None) -> LabelTracker:
    """Return the tracker of the demo: cross-entropy by digit, with both kinds of bounds.

    Args:
        record_to: Folder to save every sample in; None saves none.
    """
    return LabelTracker(
        label="digit", metric="cross-entropy", label_mapping=DIGITS, bounds=["std", "range"], record_to=record_to
    )


def recording_tracker(out: Path) -> tuple[LabelTracker, Written]:
    """Return a tracker that saves every sample in the folder ``run`` of a directory if the packages are installed.

    Args:
        out: The directory. A run of an earlier demo in it is replaced.

    Returns:
        The tracker, and what it writes or why it does not.

    Raises:
        OSError: The folder cannot be written to.
        ValueError: There is something else in it.
        RunInUseError: Another demo is recording to it.
    """
    run = out / "run"
    try:
        tracker = make_tracker(run)  # first, as this says what is wrong, and before anything is deleted
    except ImportError as error:
        return make_tracker(), Written({}, [f"no recorded run: {error}"])
    if (run / "journal-0002-0000.log").exists():
        tracker.close()
        shutil.rmtree(run)
        tracker = make_tracker(run)
    return tracker, Written({run: "every sample, for the other commands: labeltrack info, recompute, plot, …"}, [])


def train(
    data: Data, settings: Settings, *, tracker: LabelTracker | None = None, on_epoch: OnEpoch | None = None
) -> History:
    """Train a network and track the loss of every sample, in training and in evaluation.

    Args:
        data: What to train and evaluate on.
        settings: How long, in what steps, from which seed.
        tracker: Where the samples go; None for a new one from `make_tracker`.
        on_epoch: Called with the number of epochs done and the history so far.

    Returns:
        The history of the tracker: modes ``"train"`` and ``"eval"``, steps from 1 to the number of epochs.
    """
    tracker = make_tracker() if tracker is None else tracker
    rng = np.random.default_rng(settings.seed)
    # Smaller batches have noisier gradients, and need smaller steps to get anywhere.
    learning_rate = _LEARNING_RATE * min(1.0, settings.batch_size / Settings.batch_size)
    network = Network(data.train_x.shape[1], len(DIGITS), rng, learning_rate)
    for epoch in range(1, settings.epochs + 1):
        order = rng.permutation(len(data.train_y))
        for x, y in _batches(data.train_x[order], data.train_y[order], settings.batch_size):
            tracker.update(y, network.step(x, y), mode="train")
        tracker.end_epoch(epoch, mode="train")
        for x, y in _batches(data.eval_x, data.eval_y, settings.batch_size):
            tracker.update(y, network.losses(x, y), mode="eval")
        tracker.end_epoch(epoch, mode="eval")
        if on_epoch is not None:
            on_epoch(epoch, tracker.history)
    return tracker.history


def _batches(x: Floats, y: Integers, size: int) -> Iterator[tuple[Floats, Integers]]:
    for start in range(0, len(y), size):
        yield x[start : start + size], y[start : start + size]


def prepare_directory(out: str | os.PathLike[str]) -> Path:
    """Create the output directory, and check that it is writable.

    Args:
        out: The directory; it may be there already.

    Raises:
        OSError: It is a file, lies beneath one, or cannot be written to.
    """
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


def write_results(history: History, out: Path) -> Written:
    """Write the history as CSV and, where pyarrow is installed, as Parquet, and a figure for each bound.

    Args:
        history: What was recorded.
        out: Where to write; files of the same names are replaced.

    Raises:
        OSError: A file cannot be written.
    """
    from labeltrack.plot import plot_history  # noqa: PLC0415 (matplotlib is loaded only to draw)

    written = Written({}, [])
    history.to_csv(out / "history.csv")
    written.files[out / "history.csv"] = "one row for each mode, epoch and digit"
    try:
        history.to_parquet(out / "history.parquet")
        written.files[out / "history.parquet"] = "the same"
    except ImportError:
        written.notes.append('no history.parquet: pyarrow is not installed (pip install "labeltrack[arrow]")')
    for bound, (name, caption) in FIGURES.items():
        figure = plot_history(history, bounds=(bound,), title="Cross-entropy by digit", units="nats")
        figure.savefig(out / name, dpi=150)
        written.files[out / name] = caption
    return written


def run_demo(
    out: str | os.PathLike[str], settings: Settings | None = None, *, on_epoch: OnEpoch | None = None
) -> tuple[History, Written]:
    """Train, track, and write figures and history.

    Args:
        out: Directory to write to; made if it is not there.
        settings: How long, in what steps, from which seed; None for the defaults.
        on_epoch: Called with the number of epochs done and the history so far.

    Returns:
        The history, and what was written.

    Raises:
        ImportError: scikit-learn is missing.
        OSError: `out` cannot be written to.
    """
    settings = Settings() if settings is None else settings
    data = load_data(settings.seed)
    path = prepare_directory(out)
    tracker, recorded = recording_tracker(path)
    with tracker:
        history = train(data, settings, tracker=tracker, on_epoch=on_epoch)
    written = write_results(history, path)
    return history, Written(written.files | recorded.files, written.notes + recorded.notes)


__all__ = [
    "DIGITS",
    "FIGURES",
    "Data",
    "Network",
    "Settings",
    "Written",
    "load_data",
    "make_tracker",
    "prepare_directory",
    "recording_tracker",
    "run_demo",
    "train",
    "write_results",
]
