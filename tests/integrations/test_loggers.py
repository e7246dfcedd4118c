"""Sinks for loggers, each with the real logger in its local or offline mode, read back with that logger's reader."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import os
import statistics
import struct
import time
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import labeltrack as lt
from labeltrack.integrations import loggers

REQUIRED = os.environ.get("LABELTRACK_REQUIRE_LOGGERS") == "1"
AWKWARD = ["a/b", "a_b", "a#b", "a[b", "a]b", "a=b", "a.b", "..", "../../up", ".", "c:d", "Case", "case"]
AWKWARD += ["猫/犬", "猫犬", "🦉", "🦉🦉", "macro_mean", "table", "back\\slash", " space", "space ", "", "new\nline"]
AWKWARD += ['q"uote', "x" * 300, "x" * 301]
MANY = [f"label{number:04}" for number in range(1000)]
STEPS = (1, 2)
FEW = ["cat", "dog", "owl"]
LONG = [f"{'a long name of a label ' * 4}{number}" for number in range(3)]
SETS = {"few": FEW, "awkward": AWKWARD, "many": MANY, "a_long_name_of_a_metric" * 4: LONG}
NUMBERS = dict(zip(FEW + AWKWARD + MANY + LONG, np.random.default_rng(0).permutation(2000).tolist(), strict=False))


def needs(package):
    installed = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not installed and not REQUIRED, reason=f"{package} is not installed (extra 'loggers')")


def value(name, step):
    """Return a value that no other label or step has."""
    return NUMBERS[name] + step / 4


def trained(sink):
    """Track sets of labels with a sink; return their trackers."""
    trackers = {}
    for outputs, names in SETS.items():
        tracker = trackers[outputs] = lt.LabelTracker("y", "ce", outputs=outputs, sinks=[sink])
        for step in STEPS:
            tracker.update(names, [value(name, step) for name in names], mode="eval")
            tracker.end_epoch(step, mode="eval")
    return trackers


@contextmanager
def quiet():
    """Ignore the warnings of loggers, but not those of labeltrack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", lt.LabelTrackWarning)
        yield


def check(found, trackers, plain=""):
    """Compare what a reader has found, as ``{name: {step: value}}``, with the histories."""
    few = {f"eval/few/{name}": {step: value(name, step) for step in STEPS} for name in FEW}
    assert {name: course for name, course in found.items() if name.startswith("eval/few/")} == few
    for start, names in (("eval/awkward/", AWKWARD), ("eval/a_long_name_of_a_metric", LONG)):
        courses = [course for name, course in found.items() if name.startswith(start)]
        expected = [{step: value(name, step) for step in STEPS} for name in names]
        assert sorted(courses, key=str) == sorted(expected, key=str)
    for name in plain:
        assert found[f"eval/awkward/{name}"] == {step: value(name, step) for step in STEPS}
    many = {name.removeprefix("eval/many/"): each for name, each in found.items() if name.startswith("eval/many/")}
    for step in STEPS:
        means = [value(name, step) for name in MANY]
        across = {name: many[f"macro_{name}"][step] for name in ("mean", "min", "q25", "median", "q75", "max")}
        quartiles = statistics.quantiles(means, method="inclusive")
        shown = [statistics.mean(means), min(means), *quartiles, max(means)]
        assert list(across.values()) == pytest.approx(shown, rel=1e-6)  # TensorBoard keeps float32
        worst = trackers["many"].history.worst(10, mode="eval", step=step)
        assert {name: many[name][step] for name in worst} == {name: value(name, step) for name in worst}
    assert len(many) == 16


def check_table(rows, names):
    """Compare the rows of a table, of the last step, with the labels."""
    assert [float(row["mean"]) for row in rows] == sorted((value(name, STEPS[-1]) for name in names), reverse=True)
    assert sorted(row["name"] for row in rows) == sorted(names)
    assert {int(row["count"]) for row in rows} == {1}


