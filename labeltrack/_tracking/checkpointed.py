"""Saving and restoring what a tracker has recorded."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labeltrack._tracking.state import load, read_state, write_state
from labeltrack.errors import LabelTrackWarning, outside

if TYPE_CHECKING:
    from labeltrack._tracking.recorded import Recorded
    from labeltrack._tracking.turns import Turns

_ARGUMENTS = (
    *("label", "metric", "label_mapping", "bounds", "mode", "ds_id", "outputs"),
    *("nan_policy", "missing", "max_buffer_bytes", "record_to", "keep_order"),
)
"""Arguments of `labeltrack.LabelTracker`, which a pickle holds."""


class Checkpointed:
    """The part of `labeltrack.LabelTracker` that saves and restores what is recorded."""

    label: str
    metric: str
    _recorded: Recorded
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

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments and the `state_dict`, for pickle."""
        return {"arguments": {name: getattr(self, name) for name in _ARGUMENTS}, "state": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from pickle."""
        try:
            self.__init__(**state["arguments"])  # type: ignore[misc]
        except (OSError, RuntimeError, ImportError) as error:  # of the recorder: the original may be recording
            self.__init__(**state["arguments"] | {"record_to": None})  # type: ignore[misc]
            warnings.warn(f"this copy of a tracker does not record: {error}", LabelTrackWarning, stacklevel=outside())
        self.load_state_dict(state["state"])
