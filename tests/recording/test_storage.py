"""Files of runs: links are not followed; files that are cut and descriptors that run out raise an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import labeltrack as lt
from labeltrack.errors import TruncatedRunError
from labeltrack.recording import writer as writer_module
from labeltrack.recording.storage import HEAD, FileContent, LocalFolder, RemoteFolder, storage_of


def test_a_folder_gives_its_files_and_follows_nothing(tmp_path):
    (tmp_path / "mode=a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "mode=a" / "b" / "c" / "file").write_bytes(b"123")
    (tmp_path / "top").write_bytes(b"")
    (tmp_path / "other").mkdir()  # folders that are no modes are somebody else's
    (tmp_path / "other" / "file").touch()
    (tmp_path / "mode=a" / "b" / "c" / "deep").mkdir()
    (tmp_path / "mode=a" / "link").symlink_to(tmp_path / "other")
    os.mkfifo(tmp_path / "mode=a" / "pipe")
    storage = storage_of(tmp_path)
    assert isinstance(storage, LocalFolder)
    names, strange = storage.names()
    assert names == ["mode=a/b/c/file", "top"]
    assert strange == [
        "mode=a/b/c/deep is a folder where none belongs",
        "mode=a/link is a link; it is not followed",
        "mode=a/pipe is neither file nor folder; it is not followed",
    ]
    assert storage.size("mode=a/b/c/file") == 3
    assert bytes(storage.content("mode=a/b/c/file")[:]) == b"123"
    assert bytes(storage.content("top")[:]) == b""
    head, whole = storage.head("mode=a/b/c/file")
    assert (head[:], len(head), whole) == (b"123", 3, True)
    with storage.open("mode=a/b/c/file") as file:
        assert file.read() == b"123"
    for name in ("mode=a/pipe", "mode=a"):
        with pytest.raises(OSError, match="not a regular file"):
            storage.open(name)
    with pytest.raises(FileNotFoundError):
        storage.open("nothing")


def test_a_folder_that_is_removed_while_files_are_listed_has_none(tmp_path, monkeypatch):
    for name in ("epoch=1", "epoch=2"):
        (tmp_path / "mode=a" / "ds_id=" / name).mkdir(parents=True)
    (tmp_path / "mode=a" / "ds_id=" / "epoch=2" / "file").touch()
    scan = os.scandir

    def remove_first(folder):
        if folder.endswith("epoch=1"):
            Path(folder).rmdir()
        return scan(folder)

    monkeypatch.setattr(os, "scandir", remove_first)
    assert storage_of(tmp_path).names() == (["mode=a/ds_id=/epoch=2/file"], [])
    with pytest.raises(FileNotFoundError):
        storage_of(tmp_path / "nothing").names()


def test_a_path_with_a_protocol_is_read_by_fsspec():
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (extra 'dask')")
    fs = fsspec.filesystem("memory")
    fs.pipe("/storage-test/run/mode=a/file", b"12345")
    storage = storage_of("memory://storage-test/run/")
    assert isinstance(storage, RemoteFolder)
    assert storage.size("mode=a/file") == 5  # before and after they were listed
    assert storage.names() == (["mode=a/file"], [])
    assert storage.size("mode=a/file") == 5
    assert bytes(storage.content("mode=a/file")) == b"12345"
    assert storage.head("mode=a/file") == (b"12345", True)
    fs.pipe("/storage-test/run/mode=a/long", bytes(2 * HEAD))
    assert storage.head("mode=a/long") == (bytes(HEAD), False)
    with storage.open("mode=a/file") as file:
        assert file.readline(3) == b"123"
    with pytest.raises(FileNotFoundError):
        storage.open("nothing")


pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
pytest.importorskip("xxhash", reason="xxhash is not installed (extra 'record')")
resource = pytest.importorskip("resource", reason="this system has no limits of a process")

QUICK = os.environ.get("LABELTRACK_QUICK") == "1"  # fewer rounds of what is random, where all of it runs elsewhere
ROWS = 2**16
COMPILED = {name: value for name, value in os.environ.items() if name != "NUMBA_DISABLE_JIT"}  # for processes


def test_bytes_are_those_of_the_file_and_what_is_gone_is_told(tmp_path):
    data = np.random.default_rng(0).bytes(100_000)
    (tmp_path / "file").write_bytes(data)
    content = FileContent(tmp_path / "file")
    assert len(content) == len(data)
    for part in (slice(8), slice(70_000), slice(99, 99_000), slice(99_990, 200_000), slice(5, 5), slice(9, 3)):
        assert content[part] == data[part]
    os.truncate(tmp_path / "file", 50_000)
    assert content[:50_000] == data[:50_000]
    with pytest.raises(TruncatedRunError, match="cut to 50000 bytes or less"):
        content[49_990:50_001]
    with pytest.raises(TruncatedRunError, match="cut to 60000 bytes or less"):
        content[60_000:]


@pytest.fixture(scope="module", name="long")
def _long(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long") / "run"
    rng = np.random.default_rng(0)
    with lt.LabelTracker("y", "ce", record_to=lt.RecordingOptions(folder, flush_rows=ROWS, fsync="never")) as tracker:
        for i in range(40):
            tracker.update(np.full(ROWS, i, np.int32), rng.random(ROWS, dtype=np.float32))
        tracker.end_epoch(1)
    return folder


CUT = """
import os, sys, time, warnings
from pathlib import Path
import numpy as np
import labeltrack as lt

root, what, output, rows, rounds = *map(Path, sys.argv[1:4]), *map(int, sys.argv[4:])
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
(part,) = root.rglob("*.arrow")
whole = part.read_bytes()
rng = np.random.default_rng(rounds)
whole_stats = lt.open_run(root).recompute(progress=False).at(1)

