"""README and docs: their code runs, their links lead somewhere, and what they say of the repository is so."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from test_cli import invoke

import labeltrack as lt
from labeltrack.bounds import BOUNDS, resolve

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted(page for page in ROOT.glob("docs/**/*.md") if "_generated" not in page.parts),
]
REQUIRED = os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1"
REQUIRED_FASTESTIMATOR = os.environ.get("LABELTRACK_REQUIRE_FASTESTIMATOR") == "1"
REQUIRED_INTEGRATIONS = os.environ.get("LABELTRACK_REQUIRE_INTEGRATIONS") == "1"
FRAMEWORKS = {"torch": "torch", "huggingface": "transformers", "lightning": "lightning", "ignite": "ignite"}
FRAMEWORKS |= {"keras": "keras", "loggers": "labeltrack"}
RNG = np.random.default_rng(0)
LABELS, LOSSES = RNG.integers(0, 30, 500), RNG.exponential(size=500).astype(np.float32)


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def printed(code, names):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, names)  # noqa: S102 (it is our own page)
    return out.getvalue()


def tables(page):
    """Return the tables of a page, each as rows of cells."""
    found = re.findall(r"(?:^\|.*\|\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()] for table in found]


def anchors(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(name="run")
def _run(tmp_path, monkeypatch):
    """Record what the pages say is there, where they say that it is."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/exp1", "runs/released", "demo-out/run"):
        with lt.LabelTracker("y", "ce", record_to=folder) as tracker:
            for step, mode in itertools.product((1, 2, 3), ("train", "eval")):
                tracker.update(LABELS, LOSSES, mode=mode)
                tracker.end_epoch(step, mode=mode)
    with lt.TrackerCollection(
        ("digit", "stroke"), ["ce", "correct"], {"digit": {"eight": 8}}, record_to="demo-out/slices"
    ) as trackers:
        metrics = {"ce": LOSSES, "correct": np.array(LOSSES) < 1}
        trackers.update((LABELS, LABELS), metrics, mode="eval", ids=np.arange(len(LABELS)))
        trackers.end_epoch(1, mode="eval")


# -- the README ---------------------------------------------------------------------------------------------


def test_the_first_example_prints_what_the_readme_says():
    (code, *_), (shown, *_) = blocks(README, "python"), blocks(README, "text")
    assert [line.rstrip() for line in printed(code, {}).splitlines()] == shown.splitlines()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None and not REQUIRED, reason="torch is not installed")
def test_the_training_loop_of_the_readme_runs(tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(4, 3)
    batches = [(torch.randn(8, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])) for _ in range(3)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {"lt": lt, "F": torch.nn.functional, "model": model, "optimizer": optimizer, "train_loader": batches}
    text = printed(blocks(README, "python")[1], names | {"epochs": 2})
    assert re.fullmatch(r"1 worst: \[.*\] mean of label 0: \S+\n2 worst: \[.*\] mean of label 0: \S+\n", text)
    assert (tmp_path / "loss_by_class.png").stat().st_size > 1000


@pytest.mark.usefixtures("run")
def test_the_recorded_run_of_the_readme_can_be_asked():
    names = {"lt": lt}
    printed(blocks(README, "python")[2], names)
    names["tracker"].close()
    assert names["run"].samples("train", step=3).num_rows == len(LABELS)
    assert len(blocks(README, "python")) == 3


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("README.md", {"info", "worst", "plot", "report", "check", "hardest"}),
        ("docs/recorded-runs.md", {"info", "recompute", "worst", "plot", "export", "verify"}),
    ],
)
def test_the_commands_of_a_page_run(page, shown):
    commands = [line for block in blocks(ROOT / page, "sh") for line in block.splitlines() if " runs/exp1" in line]
    commands += [line for block in blocks(ROOT / page, "sh") for line in block.splitlines() if " demo-out/" in line]
    assert {command.split()[1] for command in commands} == shown
    for command in commands:
        result = invoke(*shlex.split(command, comments=True)[1:])
        assert result.exit_code == 0, (command, result.output)
        if " -o " in command:
            assert Path(command.split()[-1]).stat().st_size > 100


def test_the_readme_can_be_read_in_three_minutes():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
    assert all(len(row) <= 7 for table in tables(README) for row in table)


def test_the_gallery_lists_every_bound():
    (listed,) = [table for table in tables(ROOT / "docs" / "gallery.md") if "bounds" in table[0][0]]
    names = [ast.literal_eval(row[0].strip().strip("`")) for row in listed[2:]]
    assert {name for name in names if not isinstance(name, tuple)} == set(BOUNDS)
    assert all(resolve(name).name == name for name in names)


# -- other pages --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("run")
def test_the_page_about_recorded_runs_runs_from_top_to_bottom():
    names = {}
    for code in blocks(ROOT / "docs" / "recorded-runs.md", "python"):
        printed(code, names)
    names["tracker"].close()
    assert names["report"].ok


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("name", ["index", "slices", "samples", "comparing", "reports"])
def test_a_page_prints_what_it_says(name, tmp_path, monkeypatch):
    if name in ("index", "samples", "reports"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
        pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra 'plot')")
    monkeypatch.chdir(tmp_path)
    page, names = ROOT / "docs" / f"{name}.md", {}
    texts = [printed(code, names).splitlines() for code in blocks(page, "python")]
    shown = [[line.rstrip() for line in text] for text in texts if text]
    assert shown == [text.splitlines() for text in blocks(page, "text")]
    for command in [line for block in blocks(page, "sh") for line in block.splitlines()]:
        program, *arguments = shlex.split(command)
        if program != "pip":
            result = invoke(*arguments)
            assert result.exit_code == 0, (command, result.output)