def png(data):
    return bytes(data).startswith(b"\x89PNG\r\n\x1a\n")


# -- what all sinks share -------------------------------------------------------------------------------------


def test_names_are_cut_only_where_the_key_would_be_too_long():
    class Short(loggers.ScalarsSink):
        longest = 100

    found = set()
    sink = Short(lambda scalars, _step: found.update(scalars))
    breed = "Soft-coated Wheaten Terrier, standing (outdoors)"
    for mode, names in (("validation_out_of_domain", ["cat"]), ("eval", [breed, "x" * 90, "x" * 91])):
        tracker = lt.LabelTracker("y", "ce", outputs="ce_by_class", sinks=[sink])
        tracker.update(names, [1.0] * len(names), mode=mode)
        tracker.end_epoch(1, mode=mode)
    assert {"validation_out_of_domain/ce_by_class/cat", f"eval/ce_by_class/{breed}"} < found
    long = [key for key in found if "xxx" in key]
    assert (len(long), max(map(len, found))) == (2, max(map(len, long)))
    assert 90 < max(map(len, long)) <= 100


class Kept(loggers.LoggerSink):
    """A sink that keeps what it is to write."""

    def __init__(self, **options):
        super().__init__(**options)
        self.reports = []

    def write(self, report):
        self.reports.append(report)


def test_figures_are_drawn_in_the_first_epoch_and_in_every_so_many():
    sink = Kept(figure_every=3)
    tracker = lt.LabelTracker("y", "ce", sinks=[sink])
    for step in range(1, 8):
        tracker.update([0, 1], [1.0, 2.0])
        tracker.end_epoch(step)
    assert [report.step for report in sink.reports if report.figure is not None] == [1, 3, 6]
    assert len(sink.reports) == 7
    assert sink.reports[0].figure.axes


def test_a_figure_that_cannot_be_drawn_does_not_keep_numbers_from_being_written():
    sink = Kept()
    tracker = lt.LabelTracker("y", "ce", bounds="iqr", max_buffer_bytes=64, sinks=[sink])
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for _ in range(50):
            tracker.update([0, 1], [1.0, 2.0])
        tracker.end_epoch(1)
    assert [each for each in given if "Kept at 'train', step 1: ValueError: there is no quantile" in str(each.message)]
    assert sink.reports[0].scalars == {"train/ce_by_y/0": 1.0, "train/ce_by_y/1": 2.0}


def test_labels_that_have_been_among_the_worst_keep_their_curves_up_to_a_limit():
    sink = Kept(max_scalars=6, worst=2, max_rows=4, figure_every=0)
    tracker = lt.LabelTracker("y", "ce", sinks=[sink])
    for step in range(1, 6):
        values = np.arange(100.0)
        values[[2 * step, 2 * step + 1]] = 1000.0
        tracker.update(np.arange(100), values)
        tracker.end_epoch(step)
    names = [[name for name in report.scalars if "macro" not in name] for report in sink.reports]
    assert list(map(len, names)) == [2, 4, 6, 6, 6]
    assert sorted(names[2]) == sorted(f"train/ce_by_y/{label}" for label in range(2, 8))
    assert sink.reports[3].scalars["train/ce_by_y/7"] == 7.0
    assert sink.reports[4].table["label"] == [10, 11, 99, 98]
    assert sink.reports[4].scalars["train/ce_by_y/macro_max"] == 1000.0


def test_accuracies_are_ranked_from_below():
    sink = Kept(max_scalars=2, worst=1, higher_is_worse=False)
    tracker = lt.LabelTracker("y", "hit", sinks=[sink])
    tracker.update([0, 1, 2], [0.5, 0.1, 0.9])
    tracker.end_epoch(1)
    assert [name for name in sink.reports[0].scalars if "macro" not in name] == ["train/hit_by_y/1"]
    assert sink.reports[0].table["label"] == [1, 0, 2]


