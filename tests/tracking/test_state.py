"""States hold what anything can save, and nothing else; they bring back every bit."""

from __future__ import annotations

import contextlib
import enum
import io
import pickle

import numpy as np
import pytest
from exact import fingerprint

import labeltrack as lt

BUILT_IN = (str, bytes, int, float, bool, type(None))


def strangers(value):
    """Return the types of all that is no built-in value, through dicts, lists and tuples."""
    if type(value) is dict:
        return {found for pair in value.items() for part in pair for found in strangers(part)}
    if type(value) in (list, tuple):
        return {found for part in value for found in strangers(part)}
    return set() if type(value) in BUILT_IN else {type(value)}


class Mode(str, enum.Enum):  # noqa: UP042 (unlike StrEnum, its str() is not its value)
    TRAIN = "train"


RNG = np.random.default_rng(0)
LABELS = {
    "integers": RNG.integers(-5, 5, 300),
    "unsigned": RNG.integers(2**63, 2**63 + 5, 300, dtype=np.uint64),
    "bytes": RNG.integers(0, 5, 300).astype(np.uint8),
    "bools": RNG.random(300) < 0.5,
    "floats": RNG.choice([0.1, -2.5, np.inf], 300),
    "small floats": RNG.choice([0.1, -2.5], 300).astype(np.float32),
    "strings": RNG.choice(["cat", "dog", "\udc80", "\u732b"], 300),
    "byte strings": RNG.choice([b"cat", b"\xff\x00\x01", b""], 300),
    "empty": RNG.choice(["", "cat"], 300),
    "lists": RNG.choice(["cat", "dog"], 300).tolist(),
    "names of the parts of an array": RNG.choice(["dtype", "shape", "data"], 300).tolist(),
}


def half_way(labels, **options):
    """Return a tracker in the middle of its second epoch."""
    tracker = lt.LabelTracker("y", "ce", **options)
    values = np.where(RNG.random(300) < 0.01, np.nan, RNG.lognormal(0, 9, 300))
    for _ in range(2):
        tracker.update(labels, values, mode=Mode.TRAIN)
        tracker.update(labels, values.astype(np.float32), mode="train", ds_id=np.str_("other"))
        if not len(tracker.history):
            tracker.end_epoch(np.int64(1))
            tracker.end_epoch(1, mode="eval")
    return tracker


def saved_and_loaded(value):
    """Return what torch brings back of a value."""
    torch = pytest.importorskip("torch")
    saved = io.BytesIO()
    torch.save(value, saved)
    saved.seek(0)
    return torch.load(saved)


def pickled(value):
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("through", [pickled, saved_and_loaded])
@pytest.mark.parametrize("limit", [2**28, 2000])
@pytest.mark.parametrize("kind", LABELS)
def test_a_state_is_of_built_in_values_and_goes_on_to_the_same_bits(kind, limit, through):
    options = {"bounds": ["std", "iqr", ("quantile", 0.1, 0.9)], "max_buffer_bytes": limit}
    labels = LABELS[kind]
    if kind in ("integers", "strings", "byte strings", "lists", "empty"):
        options["label_mapping"] = {f"the {label}": label for label in np.unique(labels)[:2].tolist()}
    elif kind.startswith("names"):
        options["label_mapping"] = {f"the {label}": label for label in np.unique(labels)}
    with pytest.warns(lt.LabelTrackWarning) if limit == 2000 else contextlib.nullcontext():
        tracker = half_way(labels, **options)
    state = tracker.state_dict()
    assert strangers(state) == set()
    again = lt.LabelTracker("y", "ce", **options)
    again.load_state_dict(through(state))
    ends = [each.end_epoch(2) for each in (tracker, again)]
    assert fingerprint(ends[0]) == fingerprint(ends[1])
    assert fingerprint(tracker.history) == fingerprint(again.history)
    assert [stats.labels.dtype for stats in ends] == [ends[0].labels.dtype] * 2


def test_torch_loads_a_saved_state_by_default():
    tracker = half_way(LABELS["strings"], bounds="iqr", label_mapping={"Cat": "cat", "other": "\udc80"})
    stats = lt.label_stats(LABELS["floats"], RNG.random(300), quantiles=[0.5])
    state = saved_and_loaded(
        {"tracker": tracker.state_dict(), "history": tracker.history.state_dict(), "stats": stats._state()}
    )
    again = lt.LabelTracker("y", "ce", bounds="iqr", label_mapping={"Cat": "cat", "other": "\udc80"})
    again.load_state_dict(state["tracker"])
    history = lt.History()
    history.load_state_dict(state["history"])
    assert fingerprint(history) == fingerprint(tracker.history)
    assert fingerprint(lt.LabelStats._from_state(state["stats"])) == fingerprint(stats)
    assert fingerprint(again.end_epoch(2)) == fingerprint(tracker.end_epoch(2))


def test_a_state_takes_the_room_of_its_samples_and_of_its_text():
    tracker = lt.LabelTracker("y", "ce")
    tracker.update(np.arange(100_000) % 10, np.zeros(100_000))
    assert len(pickle.dumps(tracker.state_dict())) < 16 * 100_000 + 2000
    words = [*map(str, range(1000)), "x" * 10_000]
    tracker = lt.LabelTracker("y", "ce")
    tracker.update(words, np.zeros(1001))
    tracker.end_epoch(1)
    assert len(pickle.dumps(tracker.state_dict())) < 200_000  # and not 1001 times 10 000 characters
