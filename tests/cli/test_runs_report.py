"""``labeltrack report``."""

from __future__ import annotations

import pytest
from pages import record, verdict
from test_cli import invoke

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [record(folder / name, labels=5, worse=worse) for name, worse in (("old", None), ("new", 2))]


def test_a_report_is_written(runs, tmp_path):
    path = tmp_path / "report.html"
    result = invoke("report", runs[1], "-o", path, "--against", "first", "--title", "A title")
    assert (result.exit_code, result.stdout) == (0, f"Written: {path}\n")
    assert verdict(path)[0].startswith("1 of 5 labels got worse from step 1 to step 4: 2 (")
    assert "<title>A title</title>" in path.read_text("utf-8")
    invoke("report", runs[1], "-o", path, "--against", "2", "--lower-is-worse", "--q", "1e-300")
    assert verdict(path)[0].startswith("None of 5 labels got worse from step 2 to step 4.")


def test_two_runs_are_shown_side_by_side(runs, tmp_path):
    path = tmp_path / "report.html"
    assert invoke("report", *runs, "-o", path, "--mode", "eval", "--metric", "loss").exit_code == 0
    assert verdict(path)[0].startswith("1 of 5 labels got worse from step 4 of old to step 4 of new: 2 (")


def test_mistakes_are_one_line(runs, tmp_path):
    for arguments, message in (
        ([runs[0], "-o", tmp_path / "x.pdf"], "must end in .html, .htm"),
        ([runs[0], "-o", tmp_path / "x.html", "--against", "9"], "no earlier step 9"),
        ([tmp_path / "nothing", "-o", tmp_path / "x.html"], "no recorded run"),
        ([runs[0], "-o", tmp_path / "x.html", "--mode", "test"], "test"),
    ):
        result = invoke("report", *arguments)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert message in result.stderr
