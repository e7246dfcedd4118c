"""The HTML report of `History.to_html` and `labeltrack.report.write_report`: what is compared, its words, data, file.

It is one file that needs no network. Numbers of its table are float64. Those of curves are rounded to six decimal
digits, which float32 keeps, and are shown with no more. Steps are texts: the numbers of JSON are doubles, which cannot
tell those beyond 2**53 apart.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._core.arrays import Array, Floats, Integers
from labeltrack._filters import step_origin
from labeltrack._labels.combined import union
from labeltrack._significance.choice import compare_stats
from labeltrack._significance.comparison import BETTER, NO_EVIDENCE, TOO_FEW, VERDICTS, WORSE, check_alpha
from labeltrack._significance.p_values import change, moments, spread
from labeltrack._tables import check_ending, printable, whole_file
from labeltrack._version import __version__
from labeltrack.errors import counted

if TYPE_CHECKING:
    import os

    from labeltrack._significance.comparison import Comparison
    from labeltrack._significance.pairs import Samples
    from labeltrack.bounds import BoundName
    from labeltrack.stats import LabelStats

_SCRIPTS = ("data", "table", "curves", "histogram", "heatmap", "main")
_NAMED = 5  # labels in the sentence
_LONGEST = 40  # characters of a name there
_LEAST_Q = 1e-99  # that is written
_DIGITS = 6
_LARGEST, _SMALLEST = 1e38, 1e-37  # of float32 with all its digits
_RANGES = 60_000  # points of all curves up to which they have a minimum and maximum
_SPREADS = 250_000  # up to which they have a standard deviation


class Track(NamedTuple):
    """The statistics of one mode of one run, step by step."""

    name: str
    looks: Sequence[tuple[int, LabelStats]]  # ascending


@dataclass
class Content:
    """What a report shows: the last step of the first track, compared with another one if there is any."""

    metric: str
    label: str
    tracks: Sequence[Track]  # the first one is judged, the others are drawn beside it
    before: LabelStats | None  # what the last step is compared with
    _: KW_ONLY
    title: str | None
    bounds: Sequence[BoundName]
    higher_is_worse: bool
    alpha: float
    facts: Sequence[tuple[str, str]] = ()  # what was recorded, as pairs of a name and a text
    sides: str = ""  # what is compared, such as ``"step 9 to step 10"``
    samples: Samples | None = None  # of both sides
    distribution: dict[str, Any] | None = None  # for the script; columns are arrays, labels those of both sides
    hardest: dict[str, Any] | None = None  # a table of samples for the script
    shown: Sequence[int] = (0,)  # tracks whose curves are drawn at first
    comparison: Comparison | None = field(init=False, default=None)
    untested: str = field(init=False, default="There is only one step, so there is nothing to compare.")

    def __post_init__(self) -> None:
        """Test what changed."""
        check_alpha(self.alpha)
        if self.before is not None:
            options: dict[str, Any] = {"higher_is_worse": self.higher_is_worse, "alpha": self.alpha}
            try:
                sides = self.before, self.after
                self.comparison = compare_stats(*sides, self.samples, metric=self.metric, **options)
            except ImportError as error:  # scipy is an extra
                self.untested = f"Nothing was tested: {error}"

    @property
    def after(self) -> LabelStats:
        """The statistics that are judged."""
        return self.tracks[0].looks[-1][1]

    @property
    def heading(self) -> str:
        """The title of the page."""
        return f"{self.metric} by {self.label}: {self.tracks[0].name}" if self.title is None else self.title

    @property
    def band(self) -> str:
        """What curves have at first: narrow bands, which show changes, unless a history has none."""
        drawn = [*self.bounds]
        return "none" if drawn == [None] else "range" if drawn == ["range"] else "sem"

    @property
    def all_facts(self) -> list[tuple[str, str]]:
        """What there is, what was recorded, and what made the page."""
        versions = f"labeltrack {__version__}, numpy {np.__version__}, Python {platform.python_version()}"
        return [*map(_extent, self.tracks), *self.facts, ("this page", versions)]


def _extent(track: Track) -> tuple[str, str]:
    samples = sum(int(stats.count.sum()) for _, stats in track.looks)
    labels = max(len(stats) for _, stats in track.looks)
    first, last = track.looks[0][0], track.looks[-1][0]
    steps = f"step {first}" if first == last else f"{len(track.looks):,} steps, {first} to {last}"
    return track.name, f"{steps}; {counted(samples, 'sample')}; up to {counted(labels, 'label')} per step"


# -- the file ----------------------------------------------------------------------------------------------


def write_page(content: Content, path: str | os.PathLike[str]) -> None:
    """Write a report to a file that ends in .html or .htm; an existing one is replaced on success."""
    path = Path(path)
    check_ending(path, (".html", ".htm"))
    text = _document(content)
    with whole_file(path) as half:
        half.write_text(text, encoding="utf-8", newline="\n")


def _document(content: Content) -> str:
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS) + "})();"
    sentence, tone = _verdict(content)
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode("ascii")
    facts = [f"      <dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in content.all_facts]
    parts = {
        # Nothing else runs, not even in names of labels, and nothing is loaded.
        "policy": f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:",
        "version": __version__,
        "title": html.escape(content.heading),
        "style": _asset("page.css"),
        "tone": tone,
        "verdict": html.escape(sentence),
        "how": html.escape(_how(content)),
        "facts": "\n".join(facts),
        # A "<" in a text of the data could end the element that holds it.
        "data": json.dumps(_payload(content), separators=(",", ":")).replace("<", "\\u003c"),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return files("labeltrack.page").joinpath("assets", name).read_text(encoding="utf-8")


# -- in words ------------------------------------------------------------------------------------------------


def _verdict(content: Content) -> tuple[str, str]:
    """Return the sentence, and its tone: ``"worse"``, ``"better"`` or ``""``."""
    found = content.comparison
    if found is None:
        return _without_tests(content), ""
    worse = [k for k in found.order().tolist() if found.verdict[k] == WORSE]
    better = int((found.verdict == BETTER).sum())
    total = counted(len(found), "label")
    if worse:
        named = "; ".join(_changed(found, k) for k in worse[:_NAMED])
        named += f"; and {len(worse) - _NAMED:,} more" * (len(worse) > _NAMED)
        return f"{len(worse):,} of {total} got worse from {content.sides}: {named}.", "worse"
    if (found.verdict == TOO_FEW).all():
        return f"No label can be tested from {content.sides}: there are too few samples.", ""
    improved = f" {better} got better." if better else ""
    subject = "The only label did not get" if len(found) == 1 else f"None of {total} got"
    return f"{subject} worse from {content.sides}.{improved}", "better" if better else ""


def _how(content: Content) -> str:
    """Return what the verdict rests on."""
    found = content.comparison
    if found is None:
        return content.untested
    tests = np.unique(found.method[~np.isnan(found.p)]).tolist()
    better, unclear, too_few = (int((found.verdict == one).sum()) for one in (BETTER, NO_EVIDENCE, TOO_FEW))
    parts = []
    if tests:
        parts.append(
            f"A change counts if it is more than noise: q < {found.alpha:g}, by {_listed(tests)}, corrected for the "
            f"number of labels. Better: {better:,}. No evidence: {unclear:,}."
        )
    if too_few:
        parts.append(f"Too few samples to test: {too_few}.")
    direction = "Higher" if found.higher_is_worse else "Lower"
    return " ".join([*parts, f"{direction} {printable(found.metric)} is worse."])


def _without_tests(content: Content) -> str:
    after = content.after
    if not len(after):
        return "There are no samples."
    k = int(after.order("mean", descending=content.higher_is_worse)[0])
    worst = f"{_short(str(after.names[k]))}, with a mean of {after.mean[k]:.4g}"
    said = f"The worst of {counted(len(after), 'label')} is {worst}"
    return f"{said}; nothing was tested." if content.before is not None else f"{said}."


def _changed(found: Comparison, k: int) -> str:
    name, relative, q = _short(str(found.names[k])), float(found.relative[k]), float(found.q[k])
    change = f"{100 * relative:+.3g}\u00a0%" if np.isfinite(relative) else str(found.method[k])
    written = f"=\u00a0{q:.1g}" if q > _LEAST_Q else f"<\u00a0{_LEAST_Q:.0g}"
    certainty = "" if np.isnan(q) else f", q\u00a0{written}"
    return f"{name} ({(change + certainty).replace('e-0', 'e-').replace('-', chr(0x2212))})"


def _short(name: str) -> str:
    shown = printable(name)
    # Isolated, so that right-to-left names leave the order of the sentence alone.
    return f"\u2068{shown if len(shown) <= _LONGEST else f'{shown[: _LONGEST - 1]}…'}\u2069"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# -- for the scripts ----------------------------------------------------------------------------------------


def _payload(content: Content) -> dict[str, Any]:
    """Return what the scripts read."""
    parts = [stats for track in content.tracks for _, stats in track.looks]
    compared = content.tracks[0].looks[-1][1].labels
    if content.before is not None:
        parts.append(content.before)
        compared = union([content.before.labels, content.after.labels])[0]
    known, places = union([*(stats.labels for stats in parts), compared])
    size, compared_at = known.shape[0], places[-1]
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
        before = moments(content.before, places[len(parts) - 1], size)
        rows |= {"before": before.mean, "n_before": before.count, "relative": change(before.mean, after.mean)[1]}
    order = at[content.after.order("mean", descending=content.higher_is_worse)]
    methods: list[str] = []
    if content.comparison is not None:
        tested, methods = _tested(content.comparison, compared_at, size)
        rows |= tested
        order = compared_at[content.comparison.order()]
    distribution = content.distribution
    if distribution is not None:
        columns = distribution["columns"] | {"labels": compared_at[distribution["columns"]["labels"]]}
        distribution = distribution | {"columns": {name: _packed(column) for name, column in columns.items()}}
    order = np.concatenate([order, np.setdiff1d(np.arange(size), order)])
    return {
        "metric": printable(content.metric),
        "names": [printable(str(name)) for name in names],
        "methods": methods,
        "alpha": None if content.comparison is None else content.comparison.alpha,
        "band": content.band,
        "order": _packed(order),
        "origin": str(step_origin([track.looks[end][0] for track in content.tracks for end in (0, -1)])),
        "rows": {name: _packed(column) for name, column in rows.items()},
        "tracks": tracks,
        "distribution": distribution,
        "hardest": content.hardest,
    }


def _tested(found: Comparison, at: Integers, size: int) -> tuple[dict[str, Array], list[str]]:
    """Return what the tests found for each label, and the names of the methods."""
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
            table[at, s] = getattr(stats, name)
        if name != "count":
            columns[name] = _packed(_for_drawing(table))
        else:
            columns[name] = _packed((table[:, 0] if (table == table[:, :1]).all() else table).astype(np.int64))
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


def _packed(column: Array) -> dict[str, str]:
    """Return the type of an array, and its little-endian bytes in base 64; integers become as narrow as they can be."""
    if column.dtype.kind in "iu":
        narrow = np.min_scalar_type(int(column.max(initial=0)))
        column = column.astype(narrow if narrow.itemsize < 8 else np.float64)
    data = column.astype(column.dtype.newbyteorder("<")).tobytes()
    return {"type": column.dtype.str[1:], "data": base64.b64encode(data).decode("ascii")}
