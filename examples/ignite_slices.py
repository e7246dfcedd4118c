"""Which domain gets worse? A training with Ignite, tracked by a handler.

    python examples/ignite_slices.py [EPOCHS]

One of three domains has wrong labels half of the time. The output of the engines has the loss of each sample.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch, where Ignite is imported

from ignite.engine import Engine, Events

from labeltrack.integrations.ignite import LabelTrackHandler

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5

torch.manual_seed(0)
x = torch.randn(600, 8)
domain = torch.arange(600) % 3
y = torch.where((domain == 2) & (torch.rand(600) < 0.5), torch.randint(0, 4, (600,)), x[:, :4].argmax(1))
samples: Any = [{"x": a, "y": b, "domain": ["news", "code", "chat"][c]} for a, b, c in zip(x, y, domain, strict=True)]
train, held_out = (DataLoader(part, batch_size=64) for part in (samples[:480], samples[480:]))

model = torch.nn.Linear(8, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)


def step(engine: Engine, batch: dict[str, Any]) -> dict[str, Any]:
    """Train, or evaluate, with a batch; return the loss of each sample."""
    losses = functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
    if engine is trainer:
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return {"ce": losses}


trainer, evaluator = Engine(step), Engine(step)
handler = LabelTrackHandler(label="domain", value="ce")
handler.attach(trainer)
handler.attach(evaluator, mode="eval")
trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(held_out))
trainer.run(train, max_epochs=epochs)

print(handler.tracker.history.at(epochs))
print("Worst:", *handler.tracker.history.worst(1))
