"""Which domain is worst? A loop with Accelerate on one or more processes, whose batches have different domains.

    python examples/accelerate_slices.py [EPOCHS]
    torchrun --standalone --nproc-per-node 2 examples/accelerate_slices.py [EPOCHS]

On GPUs, leave out ``cpu=True`` and start it with ``accelerate launch``. One of four domains has wrong labels half of
the time. Samples that fill up the last batches of a rank count once.
"""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from labeltrack import LabelTracker
from labeltrack.integrations.torch import sync, unpadded

DOMAINS = ("news", "code", "math", "chat")
epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
accelerator = Accelerator(cpu=True)

torch.manual_seed(0)
torch.set_num_threads(1)  # of little use to so small a model
x = torch.randn(600, 8)
domain = torch.arange(600) // 16 % 4  # of a batch of 16 samples in evaluation: each of two ranks has two domains
y = torch.where((domain == 3) & (torch.rand(600) < 0.5), torch.randint(0, 4, (600,)), x[:, :4].argmax(1))
parts = [TensorDataset(x[rows], y[rows], domain[rows]) for rows in (slice(136, 600), slice(136))]
loaders = [DataLoader(part, batch_size=16, shuffle=part is parts[0]) for part in parts]
model = torch.nn.Linear(8, 4)
model, optimizer, train, evaluation = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.5), *loaders)
tracker = LabelTracker("domain", "ce", label_mapping={name: k for k, name in enumerate(DOMAINS)})

for epoch in range(1, epochs + 1):
    for (inputs, targets, domains), n in unpadded(train):
        losses = functional.cross_entropy(model(inputs), targets, reduction="none")
        tracker.update(domains[:n], losses[:n])
        optimizer.zero_grad()
        accelerator.backward(losses.mean())
        optimizer.step()
    with torch.no_grad():
        for (inputs, targets, domains), n in unpadded(evaluation):
            losses = functional.cross_entropy(model(inputs), targets, reduction="none")
            tracker.update(domains[:n], losses[:n], mode="eval")
    sync(tracker)  # every rank
    for mode in ("train", "eval"):
        tracker.end_epoch(epoch, mode=mode)  # the same on every rank

if accelerator.is_main_process:
    print(tracker.history.at(epochs))
    print("Worst:", DOMAINS[tracker.history.worst(1)[0]])
accelerator.end_training()
