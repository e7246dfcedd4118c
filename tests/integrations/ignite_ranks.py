"""What the ranks of `test_ignite.py` do, and the engines that they and the tests run."""

from __future__ import annotations

import os
import signal
import time

import torch
from ignite.engine import DeterministicEngine, Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from integrations.ranks import EPOCH
from integrations.torch_ranks import start  # noqa: F401 (ranks are started with it)
from integrations.trainings import CLASSES, Samples, rows
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler

from labeltrack.integrations.ignite import LabelTrackHandler


def engines(seen, accumulate=1, *, mixed=False, of=Engine):
    """Return a trainer and an evaluator, which keep what they have seen."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, CLASSES)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)

    def step(engine, batch):
        train = engine is trainer
        with torch.set_grad_enabled(train), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            losses = functional.cross_entropy(layer(batch["x"]), batch["y"], reduction="none")
        mode = "train" if train else "eval"
        for label, loss, place in zip(batch["y"].tolist(), losses.tolist(), batch["id"].tolist(), strict=True):
            seen.append((mode, trainer.state.epoch, label, loss, place))
        if train:
            (losses.mean() / accumulate).backward()
            if accumulate == 1 or engine.state.iteration % engine.state.epoch_length % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
        return {"per_sample_loss": losses}

    trainer, evaluator = of(step), Engine(step)
    return trainer, evaluator


def loader(seed, distributed=False, batch_size=8):
    samples = Samples(seed)
    sampler = DistributedSampler(samples, shuffle=False) if distributed else None
    return DataLoader(samples, batch_size=batch_size, sampler=sampler)


def trains(_rank, _world):
    """Train on two ranks, with gradient accumulation in mixed precision."""
    seen = []
    trainer, evaluator = engines(seen, 2, mixed=True)
    handler = LabelTrackHandler(sinks=[print])
    handler.attach(trainer)
    handler.attach(evaluator, "eval")
    for epoch in (1, 2):
        trainer.run(loader(1, distributed=True), max_epochs=epoch)
        evaluator.run(loader(2, distributed=True))
    state = handler.state_dict()
    again = LabelTrackHandler()
    again.load_state_dict(state)
    return {
        "seen": seen,
        "history": [[*key, rows(stats)] for key, stats in again.tracker.history.items()],
        "sinks": len(handler.tracker.sinks),
    }


def goes_on(_rank, world):
    """Train until a step, from a checkpoint of another number of ranks if there is one."""
    first, last = int(os.environ["FIRST"]), int(os.environ["LAST"])
    seen, skips = [], DeterministicEngine  # what was trained
    trainer, evaluator = engines(seen, 2, mixed=True, of=skips)
    handler = LabelTrackHandler()
    handler.attach(trainer)
    handler.attach(evaluator, "eval")
    train, held_out = (loader(seed, distributed=True, batch_size=6 // world) for seed in (1, 2))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(held_out))
    objects, disk = {"trainer": trainer, "labels": handler}, DiskSaver("saved", require_empty=False)
    saves = Checkpoint(objects, disk, global_step_transform=lambda *_: last)
    for handle in (saves, trainer.terminate):
        within = last % EPOCH
        event = Events.ITERATION_COMPLETED(once=last) if within else Events.EPOCH_COMPLETED(once=last // EPOCH)
        trainer.add_event_handler(event, handle)
    if first:  # random states are in it, too
        Checkpoint.load_objects(objects, torch.load(f"saved/checkpoint_{first}.pt", weights_only=False))
    trainer.run(train, max_epochs=3)
    return {"seen": seen, "history": [[*key, rows(stats)] for key, stats in handler.tracker.history.items()]}


def ends(rank, _world):
    """Train on two ranks, of which one ends or raises in the middle of an epoch."""
    trainer, _ = engines([])
    LabelTrackHandler().attach(trainer)

    @trainer.on(Events.ITERATION_COMPLETED(once=5))
    def _ends(_engine):
        if rank == 1:
            if os.environ["CASE"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            msg = "the step failed"
            raise ArithmeticError(msg)

    began = time.monotonic()
    try:
        trainer.run(loader(1, distributed=True), max_epochs=3)
    except RuntimeError as error:
        return [str(error), time.monotonic() - began]


def without_samples(rank, _world):
    """Train on two ranks of which one skips every batch."""
    trainer, handler = engines([])[0] if rank else Engine(lambda _engine, _batch: None), LabelTrackHandler()
    handler.attach(trainer)
    trainer.run(loader(1), max_epochs=2)
    return [[step, int(handler.tracker.history.at(step).count.sum())] for step in handler.tracker.history.steps()]


engines([])  # what optimizers import, in a second, is there in every process
