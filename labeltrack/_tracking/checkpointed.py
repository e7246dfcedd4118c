"""Saving, restoring and merging what trackers have recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labeltrack._tracking.merging import combine, gather
from labeltrack._tracking.state import load, read_state, write_state
from labeltrack.errors import warn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from labeltrack._tracking.intake import Intake
    from labeltrack._tracking.recorded import Recorded
    from labeltrack._tracking.reducing import Reducer
    from labeltrack._tracking.turns import Turns

_ARGUMENTS = (
    *("label", "metric", "label_mapping", "bounds", "mode", "ds_id", "outputs"),
    *("nan_policy", "missing", "max_buffer_bytes", "record_to", "keep_order"),
)
"""Arguments of `labeltrack.LabelTracker`, which a pickle holds."""


ALIKE = ("label", "metric", "label_mapping", "nan_policy", "missing")
"""Arguments that trackers have to share to be merged."""


class Checkpointed:
    """The part of `labeltrack.LabelTracker` that saves, restores and merges what is recorded."""

    label: str
    metric: str
    _recorded: Recorded
    _reducer: Reducer
    _intake: Intake
    _turns: Turns
    _warned: bool  # that no label of the mapping occurred

    def state_dict(self) -> dict[str, Any]:
        """Return history and the samples of the running epoch as built-in Python values; arrays as bytes.

        ``torch.load`` reads them with its default ``weights_only=True``. The tracker's arguments are not included: load
        the state into a tracker made with the same ones.
        """
        with self._turns.to_read:
            self._recorded.settle()
            return write_state(self._recorded, self.label, self.metric, warned=self._warned)

    def load_state_dict(self, state: Any) -> None:
        """Continue from a `state_dict`; what this tracker has recorded is replaced.

        Args:
            state: From a tracker of the same label and metric.

        Raises:
            TypeError: It is not the state of a tracker.
            ValueError: It is of another label or metric, or of a later version.
        """
        saved = read_state(state, self.label, self.metric)
        with self._turns.of("load_state_dict"):
            self._recorded.settle()
            dropped = self._recorded.dropped(None)
            self._recorded.decide(replace(dropped, loaded=load(saved, self._recorded)))
            self._warned = saved.warned

    def merge_state(self, trackers: Iterable[Self]) -> None:
        """Add what other trackers have recorded, such as those of other processes: histories and running epochs.

        The result is bit for bit what one tracker would have of all samples. Steps that several trackers have in a mode
        and dataset are merged, as they are of one training. Samples of running epochs are copied as long as
        `max_buffer_bytes` allows, and folded beyond it. Merged steps have no quantiles, which cannot be merged.

        If this tracker records, it does not record the samples of the others: those of trackers that do not record
        either are missing in the recorded run, and it warns.

        Args:
            trackers: Trackers of the same label, metric, `label_mapping`, `nan_policy` and `missing`; not changed.

        Raises:
            TypeError: Something is not a tracker, or labels of a mode are of different types.
            ValueError: A tracker differs in one of these arguments. Nothing is merged in either case.

        Example:
            >>> import labeltrack as lt
            >>> first, second = (lt.LabelTracker(label="y", metric="ce") for _ in range(2))
            >>> first.update([0, 1], [1.0, 2.0])
            >>> second.update([1, 1], [4.0, 6.0])
            >>> first.merge_state([second])
            >>> first.end_epoch(1).mean
            array([1., 4.])
        """
        others: list[Any] = list(trackers)
        for number, other in enumerate(others):
            if not isinstance(other, Checkpointed):
                msg = f"expected trackers to merge, got {type(other).__name__} (number {number})"
                raise TypeError(msg)
            for name in ALIKE:
                mine, its = getattr(self, name), getattr(other, name)
                if mine != its:
                    msg = f"cannot merge tracker number {number}: its {name} is {its!r}, and {mine!r} here"
                    raise ValueError(msg)
        recorded = [other._recorded for other in others]  # noqa: SLF001 (of the same class)
        parts = gather(recorded, self._reducer, self._intake.budget(), keep_order=self._recorded.keep_order)
        with self._turns.of("merge_state"):
            self._recorded.settle()
            self._recorded.decide(combine(self._recorded, parts, self._reducer, self._intake))
        self._recorded.tell()

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments and the `state_dict`, for pickle."""
        return {"arguments": {name: getattr(self, name) for name in _ARGUMENTS}, "state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from pickle."""
        try:
            self.__init__(**state["arguments"])  # type: ignore[misc]
        except (OSError, RuntimeError, ImportError) as error:  # of the recorder: the original may be recording
            self.__init__(**state["arguments"] | {"record_to": None})  # type: ignore[misc]
            warn(f"this copy of a tracker does not record: {error}")
        self.load_state_dict(state["state"])
