"""Recorded runs: what is in them, recomputing, damage of every kind, input that means harm."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import xxhash
from test_recorder import QUICK, batch, same

import labeltrack as lt
from labeltrack import _journal
from labeltrack._parts import read_part

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")


def recorded(run, *, steps=(1, 2), flush_rows=1024, n=4, labels=10, **options):
    recording = lt.Recording(run, flush_rows=flush_rows, fsync="never")
    with lt.LabelTracker("y", "ce", record_to=recording, **options) as tracker:
        for step in steps:
            for i in range(n):
                tracker.update(*batch(400, labels, seed=10 * step + i))
            tracker.update(["cat", "dog", "cat"], [step, 2.0, 3.0], mode="eval", ds_id="a")
            tracker.update(["dog", "eel"], [4.0, 5.0], mode="eval", ds_id="b")
            tracker.end_epoch(step)
            tracker.end_epoch(step, mode="eval")
    return tracker


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, recorded(folder)


# -- what is there ----------------------------------------------------------------------------------------


def test_a_run_says_what_it_is(run):
    path, _ = run
    opened = lt.open_run(str(path))
    info = opened.info()
    assert json.loads(json.dumps(info)) == info
    assert info | {"created": "", "bytes": 0} == {
        "path": str(path),
        "metric": "ce",
        "label": "y",
        "label_mapping": None,
        "bounds": ["std"],
        "nan_policy": "propagate",
        "dtypes": [["int32", "float32"], ["string", "float64"]],
        "labeltrack": lt.__version__,
        "created": "",
        "sessions": 1,
        "modes": ["train", "eval"],
        "ds_ids": ["", "a", "b"],
        "epochs": 4,
        "incomplete": [],
        "rows": 3210,
        "bytes": 0,
        "damage": [],
    }
    assert info["bytes"] == sum(p.stat().st_size for p in path.rglob("*.arrow"))
    assert [(e.mode, e.step, e.ds_ids, e.rows, e.complete) for e in opened.epochs] == [
        ("train", 1, ("",), 1600, True),
        ("eval", 1, ("a", "b"), 5, True),
        ("train", 2, ("",), 1600, True),
        ("eval", 2, ("a", "b"), 5, True),
    ]
    assert repr(opened) == f"Run({str(path)!r}): 'ce' by 'y', 4 epochs, 3210 samples"


def test_no_run_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"no recorded run in .*run\.json"):
            lt.open_run(path)


def test_a_run_is_independent_of_where_it_lies(run, tmp_path):
    path, tracker = run
    shutil.copytree(path, tmp_path / "elsewhere")
    assert same(lt.open_run(tmp_path / "elsewhere").recompute(progress=False), tracker.history)
    text = "".join(p.read_text(errors="replace") for p in path.rglob("*") if p.is_file())
    assert str(path) not in text
    assert os.uname().nodename not in text


# -- samples ----------------------------------------------------------------------------------------------


def test_samples_are_those_that_were_recorded(run):
    path, _ = run
    opened = lt.open_run(path)
    table = opened.samples("train", epoch=2)
    labels, values = (np.concatenate([batch(400, seed=20 + i)[k] for i in range(4)]) for k in (0, 1))
    np.testing.assert_array_equal(table["label"].to_numpy(), labels)
    np.testing.assert_array_equal(table["value"].to_numpy(), values)
    assert table.schema.names == ["label", "value"]
    assert opened.samples("eval", ds_id="b").to_pydict() == {"label": ["dog", "eel"] * 2, "value": [4.0, 5.0] * 2}
    assert opened.samples("!train", "!b", [1]).to_pydict() == {"label": ["cat", "dog", "cat"], "value": [1.0, 2.0, 3.0]}
    every = opened.samples("eval", columns=["epoch", "ds_id", "mode", "session", "rank", "attempt"]).to_pydict()
    assert every == {
        "epoch": [1] * 5 + [2] * 5,
        "ds_id": ["a", "a", "a", "b", "b"] * 2,
        "mode": ["eval"] * 10,
        "session": [1] * 10,
        "rank": [0] * 10,
        "attempt": [1] * 5 + [2] * 5,
    }
    assert opened.samples("train", ds_id="nowhere").num_rows == 0


def test_samples_share_the_memory_of_the_files(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for _ in range(2):
            tracker.update(np.arange(65_536, dtype=np.int32), np.ones(65_536, np.float32))
        tracker.end_epoch(1)
    opened = lt.open_run(tmp_path / "run")
    opened.samples()
    before = pa.total_allocated_bytes()
    table = opened.samples()
    assert table.nbytes == 2 * 65_536 * 8
    assert pa.total_allocated_bytes() - before < 10_000
    for name in ("label", "value"):
        addresses = [chunk.buffers()[1].address for chunk in table[name].chunks]
        assert not any(address % 64 for address in addresses)


def test_other_libraries_take_samples_and_files(run):
    path, _ = run
    table = lt.open_run(path).samples("train")
    polars = pytest.importorskip("polars", reason="polars is not installed (extra 'test')")
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed (extra 'test')")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed (extra 'test')")
    import pyarrow.dataset as ds

    total = float(np.sum(table["value"].to_numpy().astype(np.float64)))
    files = sorted(path.glob("mode=train/**/*.arrow"))
    assert polars.from_arrow(table)["value"].cast(polars.Float64).sum() == pytest.approx(total)
    assert polars.scan_ipc(files).select(polars.col("value").cast(polars.Float64).sum()).collect().item() == (
        pytest.approx(total)
    )
    hive = ds.dataset(path, format="ipc", partitioning="hive", exclude_invalid_files=True)
    assert hive.count_rows() >= 3200
    connection = duckdb.connect()
    connection.register("recorded", ds.dataset(path / "mode=train", format="ipc", partitioning="hive"))
    found = connection.execute("select count(*), sum(value::double), max(epoch) from recorded").fetchall()
    assert found == [(3200, pytest.approx(total), 2)]
    dask = pytest.importorskip("dask", reason="dask is not installed (extra 'dask')")
    counts = dask.compute(*[dask.delayed(pandas.read_feather)(file) for file in files])
    assert sum(map(len, counts)) == 3200
    frame = pandas.concat([pandas.read_feather(file) for file in files])
    assert (len(frame), frame["value"].astype(float).sum()) == (3200, pytest.approx(total))


def test_columns_of_several_types_become_the_wider_one(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        for step, (labels, values) in enumerate(
            [
                (np.array([True, False]), np.array([1, 2], np.float32)),
                (np.array([3], np.int32), np.array([0.1])),
                (np.array([2**40]), np.array([4.0])),
                (np.array([2**63 + 5], np.uint64), np.array([5.0])),
                (np.array([0.5]), np.array([6.0])),
            ],
            1,
        ):
            tracker.update(labels, values)
            tracker.end_epoch(step)
    opened = lt.open_run(tmp_path / "run")
    assert opened.samples(epoch=1).to_pydict() == {"label": [True, False], "value": [1.0, 2.0]}
    assert opened.samples(epoch=[1, 2]).to_pydict() == {"label": [1, 0, 3], "value": [1.0, 2.0, 0.1]}
    assert opened.samples(epoch=[2, 3])["label"].to_pylist() == [3, 2**40]
    assert opened.samples(epoch=[1, 3, 4])["label"].to_pylist() == [1, 0, 2**40, 2**63 + 5]
    with pytest.raises(ValueError, match=r"labels of several kinds.*choose epochs of one kind"):
        opened.samples()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "trian"}, KeyError, "no recorded mode 'trian'. Did you mean 'train'"),
        ({"epoch": 7}, KeyError, "no recorded epoch 7"),
        ({"epoch": "1"}, TypeError, "step must be an integer"),
        ({"columns": ["label", "labels"]}, ValueError, "unknown 'labels'; there are 'label', 'value'"),
        ({"columns": []}, ValueError, "there are 'label'"),
    ],
)
def test_a_wrong_choice_of_samples_is_explained(run, arguments, error, message):
    with pytest.raises(error, match=message):
        lt.open_run(run[0]).samples(**arguments)


# -- recomputing ------------------------------------------------------------------------------------------


def test_another_mapping_other_bounds_and_modes(run):
    path, tracker = run
    opened = lt.open_run(path)
    assert same(opened.recompute(progress=False), tracker.history)
    history = opened.recompute(bounds=["range", None], label_mapping={"three": 3, "CAT": "cat"}, progress=False)
    assert history.bounds == ("range", None)
    assert history.at(1).names.tolist() == ["three"]
    assert history.at(1)[3].std == tracker.history.at(1)[3].std
    assert history.at(2, "eval")["CAT"].mean == 2.5
    assert opened.recompute(modes="!train", progress=False).modes == ["eval"]
    with pytest.warns(lt.LabelTrackWarning, match="no recorded sample has a label of label_mapping: it maps 77"):
        opened.recompute(label_mapping={"x": 77}, progress=False)


def test_a_mapping_that_was_tracked_with_is_the_default_and_all_rows_are_there(tmp_path):
    tracker = recorded(tmp_path / "run", label_mapping={"three": 3, "cat": "cat"})
    opened = lt.open_run(tmp_path / "run")
    assert opened.label_mapping == {"three": 3, "cat": "cat"}
    assert same(opened.recompute(progress=False), tracker.history)
    everything = opened.recompute(label_mapping=None, progress=False)
    assert everything.at(1).labels.tolist() == list(range(10))
    assert everything.at(1)[3].sum == tracker.history.at(1)["three"].sum


def test_groups_are_of_labels(run):
    path, tracker = run
    opened = lt.open_run(path)
    calls = []

    def parity(label):
        calls.append(label)
        return "even" if label % 2 == 0 else "odd"

    history = opened.recompute(modes="train", group=parity, progress=False)
    assert len(calls) == 20  # asked for each label of each epoch, not for samples
    labels = np.concatenate([batch(400, seed=10 + i)[0] for i in range(4)])
    values = np.concatenate([batch(400, seed=10 + i)[1] for i in range(4)])
    direct = lt.label_stats(np.where(labels % 2 == 0, "even", "odd"), values)
    for name in ("count", "sum", "mean", "std", "min", "max"):
        assert history.at(1).column(name).tobytes() == direct.column(name).tobytes()
    coarse = opened.recompute(modes="train", group={3: 0, 4: 0, 5: 1}, label_mapping={"low": 0}, progress=False)
    assert coarse.at(1).names.tolist() == ["low"]
    assert coarse.at(1)["low"].count == tracker.history.at(1)[3].count + tracker.history.at(1)[4].count
    assert opened.recompute(group=lambda _: None, progress=False).modes == []
    with pytest.raises(TypeError, match="of one kind; it gives"):
        opened.recompute(modes="train", group=lambda label: "a" if label else 1, progress=False)
    with pytest.raises(TypeError, match="numbers or strings, of one kind; it gives list"):
        opened.recompute(modes="train", group=lambda label: [label], progress=False)
    with pytest.raises(TypeError, match="a mapping from labels to new labels, or a function, got int"):
        opened.recompute(group=3)


def test_nan_policies(tmp_path):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update([1, 1, 2], [1.0, np.nan, 3.0])
        tracker.end_epoch(1)
    opened = lt.open_run(tmp_path / "run")
    assert same(opened.recompute(progress=False), tracker.history)
    assert opened.recompute(nan_policy="omit", progress=False).at(1)[1].mean == 1.0
    with pytest.raises(ValueError, match=r"mode 'train', step 1: 1 NaN samples.*1 \(1\)"):
        opened.recompute(nan_policy="raise", progress=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"engine": "spark"}, ValueError, "'local', 'dask'"),
        ({"bounds": "iqr2"}, ValueError, "unknown option 'iqr2'"),
        ({"threads": 0}, ValueError, "threads must be a positive integer"),
        ({"modes": "trian"}, KeyError, "no recorded mode 'trian'"),
        ({"nan_policy": "x"}, ValueError, "'propagate', 'omit', 'raise'"),
        ({"label_mapping": {}}, ValueError, "empty"),
    ],
)
def test_a_wrong_option_is_explained(run, arguments, error, message):
    with pytest.raises(error, match=message):
        lt.open_run(run[0]).recompute(**arguments)


MEMORY = """
import sys, threading, time
import numpy as np
import labeltrack as lt

