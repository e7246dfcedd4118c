"""Distributed PyTorch: one running epoch of all ranks, checkpoints for any number of ranks, evaluation without padding.

Every rank updates a tracker of its own; before the epoch ends, `sync` makes their samples those of all::

    from labeltrack.integrations.torch import sync

    sync(tracker, mode="eval")  # every rank, also one without samples
    stats = tracker.end_epoch(epoch, mode="eval")  # the same bits on every rank
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import labeltrack
from labeltrack.integrations._shared import Tracker, needed

with needed("torch needs PyTorch 2.2 or later: pip install torch", "torch"):
    import torch
    from torch import distributed

from labeltrack.integrations._ranks import Exchange, arguments_of

__all__ = ["gather_state", "load_gathered", "sync", "unpadded"]


def sync(tracker: Tracker, *, mode: str | None = None, group: Any = None) -> None:
    """Make the running epoch of every rank the epoch of all ranks, exactly.

    Every rank of the group calls this once per epoch, right before ``end_epoch``, which then gives the same bits on all
    of them. Ranks may have different labels, or no samples. Each of them records its own samples, if it records. What
    travels is the exact sums of each label, as bytes. Where `bounds` need quantiles it is the samples, as long as those
    of all ranks take at most a quarter of `max_buffer_bytes`; beyond, there are no quantiles.

    Sums of different ranks are merged as they arrive: with K labels on all ranks together, integers of finite samples,
    it takes at most ``7 * 72 * K`` bytes and a message of 16 MiB, regardless of the number of ranks.

    Samples with ids travel as they are, unless the tracker has ``on_duplicate="count"``: each counts once among all
    ranks, that of the lowest rank.

    Without a process group, or with one process, nothing happens. Calling it again before the epoch ends would count
    the samples of the other ranks again.

    Args:
        tracker: A tracker or a collection, with the same arguments on every rank.
        mode: The mode to synchronise; None for all. The same on every rank.
        group: Process group; None for all processes. If it cannot send what is in CPU memory (NCCL), a group of the
            same ranks on gloo is made beside it, once, with the default timeout of torch.

    Raises:
        ValueError: Trackers or modes of the ranks differ, or this process is not in the group.
        TypeError: Labels of a mode are of different types on different ranks.
        RuntimeError: Another rank raised, ended, or did not call this within the timeout of the group. Nothing was
            merged on this rank in any of these cases.
    """
    exchange = Exchange.of(group)
    if exchange is not None:
        exchange.merge(tracker, mode, tracker)


def gather_state(tracker: Tracker, *, group: Any = None) -> dict[str, Any]:
    """Return one state of all ranks for a checkpoint: the history of this rank, and the running epochs of all.

    Every rank of the group calls this; the trackers are not changed. The history is that of `sync` and ``end_epoch``,
    the same on every rank, so it does not matter which of them saves the state. `load_gathered` continues from it, with
    any number of ranks.

    Args:
        tracker: With the same arguments on every rank.
        group: Process group; see `sync`.

    Returns:
        What ``state_dict()`` returns, with exact sums instead of samples; see `sync` about quantiles.

    Raises:
        ValueError: See `sync`.
        TypeError: See `sync`.
        RuntimeError: See `sync`.
    """
    exchange = Exchange.of(group)
    if exchange is None:
        return tracker.state_dict()
    options = arguments_of(tracker) | {name: getattr(tracker, name) for name in ("max_buffer_bytes", "keep_order")}
    several = isinstance(tracker, labeltrack.TrackerCollection)
    together = (labeltrack.TrackerCollection if several else labeltrack.LabelTracker)(**options)
    together.load_state_dict(tracker.state_dict())
    exchange.merge(tracker, None, together)
    return together.state_dict()


def load_gathered(tracker: Tracker, state: Mapping[str, Any], *, group: Any = None) -> None:
    """Continue from a `gather_state`, with as many ranks as there are now.

    Every rank gets the history. The running epoch goes to rank 0, so that its samples are counted once.

    Args:
        tracker: What it has recorded is replaced.
        state: The same on every rank.
        group: Process group; None for all processes.

    Raises:
        TypeError: It is not the state of a tracker.
        ValueError: It is of another label or metric, or of another version; or this process is not in the group.
    """
    rank = distributed.get_rank(group) if distributed.is_available() and distributed.is_initialized() else 0
    if rank < 0:
        msg = "this process is not in the group that is to continue from the state"
        raise ValueError(msg)
    tracker.load_state_dict(state)
    if rank:
        tracker.reset()


def unpadded(loader: Iterable[Any]) -> Iterator[tuple[Any, int]]:
    """Iterate over the batches of an evaluation, each with the number of its samples that are no padding.

    So that every rank has as many samples, the loaders of distributed training repeat some at the end. They are always
    the last ones of a batch: the first `n` samples are real, and may be none::

        for (x, y), n in unpadded(loader):
            losses = F.cross_entropy(model(x), y, reduction="none")
            tracker.update(y[:n], losses[:n], mode="eval")

    Args:
        loader: What Accelerate prepared; or a ``DataLoader`` with a ``DistributedSampler``, also within a
            ``BatchSampler``; or any other, whose batches are not padded; or a tqdm of one of these.

    Yields:
        The batch, and how many of its first samples are real.

    Raises:
        TypeError: A batch has no tensor.

    Warns:
        LabelTrackWarning: Accelerate has dealt out a stream of unknown length, or a batch sampler of your own is
            between a ``DistributedSampler`` that pads and the batches, so that padding cannot be told.

    Example:
        >>> from torch.utils.data import DataLoader, DistributedSampler
        >>> sampler = DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False)
        >>> [(batch.tolist(), n) for batch, n in unpadded(DataLoader(range(5), batch_size=2, sampler=sampler))]
        [([1, 3], 2), ([0], 0)]
    """
    source: Any = loader
    if not any(hasattr(loader, name) for name in ("sampler", "batch_sampler", "end_of_dataloader")):
        source = getattr(loader, "iterable", loader)  # in a progress bar of tqdm
    if hasattr(source, "end_of_dataloader") and hasattr(source, "remainder"):
        for batch in loader:
            n = _length(batch)
            yield batch, real_of(source, n) if source.end_of_dataloader else n
        stream: Any = getattr(source, "dataset", None)
        if source.remainder < 0 and type(stream).__name__ == "IterableDatasetShard" and not stream.drop_last:
            warnings.warn(
                "the length of the dataset is not known: samples that are repeated at its end, so that all ranks have "
                "as many, count again, unless update() gets their ids=",
                labeltrack.LabelTrackWarning,
                stacklevel=2,
            )
        return
    real, size, _ = sizes_of(source)
    left = real if size else float("inf")
    for batch in loader:
        n = _length(batch)
        yield batch, int(min(left, n))
        left = max(left - n, 0)


def real_of(loader: Any, n: int) -> int:
    """Return how many of the `n` samples of the last batch of a loader that Accelerate prepared are no padding."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return n
    batches = getattr(loader, "batch_sampler", None)
    while batches is not None and not hasattr(batches, "even_batches"):  # those that a resumed training skips
        batches = getattr(batches, "batch_sampler", None)
    remainder = loader.remainder  # 0: the last batches are full, -1: not known
    if batches is not None:
        # What the loader says is of the dataset, not of the sampler, or -1 where batches are skipped.
        if batches.drop_last or not batches.even_batches:
            return n
        inner = batches.batch_sampler
        sampler = getattr(inner, "sampler", None)
        length = len(sampler if isinstance(sampler, Sized) else loader.dataset)
        remainder = length % (inner.batch_size * (1 if batches.split_batches else batches.num_processes))
    return min(max(remainder - distributed.get_rank() * n, 0), n) if remainder > 0 else n


