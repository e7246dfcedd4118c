"""The examples run as a user runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import labeltrack as lt

EXAMPLES = Path(__file__).parents[1] / "examples"
REQUIRED = os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1"
REQUIRED_INTEGRATIONS = os.environ.get("LABELTRACK_REQUIRE_INTEGRATIONS") == "1"
REQUIRED_FASTESTIMATOR = os.environ.get("LABELTRACK_REQUIRE_FASTESTIMATOR") == "1"


def run(example: str | Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, str(EXAMPLES / example), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    environment |= {"PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)


def means(output: str) -> dict[str, float]:
    rows = [line.removeprefix(">").split() for line in output.splitlines()]
    return {words[0]: float(words[2]) for words in rows if len(words) > 6 and words[0] in set("0123456789")}


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None and not REQUIRED, reason="torch is not installed (extra 'frameworks')"
)
def test_the_plain_pytorch_loop_prints_a_table_and_saves_a_figure(tmp_path: Path) -> None:
    out = tmp_path / "new" / "directory"
    process = run("plain_pytorch.py", str(out), "3")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    shown = means(process.stdout)
    assert len(shown) == 10
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    assert (out / "loss_std.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert process.stdout.splitlines()[-1] == f"Written: {out / 'loss_std.png'}"


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None and not REQUIRED, reason="torch is not installed (extra 'frameworks')"
)
def test_the_loop_over_padded_tokens_counts_what_a_plain_loop_counts(monkeypatch, capsys) -> None:
    tokens: list[dict[str, list[float]]] = []
    epochs: list[lt.LabelStats] = []

    class Tracker(lt.LabelTracker):
        def update(self, labels, values, *, where, **more):
            super().update(labels, values, where=where, **more)
            for (domain,), losses, counted in zip(labels, values.tolist(), where.tolist(), strict=True):
                for loss, counts in zip(losses, counted, strict=True):
                    if counts:
                        tokens[-1].setdefault(domain, []).append(loss)

        def end_epoch(self, step, **more):
            epochs.append(super().end_epoch(step, **more))
            tokens.append({})
            return epochs[-1]

    tokens.append({})
    monkeypatch.setattr(lt, "LabelTracker", Tracker)
    monkeypatch.setattr(sys, "argv", ["padded_tokens.py", "2"])
    runpy.run_path(str(EXAMPLES / "padded_tokens.py"))
    assert len(epochs) == 2
    for stats, expected in zip(epochs, tokens[:2], strict=True):
        assert stats.labels.tolist() == sorted(expected) == ["code", "prose", "sums"]
        assert stats.count.tolist() == [len(expected[name]) for name in sorted(expected)]
        assert stats.mean.tolist() == [statistics.mean(expected[name]) for name in sorted(expected)]
        assert stats.std.tolist() == [statistics.stdev(expected[name]) for name in sorted(expected)]
        assert stats.min.tolist() == [min(expected[name]) for name in sorted(expected)]
    assert capsys.readouterr().out.splitlines()[-1] in ("Worst: prose", "Worst: code")


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None and not REQUIRED_INTEGRATIONS,
    reason="transformers is not installed: `nox -s frameworks` does that",
)
def test_the_hugging_face_trainer_tells_which_domain_gets_worse() -> None:
    process = run("huggingface_trainer.py")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    courses = {name: course.split(", ") for name, _, course in (line.partition(": ") for line in lines[-4:-1])}
    assert list(courses) == ["code", "math", "web"]
    assert [float(course[-1]) > float(course[0]) for course in courses.values()] == [False, True, False]
    assert lines[-1] == "Worst: math"


@pytest.mark.skipif(
    importlib.util.find_spec("fastestimator") is None and not REQUIRED_FASTESTIMATOR,
    reason="FastEstimator is not installed: `nox -s fastestimator` does that",
)
def test_the_fastestimator_training_prints_a_table_and_saves_graph_and_report(tmp_path: Path) -> None:
    out = tmp_path / "new" / "directory"
    process = run("fastestimator_digits.py", str(out), "2")
    assert process.returncode == 0, process.stderr
    shown = means(process.stdout)
    assert len(shown) == 10
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    assert process.stdout.splitlines()[-1].startswith("Worst of the last writers: [")
    for name in ("ce_by_y.png", "ce_by_y_train_epoch_2.png", "one_and_seven_train_epoch_2.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    if "No report" in process.stdout and not REQUIRED_FASTESTIMATOR:
        pytest.skip("all but the report, which needs Graphviz and LaTeX")
    assert (out / "digits.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("framework", "environment"), [("lightning", {}), ("ignite", {}), ("keras", {"KERAS_BACKEND": "torch"})]
)
def test_the_loop_of_a_framework_finds_the_domain_with_wrong_labels(framework, environment, monkeypatch) -> None:
    if importlib.util.find_spec(framework) is None and not REQUIRED_INTEGRATIONS:
        pytest.skip(f"{framework} is not installed (extra {framework!r})")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    process = run(f"{framework}_slices.py", "3")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    rows = [line.split() for line in lines[-4:-1]]
    counts = {row[-7]: int(row[-6]) for row in rows}  # the last columns are count, sum, mean, std, min and max
    assert counts == {"chat": 40, "code": 40, "news": 40}
    assert lines[-1] == "Worst: chat"


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("example", "module"), [("torchrun", "torch"), ("accelerate", "accelerate")])
def test_loops_on_one_or_two_processes_have_the_statistics_of_a_plain_loop(example, module, world, tmp_path) -> None:
    if importlib.util.find_spec(module) is None and not (REQUIRED_INTEGRATIONS or (module == "torch" and REQUIRED)):
        pytest.skip(f"{module} is not installed: `nox -s frameworks` does that")
    launcher = () if world == 1 else ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = run(Path(__file__), f"{example}_slices.py", str(tmp_path), launcher=launcher)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert [line for line in lines if line.startswith("Worst")] == lines[-1:] == ["Worst: chat"]
    found = [json.loads((tmp_path / f"rank{rank}.json").read_text(encoding="utf-8")) for rank in range(world)]
    assert all(of["history"] == found[0]["history"] for of in found)
    labels = [set(of["labels"]) for of in found]
    assert set.union(*labels) == {0, 1, 2, 3}
    assert sum(map(len, labels)) == 4  # no rank has one of another
    train, evaluation = found[0]["counts"], found[0]["losses"]
    assert [(mode, step) for mode, step, _ in found[0]["history"]] == [
        (mode, step) for step in (1, 2) for mode in ("train", "eval")
    ]
    for mode, step, rows in found[0]["history"]:
        counts = train if mode == "train" else [len(losses) for losses in evaluation]
        assert [tuple(row[:2]) for row in rows] == [*enumerate(counts)]
        if (mode, step) == ("eval", 2):
            for (_, _, mean, std, low, high), losses in zip(rows, evaluation, strict=True):
                wanted = statistics.mean(losses), statistics.stdev(losses), min(losses), max(losses)
                # The last bits depend on the size of a batch.
                assert [*map(float.fromhex, (mean, std, low, high))] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def loop(example: str, folder: str) -> None:
    """Run an example on this rank, and write what its tracker has, and what is in its data and model."""
    import torch

    labels: set[int] = set()

    class Tracker(lt.LabelTracker):
        def update(self, of, values, *, mode="train", **more):
            super().update(of, values, mode=mode, **more)
            labels.update(of.tolist() if mode == "eval" else ())

    lt.LabelTracker = Tracker
    sys.argv = [example, "2"]
    done = runpy.run_path(str(EXAMPLES / example))
    train, (x, y, domain) = (part.tensors for part in done["parts"])
    with torch.no_grad():
        model = getattr(done["model"], "module", done["model"])
        losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
    history = [
        [mode, step, [[row.label, row.count, *(float(number).hex() for number in row[4:])] for row in stats]]
        for (mode, _, step), stats in done["tracker"].history.items()
    ]
    answer = {
        "history": sorted(history, key=lambda item: (item[1], item[0] == "eval")),
        "labels": sorted(labels),
        "counts": torch.bincount(train[2]).tolist(),
        "losses": [losses[domain == k].tolist() for k in range(4)],
    }
    Path(folder, f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    loop(*sys.argv[1:])
