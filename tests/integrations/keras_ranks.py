"""What the ranks of `test_keras.py` do, with Keras on PyTorch."""

from __future__ import annotations

import keras
from integrations.torch_ranks import rows, start  # noqa: F401 (ranks are started with it)
from integrations.trainings import CLASSES, Samples

from labeltrack.integrations.keras import LabelTrackCallback, LabelTrackMetric


def trains(rank, world):
    """Train a model on samples of each rank, and evaluate it; return all losses, and what is tracked."""
    losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    seen, epochs = [], []

    def tapped(labels, logits):
        values = losses(labels, logits)
        if metric.mode is not None:
            pairs = zip(labels.flatten().tolist(), values.tolist(), strict=True)
            seen.extend((metric.mode, epochs[-1], label, value, 0) for label, value in pairs)
        return values

    metric = LabelTrackMetric(tapped, name="ce", sinks=[print])
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=[metric])
    (x, y), held_out = ((of.x[rank::world].numpy(), of.y[rank::world].numpy()) for of in (Samples(1), Samples(2)))
    begins = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _logs: epochs.append(epoch))
    callbacks = [begins, LabelTrackCallback(metric, sync=True)]
    fitted = model.fit(x, y, batch_size=8, epochs=2, validation_data=held_out, verbose=0, callbacks=callbacks)
    found = [[*key, rows(stats)] for key, stats in metric.tracker.history.items()]
    return seen, found, fitted.history["eval/ce_by_label/macro_max"], len(metric.tracker.sinks)