def test_the_gallery_draws_what_it_shows(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra 'plot')")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra 'demo')")
    monkeypatch.chdir(tmp_path)
    page, names = ROOT / "docs" / "gallery.md", {}
    for code in blocks(page, "python"):
        printed(code, names)
    shown = re.findall(r"_generated/(\w+\.png)|src=\"\.\./(\w+\.html)", page.read_text(encoding="utf-8"))
    assert {a or b for a, b in shown} == {path.name for path in tmp_path.glob("*.*")}


def test_every_public_name_is_in_the_api_reference():
    text = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/api/*.md"))
    listed = set(re.findall(r"^\.\. auto\w+:: labeltrack\.(\w+)(?:\(\))?$", text, re.MULTILINE))
    assert set(lt.__all__) - {"__version__"} <= listed


@pytest.mark.skipif(
    importlib.util.find_spec("fastestimator") is None and not REQUIRED_FASTESTIMATOR,
    reason="FastEstimator is not installed: `nox -s fastestimator` does that",
)
def test_the_page_about_fastestimator_runs():
    change, *patches = blocks(ROOT / "docs" / "fastestimator.md", "python")
    imports = "from fastestimator.trace.io import ImageSaver, Traceability\n"
    lines = lines_of_the_readme(ROOT / "docs" / "fastestimator.md")
    code = "".join([*patches, imports, change, "print(type(tracker).__module__, len(traces))\n", lines])
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-2:] == ["labeltrack.integrations.fastestimator", "3"], done.stderr


# Trainings that lack the lines of the README, in the place of which `{}` stands, after the program of the page.
TRAININGS = {
    "torch": """
tracker = lt.LabelTracker("y", "ce")
tracker.update([0, 1], [1.0, 2.0], mode="eval")
{}
tracker.end_epoch(1, mode="eval")
tracked = tracker.history
""",
    "huggingface": """
trainer = Trainer(trainer.model, arguments, train_dataset=rows[:8], eval_dataset=rows[-8:])
{}
trainer.train()
tracked = tracker.history
""",
    "lightning": """
def made(callbacks, of=Trainer):
    of(callbacks=callbacks, max_epochs=1, logger=False, enable_checkpointing=False).fit(module, loader)
    tracked.extend(callbacks[0].tracker.history.modes)
module, loader, tracked, Trainer = Module(), DataLoader(rows, batch_size=32), [], made
{}
""",
    "ignite": """
from ignite.engine import Engine
trainer = Engine(lambda _engine, batch: {{"per_sample_loss": batch["x"]}})
{}
trainer.run([{{"x": torch.ones(3), "y": torch.arange(3)}}])
tracked = trainer.state.metrics
""",
    "keras": """
from functools import partial
from types import SimpleNamespace
whole = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)])
model = SimpleNamespace(compile=partial(whole.compile, loss=loss), fit=partial(whole.fit, x, y, verbose=0))
{}
tracked = metric.tracker.history
""",
}


def lines_of_the_readme(page):
    """Return the code that the README's table of frameworks has for a page."""
    (table,) = [table for table in tables(README) if table[0][0].strip() == "framework"]
    (cell,) = [code for link, code in table[2:] if f"/{page.name})" in link]
    return "\n".join(re.findall(r"`([^`]+)`", cell))


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "frameworks").glob("*.md")), ids=lambda page: page.stem)
def test_the_code_about_a_framework_runs(page, tmp_path, monkeypatch):
    framework = FRAMEWORKS[page.stem]
    # FastEstimator pins old versions of some.
    old = page.stem in ("huggingface", "keras") and importlib.util.find_spec("fastestimator") is not None
    if (old or importlib.util.find_spec(framework) is None) and not REQUIRED_INTEGRATIONS:
        pytest.skip(f"{framework} is not installed: `nox -s frameworks` does that")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    names = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of frameworks
        warnings.simplefilter("error", lt.LabelTrackWarning)
        for code in blocks(page, "python"):
            printed(code, names)
        if page.stem == "loggers":
            assert (tmp_path / "epochs.jsonl").stat().st_size > 100
            return
        holder = next((names[name] for name in ("callback", "handler", "metric") if name in names), None)
        tracker = names["tracker"] if holder is None else holder.tracker
        assert set(tracker.history.modes) == {"train", "eval"}
        printed(TRAININGS[page.stem].format(lines_of_the_readme(page)), names)
        assert names["tracked"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if not path.startswith("https:"):
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_every_file_that_the_page_on_architecture_names_is_there():
    page = ROOT / "docs" / "dev" / "architecture.md"
    (listed,) = [table for table in tables(page) if "question" in table[0][0]]
    files = [name for _, cell in listed[2:] for name in re.findall(r"`([\w/]+\.py)`", cell)]
    assert len(files) > 40
    assert not [name for name in files if not (ROOT / "labeltrack" / name).exists()]
