"""Where the results of epochs go as they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labeltrack.errors import counted, warn

if TYPE_CHECKING:
    from labeltrack.history import History
    from labeltrack.stats import LabelStats


@dataclass(frozen=True, repr=False)
class EpochResult:
    """What a sink is called with when an epoch has ended.

    Attributes:
        step: The epoch or step.
        mode: The mode that ended.
        metric: Name of the metric.
        outputs: Name of the result, such as ``"ce_by_class"``.
        stats: Statistics of all datasets of the mode, pooled.
        history: All epochs so far, with this one; ``history.datasets(step, mode)`` are the statistics by dataset.
    """

    step: int
    mode: str
    metric: str
    outputs: str
    stats: LabelStats
    history: History

    def __repr__(self) -> str:
        """Return what it is the result of."""
        return f"EpochResult({self.mode}/{self.outputs}, step {self.step}): {counted(len(self.stats), 'label')}"


Sink = Callable[[EpochResult], Any]


def check_sinks(sinks: Any) -> list[Sink]:
    """Return sinks as a list, or raise."""
    found = list(sinks) if isinstance(sinks, Iterable) else [sinks]
    wrong = [sink for sink in found if not callable(sink)]
    if wrong or not isinstance(sinks, Iterable):
        what = wrong[0] if wrong else sinks
        msg = (
            "sinks must be a list of callables that take an EpochResult, such as [print] or those of "
            f"labeltrack.integrations.loggers, got {what!r}"
        )
        raise TypeError(msg)
    return found


def hand_to(sinks: list[Sink], results: list[EpochResult], told: list[Sink]) -> None:
    """Call all sinks with all results; those that fail warn once, as `told` knows, and are called again next time."""
    failed = []
    for sink in list(sinks):
        for result in results:
            try:
                sink(result)
            except Exception as error:  # noqa: BLE001 (training continues if a logger raises)
                if not any(sink is other for other in told):
                    told.append(sink)
                    name, text = getattr(sink, "__name__", type(sink).__name__), str(error)
                    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
                    failed.append(f"{name} at {result.mode!r}, step {result.step}: {said}")
    if failed:
        warn(f"a sink failed, and training continues; it does not warn again: {'; '.join(failed)}")