def anonymous():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])

rng = np.random.default_rng(0)
with lt.LabelTracker("y", "ce", record_to=lt.Recording(sys.argv[1], fsync="never")) as tracker:
    labels, values = rng.integers(0, 10_000, 2**20).astype(np.int32), rng.random(2**20, dtype=np.float32)
    for _ in range(40):
        tracker.update(labels, values)
    tracker.end_epoch(1)
del tracker, labels, values
run = lt.open_run(sys.argv[1])
before, peak, done = anonymous(), [0], threading.Event()

def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())

thread = threading.Thread(target=watch)
thread.start()
history = run.recompute(progress=False)
done.set()
thread.join()
print(peak[0] - before, int(history.at(1).count.sum()))
"""


def test_memory_does_not_grow_with_the_run(tmp_path):
    """Beyond the files, which are mapped, a recomputation takes what its labels take."""
    compiled = {name: value for name, value in os.environ.items() if name != "NUMBA_DISABLE_JIT"}
    command = [sys.executable, "-c", MEMORY, tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=compiled)
    kilobytes, rows = map(int, done.stdout.split())
    assert rows == 40 * 2**20
    assert kilobytes < 100_000  # the file has 335 MB


# -- damage -----------------------------------------------------------------------------------------------


def rows_of(opened):
    """Return all the rows that can be read, by mode, dataset and epoch, and what had to be said about them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = {}
        for epoch in opened.epochs:
            for ds_id in epoch.ds_ids:
                table = opened.samples([epoch.mode], [ds_id], epoch.step)
                found[epoch.mode, ds_id, epoch.step] = list(zip(*table.to_pydict().values(), strict=True))
    return found, [str(one.message) for one in caught]


