"""Tensors on a device: nothing waits for it, and what arrives is what was there, in the order in which it came.

Where there is no GPU, tensors of the CPU stand for those of a device, in two ways: copies between them happen at once;
or they happen as late as possible, once somebody waits for a stream, as on a GPU that is far behind.
"""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import threading
import warnings
import weakref

import numpy as np
import pytest
from exact import expected_by_label, fingerprint, rows
from test_interrupts import At, stride
from trackers import make, merged, restored

import labeltrack as lt
from labeltrack.errors import NaNError

try:
    import torch
except ImportError:
    if os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1":
        raise
    pytest.skip("torch is not installed (extra: frameworks)", allow_module_level=True)

from torch.overrides import TorchFunctionMode


class OnDevice(torch.Tensor):
    """A tensor of the CPU that says that it is not there."""

    is_cpu = False


class Second(OnDevice):
    """One on another device."""

    device = torch.device("cpu:0")


class Stream:
    """Work that is done once somebody waits for it."""

    def __init__(self, *_arguments):
        self.work, self.done = [], 0

    def run(self, until):
        while self.done < until:
            self.work[self.done]()
            self.work[self.done] = None
            self.done += 1

    def wait_stream(self, other):
        until = len(other.work)
        self.work.append(lambda: other.run(until))


class Late(TorchFunctionMode):
    """Puts copies off, and notes who waits for them and what memory is there."""

    def __init__(self):
        super().__init__()
        self.current, self.streams = Stream(), []
        self.waited, self.running, self.memory = 0, False, []

    def __torch_function__(self, function, _types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.copy_ and not self.running:
            self.current.work.append(lambda: function(*args, **kwargs))
            return args[0]
        made = function(*args, **kwargs)
        if function is torch.empty and kwargs.get("dtype") is torch.uint8:
            self.memory.append((weakref.ref(made), made.numel()))
        return made

    def run(self, stream, until):
        self.running = True
        try:
            with torch.inference_mode():  # which may write to what was made in it
                stream.run(until)
        finally:
            self.running = False

    def catch_up(self):
        """Do all work."""
        for stream in (self.current, *self.streams):
            self.run(stream, len(stream.work))

    def bytes(self):
        """Return how many bytes there are, on the device and on the host."""
        return sum(size for made, size in self.memory if made() is not None)

    def stream(self, *_arguments):
        self.streams.append(Stream())
        return self.streams[-1]

    def event(self):
        late = self

        class Event:
            def record(self, stream):
                self.stream, self.until = stream, len(stream.work)

            def query(self):
                return self.stream.done >= self.until

            def synchronize(self):
                late.waited += 1
                late.run(self.stream, self.until)

        return Event()

    def switched(self, stream):
        late = self

        class Switched:
            def __enter__(self):
                self.before, late.current = late.current, stream

            def __exit__(self, *_error):
                late.current = self.before

        return Switched()


@pytest.fixture
def late(monkeypatch):
    mode = Late()
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(torch.cpu, "Stream", mode.stream)
    monkeypatch.setattr(torch.cpu, "Event", mode.event)
    monkeypatch.setattr(torch.cpu, "stream", mode.switched)
    monkeypatch.setattr(torch.cpu, "current_stream", lambda *_: mode.current)
    with mode:
        yield mode


def on_device(array, kind=OnDevice):
    return torch.as_tensor(array).clone().as_subclass(kind)


@pytest.fixture(params=["at once", "late", *(["cuda"] if torch.cuda.is_available() else [])])
def there(request):
    """What brings an array or a tensor to the device."""
    if request.param == "cuda":
        return lambda array: torch.as_tensor(array).to("cuda")
    if request.param == "late":
        request.getfixturevalue("late")
    return on_device


def batches(number, size=32, seed=0, dtype=np.int64):
    random_ = np.random.default_rng(seed)
    return [
        (random_.integers(0, 5, size).astype(dtype), random_.exponential(size=size).astype(np.float32))
        for _ in range(number)
    ]


def together(some):
    return (np.concatenate(column) for column in zip(*some, strict=True))


def wanted(some):
    return expected_by_label(*(column.tolist() for column in together(some)))


# -- the same numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory", [2**28, 2**12, 9999, 1], ids=["all fits", "loads of a few batches", "odd loads", "loads of one batch"]
)
def test_statistics_are_those_of_the_samples_to_the_last_bit(there, memory):
    tracker, some = make(max_buffer_bytes=memory), batches(60)
    for labels, values in some:
        tracker.update(there(labels), there(values))
    assert rows(tracker.end_epoch(1)) == wanted(some)
    for labels, values in some[:7]:
        tracker.update(there(labels), there(values))
    assert rows(tracker.end_epoch(2)) == wanted(some[:7])


