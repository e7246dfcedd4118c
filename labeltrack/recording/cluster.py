"""Reading parts on a Dask cluster, and merging what was found.

A task runs where the run is stored, and is repeated elsewhere if its worker dies. As merging is exact, order and number
of workers do not change a bit.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from labeltrack.errors import need
from labeltrack.recording.epochs import read_vocabularies
from labeltrack.recording.storage import LocalFolder, storage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from labeltrack.recording.epochs import PartEntry
    from labeltrack.recording.storage import Storage

    Parts = Sequence[PartEntry]
    Read = Callable[[Storage, Parts], Any]

Engine = Literal["local", "dask"]
FAN_IN = 8  # results that one task merges


def read_on_cluster(
    storage: Storage,
    jobs: Sequence[Sequence[tuple[Read, Parts]]],
    merge: Callable[[list[Any]], Any],
    on_rows: Callable[[int], object],
) -> Generator[Any, None, None]:
    """Yield what each job found.

    Args:
        storage: Where the run is.
        jobs: For each job, functions that read some parts, each called on a worker.
        merge: Returns the results of several of these functions, in their order, as one; called on a worker.
        on_rows: Called with the numbers of rows that were read.
    """
    root = str(storage.path.absolute()) if isinstance(storage, LocalFolder) else storage.root
    with _client() as client:
        futures = []
        for job in jobs:
            level = []
            for read, parts in job:
                # Workers look up words themselves: data that is sent once is lost with the worker that received it.
                bare = [(replace(part, words={}), bool(part.words)) for part in parts]
                leaf = client.submit(_read, root, bare, read, pure=False)
                rows = sum(part.rows or 0 for part in parts)
                leaf.add_done_callback(lambda _, rows=rows: on_rows(rows))
                level.append(leaf)
            while len(level) != 1:
                groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)] or [[]]
                level = [client.submit(merge, group, pure=False) if len(group) != 1 else group[0] for group in groups]
            futures += level
        try:
            yield from (future.result() for future in futures)
        finally:
            client.cancel(futures)


@contextlib.contextmanager
def _client() -> Iterator[Any]:
    """Yield the current client, or one of a local cluster that is closed afterwards."""
    distributed = need("distributed", 'engine="dask"', "dask")
    try:
        current = distributed.default_client()
    except ValueError:  # there is none
        with (
            distributed.LocalCluster(dashboard_address=":0", threads_per_worker=1) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    else:
        yield current


def _read(root: str, parts: list[tuple[PartEntry, bool]], read: Read) -> Any:
    """Read parts, and say of each whether it has words; runs on a worker."""
    whole = [replace(part, words=_vocabularies(root, part.journal)) if words else part for part, words in parts]
    return read(storage_of(root), whole)


@lru_cache(maxsize=4)
def _vocabularies(root: str, journal: str) -> dict[str, Any]:
    """Return the words of a journal by number of the vocabulary; on a worker, kept for the next part."""
    return read_vocabularies(storage_of(root), journal)
