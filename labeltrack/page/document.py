"""The file of a report: the verdict in words, the data and the scripts, with nothing to be loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labeltrack._significance.comparison import BETTER, NO_EVIDENCE, TOO_FEW, WORSE
from labeltrack._tables import check_ending, printable, whole_file
from labeltrack._version import __version__
from labeltrack.errors import counted
from labeltrack.page.content import Content, payload

if TYPE_CHECKING:
    import os

    from labeltrack._significance.comparison import Comparison

_NAMED = 5  # labels
_LONGEST = 40  # characters of a name
_SMALLEST = 1e-99  # q that is written
_SCRIPTS = ("data", "table", "curves", "histogram", "heatmap", "main")


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
        "data": json.dumps(payload(content), separators=(",", ":")).replace("<", "\\u003c"),
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
    written = f"=\u00a0{q:.1g}" if q > _SMALLEST else f"<\u00a0{_SMALLEST:.0g}"
    certainty = "" if np.isnan(q) else f", q\u00a0{written}"
    return f"{name} ({(change + certainty).replace('e-0', 'e-').replace('-', chr(0x2212))})"


def _short(name: str) -> str:
    shown = printable(name)
    # Isolated, so that right-to-left names leave the order of the sentence alone.
    return f"\u2068{shown if len(shown) <= _LONGEST else f'{shown[: _LONGEST - 1]}…'}\u2069"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
