"""Batches of any supported type become rows of a stream; samples are folded when memory is full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.arrays import QUICK, looks_multi_hot, to_values
from labeltrack._labels.codes import INTEGER, STRING, UNSIGNED, integer_keys, label_array, label_kind
from labeltrack._labels.combined import columns_of
from labeltrack._labels.missing import apply_missing, read_labels
from labeltrack._labels.samples import counted, read_mask
from labeltrack._labels.tuples import WHOLE, Combinations, TupleDecoder, compatible, encode_batch, kinds_of, wider
from labeltrack._tracking.arguments import ONLY
from labeltrack._tracking.reducing import in_order, some_labels
from labeltrack._tracking.streams import Snapshot
from labeltrack.errors import warn, warn_multi_hot
from labeltrack.stats import LabelStats, NoQuantiles, merge_stats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labeltrack._labels.codes import LabelDecoder
    from labeltrack._labels.samples import Mask
    from labeltrack._tracking.recorded import Recorded
    from labeltrack._tracking.reducing import Reducer
    from labeltrack._tracking.streams import Key, Stream

Array = npt.NDArray[Any]


class Intake:
    """Takes batches in.

    Args:
        recorded: Where they go.
        reducer: What folds samples.
        max_buffer_bytes: Memory for samples.

    Attributes:
        quick: The streams, if batches may be recorded without searching them for labels to ignore; else none.
    """

    def __init__(self, recorded: Recorded, reducer: Reducer, max_buffer_bytes: int) -> None:
        self._recorded = recorded
        self._streams = recorded.streams
        self._reducer = reducer
        self._limit = max_buffer_bytes
        self._labels = reducer.labels
        self.quick: dict[Key, Stream] = {} if self._labels.ignored else self._streams
        self._multi_hot_told = reducer.labels.mapped
        self._folding_told = False

    def quickly(self, labels: Any, values: Any, mode: str, ds_id: str) -> bool:
        """Record a batch of tensors, or a list of strings, if it is like the one before; return whether it was."""
        keys: Any = None
        samples: Any = None
        try:
            stream = self.quick[mode, ds_id]
            buffer = stream.buffer
            kind = buffer.kind
            if not buffer.open.used:
                return False
            read_values = QUICK[type(values)]
            if kind == INTEGER:
                read_labels = QUICK[type(labels)]
                keys = labels if read_labels is None else read_labels(labels)
            elif kind == STRING and type(labels) is list and stream.words is not None:
                keys = stream.words.known(labels)
            if keys is None:
                return False
            samples = values if read_values is None else read_values(values)
        except (KeyError, TypeError, ValueError, RuntimeError, BufferError):
            return False  # the first batch, another type or shape, a mode that is no string, memory that is elsewhere
        return buffer.try_append(keys, samples, kind)

    def append(self, labels: Any, values: Any, key: Key, where: Any = None) -> None:
        """Record a batch of any supported type."""
        samples = to_values(values)
        mask = None if where is None else read_mask(where, samples)
        encode = self._encoded if self._labels.names is None else self._combined
        encoded = encode(labels, samples, mask, key)
        if encoded is not None:
            self._record(*encoded, key)

    def _encoded(self, labels: Any, samples: Array, mask: Mask | None, key: Key) -> tuple[Array, Array, str] | None:
        """Return keys, values and kind of a batch; None if there are none left, or the quick way took it."""
        stream = self._streams.get(key)
        _, missing, ignored = self._labels.options[ONLY]
        array: Any
        plain = mask is None and not ignored
        if plain and type(labels) is list and samples.shape == (len(labels),) and set(map(type, labels)) == {str}:
            kind, array = STRING, labels  # coded as it is: making an array of it first would take twice as long
        else:
            array, gone = read_labels(labels)
            if (
                plain
                and gone is None
                and stream is not None
                and stream.kind == INTEGER
                and stream.buffer.try_append(array, samples, INTEGER)
            ):
                return None  # tensors of the dtypes of the batch before
            if not self._multi_hot_told and looks_multi_hot(array, samples):
                self._multi_hot_told = True
                warn_multi_hot()
            if not plain:
                array, gone, samples = counted((array, gone), samples, mask, ignored)
            expected = stream.kind if stream is not None else None if gone is None else self._expected(key[0], array)
            array, samples = apply_missing(array, samples, gone, missing, expected)
            if not array.size:
                return None  # labels of no sample are of no kind: an empty list would be one of doubles
            kind = label_kind(array)
            kind, array = whole_numbers(kind, array, stream)
        self._check_kind(key[0], kind)
        words = self._recorded.words.get(kind)
        return integer_keys(array, kind) if words is None else words.encode(array), samples, kind

    def _combined(self, labels: Any, samples: Array, mask: Mask | None, key: Key) -> tuple[Array, Array, str] | None:
        """Return the same of a batch with several labels per sample."""
        stream, (words,) = self._streams.get(key), self._recorded.words.values()
        assert isinstance(words, Combinations)  # noqa: S101 (where labels have names)
        kinds = {of: each.kind for (of, _), each in self._streams.items()}
        known = kinds.get(key[0], next(iter(kinds.values()), None)) if stream is None else stream.kind
        expected = None if known is None else dict(zip(words.names, kinds_of(known), strict=True))
        columns = self._labels.columns(labels)
        keys, samples, kind = encode_batch(columns, samples, mask, self._labels.options, words, expected)
        if not keys.size:
            return None
        self._check_kind(key[0], kind)
        if stream is not None and not stream.empty() and kind != stream.kind:
            stream.buffer.seal()  # other threads add none then
            batch = Snapshot([(keys, samples)], None, words.decoder(kind))
            if no_common_type(wider(kind, stream.kind), [(kind, batch), (stream.kind, stream.snapshot())]):
                msg = "labels above 2**63 - 1 and negative labels do not fit one type (this batch was not recorded)"
                raise TypeError(msg)
        return keys, samples, kind

    def _record(self, keys: Array, samples: Array, kind: str, key: Key) -> None:
        """Record a batch that is encoded."""
        stream = self._streams.get(key)
        if stream is None or (stream.kind != kind and stream.empty()):
            old, stream = stream, self._recorded.new_stream(key, kind, (keys.dtype, samples.dtype))
            self._streams[key] = stream
            if old is not None:
                old.buffer.retire()
        if stream.empty():
            self._recorded.began += 1
            stream.began = self._recorded.began
        widened = wider(kind, stream.kind)
        # The quick way first: strings come here with every batch, and it takes 2.4 us less.
        buffer = stream.buffer
        if widened == buffer.kind and buffer.try_append(keys, samples, widened):
            return
        if not buffer.append(keys, samples, self.budget(), widened):
            self._make_room(stream, widened, keys, samples)

    def _expected(self, mode: str, array: Array) -> str | None:
        """Return the kind of labels of a mode's other datasets; for text, also of other modes or of the mapping."""
        kinds = {of: stream.kind for (of, _), stream in self._streams.items()}
        mapping = self._labels.options[ONLY].mapping
        mapped = label_kind(label_array(mapping.labels[:1])) if mapping is not None else None
        return kinds.get(mode, next(iter(kinds.values()), mapped) if array.dtype.kind == "U" else None)

    def _check_kind(self, mode: str, kind: str) -> None:
        """Raise TypeError if a mode has labels of a kind that this one does not go together with."""
        for (of, _), other in self._streams.items():  # those of all datasets of the mode are pooled in the end
            if of == mode and other.kind != kind and not compatible([kind, other.kind]) and not other.empty():
                msg = (
                    f"labels of mode {mode!r} were {other.kind} labels so far in this epoch and are {kind} labels now; "
                    "convert them to one type (this batch was not recorded)"
                )
                raise TypeError(msg)

    # -- folding ------------------------------------------------------------------------------------------

    def budget(self) -> int:
        """Return how many bytes may still be allocated."""
        return max(0, self._limit - sum(stream.buffer.nbytes for stream in self._streams.values()))

    def _make_room(self, stream: Stream, kind: str, keys: Array, samples: Array) -> None:
        """Record a batch for which there is no memory left, by folding samples into running statistics."""
        share = self._limit // max(1, sum(not other.empty() for other in self._streams.values()))
        if stream.buffer.nbytes < share:
            # Others took more than their part while this stream had nothing to record. Without this, an eval
            # after a long train would have to reduce every single batch.
            for other in self._streams.values():
                if other.buffer.nbytes > share:
                    self._fold(other)
                    other.buffer.shrink(share)
            if stream.buffer.append(keys, samples, self.budget(), kind):
                return
        self._fold(stream)
        if stream.buffer.append(keys, samples, self.budget(), kind):
            return
        # A batch larger than all the memory.
        chunk = np.ascontiguousarray(keys), np.ascontiguousarray(samples)
        stream.buffer.fold_in(self._folded(stream, [chunk], self._recorded.decoder(kind)), chunk, kind)

    def _fold(self, stream: Stream) -> None:
        """Replace the samples of a stream by their statistics."""
        stream.buffer.seal()
        if not stream.buffer.empty():
            stats = self._folded(stream, stream.buffer.filled(), stream.decoder())
            stream.buffer.hand_on()
            stream.buffer.clear(stats)

    def _folded(self, stream: Stream, chunks: list[tuple[Array, Array]], decoder: LabelDecoder) -> LabelStats:
        """Return the statistics of samples that are about to be folded, and of those that were before."""
        stats = self._reducer.reduce(chunks, decoder)
        if not len(stats):
            self._recorded.unmapped.update(some_labels(chunks, decoder))
        if self._recorded.keep_order:
            new = {label for label in stats.labels.tolist() if label not in stream.appeared}
            stream.appeared.update(dict.fromkeys(in_order(new, chunks, decoder)))
        if stream.folded is not None:
            stats = merge_stats([stream.folded._under("propagate"), stats])
        return self.without_quantiles(stats)

    def without_quantiles(self, stats: LabelStats) -> LabelStats:
        """Return statistics of samples that are folded; warn, once, if there should have been quantiles."""
        if not self._reducer.fractions:
            return stats
        if not self._folding_told:
            self._folding_told = True
            msg = f"no quantiles for this epoch: {NoQuantiles.FOLDED.sentence} (it is {self._limit:,})"
            warn(msg)
        return stats._without_quantiles(NoQuantiles.FOLDED)


