"""Which domain gets worse? A training with Keras, tracked by a metric and a callback.

    KERAS_BACKEND=torch python examples/keras_slices.py [EPOCHS]

One of three domains has wrong labels half of the time. A metric of Keras sees targets and predictions alone, so the
domain travels with the targets, as a second column.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

from labeltrack.integrations.keras import LabelTrackCallback, LabelTrackMetric

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5

rng = np.random.default_rng(0)
x = rng.normal(size=(600, 8)).astype(np.float32)
domain = np.arange(600) % 3
y = np.where((domain == 2) & (rng.random(600) < 0.5), rng.integers(0, 4, 600), x[:, :4].argmax(1))
targets = np.stack([y, domain], axis=1)

cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)


def losses(y_true: Any, y_pred: Any) -> Any:
    """Return the loss of each sample."""
    return cross_entropy(y_true[:, 0], y_pred)


metric = LabelTrackMetric(
    losses,
    label=lambda y_true, _: y_true[:, 1],
    name="ce",
    label_mapping={"news": 0, "code": 1, "chat": 2},
)

model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)])
model.compile(optimizer=keras.optimizers.SGD(0.5), loss=losses, metrics=[metric])
held_out = x[480:], targets[480:]
model.fit(x[:480], targets[:480], batch_size=64, epochs=epochs, validation_data=held_out, verbose=0,
          callbacks=[LabelTrackCallback(metric)])  # fmt: skip

print(metric.tracker.history.at(epochs - 1))
print("Worst:", *(metric.tracker.history.at(epochs - 1)[label].name for label in metric.tracker.history.worst(1)))
