"""A training that `test_keras.py` runs with each backend: prints what was tracked, and what was to be tracked."""

from __future__ import annotations

import contextlib
import doctest
import json
import pickle
import subprocess
import sys
import tempfile
import warnings
from datetime import timedelta

import keras
import numpy as np
from exact import expected_by_label

import labeltrack
from labeltrack.integrations import keras as integration
from labeltrack.integrations.keras import LabelTrackCallback, LabelTrackMetric

BACKEND = keras.backend.backend()
OTHER = """
import sys
from torch import distributed
import labeltrack as lt
from labeltrack.integrations.torch import sync

tracker = lt.LabelTracker("label", "ce")
distributed.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
for mode in ("eval", "train"):  # in the order in which their epochs end
    tracker.update([0, 9], [0.5, 2.0], mode=mode)
    sync(tracker, mode=mode)
distributed.destroy_process_group()  # else its threads may still be there when the process ends, which aborts it
"""
losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
taps = []
if BACKEND == "tensorflow":
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def keep(labels, values):
    taps.append((np.asarray(labels).copy(), np.asarray(values).copy()))


def tapped(labels, logits):
    """Return losses, and keep them without labeltrack."""
    values = losses(labels, logits)
    if BACKEND == "jax":
        import jax

        jax.debug.callback(keep, labels, values)
    elif BACKEND == "tensorflow":
        tf.py_function(keep, [labels, values], [])
    else:
        keep(labels, values.detach())
    return values


class Ends(keras.callbacks.Callback):
    """Keeps what was computed in each part of each epoch."""

    def __init__(self, parts):
        super().__init__()
        self.parts, self.epoch = parts, 0

    def taken(self):
        if BACKEND == "jax":
            import jax

            jax.effects_barrier()
        found = taps[:]
        taps.clear()
        return found

    def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
        self.epoch = epoch
        self.taken()  # of building the model

    def on_test_begin(self, logs=None):  # noqa: ARG002
        self.parts.setdefault(("train", self.epoch), []).extend(self.taken())

    def on_test_end(self, logs=None):  # noqa: ARG002
        self.parts["eval", self.epoch] = self.taken()

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        self.parts.setdefault(("train", epoch), []).extend(self.taken())


def hexed(columns):
    return [[int(label), *map(float.hex, map(float, values))] for label, values in columns.items()]


def sides(parts, mode):
    """Return the statistics of what was computed in an epoch."""
    labels, values = (np.concatenate(column).tolist() for column in zip(*parts[mode, 0], strict=True))
    return hexed(expected_by_label(labels, values))


def hexed_of(metric, mode):
    """Return the statistics that were tracked in an epoch."""
    return [[row.label, *map(float.hex, map(float, row[2:]))] for row in metric.tracker.history.at(0, mode)]


def model_of(*, dtype=None, **options):
    metric = LabelTrackMetric(tapped, name="ce", **options)
    first = keras.initializers.GlorotUniform(seed=0)  # `set_random_seed` would import TensorFlow with every backend
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(4, kernel_initializer=first, dtype=dtype)])
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=[metric])
    return model, metric


rng = np.random.default_rng(0)
x, x2 = rng.normal(size=(2, 37, 5)).astype(np.float32)
y, y2 = rng.integers(0, 4, size=(2, 37))
model, metric = model_of()
parts = {}
callbacks = [Ends(parts), LabelTrackCallback(metric)]
data = {"x": x, "y": y, "batch_size": 8, "validation_data": (x2, y2), "verbose": 0}
fitted = model.fit(**data, epochs=2, callbacks=callbacks)
tracker = metric.tracker
restored, again = model_of()
restored.set_weights(model.get_weights())
again.tracker.load_state_dict(pickle.loads(pickle.dumps(tracker)).state_dict())
restored.fit(**data, initial_epoch=2, epochs=3, callbacks=[Ends(parts), LabelTrackCallback(again)])

expected = []
for (mode, epoch), batches in sorted(parts.items()):
    labels = np.concatenate([labels for labels, _ in batches])
    values = np.concatenate([values for _, values in batches])
    expected.append([mode, epoch, hexed(expected_by_label(labels.tolist(), values.tolist()))])
history = again.tracker.history
tracked = [
    [mode, step, [[row.label, *map(float.hex, map(float, row[2:]))] for row in history.at(step, mode)]]
    for (mode, _, step), _ in sorted(history.items(), key=lambda item: item[0][::2])
]
logits = keras.ops.convert_to_numpy(model(x2)).astype(float)
alone = np.log(np.exp(logits).sum(1)) - logits[np.arange(37), y2]
evaluation = tracker.history.at(1, "eval")
grouped, found = model_of(label=lambda y_true, _: y_true % 2, label_mapping={"even": 0, "odd": 1})
grouped.evaluate(x2, y2, verbose=0)
grouped.evaluate(x2, y2, verbose=0, callbacks=[LabelTrackCallback(found)])

