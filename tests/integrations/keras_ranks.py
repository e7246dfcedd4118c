"""What the ranks of `test_keras.py` do, with Keras on PyTorch."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import keras
import torch
from integrations.ranks import EPOCH
from integrations.torch_ranks import rows, start  # noqa: F401 (ranks are started with it)
from integrations.trainings import CLASSES, Samples

from labeltrack.integrations.keras import LabelTrackCallback, LabelTrackMetric


class Training:
    """A model, samples of its own, and all losses that it computes."""

    def __init__(self, rank=0, world=1, **options):
        losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
        self.seen, self.epoch = [], 0

        def tapped(labels, logits):
            values = losses(labels, logits)
            if self.metric.mode is not None:
                pairs = zip(labels.flatten().tolist(), values.tolist(), strict=True)
                self.seen.extend((self.metric.mode, self.epoch, label, value, 0) for label, value in pairs)
            return values

        self.metric = LabelTrackMetric(tapped, name="ce", **options)
        layer = keras.layers.Dense(CLASSES, dtype="mixed_bfloat16")
        self.model = keras.Sequential([keras.layers.Input((5,)), layer])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        self.model.compile(optimizer=optimizer, loss=loss, metrics=[self.metric])
        parts = [(of.x[rank::world].numpy(), of.y[rank::world].numpy()) for of in (Samples(1), Samples(2))]
        self.samples, self.held_out = parts

    def fit(self, *callbacks, sync=True, ends=lambda _batch: None, **options):
        """Train; `ends` is called after each batch."""
        x, y = self.samples
        follow = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, _logs: setattr(self, "epoch", epoch),
            on_train_batch_end=lambda batch, **_logs: ends(batch),
        )
        callbacks = [follow, LabelTrackCallback(self.metric, sync=sync), *callbacks]
        options = {"validation_data": self.held_out, "epochs": 2, "verbose": 0} | options
        return self.model.fit(x, y, batch_size=8, callbacks=callbacks, **options)

    def history(self):
        assert not self.metric.tracker.pending
        return [[*key, rows(stats)] for key, stats in self.metric.tracker.history.items()]


def trains(rank, world):
    """Train on samples of each rank, and go on alone, at the second attempt; return all losses, and what is tracked."""
    training = Training(rank, world, sinks=[print])
    fitted = training.fit()
    worst, state = fitted.history["eval/ce_by_label/macro_max"], training.metric.tracker.state_dict()

    def interrupts(batch):
        if batch == 2:
            raise InterruptedError

    for ends in (interrupts, lambda _batch: None):
        alone = Training()
        alone.metric.tracker.load_state_dict(state)
        with contextlib.suppress(InterruptedError):
            alone.fit(sync=False, ends=ends, initial_epoch=2, epochs=3)
        state = alone.metric.tracker.state_dict()
    sinks = len(training.metric.tracker.sinks)
    return [training.seen, training.history(), worst, sinks, alone.seen, alone.history()]


def goes_on(rank, world):
    """Train until a step, from the state of another number of ranks if there is one; epochs begin again."""
    first, last = int(os.environ["FIRST"]), int(os.environ["LAST"])
    training, cut = Training(rank, world), last // EPOCH if last % EPOCH else None
    tracker = training.metric.tracker
    if first:
        tracker.load_state_dict(torch.load("saved.pt"))

    def interrupts(batch):
        if (training.epoch, batch) == (cut, 1):
            raise InterruptedError

    with contextlib.suppress(InterruptedError):
        training.fit(ends=interrupts, initial_epoch=first // EPOCH, epochs=3 if last % EPOCH else last // EPOCH)
    assert bool(tracker.pending) == (cut is not None)
    if rank == world - 1:
        torch.save(tracker.state_dict(), "saved.pt")
    seen = [[*row[:4], f"{rank}: {place}"] for place, row in enumerate(training.seen) if row[1] != cut]
    return {"seen": seen, "history": [[*key, rows(stats)] for key, stats in tracker.history.items()]}


def without_samples(rank, world):
    """Train where one rank has none of the labels; and where it does not evaluate."""
    training = Training(rank, world, label_mapping={"a": 0, "c": 2})
    training.fit()
    other, text = Training(rank, world), ""
    try:
        other.fit(validation_data=None if rank else other.held_out)
    except ValueError as error:
        text = str(error)
    return [training.seen, training.history(), text]


def ends(rank, world):
    """Train on two ranks, of which one ends or raises in the middle of an epoch."""
    training = Training(rank, world)

    def ends(batch):
        if (rank, training.epoch, batch) == (1, 1, 1):
            if os.environ["CASE"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            msg = "the step failed"
            raise ArithmeticError(msg)

    began = time.monotonic()
    try:
        training.fit(ends=ends)
    except RuntimeError as error:
        return [str(error), time.monotonic() - began]
