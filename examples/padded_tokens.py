"""On which kind of text is a language model worst? A plain PyTorch loop over padded batches, tracked by domain.

A small model predicts the next character of lines of prose, of Python code and of sums. Shorter lines are padded, and
``where=`` leaves the padding out. Run it with ``python padded_tokens.py [EPOCHS]``; it needs torch and takes seconds.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pydoc_data.topics import topics

import torch
from torch.nn import functional as F  # noqa: N812 (everybody calls it F)
from torch.nn.utils.rnn import pad_sequence

from labeltrack import LabelTracker
from labeltrack.report import history_table, show

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
PADDED = -100  # what cross_entropy ignores

torch.manual_seed(0)
torch.set_num_threads(1)  # of little use to so small a model
texts = {
    "prose": "\n".join(topics.values()).splitlines(),
    "code": inspect.getsource(argparse).splitlines(),
    "sums": [f"{a} + {b} = {a + b}" for a, b in torch.randint(100, (1000, 2)).tolist()],
}
lines = [(domain, line.strip()[:48]) for domain, some in texts.items() for line in some[:300] if len(line.strip()) > 1]

characters, following = torch.nn.Embedding(128, 16), torch.nn.Linear(32, 128)
memory = torch.nn.GRU(16, 32, batch_first=True)
model = torch.nn.ModuleList([characters, memory, following])
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
tracker = LabelTracker(label="domain", metric="loss")

for epoch in range(1, epochs + 1):
    for places in torch.randperm(len(lines)).split(32):
        batch = [lines[place] for place in places.tolist()]
        codes = [torch.tensor([min(ord(character), 127) for character in line]) for _, line in batch]
        inputs = pad_sequence([line[:-1] for line in codes], batch_first=True)
        targets = pad_sequence([line[1:] for line in codes], batch_first=True, padding_value=PADDED)
        scores = following(memory(characters(inputs))[0])
        losses = F.cross_entropy(scores.transpose(1, 2), targets, reduction="none")  # (N, T), one per character
        domains = [[domain] for domain, _ in batch]  # (N, 1), one per line
        tracker.update(domains, losses, where=targets != PADDED)
        optimizer.zero_grad()
        losses[targets != PADDED].mean().backward()
        optimizer.step()
    tracker.end_epoch(epoch)

show(history_table(tracker.history))
print(f"\nWorst: {tracker.history.worst(1)[0]}")
