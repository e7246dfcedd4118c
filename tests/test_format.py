"""The format on disk: a run of version 1 that is kept with the tests still opens, and another program can read it.

`python tests/test_format.py FOLDER` made the run; the samples are those of `SAMPLES`.
"""

from __future__ import annotations

import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import labeltrack as lt
from labeltrack.recording.part import examine
from labeltrack.recording.storage import FileContent

FIXTURE = Path(__file__).parent / "data" / "run-v1"

SAMPLES = {
    # by mode, dataset and step: labels and values
    ("train", "", 1): (np.array([0, 1, 1, 2, 300], np.int32), np.array([0.5, 1.5, -2.25, 3.0, 7.0], np.float32)),
    ("train", "", 2): (np.array([2**40, 1, 1]), np.array([1e-3, 2.0, 0.1])),
    ("eval", "site a/b", 1): (["cat", "dög", "cat"], np.array([1.0, 2.0, 4.0], np.float32)),
    ("eval", "", 1): (["eel", "cat"], np.array([8.0, 16.0], np.float32)),
    ("eval", "", 2): (["new", "cat"], np.array([0.25, 0.75], np.float32)),
    ("bytes", "", 7): (np.array([b"\xff", b"a"]), np.array([1.0, 2.0])),
    ("bool", "", 7): (np.array([True, False, True]), np.array([1.0, 2.0, 3.0], np.float32)),
    ("float", "", 7): (np.array([0.5, -0.0, 0.0]), np.array([1.0, 2.0, 4.0], np.float32)),
    ("unsigned", "", 7): (np.array([2**63 + 1, 5], np.uint64), np.array([1.0, np.inf], np.float32)),
}


def write(folder):
    """Record the run: a session that ends in the middle of an epoch, and one that goes on."""
    recording = lt.RecordingOptions(folder, flush_rows=1024)
    order = list(SAMPLES)
    tracker = lt.LabelTracker("y", "ce", bounds=["std", None], nan_policy="omit", record_to=recording)
    for key in order[:4]:
        mode, ds_id, _ = key
        tracker.update(*SAMPLES[key], mode=mode, ds_id=ds_id)
        if key[:2] != ("eval", "site a/b"):
            tracker.end_epoch(key[2], mode=mode)
    tracker.update([9, 9], [1.0, 1.0])
    tracker.close()
    tracker = lt.LabelTracker("y", "ce", bounds=["std", None], nan_policy="omit", record_to=recording)
    for key in order[:2][1:] + order[4:]:
        mode, ds_id, step = key
        tracker.update(*SAMPLES[key], mode=mode, ds_id=ds_id)
        tracker.end_epoch(step, mode=mode)
    tracker.close()


if __name__ == "__main__":
    write(sys.argv[1])
    for lock in Path(sys.argv[1]).glob(".*lock"):
        lock.unlink()
    sys.exit()

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'record')")
xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")


def expected(labels, values):
    """Return count, exact sum, min and max by label."""
    found = {}
    for label, value in zip(labels if isinstance(labels, list) else labels.tolist(), values.tolist(), strict=True):
        found.setdefault(label + 0.0 if isinstance(label, float) else label, []).append(value)
    return {
        label: (
            len(some),
            float(sum(map(Fraction, some))) if np.isfinite(some).all() else sum(some),
            min(some),
            max(some),
        )
        for label, some in found.items()
    }


def test_the_run_that_is_kept_still_opens():
    run = lt.open_run(FIXTURE)
    assert (run.metric, run.label, run.bounds, run.nan_policy, run.label_mapping) == (
        *("ce", "y", ("std", None), "omit", None),
    )
    assert [(epoch.mode, epoch.step) for epoch in run.epochs if not epoch.complete] == [("train", 3)]
    with pytest.warns(lt.LabelTrackWarning, match="did not end.*'train 3'"):
        history = run.recompute(progress=False)
    assert {key for key, _ in history.items()} == set(SAMPLES)
    for (mode, ds_id, step), (labels, values) in SAMPLES.items():
        stats = history.at(step, mode, ds_id)
        rows = {row.label: (row.count, row.sum, row.min, row.max) for row in stats}
        assert rows == expected(labels, values)
        table = run.samples([mode], step, [ds_id])
        assert table["value"].to_pylist() == values.tolist()
        assert table["label"].to_pylist() == (labels if isinstance(labels, list) else labels.tolist())
    assert run.samples("train", step=2, all_attempts=True).num_rows == 6
    assert run.info()["sessions"] == 2
    verification = run.verify(progress=False)
    assert verification.other == ("mode 'train', step 3 did not end; 2 of its rows are intact",)
    assert {part.state for part in verification.parts} == {"intact"}
    assert len(verification.parts) == len(SAMPLES) + 2


RESUMED = {
    # by mode: labels of the epoch before the checkpoint was loaded, and of the one after it
    "string": (["cat", "dög"], ["dög", "eel"]),
    "bytes": ([b"\xff", b"a"], [b"a", b"b"]),
    "bool": ([True, False], [False, True]),
}


def test_a_run_whose_labels_became_wider_when_a_checkpoint_was_loaded_is_read(tmp_path):
    shutil.copytree(FIXTURE.with_name("run-v1-resumed"), tmp_path / "run")
    run = lt.open_run(tmp_path / "run")
    history = run.recompute(progress=False)
    for mode, (first, second) in RESUMED.items():
        assert run.samples(mode)["label"].to_pylist() == first + second
        assert {row.label: row.sum for row in history.at(1, mode)} == dict(zip(first, [1, 2], strict=True))
        assert {row.label: row.sum for row in history.at(2, mode)} == dict(zip(second, [4, 8], strict=True))
        run.export(tmp_path / f"{mode}.parquet", mode, progress=False)
        assert pq.read_table(tmp_path / f"{mode}.parquet")["label"].to_pylist() == first + second
    assert run.verify(progress=False).ok


