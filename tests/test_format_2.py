"""Version 2 of the format on disk: a run that is kept with the tests still opens, and other programs can read it.

`python tests/test_format_2.py FOLDER` made the run; the samples are those of `SAMPLES`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import labeltrack as lt

FIXTURE = Path(__file__).parent / "data" / "run-v2"
NAMES, METRICS = ("class", "site"), ["ce", "correct"]

F4, F8 = np.float32, np.float64
SAMPLES = {
    # by mode, dataset and step: classes, sites, losses, whether they are correct, and ids
    ("train", "", 1): (
        [0, 1, 1, 2**40],
        ["a", "b", "a", "b"],
        np.array([0.5, 1.5, -2, 3], F4),
        [1, 0, 1, 0],
        [70, 71, 72, 73],
    ),
    ("train", "", 2): ([3, 1], ["c", "b"], np.array([0.1, 2.0], F8), [1, 1], [73, -(2**63)]),
    ("eval", "site a/b", 1): (
        ["cat", "dög", "cat"],
        [b"\xff", b"a", b"\xff"],
        np.array([1, 2, 4], F4),
        [0, 0, 1],
        ["x", "ü", ""],
    ),
    ("eval", "", 1): (["eel", "cat"], [b"a", b"a"], np.array([8, 16], F4), [1, 0], ["x", "y"]),
    ("eval", "", 2): (["new", "cat"], [b"a", b"new"], np.array([0.25, 0.75], F4), [1, 1], ["y", "z"]),
    ("others", "", 7): ([True, False, True], [0.5, -0.0, 0.0], np.array([1, 2, np.inf], F4), [1, 0, 1], None),
    ("unsigned", "", 7): (np.array([2**63 + 1, 5], np.uint64), [1, 2], np.array([1, 2], F8), [1, 0], [1, 2]),
}


def update(collection, key):
    classes, sites, losses, hits, ids = SAMPLES[key]
    collection.update((classes, sites), {"ce": losses, "correct": hits}, mode=key[0], ds_id=key[1], ids=ids)


def write(folder):
    """Record the run: a session that ends in the middle of an epoch, and one that goes on."""
    options = {"record_to": lt.RecordingOptions(folder, flush_rows=1024), "bounds": ["std", None], "nan_policy": "omit"}
    options["label_mapping"] = {"class": None, "site": None}
    order = list(SAMPLES)
    with lt.TrackerCollection(NAMES, METRICS, **options) as collection:
        for key in order[:4]:
            update(collection, key)
            if key[:2] != ("eval", "site a/b"):
                collection.end_epoch(key[2], mode=key[0])
        collection.update(([9, 9], ["a", "b"]), {"ce": [1.0, 1.0], "correct": [1.0, 1.0]})
    with lt.TrackerCollection(NAMES, METRICS, **options) as collection:
        for key in [order[1], *order[4:]]:
            update(collection, key)
            collection.end_epoch(key[2], mode=key[0])


if __name__ == "__main__":
    write(sys.argv[1])
    for lock in Path(sys.argv[1]).glob(".*lock"):
        lock.unlink()
    sys.exit()

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
xxhash = pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")


def plain(key):
    """Return the rows of an epoch as tuples of Python values."""
    *columns, ids = SAMPLES[key]
    classes, sites, losses, hits = (column if isinstance(column, list) else column.tolist() for column in columns)
    sites = [site + 0.0 if isinstance(site, float) else site for site in sites]
    return list(zip(classes, sites, losses, map(float, hits), ids or [None] * len(hits), strict=True))


@pytest.mark.filterwarnings("ignore:.*did not end.*'train 3':labeltrack.LabelTrackWarning")
def test_the_run_that_is_kept_still_opens():
    run = lt.open_run(FIXTURE)
    assert (run.metrics, run.label, run.bounds, run.nan_policy, run.label_mapping) == (
        *(("ce", "correct"), NAMES, ("std", None), "omit", None),
    )
    assert [(epoch.mode, epoch.step) for epoch in run.epochs if not epoch.complete] == [("train", 3)]
    for place, metric in enumerate(METRICS, 2):
        history = run.recompute(metric=metric, progress=False)
        assert {key for key, _ in history.items()} == set(SAMPLES)
        for key in SAMPLES:
            mode, ds_id, step = key
            groups = {}
            for row in plain(key):
                groups.setdefault(row[:2], []).append(row[place])
            stats = history.at(step, mode, ds_id)
            assert {row.label: (row.count, row.sum, row.min, row.max) for row in stats} == {
                label: (len(values), sum(values), min(values), max(values)) for label, values in groups.items()
            }
    for key in SAMPLES:
        mode, ds_id, step = key
        table = run.samples([mode], step, [ds_id], columns=[*NAMES, *METRICS, "id"])
        assert list(map(repr, zip(*table.to_pydict().values(), strict=True))) == list(map(repr, plain(key)))
    assert run.samples("train", step=2, all_attempts=True).num_rows == 4
    assert (run.info()["sessions"], run.info()["ids"]) == (2, True)
    verification = run.verify(progress=False)
    assert verification.other == ("mode 'train', step 3 did not end; 2 of its rows are intact",)
    assert {part.state for part in verification.parts} == {"intact"}


def test_it_goes_on_with_this_version(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "run")
    options = {"bounds": ["std", None], "nan_policy": "omit", "record_to": tmp_path / "run"}
    with lt.TrackerCollection(NAMES, METRICS, **options) as collection:
        collection.update(([1, 2], ["a", "b"]), {"ce": [1.0, 2.0], "correct": [1, 0]}, ids=[5, 6])
        collection.end_epoch(3)
    run = lt.open_run(tmp_path / "run")  # epoch 3, which had not ended, has been done again
    assert run.recompute(metric="ce", progress=False).steps("train") == [1, 2, 3]
    assert run.info()["sessions"] == 3


def read_by_the_book(root):
    """Read a run as docs/format.md says, with pyarrow, xxhash and json alone."""
    description = json.loads((root / "run.json").read_text(encoding="utf-8"))
    said = description.pop("xxh3")
    assert xxhash.xxh3_64_hexdigest(json.dumps(description, sort_keys=True).encode()) == said
    assert (description["version"], description["ids"], description["duplicates"]) == (2, True, "first")
    assert (tuple(description["label"]), description["metric"]) == (NAMES, METRICS)
    words, ended, copies = {}, [], []
    for journal in sorted(root.glob("journal-*.log")):
        _, session, rank = journal.stem.split("-")
        for number, raw in enumerate(journal.read_bytes().splitlines()):
            assert xxhash.xxh3_64_hexdigest(raw[17:]) == raw[:16].decode()
            line = json.loads(raw[17:])
            assert line["seq"] == number
            if line["event"] in ("begin", "run"):
                copies.append(line["run"]["ids"])
            elif line["event"] == "words":
                known = words.setdefault((int(session), int(rank), str(line["vocabulary"])), [])
                assert line["first"] == len(known)
                known += [bytes.fromhex(w) if line["kind"] == "bytes" else w for w in line["words"]]
            elif line["event"] == "epoch":
                ended.append((int(session), line))
    assert copies == [False, True, True]
    newest = {}
    for session, line in ended:
        key = line["mode"], line["step"]
        newest[key] = max(newest.get(key, (0, 0)), (session, line["attempt"]))
    rows = {}
    for session, line in ended:
        if newest[line["mode"], line["step"]] == (session, line["attempt"]):
            for stream in line["streams"]:
                for part in stream["parts"]:
                    folders = [f"mode={line['mode']}", f"ds_id={stream['ds_id']}"]
                    found = root.glob(f"mode=*/ds_id=*/epoch={line['step']}/{part['name']}")
                    (path,) = [one for one in found if [unquote(folder) for folder in one.parts[-4:-2]] == folders]
                    key = line["mode"], stream["ds_id"], line["step"]
                    rows.setdefault(key, []).extend(read_part_by_the_book(path, part, line["step"], words))
    return rows


def read_part_by_the_book(path, part, step, words):
    content = path.read_bytes()
    assert xxhash.xxh3_64_hexdigest(content) == part["xxh3"]
    stream = pa.ipc.open_stream(content[8:])
    said = {key.decode(): text.decode() for key, text in stream.schema.metadata.items()}
    assert (said["hash"], said["labels"], said["metrics"]) == ("xxh3_64", "2", "2")
    names = [*NAMES, *METRICS, *(["id"] if "ids" in said else [])]
    assert stream.schema.names == names
    found = [[] for _ in names]
    for seq in range(10**6):
        try:
            batch, custom = stream.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        of_batch = {key.decode(): text.decode() for key, text in custom.items()}
        columns = [column.to_numpy() for column in batch.columns]
        assert (of_batch["seq"], of_batch["rows"]) == (str(seq), str(batch.num_rows))
        whole = b"".join(column.tobytes() for column in columns)
        assert of_batch["xxh3"] == xxhash.xxh3_64_hexdigest(whole, seed=seq)
        types = [[name, column.dtype.str] for name, column in zip(names, columns, strict=True)]
        rest = sorted([key, text] for key, text in of_batch.items() if key not in ("about", "pad"))
        text = json.dumps([[types, sorted(map(list, said.items()))], rest])
        assert of_batch["about"] == xxhash.xxh3_64_hexdigest(text.encode(), seed=seq)
        for column, more in zip(found, columns, strict=True):
            column.extend(more.tolist())
    assert (of_batch["step"], of_batch["rows"], len(found[0])) == (str(step), "0", part["rows"])
    coded = [*zip(found, said["kind"].split(","), said["words"].split(","), strict=False)]
    coded += [(found[-1], said["ids"], said["id_words"])] if "ids" in said else []
    for column, kind, number in coded:
        if kind in ("string", "bytes"):
            known = words[int(said["session"]), int(said["rank"]), number]
            column[:] = [known[code] for code in column]
        elif kind == "bool":
            column[:] = [bool(label) for label in column]
    return list(zip(*found, *([] if "ids" in said else [[None] * len(found[0])]), strict=True))


def test_another_program_reads_it_by_the_page(tmp_path):
    write(tmp_path / "run")
    for root in (FIXTURE, tmp_path / "run"):
        found = read_by_the_book(root)
        assert set(found) == set(SAMPLES)
        for key, rows in found.items():
            assert list(map(repr, rows)) == list(map(repr, plain(key)))


@pytest.mark.filterwarnings("ignore:np.find_common_type:DeprecationWarning")
def test_other_programs_see_a_column_per_label_and_metric(tmp_path):
    polars = pytest.importorskip("polars", reason="polars is not installed (extra 'test')")
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (extra 'test')")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed (extra 'test')")
    key = ("train", "", 1)
    samples = lt.open_run(FIXTURE).samples("train", 1)
    assert polars.from_arrow(samples).rows() == plain(key)
    assert list(samples.to_pandas().itertuples(index=False, name=None)) == plain(key)
    by_site = duckdb.sql(
        "select site, count(*), sum(ce), sum(correct), max(id) from samples group by site order by site"
    )
    assert by_site.fetchall() == [("a", 2, -1.5, 2.0, 72), ("b", 2, 4.5, 0.0, 73)]
    (part,) = FIXTURE.glob("mode=train/ds_id=/epoch=1/*.arrow")  # words are codes there
    raw = [(*row[:1], "ab".index(row[1]), *row[2:]) for row in plain(key)]
    assert polars.read_ipc(part).rows() == raw
    assert list(pandas.read_feather(part).itertuples(index=False, name=None)) == raw
    assert pa.feather.read_table(part, memory_map=False).column_names == [*NAMES, *METRICS, "id"]
    lt.open_run(FIXTURE).export(tmp_path / "samples.parquet", "eval", progress=False)
    again = polars.read_parquet(tmp_path / "samples.parquet").filter(step=1, ds_id="site a/b")
    assert again.select([*NAMES, *METRICS, "id"]).rows() == plain(("eval", "site a/b", 1))