def read(run):
    if what.name == "recompute":
        history = run.recompute(progress=False, threads=int(rng.integers(1, 4)), bounds=["std", "median"])
        stats = history.at(1) if len(history) else None
        if stats is None:
            return 0
        for row in stats:  # a label a batch: what is there is right
            assert (row.count, row.sum) == (rows, whole_stats[row.label].sum)
        return int(stats.count.sum())
    if what.name == "samples":
        return run.samples().num_rows
    if what.name == "copy":
        table = run.samples(copy=True)
        left = sorted(set(table["label"].to_pylist()))  # the file may be shorter by now
        assert table.num_rows == len(left) * rows
        return table.num_rows
    if what.name == "compare":
        if not run.epochs:
            return 0
        result = lt.compare(run, run)  # reads it twice
        for label, count, mean in zip(result.labels.tolist(), result.count_after, result.mean_after, strict=True):
            assert not count or (count, mean) == (rows, whole_stats[label].mean)
        return int(result.count_after.sum())
    if what.name == "export":
        return run.export(output, progress=False)
    verification = run.verify(progress=False)
    assert verification.rows + verification.lost == 40 * rows
    return verification.rows

for trial in range(rounds):
    part.write_bytes(whole)
    run = lt.open_run(root)
    child = os.fork()
    if not child:
        time.sleep(rng.uniform(0, 0.03))
        os.truncate(part, int(rng.choice([0, 1000, len(whole) // 2, len(whole) - 2000])))
        os._exit(0)
    while True:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            n = read(run)
        assert n % rows == 0
        # What is behind the rows may be all that is gone.
        if n < 40 * rows or told or os.path.getsize(part) < len(whole):
            break
    if what.name != "verify" and (n < 40 * rows or told):
        assert len(told) == 1 or what.name == "compare"
        assert any(f"is damaged; {40 * rows - n:,} rows are left out" in str(one.message) for one in told), told
    os.waitpid(child, 0)
    again = lt.open_run(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(again) <= n
part.write_bytes(whole)
print("done")
"""


@pytest.mark.parametrize("what", ["recompute", "samples", "copy", "compare", "export", "verify"])
def test_a_file_that_another_process_cuts_while_it_is_read_is_damage_and_not_the_end(tmp_path, long, what):
    command = [sys.executable, "-c", CUT, long, what, tmp_path / "samples.parquet", str(ROWS), "5" if QUICK else "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=COMPILED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.fixture(scope="module", name="many")
def _many(tmp_path_factory):
    """Record a run of a hundred datasets, and one of many parts."""
    folder = tmp_path_factory.mktemp("many") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "LARGEST_PART", 8000)
        with lt.LabelTracker(
            "y", "ce", record_to=lt.RecordingOptions(folder, flush_rows=1024, fsync="never")
        ) as tracker:
            for i in range(100):
                tracker.update([1, 2], [float(i), 1.0], ds_id=f"site {i}")
                tracker.update(np.full(1024, i), np.ones(1024), ds_id="large")
            tracker.end_epoch(1)
    assert len(list(folder.rglob("ds_id=large/**/*.arrow"))) > 40
    return folder


FEW = """
import errno, os, resource, sys, warnings
import labeltrack as lt
import pyarrow as pa, pyarrow.csv, pyarrow.parquet

folder, output, free = *sys.argv[1:3], int(sys.argv[3])
warnings.simplefilter("error")
lt.label_stats([1], [1.0])
run = lt.open_run(folder)
run.samples(ds_id="site 0")
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
        if len(held) == 1:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
except OSError:
    pass
for fd in held[len(held) - free :]:
    os.close(fd)
reads = {
    "samples": lambda: run.samples(columns=["value"]).num_rows,
    "recompute": lambda: sum(int(s.count.sum()) for _, s in run.recompute(progress=False, bounds="median").items()),
    "export": lambda: run.export(output, progress=False),
    "verify": lambda: run.verify(progress=False).rows,
}
for name, read in reads.items():
    try:
        print(name, read())
    except OSError as error:
        print(name, str(error) if "Too many open files" not in str(error) else True)
os.close(held[0])
with open(output, "rb") as file:
    print(file.read() == b"what was there before")
"""


def few(many, output, free):
    output.write_text("what was there before")
    command = [sys.executable, "-c", FEW, many, output, str(free)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=COMPILED)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.rpartition(" ")[::2] for line in done.stdout.splitlines())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_run_of_many_files_is_read_with_few_descriptors(tmp_path, many, ending):
    total = str(200 + 100 * 1024)
    names = ["samples", "recompute", "export", "verify"]
    assert few(many, tmp_path / f"all.{ending}", 20) == {**dict.fromkeys(names, total), "": "False"}


@pytest.mark.parametrize("free", [0, 1, 2, 3])
def test_where_no_descriptor_is_left_reading_raises_and_calls_nothing_damaged(tmp_path, many, free):
    said = few(many, tmp_path / "all.csv", free)
    written = said.pop("") == "False"
    assert written == (said["export"] != "True")
    assert set(said.values()) <= {"True", str(200 + 100 * 1024)}
    assert set(said.values()) == {"True"} or free


def test_samples_hold_no_descriptor(many):
    run = lt.open_run(many)
    run.samples(ds_id="large")
    before = len(list(Path("/proc/self/fd").iterdir()))
    table = run.samples(ds_id="large")
    assert table.num_rows == 100 * 1024
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert set(table["label"].to_pylist()) == set(range(100))