def test_batches_of_all_sizes_shapes_and_of_none_come_in_whole(there):
    tracker, some = make(max_buffer_bytes=2**14), []
    for size in (3, 700, 0, 1, 64, 64, 20_000, 5):
        labels, values = batches(1, size, seed=size)[0]
        some.append((labels, values))
        tracker.update(there(labels[:, None]), there(values))
    labels, values = batches(1, 60)[0]
    tracker.update(there(labels.reshape(3, 20)), there(values.reshape(3, 20)))
    assert rows(tracker.compute()) == wanted([*some, (labels, values)])


@pytest.mark.parametrize(
    ("label", "value"),
    [
        (torch.int64, torch.float32),
        (torch.int32, torch.float64),
        (torch.uint8, torch.float16),
        (torch.bool, torch.bfloat16),
        (torch.float32, torch.bool),
        (torch.bfloat16, torch.int16),
    ],
)
def test_dtypes_are_read_as_those_of_the_host_are(there, label, value):
    labels = torch.tensor([0, 1, 1, 0, 1]).to(label)
    values = torch.tensor([0.1, 2.7, 3.3, 0.0, 5.9]).to(value)
    tracker = make()
    tracker.update(there(labels), there(values))
    tracker.update(there(labels), there(values))
    assert rows(tracker.end_epoch(1)) == expected_by_label(labels.tolist() * 2, values.double().tolist() * 2)


@pytest.mark.parametrize("host", ["labels", "values"])
def test_columns_of_the_host_may_change_once_update_has_returned(there, host):
    tracker = make()
    for kind in (np.array, torch.tensor, list):
        labels, values = kind([1, 2, 1]), kind([0.5, 1.5, 3.0])
        tracker.update(labels if host == "labels" else there([1, 2, 1]), values if host == "values" else there(values))
        labels[0], values[0] = 7, 99.0
    assert rows(tracker.compute()) == expected_by_label([1, 2, 1] * 3, [0.5, 1.5, 3.0] * 3)


@pytest.mark.parametrize("kind", [list, tuple])
def test_losses_of_single_samples_with_gradients_go_with_labels_of_a_device(there, kind):
    tracker, weights = make(), torch.ones(3, requires_grad=True)
    for factor in (1.0, 2.0):
        tracker.update(there([1, 2, 1]), kind(factor * weight for weight in weights))
    assert rows(tracker.compute()) == expected_by_label([1, 2, 1] * 2, [1.0] * 3 + [2.0] * 3)


def test_tensors_may_change_once_update_has_returned():
    tracker, labels, values = make(), torch.tensor([1, 2]).as_subclass(OnDevice), torch.ones(2).as_subclass(OnDevice)
    tracker.update(labels, values)
    labels.zero_()
    values.zero_()
    assert rows(tracker.compute()) == expected_by_label([1, 2], [1.0, 1.0])


def test_names_of_the_host_go_with_values_of_a_device(there):
    tracker, some = make(keep_order=True), batches(30)
    for labels, values in some:
        tracker.update([f"class {label}" for label in labels.tolist()], there(values))
    labels, values = together(some)
    names = [f"class {label}" for label in labels.tolist()]
    assert rows(tracker.end_epoch(1)) == expected_by_label(names, values.tolist())
    assert tracker.labels_in_order == list(dict.fromkeys(names))


