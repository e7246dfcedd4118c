"""`LabelTracker.update_later`: whatever reads has every batch, once, in the order in which they came."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import threading
import weakref

import numpy as np
import pytest
from exact import expected_by_label, fingerprint, rows
from test_interrupts import At, stride
from trackers import make, merged, restored

import labeltrack as lt


def make_samples(batches):
    labels, values = map(np.concatenate, zip(*batches, strict=True))
    return {"labels": labels, "values": values}


def make_lists(batches):
    labels, values = zip(*batches, strict=True)
    return {"labels": list(itertools.chain(*labels)), "values": np.concatenate(values)}


def batches(number, size=8, seed=0):
    random = np.random.default_rng(seed)
    return [(random.integers(0, 5, size), random.exponential(size=size).astype(np.float32)) for _ in range(number)]


def wanted(some):
    return expected_by_label(*(np.concatenate(column).tolist() for column in zip(*some, strict=True)))


def on_device():
    """Return the type of tensors that say that they are on a device."""
    import torch

    class OnDevice(torch.Tensor):
        is_cpu = False

    return OnDevice


def test_whatever_reads_has_all_samples():
    some = batches(200)
    for read in (
        lambda tracker: tracker.compute(),
        lambda tracker: pickle.loads(pickle.dumps(tracker)).compute(),
        lambda tracker: restored(tracker.state_dict(samples=False)).compute(),
        lambda tracker: merged(tracker).compute(),
    ):
        tracker = make()
        for n, batch in enumerate(some):
            tracker.update_later(batch, make_samples)
            if n % 70 == 3:
                assert rows(read(tracker)) == wanted(some[: n + 1])
        assert tracker.pending == {("train", ""): 200 * 8}
        assert rows(tracker.end_epoch(1)) == wanted(some)
        assert not tracker.pending


def test_many_batches_are_made_samples_at_once_and_few_wait():
    calls, tracker = [], make()

    def counting(some):
        calls.append(len(some))
        return make_samples(some)

    for batch in batches(1000):
        tracker.update_later(batch, counting)
    assert sum(calls) > 900
    assert len(calls) < 30
    assert calls[0] == 1  # a mistake in what it makes is told at once
    before = len(calls)
    for batch in batches(4):
        tracker.update_later(batch, counting, nbytes=2**19)
    assert len(calls) > before + 1
    assert tracker.compute().total().count == 1004 * 8


def test_batches_of_update_before_and_after_keep_their_places():
    some = batches(60)
    one, other = (make(keep_order=True, bounds=["iqr", "std"]) for _ in range(2))
    for n, (labels, values) in enumerate(some):
        mode = "eval" if n % 5 == 4 else "train"
        names = [f"{n}-{label}" for label in labels]
        other.update(names, values, mode=mode)
        if n % 3:
            one.update_later((names, values), make_lists, mode=mode)
        else:
            one.update(names, values, mode=mode)
    for mode in ("train", "eval"):
        assert fingerprint(one.end_epoch(1, mode=mode)) == fingerprint(other.end_epoch(1, mode=mode))
    assert one.labels_in_order == other.labels_in_order


def test_modes_datasets_and_makers_are_kept_apart():
    tracker, every = make(mode="!test"), batches(90)
    for n, batch in enumerate(every):
        how = make_lists if n % 7 == 0 else make_samples
        tracker.update_later(batch, how, mode=("train", "eval", "test")[n % 3], ds_id="ab"[n % 2])
    assert set(tracker.pending) == {(mode, ds_id) for mode in ("train", "eval") for ds_id in "ab"}
    assert rows(tracker.compute("train")) == wanted(every[::3])
    tracker.reset(mode="train")
    assert not len(tracker.compute("train"))
    assert rows(tracker.end_epoch(1, mode="eval")) == wanted(every[1::3])


def test_masks_and_ids_come_with_the_samples():
    def with_more(some):
        labels, values, where, ids = map(np.concatenate, zip(*some, strict=True))
        return {"labels": labels, "values": values, "where": where, "ids": ids}

    tracker = make(on_duplicate="first")
    random = np.random.default_rng(0)
    seen, kept = set(), []
    for labels, values in batches(100):
        where, ids = random.random(8) < 0.7, random.integers(0, 500, 8)
        tracker.update_later((labels, values, where, ids), with_more)
        for label, value, counts, id_ in zip(labels.tolist(), values, where, ids.tolist(), strict=True):
            if counts and id_ not in seen:
                seen.add(id_)
                kept.append((label, value))
    assert rows(tracker.end_epoch(1)) == expected_by_label(*zip(*kept, strict=True))


def test_a_mistake_is_told_with_the_number_of_its_batch_and_loses_no_other():
    some = batches(50)
    tracker = make()
    for n, (labels, values) in enumerate(some):
        bad = [None, *labels[1:].tolist()] if n in (20, 33) else labels
        tracker.update_later((np.array(bad, dtype=object) if n in (20, 33) else bad, values), make_samples)
    with pytest.raises(ValueError, match=r"update_later\(\) number 21 in mode 'train'.*1 further update"):
        tracker.end_epoch(1)
    assert rows(tracker.end_epoch(1)) == wanted([batch for n, batch in enumerate(some) if n not in (20, 33)])
    with pytest.raises(ValueError, match=r"update_later\(\) number 1 in"):
        tracker.update_later((np.array([1, 2]), np.array([1.0])), make_samples)


def test_other_errors_leave_the_batches_where_they_are_until_reset():
    tracker, fails = make(), [True]

    def failing(some):
        if fails:
            msg = "out of reach"
            raise OSError(msg)
        return make_samples(some)

    some = batches(10)
    with pytest.raises(OSError, match="out of reach"):
        tracker.update_later(some[0], failing)
    fails.clear()
    for batch in some[1:]:
        tracker.update_later(batch, failing)
    assert rows(tracker.compute()) == wanted(some)
    fails.append(True)
    tracker.update_later(some[0], failing)
    with pytest.raises(OSError, match="out of reach"):
        tracker.compute()
    tracker.reset()
    assert not len(tracker.compute())


def test_errors_of_pytorch_are_mistakes_of_their_batches_or_of_batches_that_do_not_go_together():
    torch = pytest.importorskip("torch")

    def cat(some):
        labels, values = map(torch.cat, zip(*some, strict=True))
        return {"labels": labels, "values": values}

    tracker = make()
    for width in (2, 3, 2, 3):  # each is right, and they cannot be concatenated
        tracker.update_later((torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, width)), cat)
    assert rows(tracker.compute()) == expected_by_label([0] * 10, [1.0] * 10)

    def pick(some):
        return make_samples([(labels, values.tolist()[labels[0]] * np.ones(1)) for labels, values in some])

    tracker = make()
    for label in (0, 1, 5, 1):
        tracker.update_later((np.array([label]), np.array([1.0, 2.0])), pick)
    with pytest.raises(ValueError, match=r"IndexError: list index out of range. This is update_later\(\) number 3 in"):
        tracker.end_epoch(1)
    assert rows(tracker.end_epoch(1)) == expected_by_label([0, 1, 1], [1.0, 2.0, 2.0])


def bad():
    return np.array([None, 1], dtype=object), np.array([1.0, 2.0])


def test_a_mistake_in_an_earlier_batch_is_told_and_the_batch_of_this_call_is_recorded():
    torch = pytest.importorskip("torch")
    batch = np.array([7]), np.array([1.0])
    for record in (
        lambda tracker: tracker.update(*batch),
        lambda tracker: tracker.update(batch[0].tolist(), batch[1].tolist()),
        lambda tracker: tracker.update_later(batch, make_samples, nbytes=2**20),
        lambda tracker: tracker.update(*(torch.as_tensor(column).as_subclass(on_device()) for column in batch)),
    ):
        tracker = make()
        tracker.update_later((np.array([0]), np.array([1.0])), make_samples)
        tracker.update_later(bad(), make_samples)
        with pytest.raises(ValueError, match=r"update_later\(\) number 2 in mode"):
            record(tracker)
        assert rows(tracker.compute()) == expected_by_label([0, 7], [1.0, 1.0])
        with pytest.raises(ValueError, match="3 labels, 2 values"):  # its own mistake is first, if there are two
            tracker.update([1, 2, 3], [1.0, 2.0])
        assert rows(tracker.end_epoch(1)) == expected_by_label([0, 7], [1.0, 1.0])


def test_memory_of_batches_is_freed_once_they_are_recorded():
    class Array(np.ndarray):
        pass

    tracker, references = make(), []
    for _ in range(4):
        values = np.zeros(3).view(Array)
        references.append(weakref.ref(values))
        tracker.update_later((np.zeros(3, dtype=np.int64), values), make_samples)
    del values
    tracker.end_epoch(1)
    gc.collect()
    assert [each() for each in references] == [None] * 4


def test_full_memory_folds_what_waited():
    tracker, some = make(max_buffer_bytes=512), batches(300)
    for batch in some:
        tracker.update_later(batch, make_samples)
    assert rows(tracker.end_epoch(1)) == wanted(some)


def test_recorded_runs_have_what_waited_when_a_tracker_ends(tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("xxhash")
    some = batches(100)
    tracker = make(record_to=tmp_path)
    for batch in some:
        tracker.update_later(batch, make_samples)
    tracker.end_epoch(1)
    for batch in some[:10]:
        tracker.update_later(batch, make_samples)
    tracker.close()
    history = lt.open_run(tmp_path).recompute(incomplete=True)
    assert rows(history.at(1)) == wanted(some)
    assert rows(history.at(2)) == wanted(some[:10])


def test_threads_may_add_and_read_at_once():
    tracker, number = make(), 400
    sources = [batches(number, seed=seed) for seed in range(3)]

    def add(some):
        for batch in some:
            tracker.update_later(batch, make_samples)

    threads = [threading.Thread(target=add, args=(some,)) for some in sources]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert tracker.compute().total().count % 8 == 0
    for thread in threads:
        thread.join()
    assert rows(tracker.end_epoch(1)) == wanted(list(itertools.chain(*sources)))


def test_a_batch_that_another_thread_adds_while_an_epoch_ends_is_of_the_next_one(monkeypatch):
    batch, paused, go, done = batches(1)[0], *(threading.Event() for _ in range(3))
    tracker = make()

    class Slow:  # its comparison lets other threads run, as Python may anywhere
        def __call__(self, some):
            return make_samples(some)

        def __eq__(self, other):
            if threading.current_thread() is thread:
                paused.set()
                go.wait(60)
            return isinstance(other, Slow)

        __hash__ = None

    def add():
        tracker.update_later(batch, Slow())
        done.set()

    thread = threading.Thread(target=add)
    tracker.update_later(batch, Slow())
    tracker.update_later(batch, Slow())
    thread.start()
    paused.wait(60)
    computed = lt.LabelTracker._statistics

    def statistics(self, *arguments):
        found = computed(self, *arguments)
        go.set()
        done.wait(60)
        return found

    monkeypatch.setattr(lt.LabelTracker, "_statistics", statistics)
    assert rows(tracker.end_epoch(1)) == wanted([batch] * 2)
    thread.join()
    assert rows(tracker.end_epoch(2)) == wanted([batch])


def test_batches_are_numbered_in_the_order_in_which_they_came_from_the_end_of_an_epoch_on():
    tracker = make()
    for step in (1, 2):
        for how in (make_samples, make_samples, make_samples, make_lists, make_samples):
            tracker.update_later(batches(1)[0], how)
        tracker.update_later(bad(), make_lists)
        with pytest.raises(ValueError, match=r"update_later\(\) number 6 in mode"):
            tracker.compute()
        tracker.end_epoch(step)


def test_a_signal_handler_that_reads_within_a_batch_is_told_to_wait():
    tracker, told = make(), []

    def reading(some):
        with pytest.raises(RuntimeError, match=r"was called within"):
            tracker.compute()
        told.append(repr(tracker))
        return make_samples(some)

    tracker.update_later(batches(1)[0], reading)
    assert told[0].endswith("1 update to be recorded")
    assert tracker.compute().total().count == 8


@pytest.mark.parametrize("memory", [2**28, 400], ids=["all fits", "folded"])
def test_an_interrupt_at_any_line_leaves_every_batch_in_once_or_not_at_all(memory):
    tracker, ids = make(max_buffer_bytes=memory), itertools.count()
    sure, unsure = [], set()
    for n in itertools.count(0, stride(13, 2)):
        raised = False
        for _ in range(3):
            number = next(ids)
            with At(n) as at:
                tracker.update_later((np.array([number] * 2), np.array([1.0, 2.0])), make_samples)
            (unsure.add if at.raised else sure.append)(number)
            raised |= at.raised
        with At(n) as at:
            tracker.compute()
        stats = tracker.compute()
        assert set(stats.count.tolist()) <= {2}
        found = stats.labels.tolist()
        assert set(sure) <= set(found) <= {*sure, *unsure}
        if not raised and not at.raised:
            break
    assert n > 30


def tell(tracker, told):
    """Note the error of a mistake; an interrupt that comes on its way out shows it, too."""
    try:
        tracker.compute()
    except ValueError as error:
        told.append(str(error))
    except BaseException as error:
        if "number 4 in" in str(error.__context__):
            told.append(str(error.__context__))
        raise


def test_an_interrupt_leaves_each_mistake_told_at_least_once_and_counted_once():
    silent = 0
    for n in itertools.count(0, stride(1, 1)):
        tracker, told = make(), []
        for number in range(3):
            tracker.update_later((np.array([number]), np.array([1.0])), make_samples)
        tracker.update_later(bad(), make_samples)
        with At(n) as at:
            tell(tracker, told)
        for _ in range(2):
            tell(tracker, told)
        stats = tracker.compute()
        assert stats.count.tolist() == [1, 1, 1]
        assert len(set(told)) <= 1
        assert "further" not in str(told)
        silent += not told
        if not at.raised:
            break
    assert silent <= 1  # where the lock is released, no handler of a signal runs
    assert n > 30


def test_an_interrupt_before_the_first_tensor_on_a_device_leaves_every_batch_in_once():
    torch = pytest.importorskip("torch")
    make().update(*(torch.tensor(column).as_subclass(on_device()) for column in ([3], [1.0])))  # imports
    for n in itertools.count(0, stride(31, 5)):
        tracker = make()
        for number in range(3):
            tracker.update_later((np.array([number]), np.array([1.0])), make_samples)
        with At(n) as at:
            tracker.compute()
        tracker.update(*(torch.tensor(column).as_subclass(on_device()) for column in ([3], [1.0])))
        assert rows(tracker.compute()) == expected_by_label([0, 1, 2, 3], [1.0] * 4)
        if not at.raised:
            break
    assert n > 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_forked_process_has_what_waited_too():
    tracker, some = make(), batches(5)
    for batch in some:
        tracker.update_later(batch, make_samples)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b"1" if tracker.pending == {("train", ""): 40} else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 1) == b"1"
    assert rows(tracker.compute()) == wanted(some)


def test_tensors_on_a_device_and_batches_that_wait_keep_their_order():
    torch = pytest.importorskip("torch")
    one, other = make(keep_order=True), make(keep_order=True)
    some = batches(40)
    for n, (labels, values) in enumerate(some):
        shifted = labels + 10 * n
        other.update(shifted, values)
        if n % 4 < 2:
            one.update_later((shifted, values), make_samples)
        elif n % 4 == 2:
            one.update(*(torch.as_tensor(column).clone().as_subclass(on_device()) for column in (shifted, values)))
        else:
            one.update(shifted, values)
    assert fingerprint(one.end_epoch(1)) == fingerprint(other.end_epoch(1))
    assert one.labels_in_order == other.labels_in_order
