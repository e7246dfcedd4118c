"""Recomputing on a Dask cluster: one task per part; exact partial statistics are merged as a tree.

Tasks take names and return statistics: a worker reads its part where the run is stored, and one that dies is replaced
by another that reads the same part again. As merging is exact, order and number of workers do not change a bit.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from labeltrack.recording.epochs import read_vocabularies
from labeltrack.recording.reader import Reduced, Rules, reduce_parts
from labeltrack.recording.storage import LocalFolder, storage_of
from labeltrack.stats import merge_stats

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.storage import Storage

FAN_IN = 8  # partial statistics that a task merges


def reduce_on_cluster(
    storage: Storage, jobs: Sequence[Sequence[PartEntry]], rules: Rules, *, on_rows: Callable[[int], object]
) -> Generator[Reduced, None, None]:
    """Yield the statistics of each job's parts, computed on the cluster of the current client or else on a local one.

    Raises:
        ImportError: dask.distributed is not installed (extra ``dask``).
    """
    root = str(storage.path.absolute()) if isinstance(storage, LocalFolder) else storage.root
    with _client() as client:
        futures = []
        for parts in jobs:
            leaves = []
            for part in parts:
                # Workers look up words themselves: data that is sent once is lost with the worker that received it.
                leaf = client.submit(_reduce, root, replace(part, words={}), bool(part.words), rules, pure=False)
                leaf.add_done_callback(lambda _, rows=part.rows or 0: on_rows(rows))
                leaves.append(leaf)
            futures.append(_tree(client, leaves))
        try:
            yield from (future.result() for future in futures)
        finally:
            client.cancel(futures)


def _tree(client: Any, level: list[Any]) -> Any:
    """Return the future of the merged results of others."""
    while len(level) > 1:
        groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
        level = [client.submit(_merge, group, pure=False) if len(group) > 1 else group[0] for group in groups]
    return level[0]


@contextmanager
def _client() -> Iterator[Any]:
    """Yield the current client, or one of a local cluster that is closed afterwards."""
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


def _reduce(root: str, part: PartEntry, has_words: bool, rules: Rules) -> Reduced:
    """Reduce one part; runs on a worker."""
    if has_words:
        part = replace(part, words=_vocabularies(root, part.journal))
    return reduce_parts(storage_of(root), [part], rules, threads=1)


@lru_cache(maxsize=4)
def _vocabularies(root: str, journal: str) -> dict[str, Any]:
    return read_vocabularies(storage_of(root), journal)


def _merge(results: list[Reduced]) -> Reduced:
    """Merge results; runs on a worker."""
    return Reduced(merge_stats([one.stats for one in results]), [part for one in results for part in one.found], [])