def test_parts_of_a_run_whose_labels_became_wider_are_repaired(tmp_path):
    shutil.copytree(FIXTURE.with_name("run-v1-resumed"), tmp_path / "run")
    for path in (tmp_path / "run").rglob("*.arrow"):  # as a crash leaves it
        path.write_bytes(path.read_bytes()[: examine(FileContent(path)).batches[-1].end])
        path.rename(f"{path}.open")
    run = lt.open_run(tmp_path / "run")
    assert len(run.repair()) == 6
    history = run.recompute(progress=False)
    for mode, (first, second) in RESUMED.items():
        assert {row.label: row.sum for row in history.at(1, mode)} == dict(zip(first, [1, 2], strict=True))
        assert {row.label: row.sum for row in history.at(2, mode)} == dict(zip(second, [4, 8], strict=True))


def test_it_goes_on_with_this_version(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "run")
    with lt.LabelTracker("y", "ce", bounds=["std", None], nan_policy="omit", record_to=tmp_path / "run") as tracker:
        tracker.update([1, 2], [1.0, 2.0])
        tracker.end_epoch(3)
    run = lt.open_run(tmp_path / "run")  # epoch 3, which had not ended, has been done again
    assert run.recompute(progress=False).steps("train") == [1, 2, 3]
    assert run.info()["sessions"] == 3


def read_by_the_book(root):
    """Read a run as docs/format.md says, with pyarrow, xxhash and json alone."""
    description = json.loads((root / "run.json").read_text(encoding="utf-8"))
    said = description.pop("xxh3")
    assert xxhash.xxh3_64_hexdigest(json.dumps(description, sort_keys=True).encode()) == said
    words, ended = {}, []
    for journal in sorted(root.glob("journal-*.log")):
        _, session, rank = journal.stem.split("-")
        for number, raw in enumerate(journal.read_bytes().splitlines()):
            assert xxhash.xxh3_64_hexdigest(raw[17:]) == raw[:16].decode()
            line = json.loads(raw[17:])
            assert line["seq"] == number
            if line["event"] == "words":
                known = words.setdefault((int(session), int(rank), str(line["vocabulary"])), [])
                assert line["first"] == len(known)
                known += [bytes.fromhex(w) if line["kind"] == "bytes" else w for w in line["words"]]
            elif line["event"] == "epoch":
                ended.append((int(session), line))
    newest = {}
    for session, line in ended:
        newest[line["mode"], line["step"]] = max(
            newest.get((line["mode"], line["step"]), (0, 0)), (session, line["attempt"])
        )
    rows = {}
    for session, line in ended:
        if newest[line["mode"], line["step"]] == (session, line["attempt"]):
            for stream in line["streams"]:
                for part in stream["parts"]:
                    (path,) = [
                        found
                        for found in root.glob(f"mode=*/ds_id=*/epoch={line['step']}/{part['name']}")
                        if [unquote(folder) for folder in found.parts[-4:-2]]
                        == [f"mode={line['mode']}", f"ds_id={stream['ds_id']}"]
                    ]
                    columns = read_part_by_the_book(path, part, line["step"], words)
                    rows.setdefault((line["mode"], stream["ds_id"], line["step"]), []).append(columns)
    return rows


def read_part_by_the_book(path, part, step, words):
    content = path.read_bytes()
    assert xxhash.xxh3_64_hexdigest(content) == part["xxh3"]
    stream = pa.ipc.open_stream(content[8:])
    said = {key.decode(): text.decode() for key, text in stream.schema.metadata.items()}
    assert said["hash"] == "xxh3_64"
    labels, values = [], []
    for seq in range(10**6):
        try:
            batch, custom = stream.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        of_batch = {key.decode(): text.decode() for key, text in custom.items()}
        columns = [batch.column(i).to_numpy() for i in (0, 1)]
        assert (of_batch["seq"], of_batch["rows"]) == (str(seq), str(batch.num_rows))
        assert of_batch["xxh3"] == xxhash.xxh3_64_hexdigest(columns[0].tobytes() + columns[1].tobytes(), seed=seq)
        types = [[name, column.dtype.str] for name, column in zip(("label", "value"), columns, strict=True)]
        rest = sorted([key, text] for key, text in of_batch.items() if key not in ("about", "pad"))
        text = json.dumps([[types, sorted(map(list, said.items()))], rest])
        assert of_batch["about"] == xxhash.xxh3_64_hexdigest(text.encode(), seed=seq)
        labels += columns[0].tolist()
        values += columns[1].tolist()
    assert (of_batch["step"], of_batch["rows"], len(labels)) == (str(step), "0", part["rows"])
    if said["kind"] in ("string", "bytes"):
        known = words[int(said["session"]), int(said["rank"]), said["words"]]
        labels = [known[code] for code in labels]
    if said["kind"] == "bool":
        labels = [bool(label) for label in labels]
    return labels, values


def test_another_program_reads_it_by_the_page(tmp_path):
    write(tmp_path / "run")
    for root in (FIXTURE, tmp_path / "run"):
        found = read_by_the_book(root)
        assert set(found) == set(SAMPLES)
        for key, ((labels, values),) in found.items():
            expected_labels, expected_values = SAMPLES[key]
            assert labels == (expected_labels if isinstance(expected_labels, list) else expected_labels.tolist())
            assert values == expected_values.tolist()
