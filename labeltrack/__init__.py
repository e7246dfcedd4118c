"""labeltrack: which class gets worse? Per-label statistics of a per-sample metric, exact and fast.

Example:
    >>> import labeltrack as lt
    >>> tracker = lt.LabelTracker(label="y", metric="ce")
    >>> tracker.update([0, 1, 1], [0.5, 2.0, 3.0])
    >>> tracker.end_epoch(1)[1].mean
    2.5
"""

from labeltrack._tracking.sinks import EpochResult
from labeltrack._version import __version__
from labeltrack.collection import TrackedMetric, TrackerCollection
from labeltrack.compare import Comparison, compare
from labeltrack.errors import LabelTrackWarning
from labeltrack.functional import label_stats
from labeltrack.history import History
from labeltrack.recording.dynamics import Dynamics
from labeltrack.recording.options import RecordingOptions
from labeltrack.recording.run import Run, open_run
from labeltrack.stats import LabelRow, LabelStats, merge_stats
from labeltrack.tracker import LabelTracker

__all__ = [
    "Comparison",
    "Dynamics",
    "EpochResult",
    "History",
    "LabelRow",
    "LabelStats",
    "LabelTrackWarning",
    "LabelTracker",
    "RecordingOptions",
    "Run",
    "TrackedMetric",
    "TrackerCollection",
    "__version__",
    "compare",
    "label_stats",
    "merge_stats",
    "open_run",
]
