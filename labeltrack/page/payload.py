"""The data of a report, packed for its scripts.

Numbers of the table are float64. Those of curves are rounded to six decimal digits, which float32 keeps, and are shown
with no more. Steps are texts: the numbers of JSON are doubles, which cannot tell those beyond 2**53 apart.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from labeltrack._core.arrays import Array, Floats, Integers
from labeltrack._filters import step_origin
from labeltrack._labels.combined import union
from labeltrack._significance.choice import moments, spread
from labeltrack._significance.comparison import TOO_FEW, VERDICTS
from labeltrack._significance.methods import change
from labeltrack._tables import printable
from labeltrack.stats import quiet

if TYPE_CHECKING:
    from labeltrack.page.content import Content, Track


_DIGITS = 6
_LARGEST, _SMALLEST = 1e38, 1e-37  # of float32 with all its digits
_RANGES = 60_000  # points of all curves up to which they have a minimum and maximum
_SPREADS = 250_000  # up to which they have a standard deviation


def payload(content: Content) -> dict[str, Any]:
    """Return what the scripts read."""
    parts = [stats for track in content.tracks for _, stats in track.looks]
    parts += [] if content.before is None else [content.before]
    compared = [] if content.comparison is None else [content.comparison.labels]
    known, places = union([*(stats.labels for stats in parts), *compared])
    size = known.shape[0]
    names = np.full(size, "", dtype=object)
    for stats, at in zip(parts, places, strict=False):
        names[at] = stats.names
    points, tracks, first = size * sum(len(track.looks) for track in content.tracks), [], 0
    for k, track in enumerate(content.tracks):
        own = places[first : first + len(track.looks)]
        tracks.append({"shown": k in content.shown, **_track(track, own, size, points)})
        first += len(track.looks)
    at = places[len(content.tracks[0].looks) - 1]
    after = moments(content.after, at, size)
    rows: dict[str, Array] = {"after": after.mean, "n": after.count, "std": after.std}
    rows |= {"min": after.min, "max": after.max}
    if content.before is not None:
        before = moments(quiet(content.before), places[len(parts) - 1], size)
        rows |= {"before": before.mean, "n_before": before.count, "relative": change(before.mean, after.mean)[1]}
    order = at[content.after.order("mean", descending=content.higher_is_worse)]
    methods: list[str] = []
    if content.comparison is not None:
        tested, methods = _tested(content, places[-1], size)
        rows |= tested
        order = places[-1][content.comparison.order()]
    order = np.concatenate([order, np.setdiff1d(np.arange(size), order)])
    return {
        "metric": printable(content.metric),
        "names": [printable(str(name)) for name in names],
        "methods": methods,
        "alpha": None if content.comparison is None else content.comparison.alpha,
        "band": content.band,
        "order": packed(order),
        "origin": str(step_origin([track.looks[end][0] for track in content.tracks for end in (0, -1)])),
        "rows": {name: packed(column) for name, column in rows.items()},
        "tracks": tracks,
        "distribution": _distribution(content, places[-1]),
        "hardest": _hardest(content),
    }


def _tested(content: Content, at: Integers, size: int) -> tuple[dict[str, Array], list[str]]:
    """Return what the tests found for each label, and the names of the methods."""
    found = content.comparison
    assert found is not None  # noqa: S101 (for mypy)
    rows: dict[str, Array] = {name: spread(getattr(found, name), at, size) for name in ("low", "high", "g", "p", "q")}
    verdicts = np.argmax(found.verdict[:, np.newaxis] == np.array(VERDICTS), axis=1).astype(np.uint8)
    rows["verdict"] = spread(verdicts, at, size, VERDICTS.index(TOO_FEW))
    methods, codes = np.unique(found.method, return_inverse=True)
    rows["method"] = spread(codes.reshape(-1), at, size, 0)
    return rows, methods.tolist()


def _track(track: Track, places: list[Integers], size: int, points: int) -> dict[str, Any]:
    """Return the curves of all labels, each ``(K * S,)`` with the steps of a label side by side."""
    names = ["count", "mean", *["std"] * (points <= _SPREADS), *["min", "max"] * (points <= _RANGES)]
    columns: dict[str, dict[str, str]] = {}
    for name in names:
        table = np.full((size, len(track.looks)), 0 if name == "count" else np.nan)
        for s, ((_, stats), at) in enumerate(zip(track.looks, places, strict=True)):
            table[at, s] = getattr(quiet(stats), name)
        if name != "count":
            columns[name] = packed(_for_drawing(table))
        else:
            columns[name] = packed((table[:, 0] if (table == table[:, :1]).all() else table).astype(np.int64))
    return {"name": printable(track.name), "steps": [str(step) for step, _ in track.looks], "columns": columns}


def _for_drawing(values: Floats) -> Array:
    """Return values rounded to six decimal digits, as float32 if it can hold them."""
    with np.errstate(all="ignore"):
        scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(np.abs(values))))
        rounded = np.round(values * scale) / scale
    rounded = np.where(np.isfinite(rounded), rounded, values)
    sizes = np.abs(rounded[np.isfinite(rounded) & (rounded != 0)])
    fits = not sizes.size or (sizes.max() < _LARGEST and sizes.min() > _SMALLEST)
    return rounded.astype(np.float32) if fits else rounded


def packed(column: Array) -> dict[str, str]:
    """Return the type of an array, and its little-endian bytes in base 64; integers become as narrow as they can be."""
    if column.dtype.kind in "iu":
        narrow = np.min_scalar_type(int(column.max(initial=0)))
        column = column.astype(narrow if narrow.itemsize < 8 else np.float64)
    data = column.astype(column.dtype.newbyteorder("<")).tobytes()
    return {"type": column.dtype.str[1:], "data": base64.b64encode(data).decode("ascii")}


def _distribution(content: Content, at: Integers) -> dict[str, Any] | None:
    found = content.distribution
    if found is None:
        return None
    columns = {"labels": at[found.labels], "low": found.low, "high": found.high, "log": found.log.astype(np.uint8)}
    columns |= {"before": found.before, "after": found.after}
    return {
        "bins": found.before.shape[1],
        "note": "" if found.every == 1 else f" (one in {found.every} samples was counted)",
        "sides": printable(content.sides),
        "columns": {name: packed(column) for name, column in columns.items()},
    }


def _hardest(content: Content) -> dict[str, Any] | None:
    found = content.hardest
    if found is None:
        return None
    rows = [[printable(cell) for cell in row] for row in found.rows]
    return {"note": found.note, "head": [printable(cell) for cell in found.head], "rows": rows}
