"""New labels for old ones, over a table of statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._labels import MISSING_NAME, MISSING_NUMBER, table_labels
from labeltrack._objects import is_missing, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from labeltrack._labels import LabelMapping
    from labeltrack.stats import LabelStats

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


class Grouping:
    """From labels to new labels.

    Args:
        group: A mapping, or a function of a label (a plain Python value). Labels that the mapping does not have, or for
            which either has None or NaN, are passed over. A mapping may call the label of missing ones ``"(missing)"``
            among numbers, too.

    Raises:
        TypeError: Neither of both.

    Example:
        >>> import labeltrack as lt
        >>> stats = lt.label_stats([1, 2, 3, 4], [0.5, 1.0, 2.5, 4.0])
        >>> Grouping(lambda label: "even" if label % 2 == 0 else "odd").apply(stats)["odd"].mean
        1.5
    """

    def __init__(self, group: Any) -> None:
        if isinstance(group, Mapping):
            self._new: Callable[[Any], Any] = lambda label: group.get(_key(label, group))
        elif callable(group):
            self._new = group
        else:
            msg = f"group must be a mapping from labels to new labels, or a function, got {type(group).__name__}"
            raise TypeError(msg)

    def apply(self, stats: LabelStats, mapping: LabelMapping | None = None) -> LabelStats:
        """Return the statistics by new label, exactly.

        Args:
            stats: By old label.
            mapping: New labels to keep, and their names.

        Raises:
            TypeError: A new label is no number or string, or they are of kinds that cannot be ordered.
        """
        rows, new = self.renamed(stats.labels, mapping)
        labels, slots = np.unique(new, return_inverse=True)
        names = None if mapping is None else mapping.names
        return stats.regrouped(labels, rows, slots.reshape(-1).astype(np.int64), names=names)

    def renamed(self, labels: Array, mapping: LabelMapping | None = None) -> tuple[Integers, Array]:
        """Return which labels are kept, and the new label of each of these.

        Args:
            labels: ``(K,)`` old labels.
            mapping: New labels to keep.

        Returns:
            ``(R,)`` places in `labels`, and ``(R,)`` new labels.

        Raises:
            TypeError: See `apply`.
        """
        new = [self._new(label) for label in labels.tolist()]
        kept = [
            i for i, label in enumerate(new) if not is_missing(label) and (mapping is None or label in mapping.names)
        ]
        chosen = [plain(new[i]) for i in kept]
        strange = {type(label).__name__ for label in chosen if not isinstance(label, (bool, int, float, str, bytes))}
        kinds = {str if isinstance(label, str) else bytes if isinstance(label, bytes) else float for label in chosen}
        if strange or len(kinds) > 1:
            said = ", ".join(sorted(strange or {kind.__name__ for kind in kinds}))
            msg = f"group must give numbers or strings, of one kind; it gives {said}"
            raise TypeError(msg)
        return np.array(kept, np.int64), table_labels(chosen)


def _key(label: Any, group: Mapping[Any, Any]) -> Any:
    """Return under which key a mapping may have a label."""
    return MISSING_NAME if label == MISSING_NUMBER and label not in group else label