def test_numbers_that_are_not_finite_and_missing_labels_are_written():
    sink = Kept(max_scalars=3, worst=3)
    tracker = lt.LabelTracker("y", "ce", missing="label", sinks=[sink])
    tracker.update([None, "a", "b", "c", "d"], [1.0, float("nan"), float("inf"), -float("inf"), 2.0])
    tracker.end_epoch(1)
    tracker.update([None, "a"], [5.0, 6.0])
    tracker.end_epoch(2)
    first, second = (report.scalars for report in sink.reports)
    assert math.isnan(first["train/ce_by_y/a"])
    assert math.isnan(first["train/ce_by_y/macro_mean"])
    assert first["train/ce_by_y/macro_max"] == math.inf
    assert second == {"train/ce_by_y/a": 6.0} | {name: second[name] for name in second if "macro" in name}
    tracker = lt.LabelTracker("y", "ce", missing="label", sinks=[Kept()])
    tracker.update([None, 1], [1.0, float("nan")])
    tracker.end_epoch(1)
    assert tracker.sinks[0].reports[0].scalars["train/ce_by_y/(missing)"] == 1.0
    tracker = lt.LabelTracker("z", "ce", sinks=[Kept(max_scalars=0)])
    tracker.update([1], [float("nan")])
    tracker.end_epoch(1)
    assert tracker.sinks[0].reports[0].scalars == {}


def test_several_labels_and_bytes_have_names_that_are_text():
    sink = Kept(figure_every=0)
    tracker = lt.LabelTracker(("class", "site"), "ce", sinks=[sink])
    tracker.update(([0, 1], ["a", "b"]), [1.0, 2.0])
    tracker.end_epoch(1)
    tracker = lt.LabelTracker("y", "ce", sinks=[sink])
    tracker.update(np.array([b"\xff", b"x"]), [1.0, 2.0])
    tracker.end_epoch(1)
    assert sorted(sink.reports[0].scalars.values()) == [1.0, 2.0]
    assert list(sink.reports[0].table)[:3] == ["class", "site", "name"]
    assert sink.reports[1].table["label"] == ["x", "\\xff"]
    assert all(isinstance(cell, (int, float, str)) for report in sink.reports for row in report.rows for cell in row)


def test_options_that_are_negative_are_refused():
    with pytest.raises(ValueError, match="max_scalars must not be negative, got -1"):
        Kept(max_scalars=-1)


def test_any_logger_is_called_with_scalars_and_step():
    found = []
    tracker = lt.LabelTracker("y", "ce", sinks=[loggers.ScalarsSink(lambda *given: found.append(given))])
    tracker.update([0], [1.0])
    tracker.end_epoch(4)
    assert found == [({"train/ce_by_y/0": 1.0}, 4)]


# -- real loggers ---------------------------------------------------------------------------------------------


def test_json_lines(tmp_path):
    path = tmp_path / "new" / "epochs.jsonl"
    trackers = trained(loggers.JsonlSink(path))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {}
    for line in lines:
        for name, number in line["scalars"].items():
            found.setdefault(name, {})[line["step"]] = number
    check(found, trackers, plain=["a/b", "a#b", "a[b", "../../up", "猫/犬", "🦉", "c:d"])
    for line in lines[1::2]:
        rows = [dict(zip(line["table"], row, strict=True)) for row in zip(*line["table"].values(), strict=True)]
        check_table(rows, SETS[line["key"][5:]])
    tracker = lt.LabelTracker("y", "ce", sinks=[loggers.JsonlSink(path)])
    tracker.update([0], [float("inf")])
    tracker.end_epoch(1)
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["scalars"] == {"train/ce_by_y/0": None}


