"""Interrupts: an exception may come at any line of a call, and a batch or an epoch is then wholly in or wholly out."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import labeltrack as lt

QUICK = bool(os.environ.get("LABELTRACK_QUICK"))
COMPILED = "kernels.py", "_intrinsics.py"  # which no interrupt comes into, but where they are not compiled
PLAIN = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
PACKAGE = str(Path(lt.__file__).parent) + os.sep


class Interrupt(BaseException):
    """What the handler of a signal may raise."""


class At:
    """Raises at the n-th line, or the n-th instruction, of the package that is executed within the block."""

    def __init__(self, n, *, instructions=False):
        self.left, self.instructions, self.raised, self.before = n, instructions, False, None

    def __enter__(self):
        self.before = sys.gettrace()  # of what measures coverage
        sys.settrace(self)
        return self

    def __exit__(self, kind, *_error):
        sys.settrace(self.before)
        return kind is Interrupt

    def __call__(self, frame, event, _argument):
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE) or code.co_filename.endswith(COMPILED):
            return None
        if code.co_name == "__del__":  # in which Python ignores exceptions
            return None
        frame.f_trace_opcodes = self.instructions
        if event == ("opcode" if self.instructions else "line") and not self.raised:
            if self.left == 0:
                self.raised = True
                raise Interrupt
            self.left -= 1
        return self


class Both:
    """A collection of two metrics, of which one is twice the other, with ids; used as a tracker of one.

    A batch that is recorded twice has the same ids twice, which is an error.
    """

    def __init__(self, label, metric, **options):
        self.collection = lt.TrackerCollection(label, [metric, "double"], on_duplicate="error", **options)
        self.given = 0
        for name in ("reset", "state_dict", "load_state_dict", "flush", "close", "_recorder"):
            setattr(self, name, getattr(self.collection, name))

    def update(self, labels, values, **where):
        ids = np.arange(self.given, self.given + len(values))
        self.given += len(values)
        self.collection.update(labels, {"ce": values, "double": 2 * values}, ids=ids, **where)

    def end_epoch(self, step, **options):
        return self.collection.end_epoch(step, **options)["ce"]

    @property
    def history(self):
        """The history of the metric, after it was compared with that of its double."""
        one, other = (self.collection[name].history for name in ("ce", "double"))
        pairs = zip(one.items(), other.items(), strict=True)
        for (key, stats), (key_too, double) in pairs:
            assert key == key_too
            assert {label: (n, 2 * x, 2 * y, 2 * z) for label, (n, x, y, z) in summary(stats).items()} == summary(
                double
            )
        return one


class Training:
    """A tracker beside plain lists of what it was given, and of what it may have been given."""

    def __init__(self, path=None, make=lt.LabelTracker, **options):
        self.make = make
        self.tracker = make("y", "ce", record_to=path, **options)
        self.path = path
        self.open = {}  # samples by mode and dataset
        self.epochs = {}  # samples by mode, step and dataset

    def now(self, mode):
        """Return what the running epoch has, by dataset, from a copy."""
        other = self.make("y", "ce")
        other.load_state_dict(self.tracker.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other.end_epoch(10**9, mode=mode)
        return {d: summary(stats) for (m, d, step), stats in other.history.items() if (m, step) == (mode, 10**9)}

    def update(self, labels, values, mode="train", ds_id="", at=None):
        """Record a batch; what is in afterwards is what was in before, with or without all of it."""
        if len(self.open.get((mode, ds_id), ())) > 20_000:  # so that comparing takes no time
            self.end(len(self.tracker.history), mode)
            self.tracker.update(labels[:3], values[:3], mode=mode, ds_id=ds_id)
            self.open[mode, ds_id] = list(zip(plain(labels[:3]), plain(values[:3]), strict=True))
        before = self.open.setdefault((mode, ds_id), [])
        batch = list(zip(plain(labels), plain(values), strict=True))
        if at is None:
            self.tracker.update(labels, values, mode=mode, ds_id=ds_id)
            before += batch
            return False
        with at:
            self.tracker.update(labels, values, mode=mode, ds_id=ds_id)
        self.see(mode, ds_id, [before, before + batch] if at.raised else [before + batch])
        return at.raised

    def see(self, mode, ds_id, allowed):
        now = self.now(mode).get(ds_id, {})
        for rows in allowed:
            if now == summary_of(rows):
                self.open[mode, ds_id] = rows
                return
        raise AssertionError((now, [summary_of(rows) for rows in allowed]))

    def end(self, step, mode="train", at=None, **options):
        """End an epoch; afterwards it is in the history, or in the buffers, and nowhere else."""
        if at is None:
            self.tracker.end_epoch(step, mode=mode, **options)
        else:
            with at:
                self.tracker.end_epoch(step, mode=mode, **options)
        if at is None or not at.raised or step in self.tracker.history.steps(mode):
            for (of, ds_id), rows in self.open.items():
                if of == mode and rows:
                    self.epochs[mode, step, ds_id] = rows
                    self.open[of, ds_id] = []
        self.check()
        return at is not None and at.raised

    def reset(self, at=None):
        if at is None:
            self.tracker.reset()
        else:
            with at:
                self.tracker.reset()
        nothing = not any(self.now(mode) for mode, _ in list(self.open))
        if nothing or at is None or not at.raised:
            self.open = {key: [] for key in self.open}
        self.check()
        return at is not None and at.raised

    def check(self):
        """Compare all of the tracker with the lists."""
        for mode in {mode for mode, _ in self.open}:
            wanted = {d: summary_of(rows) for (m, d), rows in self.open.items() if m == mode and rows}
            assert self.now(mode) == wanted
        found = {(m, step, d): summary(stats) for (m, d, step), stats in self.tracker.history.items()}
        assert found == {key: summary_of(rows) for key, rows in self.epochs.items()}
        for mode, step, _ in self.epochs:
            assert step in self.tracker.history.steps(mode)

    def check_recorded(self):
        """Compare what was written with the lists, row by row."""
        self.tracker.close()
        assert self.tracker._recorder.failure == ""
        run = lt.open_run(self.path)
        assert run.verify().ok
        for mode, step in {(mode, step) for mode, step, _ in self.epochs}:
            for ds_id in {d for m, s, d in self.epochs if (m, s) == (mode, step)}:
                table = run.samples(mode, step, ds_id)
                values = table["ce" if "ce" in table.column_names else "value"]
                rows = zip(table["label"].to_pylist(), values.to_pylist(), strict=True)
                assert Counter(rows) == Counter(self.epochs[mode, step, ds_id]), (mode, step, ds_id)
        counted = {(epoch.mode, epoch.step): epoch.rows for epoch in run.epochs if epoch.complete}
        wanted = Counter()
        for (mode, step, _), rows in self.epochs.items():
            wanted[mode, step] += len(rows)
        assert counted == dict(wanted)


def plain(column):
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def summary(stats):
    return {
        label: (int(count), total, low, high)
        for label, count, total, low, high in zip(
            stats.labels.tolist(), stats.count, stats.sum.tolist(), stats.min.tolist(), stats.max.tolist(), strict=True
        )
    }


def summary_of(rows):
    found = {}
    for label, value in rows:
        found.setdefault(label, []).append(value)
    return {label: (len(some), sum(some), min(some), max(some)) for label, some in sorted(found.items())}


def batches(kind, seed=0):
    """Yield batches whose values, multiples of 1/8, have exact sums, some of which are longer than a column."""
    random_ = np.random.default_rng(seed)
    for size in itertools.cycle([7, 3, 5000, 4, 200, 9000]):
        numbers = random_.integers(0, 5, size)
        values = (random_.integers(-800, 800, size) / 8).astype(np.float32)
        if kind == "strings":
            yield [f"class {n}" for n in numbers.tolist()], values
        elif kind == "growing":
            yield [f"class {n}" for n in (numbers + random_.integers(0, 50)).tolist()], values
        elif kind == "mixed":
            yield (
                numbers.astype(random_.choice(["i4", "u1", "i8", "u8", "?"])),
                values.astype(random_.choice(["f4", "f8"])),
            )
        else:
            yield numbers, values


def stride(quick, long):
    """Return which lines to interrupt: every one, or some that are spread; fewer without the compiler."""
    return 8 * quick if PLAIN else quick if QUICK else long


@pytest.mark.parametrize("kind", ["numbers", "strings", "growing", "mixed"])
@pytest.mark.parametrize("recorded", [False, True], ids=["in memory", "recorded"])
def test_an_interrupt_at_any_line_of_update_leaves_all_of_the_batch_or_nothing(tmp_path, kind, recorded):
    options = {"record_to": lt.RecordingOptions(tmp_path / "run", flush_rows=1024)} if recorded else {}
    training = Training(options.get("record_to"))
    training.path = tmp_path / "run"
    stream = batches(kind)
    training.update(*next(stream))
    lines = 0
    for _ in range(6):
        labels, values = next(stream)
        for n in itertools.count(0, stride(11, 1)):
            lines += 1
            if not training.update(labels, values, at=At(n)):
                break
    assert lines > 3
    training.end(10**6)
    if recorded:
        training.check_recorded()


@pytest.mark.parametrize("kind", ["numbers", "growing", "mixed"])
def test_an_interrupt_at_any_instruction_of_a_common_batch_leaves_all_of_it_or_nothing(kind):
    training = Training()
    stream = batches(kind)
    for _ in range(3):
        training.update(*next(stream))
        labels, values = next(stream)[0][:4], next(stream)[1][:4]
        labels, values = (labels[:3], values[:3])
        for n in itertools.count(0, stride(7, 1)):
            if not training.update(labels, values, at=At(n, instructions=True)):
                break
    training.end(1)


@pytest.mark.parametrize("recorded", [False, True], ids=["in memory", "recorded"])
def test_an_interrupt_at_any_line_while_samples_are_folded_leaves_all_of_the_batch_or_nothing(tmp_path, recorded):
    path = lt.RecordingOptions(tmp_path / "run", flush_rows=1024) if recorded else None
    training = Training(path, max_buffer_bytes=4096 * 12)
    training.path = tmp_path / "run"
    stream = batches("numbers")
    labels, values = (np.concatenate(columns) for columns in zip(*itertools.islice(stream, 4), strict=True))
    for some in (3000, 2000, 5000):  # fits, does not fit any more, does not fit at all
        for n in itertools.count(0, stride(97, 1)):
            training.update(np.arange(3), np.ones(3, np.float32))
            if not training.update(labels[:some], values[:some], at=At(n)):
                break
    training.end(10**6)
    if recorded:
        training.check_recorded()


@pytest.mark.parametrize(
    ("kind", "recorded"), [("numbers", False), ("growing", False), ("mixed", False), ("growing", True)]
)
def test_an_interrupt_at_any_line_leaves_all_metrics_and_ids_of_a_batch_or_nothing(tmp_path, kind, recorded):
    path = lt.RecordingOptions(tmp_path / "run", flush_rows=1024) if recorded else None
    training = Training(path, make=Both)
    training.path = tmp_path / "run"
    stream = batches(kind)
    training.update(*next(stream))
    for _ in range(6):
        labels, values = next(stream)
        for n in itertools.count(0, stride(17, 5)):
            if not training.update(labels, values, at=At(n)):
                break
    training.end(10**6)
    if recorded:
        training.check_recorded()
        table = lt.open_run(training.path).samples("train", 10**6)
        assert table["double"].to_numpy().tolist() == (2 * table["ce"].to_numpy()).tolist()
        assert len(set(table["id"].to_pylist())) == table.num_rows


def test_an_interrupt_at_any_instruction_of_a_common_batch_leaves_all_metrics_or_nothing():
    training = Training(make=Both)
    stream = batches("numbers")
    training.update(*next(stream))
    labels, values = (column[:3] for column in next(stream))
    collection = training.tracker.collection

    def update(labels, values, **where):
        collection.update(labels, {"ce": values, "double": 2 * values}, **where)

    for ids in (True, False):
        if not ids:
            training.reset()
            training.tracker.update = update
            training.update(labels, values)
        for n in itertools.count(0, stride(7, 1)):
            if not training.update(labels, values, at=At(n, instructions=True)):
                break
    training.end(1)


def test_an_interrupt_at_any_line_while_metrics_are_folded_leaves_all_of_the_batch_or_nothing():
    training = Training(make=Both, max_buffer_bytes=4096 * 24)
    stream = batches("numbers")
    labels, values = (np.concatenate(columns) for columns in zip(*itertools.islice(stream, 4), strict=True))
    for some in (3000, 2000, 5000):  # fits, does not fit any more, does not fit at all
        for n in itertools.count(0, stride(197, 23)):
            training.update(np.arange(3), np.ones(3, np.float32))
            if not training.update(labels[:some], values[:some], at=At(n)):
                break
    training.end(1)


def test_an_interrupt_at_any_line_of_the_end_of_an_epoch_enters_all_metrics_or_none():
    stream = batches("numbers")
    for n in itertools.count(0, stride(61, 23)):
        if n % (20 * stride(61, 23)) == 0:
            training = Training(make=Both)
        for ds_id in ("a", "b"):
            labels, values = next(stream)
            training.update(labels[:150], values[:150], ds_id=ds_id)
        raised = training.end(n, at=At(n))
        if n not in training.tracker.history.steps():
            training.end(n)
        if not raised:
            break
    assert n > 30 or PLAIN


@pytest.mark.parametrize("recorded", [False, True], ids=["in memory", "recorded"])
@pytest.mark.parametrize("what", ["end", "reset"])
def test_an_interrupt_at_any_line_of_the_end_of_an_epoch_counts_it_once_or_not_at_all(tmp_path, recorded, what):
    stream = batches("numbers")
    for n in itertools.count(0, stride(41, 1)):
        if n % (20 * stride(41, 1)) == 0:  # with the epochs before, each would be compared again every time
            path = tmp_path / f"run{n}"
            training = Training(lt.RecordingOptions(path, flush_rows=1024) if recorded else None)
            training.path = path
        for ds_id in ("a", "b"):
            labels, values = next(stream)
            training.update(labels[:150], values[:150], ds_id=ds_id)
            training.update(labels[:5], values[:5], ds_id=ds_id)
        raised = training.reset(At(n)) if what == "reset" else training.end(n, at=At(n))
        if n not in training.tracker.history.steps():
            training.end(n)
        if recorded and (not raised or (n + stride(41, 1)) % (20 * stride(41, 1)) == 0):
            training.check_recorded()
        if not raised:
            break
    assert n > 30 or PLAIN


@pytest.mark.parametrize("call", ["flush", "close"])
def test_an_interrupt_at_any_line_of_flush_and_close_loses_no_row_and_locks_nothing(tmp_path, call):
    for n in itertools.count(0, stride(5, 1)):
        path = tmp_path / f"run{n}"
        training = Training(lt.RecordingOptions(path, flush_rows=1024))
        training.path = path
        stream = batches("strings")
        training.update(*next(stream))
        training.end(1)
        training.update(*next(stream))
        with At(n) as at:
            getattr(training.tracker, call)()
        if call == "flush":
            training.update(*next(stream))
            training.end(2)
            training.check_recorded()
        else:
            training.tracker.close()
            assert lt.open_run(path).samples(incomplete=True).num_rows == 10
        if not at.raised:
            break
    assert n > 4


def test_an_interrupt_at_any_line_of_loading_a_state_leaves_the_old_state_or_the_new_one(tmp_path):
    source = Training()
    stream = batches("strings")
    source.update(*next(stream))
    source.end(1)
    source.update(*next(stream))
    state = source.tracker.state_dict()
    for n in itertools.count(0, stride(31, 1)):
        path = tmp_path / f"run{n}"
        training = Training(path)
        training.update(*next(stream))
        with At(n) as at:
            training.tracker.load_state_dict(state)
        old = dict(training.open), dict(training.epochs)
        training.open, training.epochs = dict(source.open), dict(source.epochs)
        if training.tracker.history.steps() != [1]:
            training.open, training.epochs = old
        training.check()
        training.end(2)
        training.epochs.pop(("train", 1, ""), None)
        training.check_recorded()
        if not at.raised:
            break


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals")
@pytest.mark.parametrize("recorded", [False, True], ids=["in memory", "recorded"])
@pytest.mark.parametrize("make", [lt.LabelTracker, Both], ids=["one metric", "several metrics and ids"])
def test_signals_at_random_times_lose_and_double_nothing(tmp_path, make, recorded):
    rounds = int(os.environ.get("LABELTRACK_INTERRUPTS", "20" if PLAIN else "150"))
    seen = fuzz(tmp_path / "run" if recorded else None, rounds, make, seed=int(recorded))
    assert seen >= rounds


def fuzz(path, rounds, make, seed):
    """Train with signals that come at random; return how many came within a call."""
    random_ = random.Random(seed)  # noqa: S311
    limit = random_.choice([2**18, 2**28])
    recording = None if path is None else lt.RecordingOptions(path, flush_rows=1024)
    training = Training(recording, make=make, max_buffer_bytes=limit)
    training.path = path
    stream = batches("numbers", seed)
    armed, count, many, step = [False], [0], 1, 0

    def act(what, labels, values, mode, ds_id):
        armed[0] = True
        if what == "update":
            while count[0] < many:
                training.tracker.update(labels, values, mode=mode, ds_id=ds_id)
                count[0] += 1
        elif what == "end":
            training.tracker.end_epoch(step, mode=mode)
        elif what == "reset":
            training.tracker.reset(mode=mode)
        else:
            training.tracker.flush()
        armed[0] = False

    def handler(_signal, frame):
        inner = frame
        while inner is not None:
            if inner.f_code.co_name == "__del__":  # in which Python ignores exceptions
                return
            inner = inner.f_back
        if armed[0]:
            armed[0] = False
            raise Interrupt

    lt.LabelTracker("y", "ce").update([0], [1.0])  # what the first one looks at leaves a file to the garbage collector
    before = signal.signal(signal.SIGALRM, handler)
    seen = 0
    try:
        while seen < rounds:
            mode, ds_id = random_.choice(["train", "eval"]), random_.choice(["", "a"])
            labels, values = next(stream)
            n = random_.choice([1, 3, 100, 3000])
            labels, values = labels[:n], values[:n]
            what = random_.choice(["update"] * 6 + ["end", "reset", "flush"])
            came = False
            many = random_.randrange(1, 60 if n < 3000 else 3) if what == "update" else 1
            count[0] = 0
            signal.setitimer(signal.ITIMER_REAL, random_.choice([2e-5, 1e-4, 5e-4]) * random_.uniform(0.2, 1.5))
            try:
                act(what, labels, values, mode, ds_id)  # one call: not every jump in a `try` is guarded by it
            except Interrupt:
                came = True
            except lt.LabelTrackWarning:  # nothing there to end
                armed[0] = False
            done = count[0]
            signal.setitimer(signal.ITIMER_REAL, 0)
            seen += came
            if what == "update":
                rows = training.open.setdefault((mode, ds_id), [])
                batch = list(zip(plain(labels), plain(values), strict=True))
                counts = [done, done + 1] if came else [done]
                training.see(mode, ds_id, [rows + batch * count for count in counts])
            elif what == "end":
                if step in training.tracker.history.steps(mode):
                    for (of, d), rows in training.open.items():
                        if of == mode and rows:
                            training.epochs[mode, step, d] = rows
                            training.open[of, d] = []
                step += 1
            elif what == "reset" and not training.now(mode):
                training.open = {key: [] if key[0] == mode else rows for key, rows in training.open.items()}
        training.check()
        training.reset()  # what has not ended is not to be found in the run
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if path is not None:
        training.check_recorded()
    return seen


IN_THE_FIRST_EPOCH = """
import signal

