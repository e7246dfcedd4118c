"""The commands for recorded runs: what they print and write; a mistake gets one line and exit code 2."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cli import invoke, refusal
from test_cli import run as run_process
from with_ids import Rows, random_rows, record

import labeltrack as lt

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'record')")


@pytest.fixture(scope="module", name="recorded")
def _recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    rng = np.random.default_rng(0)
    mapping = {"cat": 0, "dog": 1, "eel": 2}
    recording = lt.RecordingOptions(folder, flush_rows=1024)
    with lt.LabelTracker("y", "ce", mapping, bounds=["std", "range"], record_to=recording) as tracker:
        for step in (1, 2, 3):
            for mode, n in (("train", 4000), ("eval", 500)):
                labels = rng.integers(0, 4, n)
                tracker.update(labels, labels + rng.random(n, dtype=np.float32), mode=mode)
                tracker.end_epoch(step, mode=mode)
    return folder, tracker.history


def done(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_info(recorded):
    path, _ = recorded
    text = done("info", path)
    assert "ce by y" in text
    assert "cat = 0, dog = 1, eel = 2" in text
    assert [line.split() for line in text.splitlines()[-2:]] == [
        ["train", "-", "3", "1", "3", "12,000", "-"],
        ["eval", "-", "3", "1", "3", "1,500", "-"],
    ]
    found = json.loads(done("info", path, "--json"))
    assert found == lt.open_run(path).info()


def test_recompute_shows_the_history(recorded):
    path, history = recorded
    text = done("recompute", path)
    assert "train, step 3, worst mean first" in text
    assert f"{history.at(3, 'eval')['eel'].mean:.3f}" in text
    rows = json.loads(done("recompute", path, "--json"))
    columns = history.columns()
    assert list(rows[0]) == list(columns)
    for name, column in columns.items():
        assert [row[name] for row in rows] == column.tolist()


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_recompute_writes_files(recorded, tmp_path, ending):
    path, history = recorded
    out = tmp_path / f"stats.{ending}"
    assert done("recompute", path, "-o", out, "--bounds", "std", "--bounds", "range") == f"18 rows written to {out}\n"
    columns = history.columns()
    if ending == "parquet":
        found = pq.read_table(out).to_pydict()
    elif ending == "csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        found = {name: [columns[name].dtype.type(row[name]) for row in rows] for name in columns}
        found |= {name: [float(row[name]) for row in rows] for name in rows[0] if name not in columns}
    else:
        rows = json.loads(out.read_text())
        found = {name: [row[name] for row in rows] for name in rows[0]}
    assert list(found) == [*columns, "std_low", "std_high", "range_low", "range_high"]
    for name, column in columns.items():
        assert list(found[name]) == column.tolist()
    assert found["range_high"] == found["max"]
    low = [
        stats.bounds("std")[0]
        for _, stats in sorted(history.items(), key=lambda item: (item[0][0] == "eval", item[0][2]))
    ]
    assert found["std_low"] == np.concatenate(low).tolist()
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


def test_quantiles_are_columns(recorded):
    path, history = recorded
    options = ("--bounds", "quantile:0.1:0.9", "--bounds", "median", "--mode", "train")
    rows = json.loads(done("recompute", path, *options, "--json"))
    assert len(rows) == sum(len(stats) for (mode, _, _), stats in history.items() if mode == "train")
    for row in rows:
        assert row["quantile_0.1_0.9_low"] == row["q0.1"] <= row["q0.5"] <= row["q0.9"] == row["quantile_0.1_0.9_high"]
        assert row["median_low"] == row["q0.5"] == row["median_high"]
        assert row["min"] <= row["q0.1"]


def test_labels_are_ranked_by_their_median(recorded):
    path, history = recorded
    rows = json.loads(done("worst", path, "--by", "median", "-k", "2", "--mode", "train", "--json"))
    step = max(history.steps("train"))
    wanted = lt.open_run(path).recompute(bounds="median", progress=False).at(step, "train")
    best = sorted(wanted.median.tolist(), reverse=True)[:2]
    assert [row["median"] for row in rows] == best
    text = done("worst", path, "--by", "median", "-k", "2", "--mode", "train")
    assert "median" in text.split("\n")[2] + text.split("\n")[1] + text.split("\n")[3]


def test_mapping_groups_and_modes(recorded, tmp_path):
    path, history = recorded
    (tmp_path / "map.json").write_text('{"three": 3, "CAT": 0}')
    rows = json.loads(done("recompute", path, "--label-mapping", tmp_path / "map.json", "--mode", "eval", "--json"))
    assert [row["name"] for row in rows] == ["CAT", "three"] * 3
    assert {row["mode"] for row in rows} == {"eval"}
    (tmp_path / "groups.json").write_text('{"0": "mammal", "1": "mammal", "2": "fish"}')
    rows = json.loads(done("recompute", path, "--group", tmp_path / "groups.json", "--mode", "!eval", "--json"))
    assert [row["name"] for row in rows] == ["fish", "mammal"] * 3
    assert rows[1]["count"] == history.at(1, "train")["cat"].count + history.at(1, "train")["dog"].count


def test_missing_labels_are_shown_and_grouped(tmp_path):
    path = tmp_path / "run"
    with lt.LabelTracker("y", "ce", {"one": 1}, missing="label", record_to=path) as tracker:
        tracker.update([1, None, 2], [1.0, 2.0, 4.0])
        tracker.end_epoch(1)
    rows = json.loads(done("recompute", path, "--json"))
    assert [(row["name"], row["sum"]) for row in rows] == [("(missing)", 2.0), ("one", 1.0)]
    (tmp_path / "groups.json").write_text('{"1": "some", "2": "some"}')
    rows = json.loads(done("recompute", path, "--group", tmp_path / "groups.json", "--missing", "none", "--json"))
    assert [(row["name"], row["sum"]) for row in rows] == [("none", 2.0), ("some", 5.0)]
    assert "(missing)" in done("worst", path)


def test_plot(recorded, tmp_path):
    path, _ = recorded
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for ending, start in starts.items():
        out = tmp_path / f"figure.{ending}"
        text = done("plot", path, "-o", out, "--bounds", "none", "--label", "cat", "--label", "1", "--mode", "train")
        assert text == f"Written: {out}\n"
        assert out.read_bytes().startswith(start)
    done("plot", path, "-o", tmp_path / "worst.svg", "--kind", "lines", "--top", 1, "--highlight", "cat")
    assert (tmp_path / "worst.svg").stat().st_size > 5000
    assert "cat" in (tmp_path / "figure.svg").read_text() or (tmp_path / "figure.svg").stat().st_size > 5000


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_export(recorded, tmp_path, ending):
    path, _ = recorded
    out = tmp_path / f"samples.{ending}"
    assert done("export", path, "-o", out, "--mode", "train", "--step", 2, "--step", 3) == (
        f"8,000 samples written to {out}\n"
    )
    samples = lt.open_run(path).samples("train", step=[2, 3])
    if ending == "parquet":
        found = pq.read_table(out).to_pydict()
        values, labels = found["value"], found["label"]
        assert found["step"] == [2] * 4000 + [3] * 4000
    else:
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
        values = [float(row["value"]) for row in rows]
        labels = [int(row["label"]) for row in rows]
        assert {row["mode"] for row in rows} == {"train"}
    assert values == samples["value"].to_pylist()
    assert labels == samples["label"].to_pylist()


def test_verify_and_repair(recorded, tmp_path):
    shutil.copytree(recorded[0], tmp_path / "run")
    assert done("verify", tmp_path / "run") == "6 files, 13,500 rows intact, 0 lost\n"
    part = next((tmp_path / "run").glob("mode=train/**/epoch=3/*.arrow"))
    content = part.read_bytes()
    part.rename(part.with_name(part.name + ".open"))
    part.with_name(part.name + ".open").write_bytes(content[: len(content) * 3 // 5])
    result = invoke("verify", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stdout.startswith("torn: mode=train")
    result = invoke("verify", tmp_path / "run", "--repair", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1  # rows are lost still
    assert found["repaired"] == [str((part.parent / f"{part.name}.open").relative_to(tmp_path / "run"))]
    assert part.exists()
    assert (found["ok"], found["rows"] + found["lost"]) == (False, 13_500)
    pq_table = lt.open_run(tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match="rows are left out"):
        assert pq_table.samples("train", step=3).num_rows == 4000 - found["lost"]
    result = invoke("recompute", tmp_path / "run", "--json")
    assert result.exit_code == 0
    assert result.stderr.startswith("labeltrack: warning: ")
    assert len(result.stderr.splitlines()) == 1
    json.loads(result.stdout)


def test_worst(recorded):
    path, history = recorded
    text = done("worst", path, "--by", "max", "-k", 2)
    assert "eval, step 3, worst max first" in text
    assert "and 1 more label" in text
    rows = json.loads(done("worst", path, "-k", 2, "--mode", "train", "--step", 2, "--lower-is-worse", "--json"))
    assert [row["name"] for row in rows] == ["cat", "dog"]
    assert rows[0]["mean"] == history.at(2, "train")["cat"].mean


def test_every_command_includes_incomplete_epochs_if_asked_to(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for count in (1, 2):
            tracker.update([3] * count, [1.0] * count)
            if count == 1:
                tracker.end_epoch(1)
    commands = {
        "recompute": ["--json"],
        "worst": ["--json"],
        "plot": ["-o", tmp_path / "a.png"],
        "export": ["-o", tmp_path / "a.csv"],
    }
    for name, options in commands.items():
        assert "(--incomplete)" in invoke(name, tmp_path / "run", *options).stderr
        result = invoke(name, tmp_path / "run", "--incomplete", *options)
        assert (result.exit_code, result.stderr) == (0, "")
        if name in ("recompute", "worst"):
            assert json.loads(result.stdout)[-1]["count"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "{tmp}/nothing"], "no recorded run in .*nothing: it has no run.json"),
        (["info"], "Missing argument 'RUN'; see '.* info --help'"),
        (["recompute", "{run}", "-o", "{tmp}/x.txt"], r"must end in \.parquet, \.csv, \.json"),
        (["recompute", "{run}", "-o", "{tmp}/no/x.csv"], "cannot write .*x.csv: No such file or directory"),
        (["recompute", "{run}", "--bounds", "all"], "--bounds: expected std, range, sem, .* got 'all'"),
        (["recompute", "{run}", "--bounds", "quantile:0.9:0.1"], "the lower one first; got 'quantile:0.9:0.1'"),
        (
            ["recompute", "{run}", "--bounds", "iqr", "--engine", "dask"],
            "quantiles cannot be merged; use",
        ),
        (["recompute", "{run}", "--engine", "spark"], "'local', 'dask'"),
        (["recompute", "{run}", "--scheduler", "tcp://x:1"], "--scheduler requires --engine dask"),
        (["recompute", "{run}", "--mode", "trian"], "no recorded mode"),
        (["recompute", "{run}", "--threads", "0"], "threads must be a positive integer"),
        (["recompute", "{run}", "--label-mapping", "{tmp}/none.json"], "cannot read .*No such file"),
        (["recompute", "{run}", "--label-mapping", "{bad}"], "is not JSON"),
        (["recompute", "{run}", "--group", "{list}"], "must be a JSON object, .* and is a list"),
        (["plot", "{run}", "-o", "{tmp}/x.gif"], r"must end in \.png, \.svg, \.pdf"),
        (["plot", "{run}"], "Missing option '-o'"),
        (["plot", "{run}", "-o", "{tmp}/x.png", "--kind", "pie"], "kind: unknown option 'pie'"),
        (["plot", "{run}", "-o", "{tmp}/x.png", "--top", "0"], "top: must be at least 1, got 0"),
        (["plot", "{run}", "-o", "{tmp}/x.png", "--highlight", "cow"], "no label in modes .*: 'cow'"),
        (["plot", "{run}", "-o", "{tmp}/x.png", "--label", "cow"], "no label in modes .*: 'cow'. There are"),
        (["export", "{run}", "-o", "{tmp}/x.json"], r"must end in \.parquet, \.csv"),
        (["export", "{run}", "-o", "{tmp}/x.csv", "--step", "9"], "no recorded step 9"),
        (["worst", "{run}", "--by", "variance"], "unknown statistic 'variance'"),
        (["worst", "{run}", "-k", "0"], "k must be at least 1"),
        (["worst", "{run}", "--step", "9"], "no step in mode 'eval': 9"),
        (["verify", "nonsense://x"], "Protocol not known"),
        (["recompute", "{run}", "--missing", "x"], "--missing requires --group"),
        (["recompute", "{run}", "--rest", "x"], "--rest requires --group"),
        (["worst", "{run}", "--mode", "trian"], "no recorded mode 'trian'. Did you mean 'train'"),
        (["recompute", "{run}", "--group", "{ok}", "--missing", "x"], "with missing='error' the run has no samples"),
    ],
)
def test_a_mistake_gets_one_line(recorded, tmp_path, arguments, message):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "ok.json").write_text('{"1": "a"}')
    places = {
        "ok": tmp_path / "ok.json",
        "run": recorded[0],
        "tmp": tmp_path,
        "bad": tmp_path / "bad.json",
        "list": tmp_path / "list.json",
    }
    line = refusal(invoke(*(argument.format(**places) for argument in arguments)))
    import re

    assert re.search(message, line), line
    assert not list(tmp_path.glob("x.*"))


def test_an_unreachable_scheduler_gets_one_line(recorded):
    pytest.importorskip("distributed", reason="distributed is not installed (extra 'dask')")
    process = run_process("module", "recompute", recorded[0], "--engine", "dask", "--scheduler", "nonsense")
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("labeltrack: error: ")
    assert "Traceback" not in process.stderr


def test_a_running_cluster_is_used(recorded):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed (extra 'dask')")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        command = ["recompute", recorded[0], "--engine", "dask", "--scheduler", cluster.scheduler_address, "--json"]
        process = run_process("module", *command)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == json.loads(done("recompute", recorded[0], "--json"))


def test_a_bar_is_shown_on_a_terminal_and_nowhere_else(recorded):
    code = (
        "import sys, time; from labeltrack.recording import reader, run; reader.PATIENCE = 0; "
        "from labeltrack.cli import main; sys.argv[0] = 'labeltrack'; main()"
    )
    command = [sys.executable, "-c", code, "recompute", str(recorded[0]), "--json"]
    quiet = subprocess.run(command, capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env=os.environ | {"TERM": "xterm"})
    with process:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 4096):
                shown += piece
        except OSError:  # that is how a terminal ends
            pass
        os.close(leader)
        json.loads(process.stdout.read())
    assert b"Recomputing" in shown
    assert b"of 13,500 samples" in shown
    assert Path(recorded[0]).exists()


def test_labels_without_samples_are_shown_if_asked_for(recorded, tmp_path):
    path, _ = recorded
    mapping = tmp_path / "mapping.json"
    mapping.write_text('{"cat": 0, "yak": 77}')
    options = (path, "--label-mapping", mapping)
    assert "yak" not in done("recompute", *options)
    assert "without samples: yak" in done("recompute", *options, "--absent")
    rows = json.loads(done("recompute", *options, "--absent", "--json"))
    assert [(row["name"], row["count"] > 0, row["mean"] is None) for row in rows[:2]] == [
        ("cat", True, False),
        ("yak", False, True),
    ]
    assert [row["name"] for row in json.loads(done("worst", *options, "--absent", "--json"))] == ["cat", "yak"]
    done("plot", *options, "--absent", "-o", tmp_path / "x.svg")
    done("plot", *options, "-o", tmp_path / "y.svg")
    assert (tmp_path / "x.svg").read_bytes() != (tmp_path / "y.svg").read_bytes()


def test_json_of_info_has_labels_of_bytes_as_the_description_has_them(tmp_path):
    with lt.LabelTracker("y", "ce", {"cat": b"c\xff"}, record_to=tmp_path / "run") as tracker:
        tracker.update(np.array([b"c\xff"]), [1.0])
        tracker.end_epoch(1)
    found = json.loads(done("info", tmp_path / "run", "--json"))
    assert found["label_mapping"] == {"cat": {"bytes": "63ff"}}
    assert "cat = b'c\\xff'" in done("info", tmp_path / "run")


def test_a_mode_that_is_left_out_is_eval_or_the_only_one(recorded, tmp_path):
    for modes in (["a"], ["a", "b"]):
        with lt.LabelTracker("y", "ce", record_to=tmp_path / "".join(modes)) as tracker:
            for mode in modes:
                tracker.update([1, 2], [1.0, 2.0], mode=mode)
                tracker.end_epoch(1, mode=mode)
    assert "eval, step 3" in done("worst", recorded[0])
    assert "a, step 1" in done("worst", tmp_path / "a")
    assert "'a', 'b'" in refusal(invoke("worst", tmp_path / "ab"))
    assert "b, step 1" in done("worst", tmp_path / "ab", "--mode", "b")


def test_nan_samples_are_treated_as_asked(tmp_path):
    path = tmp_path / "run"
    with lt.LabelTracker("y", "ce", record_to=path) as tracker:
        tracker.update([1, 1], [1.0, np.nan])
        tracker.end_epoch(1)
    for command in ("recompute", "worst"):
        assert [row["mean"] for row in json.loads(done(command, path, "--json"))] == [None]
        assert [row["mean"] for row in json.loads(done(command, path, "--json", "--nan-policy", "omit"))] == [1.0]
    for command in ("recompute", "worst", "plot"):
        extra = ["-o", tmp_path / "x.png"] if command == "plot" else []
        assert "step 1: 1 NaN samples" in refusal(invoke(command, path, "--nan-policy", "raise", *extra))
        assert "nan_policy: unknown option 'x'" in refusal(invoke(command, path, "--nan-policy", "x", *extra))


def test_without_a_band_is_another_figure_than_with_those_of_the_run(recorded, tmp_path):
    path, _ = recorded
    for name, options in {
        "run": (),
        "same": ("--bounds", "std", "--bounds", "range"),
        "none": ("--bounds", "none"),
    }.items():
        done("plot", path, "-o", tmp_path / f"{name}.png", *options)
    figures = {name: (tmp_path / f"{name}.png").read_bytes() for name in ("run", "same", "none")}
    assert figures["run"] == figures["same"] != figures["none"]


def test_damage_repairs_and_runs_without_epochs_are_shown(recorded, tmp_path, monkeypatch):
    shutil.copytree(recorded[0], tmp_path / "run")
    journal = tmp_path / "run" / "journal-0001-0000.log"
    journal.write_bytes(journal.read_bytes().replace(b'"event": "epoch"', b'"event": "epoxy"', 1))
    assert "damaged   journal-0001-0000.log: the checksum of a line" in done("info", tmp_path / "run")
    journal.unlink()
    assert "repaired: journal-0001-0000.log\n" in invoke("verify", tmp_path / "run", "--repair").stdout
    lt.LabelTracker("y", "ce", record_to=tmp_path / "empty").close()
    if not (tmp_path / "empty" / "run.json").exists():
        with lt.LabelTracker("y", "ce", record_to=tmp_path / "empty") as tracker:
            tracker.update([1], [1.0])
    assert done("recompute", tmp_path / "empty") == "No epoch to show.\n"
    assert "samples   0, 0.0 MB" in done("info", tmp_path / "empty").splitlines()
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ("recompute", recorded[0], "--engine", "dask", "--scheduler", "tcp://x:1")
    assert 'cannot import distributed, required for --scheduler: pip install "labeltrack[dask]"' in refusal(
        invoke(*command)
    )


# -- runs whose samples have ids ------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="sampled")
def _sampled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    return folder, record(folder, random_rows(40, 3)[0], label_mapping={"cat": 3, "one": 1})


def test_dynamics_prints_a_table(sampled):
    path, run = sampled
    assert done("dynamics", path) == f"{run.dynamics()!r}\n"


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_dynamics_writes_files(sampled, tmp_path, ending):
    path, run = sampled
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
def test_dynamics_draws_a_data_map(sampled, tmp_path, color):
    path, _ = sampled
    out = tmp_path / "map.png"
    assert done("dynamics", path, "--plot", out, "--color", color) == f"Written: {out}\n"
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_hardest_prints_the_worst_samples(sampled):
    path, run = sampled
    text = done("hardest", path, "-k", 15)
    assert [line.split()[0] for line in text.splitlines()[2:]] == list(map(str, run.hardest(15).ids.tolist()))
    rows = json.loads(done("hardest", path, "--label", "cat", "--step", 1, "--lower-is-worse", "--json", "-k", 2))
    expected = run.hardest(2, "cat", 1, higher_is_worse=False)
    assert [row["id"] for row in rows] == expected.ids.tolist()
    assert [row["mean"] for row in rows] == expected.mean.tolist()
    rows = json.loads(done("hardest", path, "--label", 3, "--by", "forgetting", "--json"))
    assert [row["id"] for row in rows] == run.hardest(10, 3, by="forgetting").ids.tolist()


def test_mistakes_about_single_samples_are_one_line(sampled, tmp_path):
    path, _ = sampled
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