def test_masks_and_labels_that_broadcast_stay_on_the_device(there):
    tracker, random_, kept = make(), np.random.default_rng(1), []
    for width in (6, 6, 4, 6):
        labels = random_.integers(0, 3, (4, 1))
        values = random_.exponential(size=(4, width)).astype(np.float32)
        mask = random_.random((4, width)) < 0.5
        tracker.update(there(labels), there(values), where=there(mask))
        kept += [(np.broadcast_to(labels, values.shape)[mask], values[mask])]
        tracker.update(there(labels), there(values), where=there(mask[0]))  # of each row
        some = np.broadcast_to(mask[0], mask.shape)
        kept += [(np.broadcast_to(labels, values.shape)[some], values[some])]
    assert rows(tracker.end_epoch(1)) == wanted(kept)


def test_ignored_and_missing_labels_are_as_those_of_the_host(there):
    tracker = make(ignore_label=-100, missing="skip")
    for labels in ([0.0, -100.0, 1.0, np.nan], [np.nan] * 4, [-100.0] * 4, [2.0, 2.0, np.nan, 0.0]):
        tracker.update(there(np.array(labels, np.float32)), there(np.array([1.0, np.nan, 3.0, np.inf])))
    stats = tracker.end_epoch(1)
    assert stats.labels.tolist() == [0, 1, 2]
    assert stats.count.tolist() == [2, 1, 2]
    assert stats.max.tolist()[:2] == [np.inf, 3.0]


@pytest.mark.parametrize("names", [False, True], ids=["integers", "one of names"])
def test_several_labels_and_metrics_come_together(there, names):
    tracker = lt.TrackerCollection(("class", "site"), ["ce", "hit"], max_buffer_bytes=2**13)
    random_, samples = np.random.default_rng(2), []
    for _ in range(30):
        classes, sites = random_.integers(0, 3, 9), random_.integers(0, 2, 9)
        loss, hit = random_.exponential(size=9), random_.random(9) < 0.5
        known = [f"site {site}" for site in sites.tolist()] if names else sites.tolist()
        labels = {"class": there(classes), "site": known if names else there(sites)}
        tracker.update(labels, {"ce": there(loss), "hit": there(hit)})
        samples += zip(zip(classes.tolist(), known, strict=True), loss.tolist(), hit.tolist(), strict=True)
    stats = tracker.end_epoch(1)
    keys, loss, hit = zip(*samples, strict=True)
    assert rows(stats["ce"]) == expected_by_label(keys, loss)
    assert rows(stats["hit"]) == expected_by_label(keys, hit)


@pytest.mark.parametrize("kind", ["integers", "strings"])
def test_the_first_sample_of_an_id_counts_in_the_order_of_all_batches(there, kind):
    """Batches of the host wait for those before them."""
    tracker = make(on_duplicate="first", max_buffer_bytes=2**12)
    random_, first = np.random.default_rng(3), {}
    for n in range(90):
        ids, labels = random_.integers(0, 300, 8), random_.integers(0, 3, 8)
        values = random_.exponential(size=8).astype(np.float32)
        for sample, label, value in zip(ids.tolist(), labels.tolist(), values.tolist(), strict=True):
            first.setdefault(sample, (label, value))
        named = [f"sample {sample}" for sample in ids.tolist()]
        if n % 5 == 2:
            tracker.update(labels, values, ids=ids if kind == "integers" else named)
        else:
            tracker.update(there(labels), there(values), ids=there(ids) if kind == "integers" else named)
    assert rows(tracker.end_epoch(1)) == expected_by_label(*zip(*first.values(), strict=True))


def test_batches_of_host_and_device_appear_in_the_order_in_which_they_came(there):
    tracker = make(keep_order=True)
    for n in range(12):
        labels, values = np.arange(2 * n, 2 * n + 2)[::-1].copy(), np.ones(2, np.float32)
        if n % 3:
            tracker.update(there(labels), there(values), ds_id="a" if n < 6 else "b")
        else:
            tracker.update(labels, values, ds_id="a" if n < 6 else "b")
    tracker.end_epoch(1)
    assert tracker.labels_in_order == [label for n in range(12) for label in (2 * n + 1, 2 * n)]


def test_modes_and_datasets_are_kept_apart(there):
    tracker, some = make(mode=["train", "eval"]), batches(24)
    for n, (labels, values) in enumerate(some):
        tracker.update(there(labels), there(values), mode=("train", "eval", "test")[n % 3], ds_id=str(n % 2))
    assert tracker.pending == {(m, d): 4 * 32 for m in ("train", "eval") for d in "01"}
    tracker.end_epoch(1, mode="eval")
    assert rows(tracker.history.at(1, "eval", "1")) == wanted(some[1::6])
    assert rows(tracker.compute("train")) == wanted(some[0::3])


