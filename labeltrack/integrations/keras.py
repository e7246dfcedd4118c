"""A metric and a callback for Keras 3 that track a per-sample metric by label, on PyTorch, JAX and TensorFlow."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import labeltrack
from labeltrack.integrations._shared import Epochs, needed

with needed(
    'keras needs Keras 3 and a backend: pip install "labeltrack[keras]"', "keras", "tensorflow", "jax", "torch"
):
    import keras
    from keras.src.backend import get_keras_mask

__all__ = ["LabelTrackCallback", "LabelTrackMetric"]


class LabelTrackMetric(keras.metrics.Mean):
    """Track a per-sample metric by label; as a metric of Keras, it is the mean of all samples.

    Nothing is tracked without a `LabelTrackCallback`, which sees where epochs begin and end. Time steps that the model
    masks do not count.

    Models on TensorFlow need ``compile(…, jit_compile=False)`` where Keras would choose XLA.

    Args:
        value: Function of ``y_true`` and ``y_pred`` that returns a value per sample, such as a function of
            ``keras.losses``, or one of its classes with ``reduction=None``, which takes longer.
        label: Function of ``y_true`` and ``y_pred`` that returns the labels; None for ``y_true`` itself.
        name: Name of the metric.
        **options: Those of `labeltrack.LabelTracker`.

    Attributes:
        tracker: The `labeltrack.LabelTracker`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An unknown option; see `labeltrack.LabelTracker`.

    Example:
        >>> import numpy as np
        >>> metric = LabelTrackMetric(lambda y_true, y_pred: abs(y_pred[:, 0] - y_true), name="error")
        >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.ReLU()])
        >>> model.compile(loss="mse", metrics=[metric])
        >>> x, y = np.array([[1.0], [2.0], [4.0]], np.float32), np.array([1.0, 1.0, 3.0], np.float32)
        >>> _ = model.evaluate(x, y, callbacks=[LabelTrackCallback(metric)], verbose=0)
        >>> metric.tracker.history.at(0)[1].mean, metric.tracker.history.at(0)[3].mean
        (0.5, 1.0)
    """

    def __init__(
        self,
        value: Callable[[Any, Any], Any],
        label: Callable[[Any, Any], Any] | None = None,
        name: str = "value",
        **options: Any,
    ) -> None:
        super().__init__(name=name)
        self.tracker = labeltrack.LabelTracker("label", name, **options)
        self._value, self._label = value, label
        self.mode: str | None = None
        """Mode of the batches; None for those that Keras only builds a model with. A `LabelTrackCallback` sets it."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Record a batch, and add it to the mean.

        Args:
            y_true: What `value` and `label` take.
            y_pred: Likewise.
            sample_weight: Weights in the mean; samples are tracked as they are.
        """
        values = self._value(y_true, y_pred)
        samples = [y_true if self._label is None else self._label(y_true, y_pred), values]
        mask = get_keras_mask(y_pred)  # of layers such as `Embedding(mask_zero=True)`: what is no padding
        if mask is not None and tuple(mask.shape) == tuple(values.shape):
            samples.append(mask)
            weight = keras.ops.cast(mask, values.dtype)
            sample_weight = weight if sample_weight is None else weight * keras.ops.cast(sample_weight, values.dtype)
        backend = keras.backend.backend()
        if backend == "tensorflow":
            import tensorflow as tf  # noqa: PLC0415 (the backend in use)

            tf.py_function(self._record, samples, [])
        elif backend == "jax":
            import jax  # noqa: PLC0415 (likewise)

            jax.debug.callback(self._record, *samples)
        else:
            self._record(*samples)
        return super().update_state(values, sample_weight)

    def _record(self, labels: Any, values: Any, where: Any = None) -> None:
        if self.mode is not None:
            self.tracker.update(labels, values, mode=self.mode, where=where)

    def wait(self) -> None:
        """Wait until every batch so far is recorded."""
        if keras.backend.backend() == "jax":
            import jax  # noqa: PLC0415 (the backend in use)

            jax.effects_barrier()


class LabelTrackCallback(keras.callbacks.Callback):
    """Begin and end the epochs of a `LabelTrackMetric`: training is mode ``"train"``, evaluation ``"eval"``.

    The epoch is the step, as Keras counts, from 0. An evaluation that is repeated replaces the one before.

    The means of the labels are in the logs of an epoch as ``{mode}/{outputs}/{name}``, and that of the worst one as
    ``…/macro_max``, for callbacks that come after this one, such as ``EarlyStopping``, and for the history that
    ``fit`` returns.

    Args:
        metric: The metric that the model was compiled with.
        sync: Whether the ranks of a process group of ``torch.distributed`` share every epoch when it ends, with any
            backend of Keras: all of them must run the same epochs and evaluations, each with samples of its own, as
            Keras does not divide them. `sinks` are called on rank 0 alone.

    Raises:
        ImportError: `sync` is True, and PyTorch is not installed.
        ValueError: From ``fit`` and ``evaluate``: a model on TensorFlow is compiled by XLA.
    """

    def __init__(self, metric: LabelTrackMetric, *, sync: bool = False) -> None:
        super().__init__()
        self.metric = metric
        self._share: Callable[..., Any] | None = None
        if sync:
            from labeltrack.integrations.torch import sync as share  # noqa: PLC0415 (for this alone)

            self._share = share
        self._epochs = Epochs(metric.tracker)
        self._epoch = 0
        self._outer: str | None = None  # mode around an evaluation
        self._logs: dict[str, float] = {}

    @property
    def tracker(self) -> labeltrack.LabelTracker:
        """The tracker of the metric."""
        return self.metric.tracker

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin a training; ValueError if the batches of the model cannot leave compiled code."""
        self._refuse_xla()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin an epoch of training."""
        self._epoch, self._logs = epoch, {}
        self._begin("train")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """End it, and put the means into the logs."""
        self._end("train", epoch)
        if logs is not None:
            logs.update(self._logs)

    def on_test_begin(self, logs: Any = None) -> None:
        """Begin an evaluation, which may be in an epoch of training; ValueError as in `on_train_begin`."""
        self._refuse_xla()
        self.metric.wait()
        self._outer = self.metric.mode
        self._begin("eval")

    def on_test_end(self, logs: Any = None) -> None:
        """End it; training continues."""
        self._end("eval", self._epoch)
        self.metric.mode = self._outer
        if logs is not None:
            logs.update(self._logs)

    def _refuse_xla(self) -> None:
        if keras.backend.backend() != "tensorflow" or not getattr(self.model, "compiled", False):
            return
        if getattr(self.model, "jit_compile", False) and not getattr(self.model, "run_eagerly", False):
            msg = "no batch can leave code that XLA has compiled: compile the model with jit_compile=False"
            raise ValueError(msg)

    def _begin(self, mode: str) -> None:
        self.tracker.reset(mode=mode)  # what was interrupted before it had ended
        self.metric.mode = mode

    def _end(self, mode: str, step: int) -> None:
        self.metric.wait()
        self.metric.mode = None
        if self._share is not None:
            self._share(self.tracker, mode=mode)
            distributed = sys.modules["torch.distributed"]
            if distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0:
                self.tracker.sinks.clear()
        elif not any(of == mode for of, _ in self.tracker.pending):
            warnings.warn(
                f"no sample of mode {mode!r} came to the metric {self.metric.name!r}: is it in the metrics= that "
                "the model was compiled with?",
                labeltrack.LabelTrackWarning,
                stacklevel=2,
            )
        self._logs |= self._epochs.end(step, mode)
