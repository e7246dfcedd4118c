"""The file of a report: its parts in one, with nothing to be loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from labeltrack._tables import check_ending, whole_file
from labeltrack._version import __version__
from labeltrack.page.payload import payload
from labeltrack.page.verdict import how, verdict

if TYPE_CHECKING:
    import os

    from labeltrack.page.content import Content

_SCRIPTS = ("data", "table", "curves", "histogram", "heatmap", "main")


def write_page(content: Content, path: str | os.PathLike[str]) -> None:
    """Write a report.

    Args:
        content: What it shows.
        path: A name that ends in .html or .htm; an existing file is replaced on success.

    Raises:
        OSError: The file cannot be written; an existing one stays.
        ValueError: The name has another ending.
    """
    path = Path(path)
    check_ending(path, (".html", ".htm"))
    text = document(content)
    with whole_file(path) as half:
        half.write_text(text, encoding="utf-8", newline="\n")


def document(content: Content) -> str:
    """Return the HTML of a report."""
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS) + "})();"
    style = _asset("page.css")
    sentence, tone = verdict(content)
    # Nothing else runs, not even in names of labels, and nothing is loaded.
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    facts = [f"      <dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in content.facts]
    parts = {
        "policy": policy,
        "version": __version__,
        "title": _text(content.title),
        "style": style,
        "tone": tone,
        "verdict": _text(sentence),
        "how": _text(how(content)),
        "facts": "\n".join(facts),
        # A "<" in a text of the data could end the element that holds it.
        "data": json.dumps(payload(content), separators=(",", ":")).replace("<", "\\u003c"),
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return files("labeltrack.page").joinpath("assets", name).read_text(encoding="utf-8")


def _text(text: str) -> str:
    return html.escape(text)
