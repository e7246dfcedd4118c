"""A handler for Ignite that tracks a per-sample metric by label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from labeltrack.integrations._shared import needed

with needed('ignite needs Ignite 0.5: pip install "labeltrack[ignite]"', "ignite", "torch"):
    import ignite.distributed as idist
    from ignite.engine import DeterministicEngine, Events

from labeltrack.integrations._batches import Batches
from labeltrack.integrations.torch import gather_state, load_gathered, sizes_of

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["LabelTrackHandler"]


class LabelTrackHandler:
    """Track a per-sample metric by label in the engines that it is attached to.

    The output of an engine must have the metric of each sample; by default it is the averaged loss alone. The ranks
    share an epoch when it ends (`labeltrack.integrations.torch.sync`). The means of the labels are then in
    ``engine.state.metrics`` as ``{mode}/{outputs}/{name}``, and that of the worst one as ``…/macro_max``. A
    ``Checkpoint`` on every rank takes the handler as it is, and has the trackers of all ranks.

    Args:
        label: Key of the labels in a batch, such as a place in a tuple; or a function of a batch; or, for several
            labels per sample, ``{name: key or function}``.
        value: Key of the values in the engine's output; or a function of that; or, for several metrics, ``{metric:
            key or function}``.
        ids: Key of ids in a batch, or a function of it; see `labeltrack.LabelTracker.update`.
        **options: Those of `labeltrack.LabelTracker`. `sinks` are called on rank 0 alone.

    Attributes:
        tracker: The `labeltrack.LabelTracker`; with several metrics, a `labeltrack.TrackerCollection`.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An unknown option; see `labeltrack.LabelTracker`.

    Example:
        >>> import torch
        >>> from ignite.engine import Engine
        >>> trainer = Engine(lambda engine, batch: {"per_sample_loss": batch["x"] ** 2})
        >>> handler = LabelTrackHandler(label="y")
        >>> handler.attach(trainer)
        >>> _ = trainer.run([{"x": torch.tensor([1.0, 2.0, 3.0]), "y": torch.tensor([0, 1, 1])}], max_epochs=2)
        >>> handler.tracker.history.at(2).mean
        array([1. , 6.5])
    """

    def __init__(
        self,
        label: Any = "y",
        value: str | Callable[[Any], Any] | Mapping[str, Any] = "per_sample_loss",
        *,
        ids: Any = None,
        **options: Any,
    ) -> None:
        self._batches = Batches(label, value, ids, options)
        self.tracker: Any = self._batches.tracker
        self._clock: Engine | None = None
        self._modes: dict[Engine, str] = {}  # of engines that are attached
        self._resumed: int | None = None  # the epoch of a checkpoint that may have been saved before it ended

    def attach(self, engine: Engine, mode: str = "train", ds_id: str = "") -> None:
        """Track what an engine does.

        The epoch of the first engine is the step of all; if its mode is ``"eval"`` or ``"test"``, that of the first
        engine of mode ``"train"`` is, once there is one. Attach a ``Checkpoint`` after the trainer. Evaluations of a
        dataset that are repeated in an epoch replace what they found before.

        Args:
            engine: A trainer or an evaluator.
            mode: Mode of its batches.
            ds_id: Dataset of its batches, where several engines share a mode.

        Raises:
            ValueError: The engine is attached already.
        """
        if engine in self._modes:
            msg = f"this engine is attached already, with mode {self._modes[engine]!r}: its samples would count twice"
            raise ValueError(msg)
        before = list(self._modes.values())
        if not before or (mode == "train" and before[0] in ("eval", "test") and mode not in before):
            self._clock = engine
        self._modes[engine] = mode
        if idist.get_rank() > 0:
            self.tracker.sinks.clear()
        engine.add_event_handler(Events.STARTED, self._resume, mode)
        for event in (Events.DATALOADER_STOP_ITERATION, Events.TERMINATE_SINGLE_EPOCH):
            engine.add_event_handler(event, lambda *_, **__: self._batches.begin(mode))  # of the loader
        engine.add_event_handler(Events.EPOCH_STARTED, self._started, mode)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update, mode, ds_id)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._ended, mode)

    def _resume(self, engine: Engine, mode: str) -> None:
        """Begin a loader, of which one engine skips what it did before a checkpoint."""
        loader = engine.state.dataloader
        skips = isinstance(engine, DeterministicEngine) and any(sizes_of(loader, warns=False))
        self._batches.begin(mode, engine.state.iteration % len(loader) if skips else 0)

    def _started(self, engine: Engine, mode: str) -> None:
        """Begin an epoch; end the one before, if its checkpoint was saved before that was done."""
        state = engine.state
        if engine is self._clock and self._resumed is not None:
            before, self._resumed = self._resumed, None
            if before != state.epoch:
                state.metrics.update(self._batches.end(before, mode))
        # None of it was done before a checkpoint; a loader of unknown length has not told it in the first epoch.
        if not state.epoch_length or state.iteration % state.epoch_length == 0:
            self.tracker.reset(mode=mode)

    def _update(self, engine: Engine, mode: str, ds_id: str) -> None:
        state = engine.state
        self._batches.update(state.batch, state.output, state.dataloader, mode, ds_id)

    def _ended(self, engine: Engine, mode: str) -> None:
        engine.state.metrics.update(self._batches.end(self._step, mode))

    @property
    def _step(self) -> int:
        return 0 if self._clock is None else int(self._clock.state.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the trackers of all ranks; every rank calls this."""
        return {"tracker": gather_state(self.tracker), "epoch": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state, on every rank; errors are those of `labeltrack.integrations.torch.load_gathered`."""
        load_gathered(self.tracker, state_dict["tracker"])
        self._resumed = state_dict["epoch"]