def test_parameters_and_what_inference_and_autocast_give_are_read(there):
    tracker, labels = make(), there(torch.tensor([0, 1]))
    values = there(torch.tensor([1.5, 2.5])).requires_grad_()
    tracker.update(labels, values * 2)
    with torch.inference_mode():
        inferred = there(torch.tensor([1.0, 7.0]))
        tracker.update(labels, inferred)
    tracker.update(labels, values.detach())
    fresh = make()
    with torch.inference_mode():
        fresh.update(labels, inferred)
    fresh.update(labels, values)
    with torch.autocast(labels.device.type, torch.bfloat16):
        tracker.update(labels, there(torch.tensor([[1.0], [3.0]])) @ there(torch.tensor([[2.0]])))
    assert rows(tracker.compute()) == expected_by_label([0, 1] * 4, [3, 5, 1, 7, 1.5, 2.5, 2, 6])
    assert rows(fresh.compute()) == expected_by_label([0, 1] * 2, [1, 7, 1.5, 2.5])


@pytest.mark.usefixtures("late")
def test_columns_of_one_batch_may_be_on_several_devices():
    tracker, some = make(max_buffer_bytes=2**12), batches(40)
    for n, (labels, values) in enumerate(some):
        first, second = (OnDevice, Second) if n % 3 else (Second, OnDevice)
        tracker.update(on_device(labels, first), on_device(values, second if n % 4 else first))
    assert rows(tracker.compute()) == wanted(some)


def test_a_device_without_streams_is_waited_for(monkeypatch):
    monkeypatch.delattr(torch.cpu, "Stream")
    tracker, some = make(), batches(3)
    for labels, values in some:
        tracker.update(on_device(labels), on_device(values))
    assert repr(tracker).endswith("96 samples since")
    assert rows(tracker.compute()) == wanted(some)


# -- nothing waits ----------------------------------------------------------------------------------------


def test_update_never_waits_for_a_device_that_keeps_up(late):
    tracker, some = make(max_buffer_bytes=2**14), batches(400)
    for n, (labels, values) in enumerate(some):
        tracker.update(on_device(labels), on_device(values))
        if n % 4 == 0:
            late.catch_up()
    assert late.waited == 0
    assert rows(tracker.compute()) == wanted(some)
    assert late.waited == 1


def test_memory_is_bounded_where_the_device_is_behind(late):
    tracker, some = make(max_buffer_bytes=2**14), batches(200)
    for labels, values in some:
        tracker.update(on_device(labels), on_device(values))
        assert late.bytes() <= 2 * 2**14 // 4
    large = batches(6, 5000)
    for labels, values in large:
        tracker.update(on_device(labels), on_device(values))
        assert late.bytes() <= 2 * 2 * (5000 * 12 + 128)
    assert rows(tracker.compute()) == wanted([*some, *large])


def test_from_the_second_epoch_on_nothing_is_allocated(late):
    tracker = make()
    for step in range(4):
        for labels, values in batches(400, 256):
            tracker.update(on_device(labels), on_device(values))
            late.catch_up()
        tracker.end_epoch(step)
        if step == 0:
            before = len(late.memory)
    assert len(late.memory) == before


def test_memory_goes_with_the_tracker(late):
    tracker = make()
    tracker.update(on_device([1]), on_device([1.0]))
    assert late.bytes() > 0
    gc.disable()
    try:
        del tracker
        late.catch_up()
        late.current.work.clear()
        late.streams[0].work.clear()
        assert late.bytes() == 0
    finally:
        gc.enable()


