"""Which domain gets worse? A training with Lightning, tracked by a callback.

    python examples/lightning_slices.py [EPOCHS]

One of three domains has wrong labels half of the time. The step returns the loss of each sample beside their mean.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional
from torch.utils.data import DataLoader

from labeltrack.integrations.lightning import LabelTrackCallback

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")

torch.manual_seed(0)
x = torch.randn(600, 8)
domain = torch.arange(600) % 3
y = torch.where((domain == 2) & (torch.rand(600) < 0.5), torch.randint(0, 4, (600,)), x[:, :4].argmax(1))
samples: Any = [{"x": a, "y": b, "domain": ["news", "code", "chat"][c]} for a, b, c in zip(x, y, domain, strict=True)]


class Classifier(LightningModule):  # type: ignore[misc]  # Any, without its types
    """A linear model that returns the loss of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 4)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:  # noqa: ARG002 (its signature)
        """Return the mean loss, and the loss of each sample."""
        losses = functional.cross_entropy(self.layer(batch["x"]), batch["y"], reduction="none")
        return {"loss": losses.mean(), "ce": losses}

    validation_step = training_step

    def configure_optimizers(self) -> Any:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.5)


callback = LabelTrackCallback(label="domain", value="ce")
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(max_epochs=epochs, callbacks=[callback], accelerator="cpu", **quiet)
parts = samples[:480], samples[480:]
trainer.fit(Classifier(), *(DataLoader(part, batch_size=64) for part in parts))

print(callback.tracker.history.at(epochs - 1))
print("Worst:", *callback.tracker.history.worst(1))
