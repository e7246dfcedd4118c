"""Histories and runs that tests of the report share."""

from __future__ import annotations

import base64
import html
import json
import re

import numpy as np

import labeltrack as lt

EVIL = {
    "<b>bold</b> & \"quotes\" 'single'": 0,
    "</script><script>document.title = 'changed'</script>\nnew line": 1,
    "قطة سوداء \u202e reversed": 2,
    "<img src=x onerror=\"document.title='changed'\">": 3,
    "{{data}} \\u003c <!-- ": 4,
}
TYPES = {"f8": np.float64, "f4": np.float32, "u4": np.uint32, "u2": np.uint16, "u1": np.uint8}


def history(labels, steps, samples=30, *, mapping=None, modes=("eval",), worse=None):
    """Return a history whose means fall; the label `worse` gets worse in the last step."""
    rng = np.random.default_rng(5)
    found = lt.History(metric="loss", label="class")
    base = rng.gamma(4, 0.25, labels) + 0.5
    y = np.repeat(np.arange(labels), samples)
    for step in range(1, steps + 1):
        for mode in modes:
            values = base[y] * (0.3 + 0.7 / np.sqrt(step)) * rng.normal(1, 0.1, y.size)
            if worse is not None and step == steps:
                values[y == worse] *= 1.5
            found.add(step, lt.label_stats(y, values, label_mapping=mapping), mode=mode)
    return found


def record(path, *, labels=200, samples=500, steps=4, worse=None, seed=0, **options):
    """Record a run that improves a little; the label `worse` gets 10 % worse in the last step."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(labels), samples))
    base = rng.exponential(size=y.size)
    with lt.LabelTracker("class", "loss", record_to=path, **options) as tracker:
        for step in range(1, steps + 1):
            values = base * rng.normal(1, 0.1, y.size)
            if worse is not None and step == steps:
                values[y == worse] *= 1.1
            tracker.update(y, values.astype(np.float32), mode="eval")
            tracker.end_epoch(step, mode="eval")
    return path


def data(path):
    """Return the data in a page as its script reads it."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def column(packed):
    """Return an array of the data."""
    return np.frombuffer(base64.b64decode(packed["data"]), TYPES[packed["type"]])


def verdict(path):
    """Return the sentence at the top of a page."""
    found = re.search(r'<h1 id="verdict" class="(\w*)">(.*?)</h1>', path.read_text("utf-8"), re.DOTALL)
    text = html.unescape(found[2])
    return re.sub("[\u2068\u2069]", "", text).replace("\u00a0", " ").replace("\u2212", "-"), found[1]