def test_streams_that_take_turns_write_one_after_the_other(late):
    tracker, some, others = make(max_buffer_bytes=2**12), batches(60), [Stream(), Stream()]
    for n, (labels, values) in enumerate(some):
        with late.switched(others[n // 5 % 2]):
            tracker.update(on_device(labels), on_device(values))
    assert rows(tracker.compute()) == wanted(some)


def test_update_within_the_capture_of_a_graph_is_an_error(monkeypatch):
    tracker, one = make(), torch.ones(1).as_subclass(OnDevice)
    tracker.update(one, one)
    monkeypatch.setattr(torch.cpu, "is_current_stream_capturing", lambda: True, raising=False)
    with pytest.raises(RuntimeError, match="call it after each replay"):
        make().update(one, one)
    monkeypatch.undo()
    assert tracker.compute().count.tolist() == [1]


# -- reading, saving, starting over ------------------------------------------------------------------------


def test_whatever_reads_has_all_samples(there):
    some = batches(9)
    for read in (
        lambda tracker: tracker.compute(),
        lambda tracker: pickle.loads(pickle.dumps(tracker)).compute(),
        lambda tracker: tracker.state_dict() and tracker.compute(),
        lambda tracker: restored(tracker.state_dict(samples=False)).compute(),
        lambda tracker: merged(tracker).compute(),
    ):
        tracker = make()
        for n, (labels, values) in enumerate(some):
            tracker.update(there(labels), there(values))
            if n % 4 == 3:
                assert rows(read(tracker)) == wanted(some[: n + 1])
        assert sum(tracker.pending.values()) == 9 * 32


def test_own_samples_on_the_device_come_before_those_that_are_merged(there):
    one, other = make(on_duplicate="first"), make(on_duplicate="first")
    one.update(there([1, 2]), there([1.0, 2.0]), ids=there([10, 11]))
    other.update(there([1, 2]), there([8.0, 9.0]), ids=there([11, 12]))
    one.merge_state([other])
    assert rows(one.compute()) == expected_by_label([1, 2, 2], [1.0, 2.0, 9.0])


def test_reset_forgets_what_is_on_the_device(there):
    tracker = make()
    for mode in ("train", "eval", "train"):
        tracker.update(there([1]), there([2.0]), mode=mode)
    tracker.reset(mode="train")
    tracker.update(there([5]), there([7.0]))
    assert tracker.pending == {("eval", ""): 1, ("train", ""): 1}
    tracker.update(there([6]), there([8.0]), mode="eval")
    tracker.reset()
    assert tracker.pending == {}
    tracker.update(there([1]), there([2.0]))
    tracker.load_state_dict(make().state_dict())
    assert tracker.pending == {}


def test_repr_says_how_many_batches_are_on_the_device_and_does_not_wait(late):
    tracker = make()
    tracker.update([1], [2.0])
    tracker.update(on_device([1]), on_device([2.0]))
    assert repr(tracker).endswith("1 sample since, and 1 update to be recorded")
    assert late.waited == 0
    tracker.end_epoch(1)
    assert repr(tracker).endswith("0 samples since")


def test_rows_are_recorded_in_order_once_they_arrive(there, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    tracker, some = make(record_to=tmp_path, max_buffer_bytes=2**14), batches(50)
    for labels, values in some[:40]:
        tracker.update(there(labels), there(values))
    tracker.end_epoch(1)
    for labels, values in some[40:]:
        tracker.update(there(labels), there(values))
    del tracker
    gc.collect()
    run = lt.open_run(tmp_path)
    for step, part in ((1, some[:40]), (None, some[40:])):
        table = run.samples("train", 1) if step else run.samples("train", 2, incomplete=True)
        labels, values = together(part)
        assert table["label"].to_pylist() == labels.tolist()
        assert table["value"].to_pylist() == values.tolist()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_says_that_it_cannot_read_the_device_until_it_starts_over():
    tracker, one = make(), torch.ones(1).as_subclass(OnDevice)
    tracker.update(one, one)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python and JAX warn of forking with threads: data loaders do it
        child = os.fork()
    if not child:  # pragma: no cover (in another process)
        try:
            for read in (tracker.compute, lambda: tracker.update(one, one), lambda: tracker.pending):
                with pytest.raises(RuntimeError, match="only its parent can read them"):
                    read()
            tracker.reset()
            tracker.update(one, one)
            os._exit(tracker.compute().count.tolist() != [1])
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tracker.compute().count.tolist() == [1]


def test_threads_may_update_and_read_at_once(there):
    tracker, some = make(max_buffer_bytes=2**14), batches(80)
    failed = []

    def work(part):
        try:
            for n, (labels, values) in enumerate(part):
                if n % 4 == 1:
                    tracker.update(labels, values)
                else:
                    tracker.update(there(labels), there(values))
                if n % 7 == 3:
                    tracker.compute()
        except BaseException as error:  # noqa: BLE001 (it is looked at below)
            failed.append(error)

    threads = [threading.Thread(target=work, args=(some[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert rows(tracker.end_epoch(1)) == wanted(some)


# -- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "values", "more", "message"),
    [
        ([1, 2], 3.0, {}, "single metric value for 2 labels"),
        ([1, 2], [1.0, 2.0, 3.0], {}, "differ in length"),
        (np.eye(3, dtype=np.int64)[[0, 1]], [1.0, 2.0], {}, "look one-hot encoded"),
        ([1, 2], [1.0, 2.0], {"where": [True, False, True]}, "does not broadcast"),
        ([1, 2], [1.0, 2.0], {"where": [1, 0]}, "where must be boolean"),
        ([1, 2], [1.0, 2.0], {"ids": [1]}, "every sample needs an id"),
        ([1, 2], [1.0, 2.0], {"ids": [1.0, 2.0]}, "ids must be integers or strings"),
        ([1, 2], np.array([1j, 2j]), {}, "real numbers"),
        (np.array([1j, 2j]), [1.0, 2.0], {}, "labels must be integers"),
    ],
)
def test_what_shapes_and_dtypes_tell_is_told_at_once(late, labels, values, more, message):
    tracker = make()
    tracker.update(on_device([1]), on_device([2.0]))
    given = {name: on_device(column) for name, column in more.items()}
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=message):
            tracker.update(on_device(labels), on_device(values), **given)
    assert late.waited == 0
    assert rows(tracker.compute()) == expected_by_label([1], [2.0])


def test_shapes_of_several_labels_and_metrics_are_told_by_name(there):
    tracker = lt.TrackerCollection(("class", "site"), ["ce", "hit"])
    both = {"ce": there([1.0, 2.0]), "hit": there([1.0, 0.0])}
    with pytest.raises(ValueError, match="label 'site': labels and values differ in length"):
        tracker.update({"class": there([1, 2]), "site": there([1, 2, 3])}, both)
    with pytest.raises(ValueError, match="metric 'hit' has values of shape"):
        tracker.update({"class": there([1, 2]), "site": there([1, 2])}, both | {"hit": there([1.0])})
    with pytest.raises(KeyError, match="site"):
        tracker.update({"class": there([1, 2])}, both)
    assert tracker.pending == {}


@pytest.mark.parametrize("wrong", [[17], [0], [39], [3, 4, 30], list(range(40))])
def test_what_a_batch_contains_is_told_when_it_arrives_and_only_that_batch_is_lost(there, wrong):
    tracker, some, right = make(), batches(40, dtype=np.float64), []
    for n, (labels, values) in enumerate(some):
        if n in wrong:
            labels[3] = np.nan
        else:
            right.append((labels, values))
        tracker.update(there(labels), there(values), mode="eval", ds_id="d")
    others = rf" \({len(wrong) - 1} further" if len(wrong) > 1 else "$"
    message = rf"1 of 32 labels are missing.*update\(\) number {wrong[0] + 1} .* in mode 'eval' and dataset 'd'.*"
    with pytest.raises(ValueError, match=message + others):
        tracker.end_epoch(1, mode="eval")
    if right:
        assert rows(tracker.end_epoch(1, mode="eval")) == wanted(right)
    tracker.update(there([np.nan]), there([1.0]), mode="eval", ds_id="d")
    number = r"number 1 " if right else r"number 41 "
    with pytest.raises(ValueError, match=number):
        tracker.compute("eval")


def test_a_mistake_in_an_earlier_batch_is_told_and_the_batch_of_this_call_is_recorded(there):
    tracker, taken, told = make(max_buffer_bytes=2**12), [], 0
    for n, (labels, values) in enumerate(batches(50, dtype=np.float32)):
        if n == 5:
            tracker.update(there(np.full(32, np.nan, np.float32)), there(values))
        try:
            tracker.update(there(labels), there(values))
        except ValueError as error:
            assert "number 6 " in str(error)  # noqa: PT017 (others are taken)
            told += 1
        taken.append((labels, values))
    try:
        tracker.compute()
    except ValueError:
        told += 1
    assert told == 1
    assert rows(tracker.compute()) == wanted(taken)


def test_labels_of_another_type_are_told_when_they_arrive(there):
    tracker = make()
    tracker.update(["a", "b"], [1.0, 2.0])
    tracker.update(there([1, 2]), there([3.0, 4.0]))
    with pytest.raises(TypeError, match=r"were string labels so far.*number 1 with tensors on a device"):
        tracker.compute()
    assert rows(tracker.compute()) == expected_by_label(["a", "b"], [1.0, 2.0])


def test_nan_values_are_told_at_the_end_of_the_epoch(there):
    tracker = make(nan_policy="raise")
    tracker.update(there([1, 2]), there([np.nan, 1.0]))
    with pytest.raises(NaNError):
        tracker.end_epoch(1)
    assert tracker.pending == {("train", ""): 2}


def test_labels_that_look_multi_hot_are_told_when_they_arrive(there):
    tracker = make()
    tracker.update(there(np.eye(3, dtype=np.int64)), there(np.ones((3, 3))))
    with pytest.warns(lt.LabelTrackWarning, match="multi-hot"):
        assert tracker.compute().count.tolist() == [6, 3]


# -- interrupts -------------------------------------------------------------------------------------------


def counted(tracker):
    """Return how often each batch is in; it has its number as label, and two samples."""
    stats = tracker.compute()
    assert set(stats.count.tolist()) <= {2}
    return stats.labels.tolist()


@pytest.mark.parametrize("memory", [2**28, 2**11, 400], ids=["all fits", "loads of a few batches", "folded"])
def test_an_interrupt_at_any_line_leaves_every_batch_in_once_or_not_at_all(memory):
    tracker, ids = make(max_buffer_bytes=memory), itertools.count()
    sure, unsure = [], set()
    for n in itertools.count(0, stride(29, 3)):
        raised = False
        for _ in range(3):
            number = next(ids)
            labels, values = on_device([number] * 2), on_device([1.0, 2.0])
            with At(n) as at:
                tracker.update(labels, values)
            (unsure.add if at.raised else sure.append)(number)
            raised |= at.raised
        with At(n) as at:
            tracker.compute()
        found = counted(tracker)
        assert set(sure) <= set(found) <= {*sure, *unsure}
        assert found == sorted(found)
        if not raised and not at.raised:
            break
    assert n > 30


def test_an_interrupt_while_a_mistake_is_found_loses_no_other_batch():
    for n in itertools.count(0, stride(47, 5)):
        tracker = make()
        for number in range(5):
            tracker.update(on_device([float(number), np.nan if number == 2 else 9.0]), on_device([1.0, 2.0]))
        with At(n) as at:
            try:
                tracker.compute()
            except ValueError:
                at.left = 10**9
        try:
            tracker.compute()
        except ValueError as error:
            assert "number 3 " in str(error)  # noqa: PT017 (it was told already, if there was no interrupt)
        assert tracker.compute().labels.tolist() == [0, 1, 3, 4, 9]
        if not at.raised:
            break
    assert n > 30


def test_a_signal_handler_within_update_is_told_that_it_cannot_read_the_device():
    tracker, seen = make(), []

    class Handler(OnDevice):
        def detach(self):
            for read in (tracker.compute, tracker.state_dict, lambda: tracker.pending):
                with pytest.raises(RuntimeError, match=r"was called within update\(\)"):
                    read()
            seen.append(repr(tracker))
            return super().detach()

    tracker.update(on_device([1]), on_device([1.0]))
    tracker.update(torch.tensor([1]).as_subclass(Handler), on_device([1.0]))
    assert len(seen) == 1
    assert tracker.compute().count.tolist() == [2]


def test_order_and_bits_are_those_of_a_tracker_of_the_host(there):
    """What a comparison with rational arithmetic leaves out: quantiles, states."""
    one, other = (make(bounds=["iqr", "std"], max_buffer_bytes=2**16) for _ in range(2))
    for labels, values in batches(50):
        one.update(there(labels), there(values))
        other.update(labels, values)
    assert one.state_dict() == other.state_dict()
    assert fingerprint(one.end_epoch(1)) == fingerprint(other.end_epoch(1))
