"""What the ranks of `test_lightning.py` do, and the module that they and the tests train."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
import warnings

import torch
from integrations.ranks import EPOCH
from integrations.torch_ranks import rows, start  # noqa: F401 (ranks are started with it)
from integrations.trainings import CLASSES, Samples
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from labeltrack import LabelTrackWarning
from labeltrack.integrations.lightning import LabelTrackCallback


class Module(LightningModule):
    """Returns the loss of each sample; keeps all that it has returned."""

    def __init__(self, loaders=1):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(5, CLASSES)
        self.loaders, self.seen = loaders, []
        self.stop_after = None

    def _step(self, batch, mode):
        losses = functional.cross_entropy(self.layer(batch["x"]), batch["y"], reduction="none")
        if not self.trainer.sanity_checking:
            epoch = self.current_epoch
            for label, loss, place in zip(batch["y"], losses.detach().float(), batch["id"], strict=True):
                self.seen.append((mode, epoch, label.item(), loss.item(), int(place)))
        return {"loss": losses.mean(), "per_sample_loss": losses}

    def training_step(self, batch, batch_idx):
        if self.stop_after == (self.current_epoch, batch_idx):
            raise KeyboardInterrupt
        return self._step(batch, "train")

    def validation_step(self, batch, *place):
        dataloader_idx = place[1] if len(place) > 1 else 0
        return self._step(batch, "eval" if self.loaders == 1 else f"eval{dataloader_idx}")

    def test_step(self, batch, *_place):
        return self._step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def train_dataloader(self):
        return DataLoader(Samples(1), batch_size=8)

    def val_dataloader(self):
        loaders = [DataLoader(Samples(2 + n), batch_size=8) for n in range(self.loaders)]
        return loaders if self.loaders > 1 else loaders[0]

    def test_dataloader(self):
        return DataLoader(Samples(9), batch_size=8)


def trainer_of(*callbacks, **options):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    return Trainer(callbacks=list(callbacks), **quiet | options)


def trains(rank, _world):
    """Train on two ranks, save in the middle of it and go on from there."""
    warnings.simplefilter("ignore")
    module, callback = Module(), LabelTrackCallback(ids=None)
    mixed = {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}
    trainer = trainer_of(callback, devices=2, strategy="ddp", max_epochs=2, **mixed)
    trainer.fit(module)
    trainer.save_checkpoint("saved.ckpt")
    trainer.test(module, verbose=False)
    resumed, again = Module(), LabelTrackCallback()
    trainer = trainer_of(again, devices=2, strategy="ddp", max_epochs=3, limit_val_batches=0)
    trainer.fit(resumed, ckpt_path="saved.ckpt")
    return {
        "seen": module.seen + resumed.seen,
        "history": [[*key, rows(stats)] for key, stats in again.tracker.history.items()],
        "test": rows(callback.tracker.history.at(2, "test")),
        "rank": rank,
    }


class Resumable(DataLoader):
    """Continues after the batch with which its state was saved."""

    done = first = 0

    def __iter__(self):
        first, self.first = self.first, 0
        for self.done, batch in enumerate(super().__iter__(), 1):
            if self.done > first:
                yield batch

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.first = state["done"] % len(self)


class Shared(Module):
    """Shares batches of six among all ranks, until it stops."""

    def training_step(self, batch, batch_idx):
        if self.stop_after == (self.current_epoch, batch_idx):
            raise InterruptedError
        return super().training_step(batch, batch_idx)

    def train_dataloader(self):
        return Resumable(Samples(1), batch_size=6 // self.trainer.world_size)

    def val_dataloader(self):
        return DataLoader(Samples(2), batch_size=6 // self.trainer.world_size)


def goes_on(_rank, world):
    """Train until a step, from a checkpoint of another number of ranks if there is one."""
    warnings.simplefilter("ignore")
    first, last = int(os.environ["FIRST"]), int(os.environ["LAST"])
    module, callback = Shared(), LabelTrackCallback()
    module.stop_after = divmod(last, EPOCH)
    saved = ModelCheckpoint(".", filename=f"{last}", every_n_train_steps=last, save_on_train_epoch_end=False)
    options = {"max_epochs": 3 if last % EPOCH else last // EPOCH, "precision": "bf16-mixed"}
    trainer = trainer_of(callback, saved, devices=world, strategy="ddp", enable_checkpointing=True, **options)
    with contextlib.suppress(InterruptedError):
        trainer.fit(module, ckpt_path=f"{first}.ckpt" if first else None)
    if not last % EPOCH:  # the epoch has ended
        trainer.save_checkpoint(f"{last}.ckpt")
    return {"seen": module.seen, "history": [[*key, rows(stats)] for key, stats in callback.tracker.history.items()]}


class Skips(Module):
    """Returns nothing on one rank."""

    def validation_step(self, batch, *place):
        found = super().validation_step(batch, *place)
        return None if self.global_rank == 1 else found


def without_samples(_rank, _world):
    """Validate on two ranks of which one has a sample that repeats the other's, or skips all of them."""
    answer = []
    for module, data in ((Module(), Subset(Samples(2), [0])), (Skips(), Samples(2))):
        callback = LabelTrackCallback()
        trainer = trainer_of(callback, devices=2, strategy="ddp")
        trainer.validate(module, DataLoader(data, batch_size=8), verbose=False)
        assert not callback.tracker.pending
        answer.append([module.seen, rows(callback.tracker.history.at(0, "eval"))])
    return answer


class Both(Module):
    """Validates with the batches of two loaders together."""

    def validation_step(self, batch, *place):
        if "x" in batch:
            return super().validation_step(batch, *place)
        found = [self._step(part, "eval")["per_sample_loss"] for part in batch]
        return {"per_sample_loss": torch.cat(found)}


def of_both(key):
    return lambda batch: batch[key] if key in batch else torch.cat([part[key] for part in batch])


def validates(_rank, _world):
    """Train on two ranks, validate with samples that are not those of the training, and with two loaders together."""
    warnings.simplefilter("ignore")
    answer = []
    few, many = (DataLoader(Subset(Samples(3), range(n)), batch_size=4) for n in (5, 35))
    together = CombinedLoader([few, many], "max_size_cycle")
    for loaders, ids in ((few, None), (together, of_both("id")), (together, None)):
        module, callback = Both(), LabelTrackCallback(of_both("y"), ids=ids, on_duplicate="first")
        trainer = trainer_of(callback, devices=2, strategy="ddp", max_epochs=1)
        trainer.fit(module)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", LabelTrackWarning)
            trainer.validate(module, loaders, verbose=False)
        answer.append([module.seen, rows(callback.tracker.history.at(1, "eval")), [str(one.message) for one in told]])
    return answer


class Ends(Module):
    """Ends or raises on one rank, in the last batch of a validation."""

    def validation_step(self, batch, batch_idx):
        if self.global_rank == 1 and batch_idx == 2:
            if os.environ["CASE"] == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            msg = "the step failed"
            raise ArithmeticError(msg)
        return super().validation_step(batch, batch_idx)


def ends(_rank, _world):
    trainer = trainer_of(LabelTrackCallback(), devices=2, strategy="ddp")
    began = time.monotonic()
    try:
        trainer.validate(Ends(), verbose=False)
    except RuntimeError as error:
        return [str(error), time.monotonic() - began]
