"""On which digit is a classifier worst? A plain PyTorch loop, tracked by class.

Run it with ``python plain_pytorch.py [DIRECTORY [EPOCHS]]``; it writes a figure to the directory (by default the
current one). It needs torch, and scikit-learn for the data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F  # noqa: N812 (everybody calls it F)
from torch.utils.data import DataLoader, TensorDataset, random_split

from labeltrack import LabelTracker
from labeltrack.report import history_table, show

out = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 20

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits))
train, held_out = random_split(data, [1200, len(data) - 1200])
loaders = {"train": DataLoader(train, batch_size=32, shuffle=True), "eval": DataLoader(held_out, batch_size=256)}

model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
tracker = LabelTracker(label="digit", metric="cross-entropy", bounds=["std", "range"])

for epoch in range(1, epochs + 1):
    for mode, loader in loaders.items():
        model.train(mode == "train")
        for x, y in loader:
            with torch.set_grad_enabled(mode == "train"):
                losses = F.cross_entropy(model(x), y, reduction="none")  # one loss per sample
            tracker.update(y, losses, mode=mode)  # tensors as they are, with their gradients
            if mode == "train":
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
        tracker.end_epoch(epoch, mode=mode)

show(history_table(tracker.history))
out.mkdir(parents=True, exist_ok=True)
tracker.history.plot(bounds="std").savefig(out / "loss_std.png", dpi=150)
print(f"\nWritten: {out / 'loss_std.png'}")