def is_subsequence(some, all_of_them):
    rest = iter(all_of_them)
    return all(any(one == other for other in rest) for one in some)


DAMAGE = """
import faulthandler, json, shutil, sys, warnings
from pathlib import Path
import numpy as np
faulthandler.enable()
sys.path.insert(0, sys.argv[4])
from test_run import is_subsequence, rows_of
import labeltrack as lt

original, copy, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
truncations, flips = json.loads(sys.argv[5])
right, said = rows_of(lt.open_run(original))
assert not said
total = sum(map(len, right.values()))
names = sorted(str(p.relative_to(original)) for p in original.rglob("*") if p.is_file() and p.stat().st_size)
shutil.copytree(original, copy)
rng = np.random.default_rng(seed)
counts = {"noticed": 0, "unreadable": 0, "unnoticed": 0}

def one(name, content):
    path = copy / name
    path.write_bytes(content)
    try:
        opened = lt.open_run(copy)
    except (ValueError, OSError) as error:
        assert "run.json" in str(error) or "damaged" in str(error), error
        counts["unreadable"] += 1
    else:
        found, said = rows_of(opened)
        for key, rows in found.items():
            assert key in right, (name, key)
            assert is_subsequence(rows, right[key]), (name, key)
        verification = opened.verify(progress=False)
        lost = total - sum(map(len, found.values()))
        # A journal that ends with a whole line is that of a process that was killed, which is no damage; neither is
        # white space in the description.
        whole = name.startswith("journal") and content[-1:] in (b"", b"\\n") and not lost
        blank = name == "run.json" and content.split() == (original / name).read_bytes().split()
        told = not verification.ok or whole or blank
        counts["noticed" if told else "unnoticed"] += 1
        if not told:
            print("unnoticed:", name, len(content), (original / name).stat().st_size, file=sys.stderr)
        assert not lost or not verification.ok, name
        bad = [s for s in verification.segments if s.state not in ("intact", "writing")]
        assert lost <= verification.lost or verification.other or not lost, (name, lost, verification)
        assert not lost or said or not all(e.complete for e in opened.epochs), (name, said)
        assert all(s.message for s in bad)
        verification.to_dict(), str(verification)
    path.write_bytes((original / name).read_bytes())

sizes = np.array([(original / name).stat().st_size for name in names])
for i in range(truncations):
    name = names[rng.integers(len(names))]
    content = (original / name).read_bytes()
    one(name, content[: rng.integers(len(content))])
for i in range(flips):
    name = names[rng.integers(len(names))]
    content = bytearray((original / name).read_bytes())
    place = int(rng.integers(len(content)))
    if rng.random() < 0.5:
        content[place] ^= 1 << int(rng.integers(8))
    else:
        content[place] = int(rng.integers(256))
    if bytes(content) == (original / name).read_bytes():
        content[place] ^= 1
    one(name, bytes(content))
print(json.dumps(counts))
"""


