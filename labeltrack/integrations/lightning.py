"""A callback for Lightning that tracks a per-sample metric by label.

The step returns the metric of each sample beside the loss::

    def training_step(self, batch, batch_idx):
        losses = F.cross_entropy(self(batch["x"]), batch["y"], reduction="none")
        return {"loss": losses.mean(), "per_sample_loss": losses}  # validation_step likewise

    callback = LabelTrackCallback(label="y", value="per_sample_loss")
    Trainer(callbacks=[callback]).fit(module)
    callback.tracker.history.worst(3)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import labeltrack
from labeltrack.integrations._shared import needed

with needed('lightning needs Lightning 2: pip install "labeltrack[lightning]"', "lightning", "torch"):
    from lightning.pytorch import Callback

from labeltrack.integrations._batches import Batches
from labeltrack.integrations.torch import gather_state, load_gathered, sizes_of

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["LabelTrackCallback"]

_OF_STEPS = "train_batch_start", "before_zero_grad", "before_backward", "after_backward", "before_optimizer_step"


class LabelTrackCallback(Callback):
    """Track a per-sample metric by label in training (mode ``"train"``), validation (``"eval"``) and test (``"test"``).

    The epoch is the step of the history, and the ranks share it when it ends (`labeltrack.integrations.torch.sync`).
    The means of the labels are logged as ``{mode}/{outputs}/{name}``, and that of the worst one as ``…/macro_max``.
    Checkpoints have the trackers of all ranks, with the running epoch.

    Args:
        label: Key of the labels in a batch, which may be a place in a tuple; or a function of a batch; or, for several
            labels per sample, ``{name: key or function}``.
        value: Key of the values in what the step returns; or a function of that; or, for several metrics, ``{metric:
            key or function}``.
        ids: Key of ids in a batch, or a function of it; see `labeltrack.LabelTracker.update`.
        log: Whether to log means.
        **options: Those of `labeltrack.LabelTracker`. `sinks` are called on rank 0 alone.

    Attributes:
        tracker: The `labeltrack.LabelTracker`; with several metrics, a `labeltrack.TrackerCollection`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An unknown option; see `labeltrack.LabelTracker`.

    Example:
        >>> callback = LabelTrackCallback(label=1, value="per_sample_loss", bounds="ci95")
        >>> callback.tracker.outputs
        'per_sample_loss_by_label'
    """

    def __init__(
        self,
        label: Any = "y",
        value: str | Callable[[Any], Any] | Mapping[str, Any] = "per_sample_loss",
        *,
        ids: Any = None,
        log: bool = True,
        **options: Any,
    ) -> None:
        self._batches = Batches(label, value, ids, options)
        self._has_ids = ids is not None
        self.tracker: Any = self._batches.tracker
        self._log = log
        self._loaders: list[Any] | None = None  # of the present loop, once a batch of it has come
        self._running: int | None = None  # epoch of training
        self._resumed: int | None = None  # that of a checkpoint, until training continues
        for hook in (f"on_{name}" for name in _OF_STEPS):
            if getattr(type(self), hook) is getattr(Callback, hook):
                setattr(self, hook, None)  # else Lightning calls it, in a context of its profiler, which takes 4 us

    @cached_property  # which Lightning asks for whenever it calls any of its hooks
    def state_key(self) -> str:
        """What tells the state of this callback from that of others in a checkpoint."""
        outputs = self.tracker.outputs
        return f"LabelTrackCallback({outputs if isinstance(outputs, str) else ', '.join(outputs.values())})"

    # -- batches ------------------------------------------------------------------------------------------

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any, **named: Any) -> None:
        """Record a batch."""
        self._update("train", trainer, *arguments, **named)

    def on_validation_batch_end(self, trainer: Trainer, *arguments: Any, **named: Any) -> None:
        """Record a batch."""
        if not trainer.sanity_checking:
            self._update("eval", trainer, *arguments, **named)

    def on_test_batch_end(self, trainer: Trainer, *arguments: Any, **named: Any) -> None:
        """Record a batch."""
        self._update("test", trainer, *arguments, **named)

    def _update(
        self,
        mode: str,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._loaders is None:
            self._loaders = self._loaders_of(trainer, mode)
            if mode == "train" and hasattr(self._loaders[0], "load_state_dict"):  # it continues within an epoch
                self._batches.begin(mode, batch_idx)
        loaders = self._loaders
        ds_id = str(dataloader_idx) if len(loaders) > 1 else ""
        self._batches.update(batch, outputs, loaders[dataloader_idx], mode, ds_id)

    def _loaders_of(self, trainer: Trainer, mode: str) -> list[Any]:
        """Return loaders whose batches come one after the other; None for several whose batches come together."""
        validates = trainer.validate_loop if trainer.state.fn == "validate" else trainer.fit_loop.epoch_loop.val_loop
        loop = {"train": trainer.fit_loop, "eval": validates, "test": trainer.test_loop}[mode]
        # `val_dataloaders` may be those of another loop, and tells no mode.
        combined = attrgetter("_combined_loader")(loop)
        loaders = list(combined.flattened)
        if len(loaders) == 1 or attrgetter("_mode")(combined) == "sequential":
            return loaders
        if not self._has_ids and any(real < size for real, size, _ in map(sizes_of, loaders)):
            warnings.warn(
                f"batches of several loaders come together in mode {mode!r}: samples that are repeated so that all "
                'ranks have as many, count again, unless ids="key" tells them',
                labeltrack.LabelTrackWarning,
                stacklevel=2,
            )
        return [None]

    # -- epochs -------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave sinks to rank 0."""
        if trainer.global_rank > 0:
            self.tracker.sinks.clear()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the epoch of a checkpoint, or end it: no hook is called where an epoch continues."""
        self._continue(trainer, pl_module)

    def _continue(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._resumed not in (None, trainer.current_epoch):
            self._end(pl_module, "train", self._resumed)
            self._resumed = None
        self._running, self._loaders = trainer.current_epoch, None
        self._batches.begin("train")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch; end the one before, if its checkpoint was saved before it had ended."""
        self._continue(trainer, pl_module)
        self._resumed = None
        self.tracker.reset(mode="train")  # what was interrupted begins again

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch of training."""
        self._running = None
        self._end(pl_module, "train", trainer.current_epoch)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a validation."""
        if not trainer.sanity_checking:
            self._begin("eval")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a validation."""
        if not trainer.sanity_checking:
            self._end(pl_module, "eval", trainer.current_epoch)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a test."""
        self._begin("test")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a test."""
        self._end(pl_module, "test", trainer.current_epoch)

    def _begin(self, mode: str) -> None:
        self._loaders = None
        self.tracker.reset(mode=mode)  # what was interrupted begins again
        self._batches.begin(mode)

    def _end(self, pl_module: LightningModule, mode: str, step: int) -> None:
        """End an epoch on all ranks, and log it."""
        self._loaders = None
        means = self._batches.end(step, mode)
        if self._log and means:
            pl_module.log_dict(means, add_dataloader_idx=False)

    # -- checkpoints --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the trackers of all ranks; every rank calls this."""
        return {"tracker": gather_state(self.tracker), "running": self._running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state, on every rank."""
        load_gathered(self.tracker, state_dict["tracker"])
        self._resumed = state_dict["running"]
