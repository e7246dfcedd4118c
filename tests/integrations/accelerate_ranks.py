"""Loops with Accelerate, which `huggingface_ranks.py` imports, as both need the same processes."""

from __future__ import annotations

import os
import signal
import time
import warnings

import accelerate
import torch
import tqdm
from accelerate.state import AcceleratorState, GradientState
from integrations.ranks import EPOCH
from integrations.torch_ranks import start as start_group
from integrations.trainings import CLASSES, Samples, rows
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

import labeltrack as lt
from labeltrack.integrations.torch import gather_state, load_gathered, sync, unpadded


def start(store, rank, world, timeout):
    AcceleratorState._reset_state(reset_partial_state=True)  # of the process that was forked
    GradientState._reset_state()
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # asked for, and not used
        start_group(store, rank, world, timeout)
    else:
        torch.set_num_threads(1)
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name)


class Loop:
    """A training with gradient accumulation in mixed precision, which keeps what it has computed."""

    def __init__(self):
        self.accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2, mixed_precision="bf16")
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, CLASSES)
        size = 6 // self.accelerator.num_processes
        loaders = [DataLoader(Samples(seed), batch_size=size) for seed in (1, 2)]
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        self.model, self.optimizer, *loaders = self.accelerator.prepare(layer, optimizer, *loaders)
        self.loaders = dict(zip(("train", "eval"), loaders, strict=True))
        self.tracker, self.seen, self.own = lt.LabelTracker("domain", "ce"), [], set()

    def part(self, mode, epoch, first=0, last=None, ends=lambda _place: None):
        """Do the batches of an epoch from one to another."""
        loader, training = self.loaders[mode], mode == "train"
        if first:
            loader = self.accelerator.skip_first_batches(loader, first)
        for place, (batch, n) in enumerate(unpadded(loader), first):
            if place == last:
                return
            ends(place)
            with self.accelerator.accumulate(self.model), torch.set_grad_enabled(training):
                losses = functional.cross_entropy(self.model(batch["x"]), batch["y"], reduction="none")
                domains = batch["id"] // 3  # that of each batch of two ranks, so that they have different ones
                self.own.update((domains[:n] % 2).tolist())
                self.tracker.update(domains[:n], losses[:n], mode=mode)
                for loss, of in zip(losses.tolist(), batch["id"].tolist(), strict=True):
                    self.seen.append((mode, epoch, of // 3, loss, of))
                if training:
                    self.accelerator.backward(losses.mean())
                    self.optimizer.step()
                    self.optimizer.zero_grad()

    def end(self, epoch, *modes):
        for mode in modes:
            sync(self.tracker, mode=mode)
            self.tracker.end_epoch(epoch, mode=mode)


def goes_on_with_accelerate(rank, world):
    """Train until a step, from a checkpoint of another number of ranks if there is one."""
    first, last = int(os.environ["FIRST"]), int(os.environ["LAST"])
    loop = Loop()
    if first:
        loop.accelerator.load_state("saved")
        loop.accelerator.step = first % EPOCH  # of accumulation, which is saved for ranks that there were
        load_gathered(loop.tracker, torch.load("tracker.pt"))
    for epoch in range(first // EPOCH, -(-last // EPOCH)):
        start, end = (step - epoch * EPOCH for step in (first, last))
        loop.part("train", epoch, max(start, 0), end)
        if end >= EPOCH:
            loop.part("eval", epoch)
            loop.end(epoch, "train", "eval")
    assert world != 2 or loop.own == {rank}
    loop.accelerator.save_state("saved")
    state = gather_state(loop.tracker)
    if rank == 0:
        torch.save(state, "tracker.pt")
    return {"seen": loop.seen, "history": [[*key, rows(stats)] for key, stats in loop.tracker.history.items()]}


def ends_with_accelerate(rank, _world):
    """Train and evaluate on two ranks, of which one ends or raises in either."""
    case, mode = os.environ["CASE"].split()
    loop = Loop()

    def ends(place):
        if rank == 1 and place == 1:
            if case == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            msg = "the step failed"
            raise ArithmeticError(msg)

    began = time.monotonic()
    try:
        loop.part(mode, 0, ends=ends)
        loop.end(0, mode)
    except RuntimeError as error:
        return [str(error), time.monotonic() - began]


class Stream(IterableDataset):
    """Samples of which nobody knows how many there are."""

    def __iter__(self):
        return iter(range(37))


def accelerated(_rank, _world):
    """Return the samples of loaders that Accelerate prepared, by `unpadded`, how often all ranks have each, and texts.

    The texts are what it says of a stream.
    """
    answer = []
    of = accelerate.DataLoaderConfiguration
    configurations = [(37, of(split_batches=True)), (37, of(dispatch_batches=True)), *((n, of()) for n in (37, 32, 3))]
    for n, configuration in [*configurations, (36, of())]:
        loader = accelerate.Accelerator(cpu=True, dataloader_config=configuration).prepare(
            DataLoader(range(n), batch_size=4, drop_last=n == 36)
        )
        shown = loader if configuration.split_batches else tqdm.tqdm(loader, disable=True)
        batches = [batch[:real].tolist() for batch, real in unpadded(shown)]
        tracker = lt.LabelTracker("sample", "ce")
        for batch in batches:
            tracker.update(batch, [1.0] * len(batch))
        sync(tracker)
        answer.append([batches, tracker.end_epoch(1).count.tolist()])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", lt.LabelTrackWarning)
        loader = DataLoader(Stream(), batch_size=4)
        list(unpadded(accelerate.Accelerator(cpu=True, dataloader_config=of(dispatch_batches=False)).prepare(loader)))
    return [*answer, [str(one.message) for one in told if one.category is lt.LabelTrackWarning]]
