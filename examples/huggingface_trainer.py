"""Train a small classifier with the Hugging Face Trainer and print which domain gets worse."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
import transformers
from torch import nn
from transformers import Trainer, TrainingArguments

from labeltrack.integrations.huggingface import track

DOMAINS = ("code", "math", "web")
ROWS = 600


class Classifier(nn.Module):  # type: ignore[misc]  # torch is not there when types are checked
    """A linear model of 8 numbers that returns logits, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.config = transformers.PretrainedConfig()
        self.layer = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return loss and logits."""
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def samples(seed: int) -> list[dict[str, object]]:
    """Return rows; what decides in two domains is the opposite in the third."""
    rng = np.random.default_rng(seed)
    rows = []
    for x in rng.normal(size=(ROWS, 8)).astype(np.float32):
        domain = str(rng.choice(DOMAINS, p=[0.45, 0.1, 0.45]))
        rows.append({"x": x, "labels": int((x[0] > 0) ^ (domain == "math")), "domain": domain})
    return rows


transformers.logging.set_verbosity_error()
transformers.set_seed(0)
arguments = TrainingArguments(
    output_dir=tempfile.mkdtemp(), num_train_epochs=5, learning_rate=0.05, per_device_train_batch_size=32,
    eval_strategy="epoch", save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, logging_steps=10_000,
)  # fmt: skip
trainer = Trainer(model=Classifier(), args=arguments, train_dataset=samples(0), eval_dataset=samples(1))

tracker = track(trainer, group="domain", bounds="ci95")
trainer.train()

print(tracker.history.at(trainer.state.global_step, "eval"))
for domain in DOMAINS:
    steps, means = tracker.history.series(domain, "mean", mode="eval")
    print(f"{domain}: " + ", ".join(f"{mean:.3f}" for mean in means))
print("Worst:", tracker.history.worst(1, mode="eval")[0])
