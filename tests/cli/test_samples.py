"""The commands for samples with ids: what they print and write; a mistake gets one line and exit code 2."""

from __future__ import annotations

import json

import pytest
from test_cli import invoke, refusal
from test_runs import _plain_output, done  # noqa: F401 (a fixture)
from with_ids import Rows, random_rows, record

import labeltrack as lt

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'record')")


@pytest.fixture(scope="module", name="recorded")
def _recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    return folder, record(folder, random_rows(40, 3)[0], label_mapping={"cat": 3, "one": 1})


def test_dynamics_prints_a_table(recorded):
    path, run = recorded
    assert done("dynamics", path) == f"{run.dynamics()!r}\n"


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_dynamics_writes_files(recorded, tmp_path, ending):
    path, run = recorded
    out = tmp_path / f"dynamics.{ending}"
    assert done("dynamics", path, "-o", out, "--step", 0, "--step", 2) == f"40 rows written to {out}\n"
    columns = {name: column.tolist() for name, column in run.dynamics(step=[0, 2]).columns().items()}
    if ending == "parquet":
        assert pq.read_table(out).to_pydict() == columns
    elif ending == "csv":
        assert out.read_text().splitlines()[0] == ",".join(columns)
        assert len(out.read_text().splitlines()) == 41
    else:
        assert {name: [row[name] for row in json.loads(out.read_text())] for name in columns} == columns


@pytest.mark.parametrize("color", ["count", "forgetting"])
def test_dynamics_draws_a_data_map(recorded, tmp_path, color):
    path, _ = recorded
    out = tmp_path / "map.png"
    assert done("dynamics", path, "--plot", out, "--color", color) == f"Written: {out}\n"
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_hardest_prints_the_worst_samples(recorded):
    path, run = recorded
    text = done("hardest", path, "-k", 15)
    assert [line.split()[0] for line in text.splitlines()[2:]] == list(map(str, run.hardest(15).ids.tolist()))
    rows = json.loads(done("hardest", path, "--label", "cat", "--step", 1, "--lower-is-worse", "--json", "-k", 2))
    expected = run.hardest(2, "cat", 1, higher_is_worse=False)
    assert [row["id"] for row in rows] == expected.ids.tolist()
    assert [row["mean"] for row in rows] == expected.mean.tolist()
    rows = json.loads(done("hardest", path, "--label", 3, "--by", "forgetting", "--json"))
    assert [row["id"] for row in rows] == run.hardest(10, 3, by="forgetting").ids.tolist()


def test_mistakes_are_one_line(recorded, tmp_path):
    path, _ = recorded
    assert "must end in .parquet, .csv, .json" in refusal(invoke("dynamics", path, "-o", tmp_path / "a.txt"))
    assert "must end in .png" in refusal(invoke("dynamics", path, "--plot", tmp_path / "a.txt"))
    assert "color: unknown option 'red'" in refusal(
        invoke("dynamics", path, "--plot", tmp_path / "a.png", "--color", "red")
    )
    assert "--scheduler requires --engine dask" in refusal(invoke("dynamics", path, "--scheduler", "tcp://a:1"))
    assert "no label 'cow'" in refusal(invoke("hardest", path, "--label", "cow"))
    assert "--label can be given once" in refusal(invoke("hardest", path, "--label", "1", "--label", "2"))
    assert "no column 'x'" in refusal(invoke("hardest", path, "--by", "x"))
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update([0], [1.0])
        tracker.end_epoch(1)
    assert "has no ids of samples" in refusal(invoke("dynamics", tmp_path / "run"))


def test_one_of_several_labels_is_chosen_by_its_name(tmp_path):
    labels = {"class": ["x", "y", "x"], "site": [1, 2, 2]}
    record(tmp_path, [Rows(labels, ([1.0, 2.0, 4.0],), [1, 2, 3])], metrics=("ce",), label=("class", "site"))
    rows = json.loads(done("hardest", tmp_path, "--label", "class=x", "--label", "site=2", "--json"))
    assert [row["id"] for row in rows] == [3]
    assert "there is no label called that" in refusal(invoke("hardest", tmp_path, "--label", "x"))


def test_ids_that_occur_twice_are_told_or_refused(tmp_path):
    record(tmp_path, [Rows([0, 0], ([1.0, 2.0],), [1, 1])], metrics=("ce",))
    result = invoke("dynamics", tmp_path)
    assert result.exit_code == 0
    assert "labeltrack: warning: 1 sample has an id" in result.stderr
    assert "such as 1 in step 1" in refusal(invoke("hardest", tmp_path, "--on-duplicate", "error"))