def test_names_of_labels_with_commas_quotes_and_lone_surrogates_head_columns(tmp_path):
    kept, live = Kept(), SimpleNamespace(dir=str(tmp_path), log_metric=lambda *_: None)
    sinks = [kept, loggers.JsonlSink(tmp_path / "epochs.jsonl"), loggers.DVCLiveSink(live, figure_every=0)]
    tracker = lt.LabelTracker(('a,"b"', "\udcff"), "ce", sinks=sinks)
    tracker.update(([1, 2], ["x", "y"]), [0.5, 2.0])
    tracker.end_epoch(1)
    (table,) = (tmp_path / "tables").rglob("*.csv")
    rows = list(csv.reader(io.StringIO(table.read_text(encoding="utf-8"))))
    names = ['a,"b"', "\\udcff", "name", "count", "sum", "mean", "std", "min", "max"]
    assert [row[:2] for row in rows] == [names[:2], ["2", "y"], ["1", "x"]]
    assert rows[0] == names
    assert {len(row) for row in rows} == {len(names)}
    assert list(json.loads((tmp_path / "epochs.jsonl").read_text(encoding="utf-8"))["table"]) == names


def test_a_full_disk_costs_the_epoch_that_does_not_fit_and_nothing_that_was_written(tmp_path):
    resource = pytest.importorskip("resource", reason="this system has no limits of a process")
    lines = tmp_path / "epochs.jsonl"
    live = SimpleNamespace(dir=str(tmp_path), log_metric=lambda *_: None)
    sinks = [loggers.JsonlSink(lines), loggers.DVCLiveSink(live, figure_every=0)]
    tracker = lt.LabelTracker("y", "ce")

    def epoch(step, labels):
        tracker.update(labels, [float(step)] * len(labels))
        tracker.end_epoch(step)

    epoch(0, MANY)  # kernels are compiled, which writes a cache
    tracker.sinks += sinks
    epoch(1, ["first"])
    (table,) = (tmp_path / "tables").rglob("*.csv")
    before = lines.read_bytes(), table.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[0]) + 100, hard))
    try:
        with pytest.warns(lt.LabelTrackWarning, match="File too large") as told:
            epoch(2, MANY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert all(sink in str(told[0].message) for sink in ("JsonlSink", "DVCLiveSink"))
    assert (lines.read_bytes(), table.read_bytes()) == before
    assert list(table.parent.iterdir()) == [table]
    epoch(3, ["third"])
    assert [json.loads(line)["step"] for line in lines.read_text(encoding="utf-8").splitlines()] == [1, 3]
    assert "third" in table.read_text(encoding="utf-8")


@needs("tensorboard")
def test_tensorboard(tmp_path):
    with quiet():
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(tmp_path)
        trackers = trained(loggers.TensorBoardSink(writer))
        writer.close()
        events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
        events.Reload()
    found = {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}
    check(found, trackers, plain=["a.b", "a_b", "Case", "猫犬"])
    (text, _) = (event.tensor_proto.string_val[0].decode() for event in events.Tensors("eval/few/table/text_summary"))
    assert text.splitlines()[0] == "| label | name | count | sum | mean | std | min | max |"
    assert len(text.splitlines()) == 5
    (image,) = events.Images("eval/many/figure")
    assert png(image.encoded_image_string)


@needs("mlflow")
def test_mlflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with quiet():
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
        with mlflow.start_run() as run:
            trackers = trained(loggers.MLflowSink())
        other = mlflow.MlflowClient().create_run("0").info.run_id
        tracker = lt.LabelTracker("y", "ce", sinks=[loggers.MLflowSink(other)])
        tracker.update([0], [0.5])
        tracker.end_epoch(1)
        client = mlflow.MlflowClient()
        assert client.get_run(other).data.metrics == {"train/ce_by_y/0": 0.5}
        names = client.get_run(run.info.run_id).data.metrics
        found = {name: {e.step: e.value for e in client.get_metric_history(run.info.run_id, name)} for name in names}
        files = Path(client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    check(found, trackers, plain=["a.b", "a_b", "c:d", "猫犬"])
    with Path(files, "eval/awkward/step_000002.csv").open(encoding="utf-8", newline="") as file:
        check_table(list(csv.DictReader(file)), AWKWARD)
    assert png(Path(files, "eval/many/step_000001.png").read_bytes())


def wandb_rows(folder):
    """Yield the rows of the history of an offline run: records of a LevelDB log after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    (path,) = Path(folder, "wandb").glob("offline-run-*/*.wandb")
    data, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            record, part = wandb_internal_pb2.Record.FromString(part), b""
            if record.WhichOneof("record_type") == "history":
                yield {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
            elif record.WhichOneof("record_type") == "exit":
                yield None


@needs("wandb")
def test_wandb(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    with quiet():
        import wandb

        run = wandb.init(project="p", dir=tmp_path, mode="offline", settings=wandb.Settings(x_disable_stats=True))
        run.log({"own": 1}, step=7)
        trackers = trained(loggers.WandbSink(run))
        for epoch in (100, 101):
            run.log({"own": epoch}, step=epoch)
            for mode in ("train", "eval"):
                trackers["few"].update([*FEW], [0.5, 1.5, epoch], mode=mode)
                trackers["few"].end_epoch(epoch, mode=mode)
        run.log({"last": 3})
        run.finish()
        end = time.monotonic() + 30
        while None not in (rows := list(wandb_rows(tmp_path))) and time.monotonic() < end:
            time.sleep(0.1)  # another process writes
    rows.remove(None)
    assert [row["own"] for row in rows if "own" in row] == [1, 100, 101]  # none was dropped
    found, tables, images = {}, {}, []
    for row in rows:
        for key, number in row.items():
            name, _, detail = key.partition(".")
            if isinstance(number, float | int) and not detail and key.count("/") > 1:
                step = row["/".join(key.split("/")[:2]) + "_step"]
                found.setdefault(key, {})[step] = number
            elif key.endswith("/table.path"):
                tables[name] = number
            elif key.endswith("/figure.path"):
                images.append(number)
    assert found.pop("train/few/owl") == {100: 100.0, 101: 101.0}
    for name in ("cat", "dog", "owl"):
        found["eval/few/" + name] = {step: found["eval/few/" + name][step] for step in STEPS}
    check(found, trackers, plain=["a_b", "a#b", "a[b", "a=b", "猫犬", "🦉", "c:d"])
    (files,) = Path(tmp_path, "wandb").glob("offline-run-*/files")
    table = json.loads(Path(files, tables["eval/awkward/table"]).read_text(encoding="utf-8"))
    check_table([dict(zip(table["columns"], row, strict=True)) for row in table["data"]], AWKWARD)
    assert len(images) == 5
    assert png(Path(files, images[0]).read_bytes())


@needs("trackio")
def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    with quiet():
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        run = trackio.init(project="p", embed=False, auto_log_cpu=False, auto_log_gpu=False)
        trackers = trained(loggers.TrackioSink())
        of_run = lt.LabelTracker("y", "ce", sinks=[loggers.TrackioSink(run)])
        of_run.update(["a"], [1.5], mode="other")
        of_run.end_epoch(1, mode="other")
        trackio.finish()
        rows = SQLiteStorage.get_logs("p", run.name)
    found, tables, images = {}, {}, []
    (other,) = [rows.pop(place) for place, row in reversed([*enumerate(rows)]) if "other/ce_by_y/a" in row]
    assert (other["step"], other["other/ce_by_y/a"]) == (1, 1.5)
    for row in rows:
        for name, number in row.items():
            if isinstance(number, float):
                found.setdefault(name, {})[row["step"]] = number
            elif isinstance(number, dict):
                if number["_type"] == "trackio.table":
                    tables[name] = number["_value"]
                else:
                    images.append(number["file_path"])
    check(found, trackers, plain=["a_b", "a#b", "a[b", "a=b", "猫犬", "🦉", "c:d", "a.b"])
    check_table(tables["eval/awkward/table"], AWKWARD)
    assert len(images) == 4
    assert png(Path(tmp_path, "media", images[0]).read_bytes())


@needs("aim")
def test_aim(tmp_path):
    with quiet():
        import aim

        run = aim.Run(repo=tmp_path, system_tracking_interval=None, capture_terminal_logs=False)
        trackers = trained(loggers.AimSink(run))
        name = run.hash
        run.close()
        run = aim.Run(name, repo=tmp_path, system_tracking_interval=None, capture_terminal_logs=False)
        found = {}
        for key, context, _ in run.iter_metrics_info():
            steps, (numbers, *_) = run.get_metric(key, context).data.items_list()
            found[key] = dict(zip(steps, numbers, strict=True))
        _, text = run.get_text_sequence("eval/few/table", context).values.last()
        _, image = run.get_image_sequence("eval/many/figure", context).values.last()
        data = image.to_pil_image()
        run.close()
    check(found, trackers, plain=["a_b", "a#b", "a[b", "a=b", "猫犬", "🦉", "c:d", "a.b"])
    assert len(text.data.splitlines()) == 5
    assert min(data.size) > 100


@needs("comet_ml")
def test_comet(tmp_path):
    with quiet():
        import comet_ml

        names = ("parse_args", "log_code", "log_graph", "log_git_metadata", "log_git_patch", "log_env_details")
        experiment = comet_ml.OfflineExperiment(
            project_name="p",
            workspace="w",
            offline_directory=str(tmp_path),
            auto_output_logging=False,
            display_summary_level=0,
            **dict.fromkeys(names, False),
        )
        trackers = trained(loggers.CometSink(experiment))
        experiment.end()
    (path,) = tmp_path.glob("*.zip")
    found, files, images = {}, {}, {}
    with zipfile.ZipFile(path) as archive:
        for line in archive.read("messages.json").decode().splitlines():
            payload = json.loads(line)["payload"]
            if "metric" in payload and "/" in payload["metric"]["metricName"]:
                metric = payload["metric"]
                found.setdefault(metric["metricName"], {})[metric["step"]] = metric["metricValue"]
            elif "fileName" in (payload.get("additional_params") or {}):
                files[payload["additional_params"]["fileName"]] = archive.read(payload["file_path"])
            elif payload.get("upload_type") == "visualization":
                images[payload["additional_params"]["figName"]] = archive.read(payload["file_path"])
    check(found, trackers, plain=["a_b", "a#b", "a[b", "a=b", "猫犬", "🦉", "c:d", "a.b"])
    check_table(list(csv.DictReader(io.StringIO(files["eval/awkward/step_000002.csv"].decode()))), AWKWARD)
    assert png(images["eval/many/figure"])


@needs("dvclive")
def test_dvclive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with quiet():
        from dvclive import Live
        from dvclive.utils import parse_metrics

        folder = tmp_path / "in" / "live"
        live = Live(dir=str(folder), save_dvc_exp=False, dvcyaml=None, report=None)
        sink = loggers.DVCLiveSink(live)
        trackers = {}
        for step in STEPS:
            live.step = step
            for outputs, names in SETS.items():
                tracker = trackers.setdefault(outputs, lt.LabelTracker("y", "ce", outputs=outputs, sinks=[sink]))
                tracker.update(names, [value(name, step) for name in names], mode="eval")
                tracker.end_epoch(step, mode="eval")
            live.next_step()
        live.end()
        history, _ = parse_metrics(live)
    metrics = folder / "plots" / "metrics"
    found = {}
    for path, rows in history.items():
        name = Path(path).relative_to(metrics).with_suffix("").as_posix() if path.endswith(".tsv") else path
        found[name] = {int(row["step"]): float(next(reversed(row.values()))) for row in rows}
    check(found, trackers, plain=["a_b", "a#b", "a[b", "a=b", "猫犬", "🦉"])
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(folder in path.parents for path in everything)
    with Path(folder, "tables/eval/awkward.csv").open(encoding="utf-8", newline="") as file:
        check_table(list(csv.DictReader(file)), AWKWARD)
    assert png(Path(folder, "plots/images/eval/many.png").read_bytes())