def sizes_of(loader: Any, *, warns: bool = True) -> tuple[int, int, int]:
    """Return how many samples of this rank are no padding, there are, and a batch has; zeros if none is padding."""
    batches: Any = loader
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, torch.utils.data.DistributedSampler):
        batches = getattr(loader, "batch_sampler", None)
        if type(batches).__name__ == "ReproducibleBatchSampler":  # that of Ignite's DeterministicEngine
            batches = batches.batch_sampler
        sampler = getattr(batches, "sampler", None)
    if not (isinstance(sampler, torch.utils.data.DistributedSampler) and isinstance(sampler.dataset, Sized)):
        return 0, 0, 0
    length, size = len(sampler.dataset), len(sampler)
    if batches is loader or type(batches) is torch.utils.data.BatchSampler:
        real = len(range(sampler.rank, length, sampler.num_replicas))
        return real, size, getattr(batches, "batch_size", None) or 1
    if warns and size * sampler.num_replicas > length:
        text = (
            f"{type(batches).__name__} may change the order of a DistributedSampler: samples that it repeats, so that "
            "all ranks have as many, count again, unless ids tell them"
        )
        warnings.warn(text, labeltrack.LabelTrackWarning, stacklevel=3)
    return 0, 0, 0


def _length(batch: Any) -> int:
    """Return the number of samples of a batch: the length of its first tensor."""
    found = _first(batch)
    if found is None:
        msg = f"unpadded() expects batches with a tensor, got {type(batch).__name__}"
        raise TypeError(msg)
    return found


def _first(batch: Any) -> int | None:
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.ndim else None
    inside = batch if isinstance(batch, (list, tuple)) else batch.values() if hasattr(batch, "values") else ()
    for part in inside:
        found = _first(part)
        if found is not None:
            return found
    return None