@pytest.mark.parametrize("seed", range(5))
def test_no_truncation_and_no_flipped_byte_gives_a_wrong_row(tmp_path, seed):
    recorded(tmp_path / "run", n=3)
    rounds = [40, 100] if QUICK else [400, 1000]
    command = [
        *(sys.executable, "-c", DAMAGE, str(tmp_path / "run"), str(tmp_path / "copy"), str(seed)),
        *(str(Path(__file__).parent), json.dumps(rounds)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert sum(counts.values()) == sum(rounds)
    assert counts["unnoticed"] == 0, done.stderr


def test_a_bad_batch_costs_its_rows_alone_and_is_counted(tmp_path):
    recorded(tmp_path / "run", steps=[1], n=12)
    (name,) = (tmp_path / "run").glob("mode=train/**/*.arrow")
    content = bytearray(name.read_bytes())
    content[len(content) // 2] ^= 4
    name.write_bytes(content)
    opened = lt.open_run(tmp_path / "run")
    match = r"1216 rows are left out: .*checksum of batch 2 does not agree \(1216 rows lost, 3584 intact\)"
    with pytest.warns(lt.LabelTrackWarning, match=match):
        history = opened.recompute(modes="train", progress=False)
    assert history.at(1).count.sum() == 3584
    verification = opened.verify(progress=False)
    bad = [segment for segment in verification.segments if segment.state != "intact"]
    assert [(s.state, s.rows, s.lost) for s in bad] == [("corrupt", 3584, 1216)]
    assert (verification.ok, verification.lost, verification.rows) == (False, 1216, 3589)
    assert "corrupt: mode=train" in str(verification)
    assert opened.repair() == []


def test_a_damaged_footer_is_found_though_every_row_is_there(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    name = next((tmp_path / "run").glob("mode=train/**/*.arrow"))
    content = bytearray(name.read_bytes())
    content[-100] ^= 1
    name.write_bytes(content)
    opened = lt.open_run(tmp_path / "run")
    assert same(opened.recompute(progress=False), run[1].history)
    (bad,) = [s for s in opened.verify(progress=False).segments if s.state != "intact"]
    assert (bad.state, bad.lost) == ("corrupt", 0)
    assert "other programs may not" in bad.message


def test_files_that_are_missing_or_somewhere_else_are_found(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    first, second = sorted((tmp_path / "run").glob("mode=train/**/*.arrow"))
    second.unlink()
    opened = lt.open_run(tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match=r"the file is missing \(1600 rows lost"):
        assert opened.recompute(modes="train", progress=False).steps() == [1]
    states = [segment.state for segment in opened.verify(progress=False).segments]
    assert states.count("missing") == 1
    shutil.copy(first, second)  # as if it were of the other epoch
    with pytest.warns(lt.LabelTrackWarning, match="it says it has attempt '1', and lies where '2' belongs"):
        assert lt.open_run(tmp_path / "run").recompute(modes="train", progress=False).steps() == [1]


def test_without_its_description_or_journal_a_run_still_has_its_rows(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{", encoding="utf-8")
    opened = lt.open_run(tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match=r"run\.json is damaged"):
        assert same(opened.recompute(progress=False), run[1].history)
    assert not opened.verify(progress=False).ok
    shutil.copy(run[0] / "run.json", tmp_path / "run" / "run.json")
    (tmp_path / "run" / "journal-0001-0000.log").unlink()
    opened = lt.open_run(tmp_path / "run")
    assert not any(epoch.complete for epoch in opened.epochs)
    assert opened.samples("train").num_rows == 3200
    with pytest.warns(lt.LabelTrackWarning, match="the journal does not say what they stand for"):
        assert opened.samples("eval").num_rows == 0


# -- input that means harm --------------------------------------------------------------------------------

LIMITED = """
import resource, sys, time, warnings
import labeltrack as lt, labeltrack.run, labeltrack._export, pyarrow, xxhash
warnings.simplefilter("ignore")
lt.label_stats([1], [1.0])
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 100 * 2**20, resource.RLIM_INFINITY))
start = time.process_time()
try:
    run = lt.open_run(sys.argv[1])
    for epoch in run.epochs:
        run.samples(epoch.mode, epoch=epoch.step)
    run.recompute(progress=False, incomplete=True, threads=1)
    verification = run.verify(progress=False)
    print("bad" if not verification.ok else "good", verification.rows)
    print(str(verification)[:2000])
except (ValueError, OSError, KeyError, TypeError) as error:
    print("refused", type(error).__name__, str(error)[:500])
print(time.process_time() - start)
"""


def examined(path):
    """Open a run with little memory; return what became of it."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *text, seconds = done.stdout.strip().split("\n")
    assert float(seconds) < 1
    return "\n".join(text)


def signed(description):
    plain = json.dumps(description, sort_keys=True).encode()
    return json.dumps(description | {"xxh3": xxhash.xxh3_64_hexdigest(plain)})


def line(**said):
    text = json.dumps(said).encode()
    return f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n"


@pytest.fixture(name="copy")
def _copy(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    return tmp_path / "run"


def described(path):
    plain = json.loads((path / "run.json").read_text())
    plain.pop("xxh3")
    return plain


def test_the_limits_of_these_tests_let_an_honest_run_pass(copy):
    assert examined(copy).startswith("good 3210")


def test_a_description_of_absurd_size_is_refused(copy):
    (copy / "journal-0001-0000.log").unlink()
    with (copy / "run.json").open("r+b") as file:
        file.truncate(10 * 2**30)
    assert "refused ValueError" in examined(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": ["x"] * 1000},
        {"label_mapping": [["a", {"bytes": "0" * 10**6}]] * 3},
        {"dtypes": [[1, 2, 3]]},
        {"version": 10**400},
        {"bounds": [["std"]]},
    ],
)
def test_a_description_that_makes_no_sense_is_refused(copy, changes):
    (copy / "journal-0001-0000.log").unlink()
    (copy / "run.json").write_text(signed(described(copy) | changes), encoding="utf-8")
    assert "refused ValueError" in examined(copy)


def test_deep_nesting_is_refused(copy):
    (copy / "run.json").write_text("[" * 10**6, encoding="utf-8")
    journal = copy / "journal-0001-0000.log"
    text = b'{"seq": 0, "event": ' + b"[" * 10**6 + b"]" * 10**6 + b"}"
    journal.write_bytes(f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n")
    assert "refused ValueError" in examined(copy)


def test_a_journal_cannot_lead_out_of_the_folder(copy, tmp_path):
    outside = tmp_path / "mode=train" / "ds_id=" / "epoch=1"
    outside.mkdir(parents=True)
    inside = next(copy.glob("mode=train/ds_id=/epoch=1/*.arrow"))
    shutil.move(inside, outside / inside.name)
    journal = copy / "journal-0001-0000.log"
    for name in (f"../../../../mode=train/ds_id=/epoch=1/{inside.name}", str(outside / inside.name)):
        begin = json.loads(journal.read_bytes().splitlines()[0][17:])
        part = {"name": name, "rows": 1600, "xxh3": ""}
        stream = {"ds_id": "", "rows": 1600, "lost": 0, "parts": [part]}
        journal.write_bytes(
            line(**begin) + line(seq=1, event="epoch", mode="train", step=1, attempt=1, streams=[stream])
        )
        said = examined(copy)
        assert said.startswith("bad")
        assert "missing" in said


@pytest.mark.parametrize(
    "streams",
    [
        3,
        [3],
        [{}],
        [{"ds_id": 3, "rows": 1, "lost": 0, "parts": []}],
        [{"ds_id": "", "rows": -1, "lost": 0, "parts": []}],
    ],
)
def test_a_journal_that_makes_no_sense_is_damage(copy, streams):
    journal = copy / "journal-0001-0000.log"
    before = journal.read_bytes()
    seq = len(before.splitlines())
    journal.write_bytes(before + line(seq=seq, event="epoch", mode="train", step=9, attempt=9, streams=streams))
    said = examined(copy)
    assert said.startswith("bad")
    assert "cannot be understood" in said


def test_a_journal_of_nothing_but_noise_is_damage(copy):
    with (copy / "journal-0002-0000.log").open("wb") as file:
        file.truncate(10 * 2**30)  # takes no room
    (copy / "journal-0003-0000.log").write_bytes(b"\n" * 10**6)
    said = examined(copy)
    assert said.startswith("bad")
    assert f"more than {_journal.LARGEST_LINE} bytes" in said


def test_pipes_and_links_are_not_opened(copy, tmp_path):
    first, second = sorted(copy.glob("mode=train/**/*.arrow"))
    shutil.move(first, tmp_path / "secret")
    first.symlink_to(tmp_path / "secret")
    second.unlink()
    os.mkfifo(second)
    said = examined(copy)
    assert said.startswith("bad")
    assert said.count("missing") >= 2
    for name in ("run.json", "journal-0001-0000.log"):
        (copy / name).unlink()
        os.mkfifo(copy / name)
    assert "refused" in examined(copy)


@pytest.mark.parametrize("rows", [2**62, 10 * 2**30 // 8, -5])
def test_a_small_file_that_declares_gigabytes_is_damage(copy, rows):
    name = next(copy.glob("mode=train/**/*.arrow"))
    content = name.read_bytes()
    first = read_part(name).batches[0].rows
    changed = content.replace(struct.pack("<q", first), struct.pack("<q", rows))
    assert changed != content
    name.write_bytes(changed)
    said = examined(copy)
    assert said.startswith("bad")
    assert "1600 lost" in said


def test_a_file_of_nested_columns_is_damage(copy):
    name = next(copy.glob("mode=train/**/*.arrow"))
    nested = pa.int32()
    for _ in range(60):
        nested = pa.struct([("x", nested)])
    table = pa.table({"label": pa.array([None], nested), "value": pa.array([1.0], pa.float32())})
    with pa.OSFile(str(name), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    said = examined(copy)
    assert said.startswith("bad")
    assert "is not one of plain numbers" in said


def test_codes_without_words_are_damage(copy):
    journal = copy / "journal-0001-0000.log"
    changed = []
    for raw in journal.read_bytes().splitlines():
        said = json.loads(raw[17:])
        if said["event"] == "words":
            said["words"] = said["words"][:1]
        changed.append(line(**said))
    journal.write_bytes(b"".join(changed))
    said = examined(copy)
    assert said.startswith("bad")
    assert "codes for which the journal has no words" in said
