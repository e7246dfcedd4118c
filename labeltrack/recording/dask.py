"""Recomputing on a cluster of Dask: a task a part, exact partial statistics merged as a tree.

Tasks take names and give statistics: a worker reads its part where the run lies, and one that dies is replaced by
another that reads the same again. As merging is exact, neither order nor number of workers changes a bit.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from labeltrack.recording.index import words_in
from labeltrack.recording.reader import Found, Source, empty_stats, reduce_sources
from labeltrack.recording.storage import LocalFolder, storage_of
from labeltrack.stats import LabelStats, NanPolicy, merge_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labeltrack._labels.codes import LabelMapping
    from labeltrack.recording.storage import Storage

Result = tuple[LabelStats, list[Found]]

FAN_IN = 8  # partial statistics that a task merges


def reduce_on_cluster(
    storage: Storage,
    jobs: Sequence[Sequence[Source]],
    *,
    mapping: LabelMapping | None,
    nan_policy: NanPolicy,
    missing: str = "error",
    on_rows: Callable[[int], object],
) -> Iterator[Result]:
    """Reduce parts to statistics a label, on the current client's cluster, or a local one.

    Args:
        storage: Where they are; workers must find them there, too.
        jobs: For each result, the parts to reduce.
        mapping: Labels to keep, and their names; None keeps every one.
        nan_policy: What NaN samples do when statistics are read.
        missing: What samples without a label did when they were recorded.
        on_rows: Is told how many more rows were read.

    Yields:
        For each job the statistics, and what was found in each part.

    Raises:
        ImportError: dask.distributed is not installed (extra ``dask``).
    """
    root = str(storage.path.absolute()) if isinstance(storage, LocalFolder) else storage.root
    with _client() as client:
        futures = []
        for sources in jobs:
            leaves = []
            for source in sources:
                # Workers look words up themselves: data that is sent once is lost with the worker that got it.
                bare = replace(source, words={})
                journal = source.journal if source.words else ""
                leaf = client.submit(_one, root, bare, journal, mapping, nan_policy, missing, pure=False)
                leaf.add_done_callback(lambda _, rows=source.rows or 0: on_rows(rows))
                leaves.append(leaf)
            futures.append(_tree(client, leaves))
        try:
            for future in futures:
                yield (empty_stats(nan_policy), []) if future is None else future.result()
        finally:
            client.cancel([future for future in futures if future is not None])


def _tree(client: Any, level: list[Any]) -> Any:
    """Return the future of the merged results of others; None if there are none."""
    while len(level) > 1:
        groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
        level = [client.submit(_merged, group, pure=False) if len(group) > 1 else group[0] for group in groups]
    return level[0] if level else None


@contextmanager
def _client() -> Iterator[Any]:
    """Give the current client, or one of a local cluster that is closed afterwards."""
    try:
        import distributed  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = f'engine="dask" needs dask.distributed: pip install "labeltrack[dask]" ({error})'
        raise ImportError(msg, name="distributed") from error
    try:
        current = distributed.default_client()
    except ValueError:  # there is none
        current = None
    if current is not None:
        yield current
        return
    with (
        distributed.LocalCluster(dashboard_address=":0", threads_per_worker=1) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _one(
    root: str, source: Source, journal: str, mapping: LabelMapping | None, nan_policy: NanPolicy, missing: str
) -> Result:
    """Reduce one part; runs on a worker."""
    if journal:
        source = replace(source, words=_words(root, journal))
    return reduce_sources(
        storage_of(root), [source], mapping=mapping, nan_policy=nan_policy, missing=missing, threads=1
    )


@lru_cache(maxsize=4)
def _words(root: str, journal: str) -> dict[str, Any]:
    return words_in(storage_of(root), journal)


def _merged(results: list[Result]) -> Result:
    """Merge results; runs on a worker."""
    return merge_stats([stats for stats, _ in results]), [one for _, found in results for one in found]
