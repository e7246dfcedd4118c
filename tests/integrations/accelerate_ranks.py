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
from integrations.torch_ranks import start as start_group
from integrations.trainings import CLASSES, Samples, rows
from torch import distributed
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
        loaders = [DataLoader(Samples(seed), batch_size=8) for seed in (1, 2)]
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        self.model, self.optimizer, *loaders = self.accelerator.prepare(layer, optimizer, *loaders)
        self.loaders = dict(zip(("train", "eval"), loaders, strict=True))
        self.tracker, self.seen = lt.LabelTracker("domain", "ce"), []

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
                domains = batch["id"] // 8  # that of each batch, so that ranks have different ones
                self.tracker.update(domains[:n], losses[:n], mode=mode)
                for loss, of in zip(losses.tolist(), batch["id"].tolist(), strict=True):
                    self.seen.append((place, mode, epoch, of // 8, loss, of))
                if training:
                    self.accelerator.backward(losses.mean())
                    self.optimizer.step()
                    self.optimizer.zero_grad()

    def end(self, epoch, *modes):
        for mode in modes:
            sync(self.tracker, mode=mode)
            self.tracker.end_epoch(epoch, mode=mode)

    def history(self):
        assert not self.tracker.pending
        return [[*key, rows(stats)] for key, stats in self.tracker.history.items()]


def accelerated_training(rank, world):
    """Train until the middle of the second epoch and go on from its checkpoint; on one rank, go on alone."""
    before, skipped = [], 2
    if world > 1:
        loop = Loop()
        loop.part("train", 0)
        loop.part("eval", 0)
        loop.end(0, "train", "eval")
        loop.part("train", 1, last=skipped)
        loop.accelerator.save_state("saved")
        state = gather_state(loop.tracker)
        if rank == 0:
            torch.save(state, "tracker.pt")
        distributed.barrier()
        before = loop.seen
    loop = Loop()
    loop.accelerator.load_state("saved")
    load_gathered(loop.tracker, torch.load("tracker.pt"))
    loop.part("train", 1, first=skipped * 2 // world)  # as many samples as two ranks had
    loop.part("eval", 1)
    loop.end(1, "train", "eval")
    return [before, loop.seen, loop.history()]


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
    """Return the samples of loaders that Accelerate prepared, by `unpadded`, and what it says of a stream."""
    answer = []
    of = accelerate.DataLoaderConfiguration
    configurations = [(37, of(split_batches=True)), (37, of(dispatch_batches=True)), *((n, of()) for n in (37, 32, 3))]
    for n, configuration in [*configurations, (36, of())]:
        loader = accelerate.Accelerator(cpu=True, dataloader_config=configuration).prepare(
            DataLoader(range(n), batch_size=4, drop_last=n == 36)
        )
        shown = loader if configuration.split_batches else tqdm.tqdm(loader, disable=True)
        answer.append([batch[:real].tolist() for batch, real in unpadded(shown)])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", lt.LabelTrackWarning)
        loader = DataLoader(Stream(), batch_size=4)
        list(unpadded(accelerate.Accelerator(cpu=True, dataloader_config=of(dispatch_batches=False)).prepare(loader)))
    return [*answer, [str(one.message) for one in told if one.category is lt.LabelTrackWarning]]
