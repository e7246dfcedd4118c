"""What the ranks of `test_torch.py` do."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from integrations.ranks import EPOCH
from integrations.trainings import CLASSES, Samples
from torch import distributed
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler

import labeltrack as lt
from labeltrack.integrations.torch import gather_state, load_gathered, sync, unpadded

lt.label_stats([0], [1.0])  # loads the kernels


def start(store, rank, world, timeout):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=timeout)


def rows(stats):
    """Return the rows with every bit of their numbers."""
    return [[row.label, *map(float.hex, map(float, row[2:]))] for row in stats]


def different_labels(rank, _world):
    rng = np.random.default_rng(rank)
    tracker = lt.LabelTracker("y", "ce")
    labels = rng.integers(10 * rank, 10 * rank + 15, 500)
    values = rng.lognormal(0, 9, 500).astype(np.float32 if rank else np.float64)
    for some in np.array_split(np.arange(500), 7):
        tracker.update(labels[some], values[some])
        tracker.update(labels[some], values[some] / 3, ds_id=f"site {rank}")
        tracker.update(labels[some], values[some] / 7, mode="eval")
    sync(tracker, mode="train")
    train = rows(tracker.end_epoch(1))
    datasets = {ds_id: rows(stats) for ds_id, stats in tracker.history.datasets(1, "train").items()}
    sync(tracker)
    return [train, datasets, rows(tracker.end_epoch(1, mode="eval"))]


def types_of_labels(rank, _world):
    labels = {
        "words": [["cat", "dog"], ["fox", "cat", "dög\udcff"]],
        "bytes": [np.array([b"a", b"b"]), np.array([b"b", b"\xff"])],
        "huge": [np.array([2**64 - 1], np.uint64), np.array([3])],
        "floats": [np.array([0.1, 0.5], np.float32), np.array([0.1])],
        "missing": [[None, 1], [None, 2]],
    }
    answer = {}
    for name, some in labels.items():
        tracker = lt.LabelTracker("y", "ce", missing="label")
        if rank < 2:
            tracker.update(some[rank], np.arange(len(some[rank])) + 1.0 + 10 * rank)
        sync(tracker)
        answer[name] = sorted([row.name, row.count, row.sum] for row in tracker.end_epoch(1))
    tracker = lt.LabelTracker(("class", "site"), "ce", label_mapping={"class": {"cat": 0, "dog": 1}, "site": None})
    tracker.update(([0, 1, 2], [["a", "b", "b"], ["c", "b", "c"], ["b", "b", "b"]][rank]), [1.0, 2.0, 4.0])
    sync(tracker)
    stats = tracker.end_epoch(1)
    answer["several"] = [[*row.label, row.count, row.sum] for row in stats]
    answer["class"] = rows(stats.by("class"))
    tracker = lt.LabelTracker("y", "ce", nan_policy="omit")
    tracker.update([0, 1], [[np.nan, np.inf], [1.0, 2.0], [5.0, np.nan]][rank])
    sync(tracker)
    return answer | {"infinite": rows(tracker.end_epoch(1))}


def samples_with_ids(rank, _world):
    """Every rank has ids of others, with other values: the value of the lowest rank counts."""
    answer = []
    for limit in (2**20, 2**12):
        tracker = lt.TrackerCollection("y", ["ce", "rank"], on_duplicate="first", max_buffer_bytes=limit)
        for start in (0, 40):
            ids = np.arange(start, start + 40) + 50 * rank
            values = {"ce": ids * 0.1 + rank, "rank": np.full(40, float(rank))}
            tracker.update(ids % 3, values, ids=[f"sample {i}" for i in ids.tolist()])
        state = gather_state(tracker)
        together = lt.TrackerCollection("y", ["ce", "rank"], on_duplicate="first")
        together.load_state_dict(state)
        sync(tracker)
        stats = tracker.end_epoch(1)
        answer.append({metric: rows(stats[metric]) for metric in tracker})
        assert answer[-1] == {metric: rows(found) for metric, found in together.compute().items()}
    return answer


def without_samples(rank, _world):
    tracker = lt.LabelTracker("y", "ce")
    answer = []
    for epoch, filled in ((1, (0,)), (2, (2,)), (3, ()), (4, (0, 1, 2))):
        if rank in filled:
            tracker.update(["a", f"{rank}"], [1.5, 0.1 * rank], mode="eval", ds_id="x")
        sync(tracker, mode="eval")
        answer.append(rows(tracker.end_epoch(epoch, mode="eval")))
    return [*answer, tracker.history.steps("eval")]


def quantiles(rank, _world):
    answer = []
    for limit in (2**20, 2**10):
        tracker = lt.LabelTracker("y", "ce", bounds=["iqr", "std"], max_buffer_bytes=limit)
        values = np.random.default_rng(rank).normal(size=100 * (rank + 1))
        tracker.update(np.zeros(len(values), np.int64), values)
        sync(tracker)
        stats = tracker.end_epoch(1)
        answer.append([rows(stats), stats.quantile(0.25).tolist() if limit > 2**10 else len(stats.quantiles)])
    return answer


def recorded(rank, _world):
    with lt.LabelTracker("y", "ce", record_to="run") as tracker:
        for epoch in (1, 2):
            if epoch == 1 or rank == 0:
                tracker.update([rank, 7], [1.0 + rank, epoch])
            sync(tracker)
            tracker.end_epoch(epoch)
        return {step: rows(tracker.history.at(step)) for step in (1, 2)}


def memory(rank, _world):
    """Synchronise many labels; return how many bytes that took at most beyond those that were taken before."""
    tracker, labels = lt.LabelTracker("y", "ce"), 300_000
    for start in range(0, labels, labels // 4):  # what waits for the kernels is there before
        tracker.update(np.arange(start, start + labels // 4) + rank * labels, np.ones(labels // 4))
    before = tracker.compute()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    began = resident("VmRSS")
    sync(tracker)
    took = resident("VmHWM") - began
    return [len(before), len(tracker.end_epoch(1)), took]


def resident(name):
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def beside_nccl(rank, _world):
    config, new_group, made, answer = distributed.get_backend_config, distributed.new_group, [], []

    def counted(*arguments, **options):
        made.append(options["backend"])
        return new_group(*arguments, **options)

    distributed.get_backend_config, distributed.new_group = (lambda _group: "cuda:nccl"), counted
    tracker = lt.LabelTracker("y", "ce")
    for epoch in (1, 2):
        tracker.update([rank], [1.0])
        sync(tracker)
        answer.append(rows(tracker.end_epoch(epoch)))
    distributed.get_backend_config, distributed.new_group = config, new_group
    pair = distributed.new_group([0, 2], backend="gloo")
    tracker.update([rank], [2.0])
    error = ""
    try:
        sync(tracker, group=pair)
    except ValueError as raised:
        error = str(raised)
    return [*answer, made, error, rows(tracker.end_epoch(3))]


def parts(rank, _world):
    """Save and go on in a group of two of three ranks."""
    tracker, pair = lt.LabelTracker("y", "ce"), distributed.new_group([1, 2], backend="gloo")
    tracker.update([rank], [1.0])
    if rank:
        load_gathered(tracker, gather_state(tracker, group=pair), group=pair)
        waiting = sum(tracker.pending.values())
        sync(tracker, group=pair)
        return [waiting, rows(tracker.end_epoch(1))]
    answer = []
    for act in (lambda: gather_state(tracker, group=pair), lambda: load_gathered(tracker, {}, group=pair)):
        try:
            act()
        except ValueError as raised:
            answer.append(str(raised))
    return [*answer, rows(tracker.end_epoch(1))]


def errors(rank, _world):
    answer = {}
    for case in ("state", "taken", "arguments", "modes", "types"):
        tracker = lt.LabelTracker("y", "ce", label_mapping={"a": 5} if (case, rank) == ("arguments", 1) else None)
        tracker.update([["a"], [1]][rank % 2] if case == "types" else [rank], [1.0])
        before = tracker.state_dict()
        if rank == 1 and case == "state":
            tracker.state_dict = lambda **_: 1 / 0
        if rank == 1 and case == "taken":
            tracker.merge_state = lambda states, **_place: [next(iter(states)), 1 / 0]
        text = ""
        try:
            sync(tracker, mode="eval" if (case, rank) == ("modes", 1) else "train")
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"
        vars(tracker).pop("state_dict", None)
        answer[case] = [text, tracker.state_dict() == before]
        distributed.barrier()  # nobody is still waiting
    return answer


def errors_of_states(rank, _world):
    """Fail in merging for a checkpoint, and in making sums where the samples of all ranks are too many."""
    answer = {}
    merge_state = lt.LabelTracker.merge_state
    for case in ("checkpoint", "sums"):
        limit = 2**10 if (case, rank) == ("sums", 0) else 2**20
        tracker = lt.LabelTracker("y", "ce", bounds="iqr", max_buffer_bytes=limit)
        tracker.update(np.zeros(100, np.int64), np.arange(100.0))
        before, state_dict = tracker.state_dict(), tracker.state_dict
        if rank == 1 and case == "checkpoint":
            lt.LabelTracker.merge_state = lambda _self, states, **_place: [next(iter(states)), 1 / 0]
        if rank == 1 and case == "sums":
            tracker.state_dict = lambda samples, of=state_dict, **more: of(samples=samples or 1 / 0, **more)
        try:
            (gather_state if case == "checkpoint" else sync)(tracker)
            text = ""
        except (ArithmeticError, RuntimeError) as error:
            text = f"{type(error).__name__}: {error}"
        lt.LabelTracker.merge_state = merge_state
        answer[case] = [text, state_dict() == before]
        distributed.barrier()
    return answer


def ends(rank, _world):
    case = os.environ["CASE"]
    tracker = lt.LabelTracker("y", "ce")
    for step in (1, 2):
        tracker.update(np.arange(300_000), np.ones(300_000))
        if step == 1:
            sync(tracker)
            tracker.end_epoch(1)
    if rank == 1:
        if case == "raises":
            msg = "the training step failed"
            raise RuntimeError(msg)
        if case == "late":
            time.sleep(float(os.environ["LATE"]))
            os._exit(0)
        broadcast, calls = distributed.broadcast, []

        def killed(*arguments, **options):
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return broadcast(*arguments, **options)

        distributed.broadcast = killed
    began = time.monotonic()
    try:
        sync(tracker)
    except RuntimeError as error:
        return [str(error), time.monotonic() - began, tracker.pending["train", ""]]


def saves(rank, _world):
    tracker = lt.LabelTracker("y", "ce", keep_order=True)
    for epoch in (1, 2):
        tracker.update([rank, 5], [0.1 * epoch, 0.3 + rank])
        tracker.update(["a"], [1.0], mode="eval", ds_id=f"{rank}")
        if epoch == 1:
            sync(tracker)
            for mode in ("train", "eval"):
                tracker.end_epoch(epoch, mode=mode)
    before = tracker.state_dict()
    state = gather_state(tracker)
    if rank == 0:
        torch.save(state, "tracker.pt")
    return [tracker.state_dict() == before, rows(tracker.history.at(1, "train"))]


def resumes(rank, _world):
    tracker = lt.LabelTracker("y", "ce", keep_order=True)
    load_gathered(tracker, torch.load("tracker.pt"))
    tracker.update([8], [1.0 + rank])
    sync(tracker)
    history = rows(tracker.history.at(1, "train"))
    return [history, rows(tracker.end_epoch(2)), rows(tracker.end_epoch(2, mode="eval"))]


def goes_on(rank, world):
    """Train until a step, from a checkpoint of another number of ranks if there is one, as programs of torchrun do."""
    first, last, seen = int(os.environ["FIRST"]), int(os.environ["LAST"]), []
    torch.manual_seed(0)
    model = torch.nn.Linear(5, CLASSES)
    tracker = lt.LabelTracker("y", "ce")
    if first:
        saved = torch.load("saved.pt")
        model.load_state_dict(saved["model"])
        load_gathered(tracker, saved["tracker"])
    for epoch in range(first // EPOCH, -(-last // EPOCH)):
        for mode, seed in (("train", 1), ("eval", 2)):
            samples, train = Samples(seed), mode == "train"
            loader = DataLoader(samples, 6 // world, sampler=DistributedSampler(samples, shuffle=False))
            for step, (batch, n) in enumerate(unpadded(loader), epoch * EPOCH + 1):
                if train and not first < step <= last:
                    continue
                with torch.set_grad_enabled(train), torch.autocast("cpu", torch.bfloat16):
                    losses = functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
                tracker.update(batch["y"][:n], losses[:n], mode=mode)
                columns = (batch["y"].tolist(), losses.tolist(), batch["id"].tolist())
                seen += [(mode, epoch, *row) for row in zip(*columns, strict=True)]
                if train:
                    (losses.mean() / 2).backward()
                if train and (step % 2 or step % EPOCH == 0):  # gradients are accumulated
                    for parameter in model.parameters():  # importing what DDP and optimizers need takes seconds
                        distributed.all_reduce(parameter.grad)
                        parameter.data -= 0.5 / world * parameter.grad
                        parameter.grad = None
            if last < (epoch + 1) * EPOCH:
                break  # within the epoch
            sync(tracker, mode=mode)
            tracker.end_epoch(epoch, mode=mode)
    state = gather_state(tracker)
    if rank == 0:
        torch.save({"model": model.state_dict(), "tracker": state}, "saved.pt")
    return {"seen": seen, "history": [[*key, rows(stats)] for key, stats in tracker.history.items()]}
