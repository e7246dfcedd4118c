"""What tests of frameworks train on, and what their numbers are compared with."""

from __future__ import annotations

import torch
from exact import expected_by_label
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, DistributedSampler

SIZE, CLASSES = 37, 4


class Samples(Dataset):
    """37 samples, with labels that differ between the halves that two ranks would take."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(SIZE, 5, generator=generator)
        self.y = torch.arange(SIZE) % 2 + 2 * (torch.rand(SIZE, generator=generator) < 0.3)

    def __len__(self):
        return SIZE

    def __getitem__(self, place):
        return {"x": self.x[place], "y": self.y[place], "id": place}


def rows(stats):
    """Return the rows with every bit of their numbers."""
    return [[row.label, *map(float.hex, map(float, row[2:]))] for row in stats]


def expected(seen):
    """Return the statistics of what modules have seen, by mode and epoch."""
    groups = {}
    for mode, epoch, label, loss, _ in seen:
        groups.setdefault((mode, epoch), ([], []))[0].append(label)
        groups[mode, epoch][1].append(loss)
    return {
        key: [[label, *map(float.hex, map(float, values))] for label, values in expected_by_label(*both).items()]
        for key, both in groups.items()
    }


def history(tracker):
    found = {(mode, step): rows(tracker.history.at(step, mode)) for (mode, _, step), _ in tracker.history.items()}
    assert not tracker.pending
    return found


def plain_loop(epochs, accumulate, *, mixed=False, rank=0, ranks=1):
    """Train as frameworks do, without them; return every loss of every sample that a rank gets."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    seen = []
    for epoch in range(epochs):
        for mode, seed in (("train", 1), ("eval", 2)):
            samples = Samples(seed)
            sampler = DistributedSampler(samples, ranks, rank, shuffle=False)
            batches = list(DataLoader(samples, batch_size=8, sampler=sampler))
            for place, batch in enumerate(batches, 1):
                with torch.set_grad_enabled(mode == "train"), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                    losses = functional.cross_entropy(layer(batch["x"]), batch["y"], reduction="none")
                rows = zip(batch["y"].tolist(), losses.tolist(), batch["id"].tolist(), strict=True)
                seen += [(mode, epoch, *row) for row in rows]
                if mode == "train":
                    (losses.mean() / accumulate).backward()
                    if place % accumulate == 0 or place == len(batches):
                        optimizer.step()
                        optimizer.zero_grad()
    return seen