def whole_numbers(kind: str, array: Array, stream: Stream | None) -> tuple[str, Array]:
    """Bring uint64 labels and signed ones together, as far as one 64-bit type holds them all.

    Args:
        kind: Kind of this batch.
        array: Its ``(N,)`` labels.
        stream: What was recorded before.

    Returns:
        The kind to record the batch under, and its labels.

    Raises:
        TypeError: No one type holds the labels of the epoch.
    """
    before = None if stream is None or stream.empty() else stream.kind
    if kind == UNSIGNED and before != UNSIGNED and (not array.size or int(array.max()) < 2**63):
        return INTEGER, array.view(np.int64) if array.flags.c_contiguous else array.astype(np.int64)
    if kind in WHOLE and before in WHOLE and (kind == UNSIGNED) != (before == UNSIGNED):
        if kind == UNSIGNED and stream is not None:
            stream.buffer.seal()  # other threads add none then
            negative = _any_negative(stream.snapshot(), 0)
        else:
            negative = bool(array.size) and int(array.min()) < 0
        if negative:
            msg = "labels above 2**63 - 1 and negative labels do not fit one type (this batch was not recorded)"
            raise TypeError(msg)
        return UNSIGNED, array.astype(np.uint64)
    return kind, array


def no_common_type(kind: str, every: Iterable[tuple[str, Snapshot]]) -> bool:
    """Return whether no 64-bit type holds some labels: some are negative, and others above ``2**63 - 1``.

    Args:
        kind: The kind that is wide enough for all.
        every: Samples, and their kind.
    """
    every = list(every)
    for place, wide in enumerate(kinds_of(kind)):
        narrow = [samples for of, samples in every if kinds_of(of)[place] != UNSIGNED]
        if wide == UNSIGNED and any(_any_negative(samples, place) for samples in narrow):
            return True
    return False


def _any_negative(samples: Snapshot, place: int) -> bool:
    """Return whether signed labels are negative somewhere, by their place among several."""
    chunks, folded, decoder = samples.chunks, samples.folded, samples.decoder
    if not isinstance(decoder, TupleDecoder):
        return bool(folded is not None and len(folded) and folded.labels[0] < 0) or any(
            int(keys.min()) < 0 for keys, _ in chunks
        )
    tables = [decoder.decode(np.unique(keys)) for keys, _ in chunks] + ([] if folded is None else [folded.labels])
    return any(bool((list(columns_of(table).values())[place] < 0).any()) for table in tables)
