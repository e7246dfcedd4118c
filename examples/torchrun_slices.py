"""Which domain is worst? A plain loop on several processes, each of which evaluates samples of other domains.

    python examples/torchrun_slices.py [EPOCHS]
    torchrun --standalone --nproc-per-node 2 examples/torchrun_slices.py [EPOCHS]

One of four domains has wrong labels half of the time. Samples that fill up the last batches of a rank count once.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from labeltrack import LabelTracker
from labeltrack.integrations.torch import sync, unpadded

DOMAINS = ("news", "code", "math", "chat")
epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
if "RANK" in os.environ:  # from torchrun
    distributed.init_process_group("gloo")
else:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)

torch.manual_seed(0)
torch.set_num_threads(1)  # of little use to so small a model
x = torch.randn(600, 8)
domain = torch.arange(600) % 4  # so that each of two ranks evaluates two of them
y = torch.where((domain == 3) & (torch.rand(600) < 0.5), torch.randint(0, 4, (600,)), x[:, :4].argmax(1))
parts = [TensorDataset(x[rows], y[rows], domain[rows]) for rows in (slice(477), slice(477, 600))]
samplers = [DistributedSampler(part, shuffle=part is parts[0]) for part in parts]
train, evaluation = (DataLoader(part, batch_size=32, sampler=of) for part, of in zip(parts, samplers, strict=True))
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(8, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
tracker = LabelTracker("domain", "ce", label_mapping={name: k for k, name in enumerate(DOMAINS)})

for epoch in range(1, epochs + 1):
    samplers[0].set_epoch(epoch)
    for (inputs, targets, domains), n in unpadded(train):
        losses = functional.cross_entropy(model(inputs), targets, reduction="none")
        tracker.update(domains[:n], losses[:n])
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    with torch.no_grad():
        for (inputs, targets, domains), n in unpadded(evaluation):
            losses = functional.cross_entropy(model(inputs), targets, reduction="none")
            tracker.update(domains[:n], losses[:n], mode="eval")
    sync(tracker)  # every rank
    for mode in ("train", "eval"):
        tracker.end_epoch(epoch, mode=mode)  # the same on every rank

if distributed.get_rank() == 0:
    print(tracker.history.at(epochs))
    print("Worst:", DOMAINS[tracker.history.worst(1)[0]])
distributed.destroy_process_group()