import numpy as np

import labeltrack as lt

class Interrupt(BaseException):
    pass

def handler(*_):
    raise Interrupt

tracker = lt.LabelTracker("y", "ce")
tracker.update(np.arange(10) % 3, np.arange(10, dtype=np.float32))
signal.signal(signal.SIGALRM, handler)
came = 0
for _ in range(12):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05 * (1 + came % 4))
        tracker.end_epoch(1)
        signal.setitimer(signal.ITIMER_REAL, 0)
        break
    except Interrupt:
        came += 1
    if len(tracker.history):
        break
signal.setitimer(signal.ITIMER_REAL, 0)
if not len(tracker.history):
    tracker.end_epoch(1)
print(came, tracker.history.at(1).sum.tolist(), tracker.history.at(1).count.tolist())
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals")
def test_interrupts_of_the_first_epoch_do_not_break_the_compiler(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", IN_THE_FIRST_EPOCH]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    came, _, said = done.stdout.partition(" ")
    assert said.split("\n")[0] == "[18.0, 12.0, 15.0] [4, 3, 3]"
    assert int(came) > 0 or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"


def in_threads(*works):
    """Run functions at once, with threads that take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors = []

    def run(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (it is raised below)
            errors.append(error)

    try:
        threads = [threading.Thread(target=run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    if errors:
        raise errors[0]


@pytest.mark.filterwarnings("ignore:no samples were recorded in mode")
@pytest.mark.parametrize("kind", ["numbers", "strings", "lists", "turning unsigned"])
@pytest.mark.parametrize("recorded", [False, True], ids=["in memory", "recorded"])
def test_batches_of_several_threads_are_all_recorded_each_under_its_labels(tmp_path, kind, recorded):
    options = {"record_to": lt.RecordingOptions(tmp_path / "run", flush_rows=1024)} if recorded else {}
    tracker = lt.LabelTracker("y", "ce", **options)
    rounds = 300 if QUICK else 3000
    ended = []

    def train(number):
        labels = np.full(16, number)
        values = np.full(16, number + 0.5, np.float32)
        given = labels
        if kind == "strings":
            given = [f"class {number}"] * 16
        elif kind == "lists":
            given, values = labels.tolist(), values.tolist()
        elif kind == "turning unsigned" and number == 3:
            given = np.full(16, 2**63 + 3, np.uint64)
        for i in range(rounds):
            tracker.update(given, values, mode="eval" if i % 7 == 0 else "train", ds_id="a" if i % 3 == 0 else "")

    def end():
        for step in range(20):
            tracker.end_epoch(step)
            tracker.state_dict()
            for mode in ("train", "eval"):
                seen = tracker.compute(mode)
                assert seen.min.tolist() == seen.max.tolist()  # none under another label
            repr(tracker)
            ended.append(step)

    in_threads(*(lambda number=number: train(number) for number in range(4)), end)
    tracker.end_epoch(20)
    tracker.end_epoch(20, mode="eval")
    count, total = Counter(), Counter()
    for stats in dict(tracker.history.items()).values():
        for label, n, value in zip(stats.labels.tolist(), stats.count.tolist(), stats.sum.tolist(), strict=True):
            assert stats[label].min == stats[label].max  # none under another label
            count[label] += n
            total[label] += value
    wanted = {0: 0, 1: 1, 2: 2, 3: 2**63 + 3 if kind == "turning unsigned" else 3}
    names = {n: f"class {n}" if kind == "strings" else label for n, label in wanted.items()}
    assert len(ended) == 20
    assert count == {names[n]: 16 * rounds for n in range(4)}
    assert total == {names[n]: 16 * rounds * (n + 0.5) for n in range(4)}
    if recorded:
        tracker.close()
        assert sum(epoch.rows for epoch in lt.open_run(tmp_path / "run").epochs) == 4 * 16 * rounds


def test_a_handler_that_changes_the_tracker_within_a_change_is_told_so():
    tracker = lt.LabelTracker("y", "ce")
    tracker.update([1], [1.0])
    messages = []

    class Told(lt.History):
        def entry(self, *args, **more):
            for change in (tracker.reset, lambda: tracker.update([1, 2], [1.0, 2.0]), lambda: tracker.end_epoch(2)):
                with pytest.raises(RuntimeError, match=r"was called within end_epoch\(\) of the same tracker"):
                    change()
                messages.append(1)
            assert len(tracker.state_dict()["streams"]) == 1
            assert tracker.compute().count.tolist() == [1]
            tracker.flush()
            return super().entry(*args, **more)

    tracker.history.__class__ = Told
    assert tracker.end_epoch(1).count.tolist() == [1]
    assert len(messages) == 3


@pytest.mark.parametrize("other", ["eval", "test"])
def test_an_epoch_without_samples_names_the_modes_that_have_some(other):
    tracker = lt.LabelTracker("y", "ce")
    tracker.update([1, 2], [1.0, 2.0], mode=other)
    with pytest.warns(lt.LabelTrackWarning, match=f"no samples were recorded in mode 'train'.*mode '{other}' has 2"):
        assert len(tracker.end_epoch(1)) == 0
    assert tracker.end_epoch(1, mode=other).count.tolist() == [1, 1]
    assert len(tracker.end_epoch(2)) == 0  # nor is there anything elsewhere


def test_an_epoch_of_a_mode_that_is_not_tracked_is_empty_without_a_word():
    tracker = lt.LabelTracker("y", "ce", mode="eval")
    tracker.update([1], [1.0], mode="eval")
    assert len(tracker.end_epoch(1)) == 0


@pytest.mark.parametrize("change", ["add", "replace", "load"])
def test_a_history_is_changed_as_a_whole_wherever_an_interrupt_comes(change):
    """At any line: afterwards it is what it was before, or what an undisturbed change makes of it."""
    old, new = lt.label_stats([0, 1], [0.5, 2.0]), lt.label_stats([0, 2], [0.25, 3.0])
    other = lt.History(metric="accuracy", label="site", bounds=[None])
    other.add(7, new, mode="test", ds_id="a")
    state = other.state_dict()

    def history():
        made = lt.History(metric="ce", label="y")
        made.add_all(1, {"a": old, "b": old}, mode="eval")
        return made

    def apply(to):
        if change == "load":
            to.load_state_dict(state)
        elif change == "add":
            to.add(2, new, mode="train")
        else:
            to.add_all(1, {"b": new}, mode="eval", replace=True)

    def seen(what):
        keys = [(key, stats.labels.tolist(), stats.sum.tolist()) for key, stats in what.items()]
        found = {mode: [(step, list(what.datasets(step, mode))) for step in what.steps(mode)] for mode in what.modes}
        return what.metric, what.label, what.bounds, keys, found

    changed = history()
    apply(changed)
    allowed = [seen(history()), seen(changed)]
    outcomes = Counter()
    for n in itertools.count():
        disturbed = history()
        with (at := At(n)):
            apply(disturbed)
        outcomes[allowed.index(seen(disturbed))] += 1
        if not at.raised:
            break
    assert outcomes[0] > 5  # too early
    assert outcomes[1] > 1  # too late to keep it from happening