# Batches that Keras cuts, joins and weights, in mixed precision: samples count as they are, and padding does not.
parts2 = {}
split, cut = model_of(dtype="mixed_bfloat16")
more = {} if BACKEND == "torch" else {"steps_per_execution": 3}  # which that backend has not
split.compile(optimizer="sgd", loss=split.loss, metrics=[cut], **more)
weights = {"class_weight": {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}, "validation_split": 0.25}
split.fit(x, y, batch_size=8, epochs=1, callbacks=[Ends(parts2), LabelTrackCallback(cut)], verbose=0, **weights)
tokens = rng.integers(1, 9, (8, 6))
tokens[:, 4:] = 0
words = [keras.layers.Embedding(9, 4, mask_zero=True), keras.layers.Dense(4)]
masked, unpadded = keras.Sequential(words), LabelTrackMetric(losses)
own, own2 = (keras.metrics.SparseCategoricalCrossentropy(from_logits=True) for _ in range(2))
masked.compile(loss=split.loss, metrics=[unpadded], weighted_metrics=[own])
padded = {"x": tokens, "y": rng.integers(0, 4, (8, 6)), "verbose": 0, "return_dict": True}
plain = masked.evaluate(**padded, callbacks=[LabelTrackCallback(unpadded)])
weighted, also = keras.Sequential(words), LabelTrackMetric(losses)
weighted.compile(loss=split.loss, weighted_metrics=[also, own2])
shares = weighted.evaluate(**padded, sample_weight=np.tile(range(6), (8, 1)), callbacks=[LabelTrackCallback(also)])
parts3, scope = {}, contextlib.nullcontext()
if BACKEND == "jax":
    scope = keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"]).scope()
elif BACKEND == "tensorflow":
    scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
with scope:  # two devices, which share a batch
    shared, halves = model_of()
    shared.evaluate(x2[:32], y2[:32], batch_size=8, callbacks=[Ends(parts3), LabelTrackCallback(halves)], verbose=0)

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always", labeltrack.LabelTrackWarning)
    split.evaluate(x2, y2, verbose=0, callbacks=[LabelTrackCallback(found)])  # the metric of another model
refused = ""
if BACKEND == "tensorflow":
    split.compile(loss=split.loss, metrics=[cut], jit_compile=True)
    split.predict(x2, verbose=0, callbacks=[LabelTrackCallback(cut)])
    split.run_eagerly = True
    for accepted in (split, keras.Sequential([])):  # the other one is not compiled
        keras.callbacks.CallbackList([LabelTrackCallback(cut)], model=accepted).on_train_begin()
    split.run_eagerly = False
    try:
        split.evaluate(x2, y2, verbose=0, callbacks=[LabelTrackCallback(cut)])
    except ValueError as error:
        refused = str(error)

# Another process, which has no Keras, shares an epoch; two that have, with PyTorch, have a test of their own.
parts4, together = {}, []
if BACKEND != "torch":
    from torch import distributed

    store = f"file://{tempfile.mkdtemp()}/store"
    other = subprocess.Popen([sys.executable, "-W", "ignore", "-c", OTHER, store])
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=2, timeout=timedelta(seconds=60))
    joint, of_both = model_of()
    joint.fit(**data, callbacks=[Ends(parts4), LabelTrackCallback(of_both, sync=True)])
    assert other.wait() == 0
    distributed.destroy_process_group()
    for mode in ("train", "eval"):
        more = (np.array([0, 9]), np.array([0.5, 2.0], np.float32))
        together.append([hexed_of(of_both, mode), sides({(mode, 0): [*parts4[mode, 0], more]}, mode)])
examples = doctest.testmod(integration, optionflags=doctest.NORMALIZE_WHITESPACE)
print(  # noqa: T201
    json.dumps(
        {
            "expected": expected,
            "tracked": tracked,
            "pending": len(tracker.pending) + len(again.tracker.pending),
            "means": evaluation.mean.tolist(),
            "plain": [alone[y2 == label].mean() for label in range(4)],
            "logs": [fitted.history[f"eval/ce_by_label/{label}"][1] for label in range(4)],
            "worst": fitted.history["eval/ce_by_label/macro_max"][1],
            "overall": [fitted.history["val_ce"][1], evaluation.total().mean],
            "cut": [hexed_of(cut, mode) for mode in ("train", "eval")]
            + [sides(parts2, mode) for mode in ("train", "eval")],
            "halves": [hexed_of(halves, "eval"), sides(parts3, "eval")],
            "halves counted": [np.bincount(y2[:32]).tolist(), halves.tracker.history.at(0).count.tolist()],
            "masked": [unpadded.tracker.history.at(0).total().count, unpadded.tracker.history.at(0).total().mean],
            "of Keras": [plain["value"], plain[own.name]],
            "weighted": [shares["value"], shares[own2.name]],
            "counted": also.tracker.history.at(0).total().count,
            "grouped": [[row.name, row.count] for row in found.tracker.history.at(0, "eval")],
            "told": [str(one.message) for one in told if one.category is labeltrack.LabelTrackWarning],
            "refused": refused,
            "together": together,
            "examples": list(examples),
        }
    )
)
