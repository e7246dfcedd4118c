"""Batches of any supported type become rows of a stream; samples are folded when memory is full."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._convert.arrays import QUICK, aligned_shape, looks_multi_hot, to_values
from labeltrack._core.arrays import Array, Mask
from labeltrack._labels.codes import (
    BYTES,
    INTEGER,
    MISSING_NAME,
    STRING,
    integer_keys,
    label_array,
    label_kind,
)
from labeltrack._labels.combination_codes import (
    CODED,
    COMBINED,
    IDS,
    Combinations,
    compatible,
    encode_batch,
    kinds_of,
    uncoded,
    wider,
)
from labeltrack._labels.masks import are_multi_hot, counted, read_mask
from labeltrack._labels.missing import read_labels
from labeltrack._labels.options import ONLY
from labeltrack._tracking.ids import BatchIds, check_alike, read_ids
from labeltrack._tracking.streams import Folded, Key, Snapshot, Stream, check_signs, one_type
from labeltrack.errors import warn, warn_multi_hot
from labeltrack.stats import LabelStats, NoQuantiles

if TYPE_CHECKING:
    from labeltrack._buffers import Rows
    from labeltrack._tracking.changes import Recorded
    from labeltrack._tracking.device import Staging
    from labeltrack._tracking.reducing import Reducer


class Batch(NamedTuple):
    """A batch that was read."""

    labels: Any
    values: list[Array]  # of each metric, all of one shape
    mask: Mask | None  # which samples count; None for all
    ids: BatchIds | None
    samples: Array  # the values, or the places of values in them, if there are more columns


class Intake:
    """Takes batches in."""

    def __init__(self, recorded: Recorded, reducer: Reducer, max_buffer_bytes: int) -> None:
        self.recorded = recorded
        self._streams = recorded.streams
        self.reducer = reducer
        self._limit = max_buffer_bytes
        self._labels = reducer.labels
        # The streams, if batches may be recorded without searching them for labels to ignore.
        self.quick: dict[Key, Stream] = {} if self._labels.ignored else self._streams
        self._multi_hot_told = reducer.labels.mapped
        self._folding_told = False
        self._staging: Staging | None = None

    def quickly(self, labels: Any, values: Sequence[Any], mode: str, ds_id: str, ids: Any = None) -> bool:
        """Record a batch of tensors, or of a list of strings, if it is like the one before; return whether it was."""
        keys: Any = None
        columns: list[Any] = []
        try:
            stream = self.quick[mode, ds_id]
            buffer = stream.buffer
            kind = buffer.kind
            if not (buffer.open.used or buffer.wide.used):
                return False
            if kind == INTEGER:
                read_labels = QUICK[type(labels)]
                keys = labels if read_labels is None else read_labels(labels)
            elif buffer.raw is not CODED:
                keys = buffer.raw.memory_of(labels)
            elif kind == STRING and type(labels) is list and stream.words is not None:
                keys = stream.words.known(labels)
            if keys is None or (ids is None) is not (stream.ids is None):
                return False
            for column in values:
                read = QUICK[type(column)]
                columns.append(column if read is None else read(column))
            if stream.ids is not None:
                if stream.ids.words is None:
                    read = QUICK[type(ids)]
                    columns.append(ids if read is None else read(ids))
                elif type(ids) is not list or (codes := stream.ids.words.known(ids)) is None:
                    return False
                else:
                    columns.append(codes.astype(np.int64))
        except (KeyError, TypeError, ValueError, RuntimeError, BufferError):
            return False  # the first batch, another type or shape, a mode that is no string, memory that is elsewhere
        return buffer.try_append(keys, columns[0], kind, tuple(columns[1:]))

    def take(self, labels: Any, values: Sequence[Any], key: Key, where: Any = None, ids: Any = None) -> None:
        """Record a batch, on a device once it arrives; TypeError or ValueError may be of an earlier one, and say so."""
        waiting, taken = self.recorded.waiting, False
        columns = self._labels.on_device(labels, (*values, where, ids)) if "torch" in sys.modules else None
        if columns is not None:
            if self._staging is None:
                from labeltrack._tracking import device  # noqa: PLC0415 (it imports torch)

                self._staging = device.Staging(waiting, self._labels.names, self._limit // 4)
            taken = self._staging.take(columns, key, self)
        if not taken:
            if waiting.numbers and waiting.waits(key[0]):
                waiting.deliver(self)
            self.append(labels, values, key, where, ids)
        if waiting.errors:
            waiting.tell()

    def arrive(self, reader: str = "") -> None:
        """Complete a decided change and record what waits; RuntimeError if `reader` was called within a change."""
        self.recorded.complete()
        waiting = self.recorded.waiting
        if waiting.numbers and (len(waiting) or waiting.errors):
            if reader:
                self.recorded.lock.of(reader)
            waiting.deliver(self)
            waiting.tell()

    def append(self, labels: Any, values: Sequence[Any], key: Key, where: Any = None, ids: Any = None) -> None:
        """Record a batch of any supported type; `values` are those of each metric."""
        quick = None if where is not None else self.quick.get(key)
        if quick is not None and quick.buffer.raw is not CODED:
            quick.buffer.expect(quick.buffer.raw)  # codes what waits, which makes room
            if self.quickly(labels, values, *key, ids):
                return
        columns = self.read_values(values)
        first = columns[0]
        read = None if ids is None else read_ids(ids, first)
        mask = None if where is None else read_mask(where, first)
        alone = len(columns) == 1 and read is None
        samples = first if alone else np.arange(first.size).reshape(first.shape)
        batch = Batch(labels, columns, mask, read, samples)
        encode = self._encoded if self._labels.names is None else self._combined
        encoded = encode(batch, key)
        if encoded is None:
            return
        keys, kept, kind = encoded
        if alone:
            rows = [kept]
        else:
            places = None if kept.size == first.size else kept
            rows = [column.reshape(-1) if places is None else column.reshape(-1)[places] for column in columns]
        if read is not None:
            stream, taken = self._streams.get(key), read.taken(places)
            if stream is not None and not stream.empty():
                check_alike(key[0], stream.ids, read.kind)  # before words are added
            rows.append(self.recorded.words[IDS].encode(taken).astype(np.int64) if read.kind == STRING else taken)
        self._record((keys, *rows), kind, key, None if read is None else read.kind)
        words = self.recorded.words.get(COMBINED)
        if isinstance(words, Combinations) and where is None:
            buffer = self._streams[key].buffer
            raw = uncoded(labels, words, buffer.kind, buffer.raw)
            if raw is not buffer.raw:
                buffer.expect(raw)

    def read_values(self, values: Sequence[Any]) -> list[Array]:
        """Return the values of each metric, of one shape."""
        if len(values) == 1:
            return [to_values(values[0])]
        columns: list[Array] = []
        for history, given in zip(self.recorded.histories, values, strict=True):
            try:
                column = to_values(given)
            except (TypeError, ValueError) as error:
                msg = f"metric {history.metric!r}: {error}"
                raise (TypeError if isinstance(error, TypeError) else ValueError)(msg) from error
            shape = columns[0].shape if columns else column.shape
            if column.shape != shape:
                flat = all(each.ndim <= 1 or each.size == each.shape[0] for each in (columns[0], column))
                if not flat or column.size != columns[0].size:
                    msg = (
                        f"metric {history.metric!r} has values of shape {column.shape}, and "
                        f"{self.recorded.histories[0].metric!r} of shape {shape}; every sample needs a value of each "
                        "metric (this batch was not recorded)"
                    )
                    raise ValueError(msg)
                column = column.reshape(shape)
            columns.append(column)
        return columns

    def _encoded(self, batch: Batch, key: Key) -> tuple[Array, Array, str] | None:
        """Return keys, samples and kind of a batch; None if there are none left, or the quick way took it."""
        stream, labels, samples, mask = self._streams.get(key), batch.labels, batch.samples, batch.mask
        option = self._labels.options[ONLY]
        array: Any
        plain = mask is None and not option.ignored
        if plain and type(labels) is list and samples.shape == (len(labels),) and set(map(type, labels)) == {str}:
            kind, array = STRING, labels  # coded as it is: making an array of it first would take twice as long
        else:
            array, gone = read_labels(labels)
            if not self._multi_hot_told and looks_multi_hot(array, samples):
                self._multi_hot_told = True
                warn_multi_hot()
            if plain and gone is None and stream is not None and self._again(stream, array, batch):
                return None
            kind = label_kind(array)
            text = kind in (STRING, BYTES) and gone is None and not option.ignored and (mask is None or mask.any())
            coded = text and aligned_shape(array, samples) != samples.shape
            if coded:  # (N, 1) texts, before they are repeated
                self._check_kind(key[0], kind)
                array = self.recorded.words[kind].encode(array.reshape(-1)).reshape(array.shape)
            expected = None if gone is None else self._expected(key, array)
            array, samples = counted((array, gone), samples, mask, option, expected)
            if not array.size:
                return None  # labels of no sample are of no kind: an empty list would be one of doubles
            if coded:
                return array, samples, kind
            kind, array = one_type(label_kind(array), array, key, self._streams)
        self._check_kind(key[0], kind)
        words = self.recorded.words.get(kind)
        return integer_keys(array, kind) if words is None else words.encode(array), samples, kind

    @staticmethod
    def _again(stream: Stream, keys: Array, batch: Batch) -> bool:
        """Record a batch of the dtypes of the one before, with a label per value; return whether it was."""
        ids, samples = batch.ids, batch.samples
        if stream.kind != INTEGER or (stream.ids and stream.ids.kind) != (ids and ids.kind):
            return False
        if aligned_shape(keys, samples) != samples.shape or (ids is not None and ids.gone is not None):
            return False
        first, *more = [column.reshape(-1) for column in batch.values]
        more += [] if ids is None else [ids.ids]
        return stream.buffer.try_append(keys.reshape(-1), first, INTEGER, tuple(more))

    def _combined(self, batch: Batch, key: Key) -> tuple[Array, Array, str] | None:
        """Return the same of a batch with several labels per sample."""
        stream, words = self._streams.get(key), self.recorded.words[COMBINED]
        assert isinstance(words, Combinations)  # noqa: S101 (where labels have names)
        kinds = {of: each.kind for (of, _), each in self._streams.items()}
        known = kinds.get(key[0], next(iter(kinds.values()), None)) if stream is None else stream.kind
        expected = None if known is None else dict(zip(words.names, kinds_of(known), strict=True))
        columns = self._labels.columns(batch.labels)
        keys, samples, kind = encode_batch(columns, batch.samples, batch.mask, self._labels.options, words, expected)
        if not self._multi_hot_told and are_multi_hot(columns, batch.samples):
            self._multi_hot_told = True
            warn_multi_hot(several=True)
        if not keys.size:
            return None
        self._check_kind(key[0], kind)
        if stream is None or stream.empty() or kind != stream.kind:
            check_signs(Snapshot([(keys, samples)], None, words.decoder(kind)), key[0], self._streams)
        return keys, samples, kind

    def _record(self, rows: Rows, kind: str, key: Key, ids: str | None) -> None:
        """Record a batch that is encoded; `ids` is the kind of the ids, the last column."""
        stream = self._streams.get(key)
        its_ids = None if stream is None or stream.ids is None else stream.ids.kind
        if stream is None or stream.empty():
            if stream is None or stream.kind != kind or its_ids != ids:
                old, stream = stream, self.recorded.new_stream(key, kind, [column.dtype for column in rows], ids)
                self._streams[key] = stream
                if old is not None:
                    old.buffer.retire()
            self.recorded.began += 1
            stream.began = self.recorded.began
        elif its_ids != ids:
            check_alike(key[0], stream.ids, ids)
        widened = wider(kind, stream.kind)
        # The quick way first: strings come here with every batch, and it takes 2.4 us less.
        buffer = stream.buffer
        keys, values, *more = rows
        if widened == buffer.kind and buffer.try_append(keys, values, widened, tuple(more)):
            return
        if not buffer.append(keys, values, self.budget, widened, tuple(more)):
            self._make_room(stream, widened, rows)

    def _expected(self, key: Key, array: Array) -> str | None:
        """Return the kind of labels of a mode; for text, also of earlier epochs, of other modes or of the mapping."""
        now = [stream.kind for of, stream in self._streams.items() if of[0] == key[0] and not stream.empty()]
        if now or array.dtype.kind != "U":
            return now[0] if now else None
        mapping = self._labels.options[ONLY].mapping
        mapped = label_kind(label_array(list(mapping)[:1])) if mapping is not None else None
        kinds = {of: stream.kind for of, stream in self._streams.items()}
        alike = [kinds[of] for of in (key, *kinds) if of in kinds and of[0] == key[0]]
        return next(iter([*alike, *kinds.values()]), mapped)

    def _check_kind(self, mode: str, kind: str) -> None:
        """Raise TypeError if a mode has labels of a kind that this one does not go together with."""
        for (of, _), other in self._streams.items():  # those of all datasets of the mode are pooled in the end
            if of == mode and other.kind != kind and not compatible([kind, other.kind]) and not other.empty():
                samples = other.snapshot()
                every = [samples.decoder.decode(np.unique(keys).astype(np.int64)).tolist() for keys, *_ in samples.rows]
                unknown = other.kind == STRING and samples.folded is None and {*chain(*every)} == {MISSING_NAME}
                hint = " (missing labels alone count as strings: give them a type, such as pandas' Int64)" * unknown
                msg = (
                    f"labels of mode {mode!r} were {other.kind} labels so far in this epoch and are {kind} labels "
                    f"now{hint}; convert them to one type (this batch was not recorded)"
                )
                raise TypeError(msg)

    # -- folding ------------------------------------------------------------------------------------------

    def budget(self) -> int:
        """Return how many bytes may still be allocated."""
        return max(0, self._limit - sum(stream.buffer.nbytes for stream in self._streams.values()))

    def _make_room(self, stream: Stream, kind: str, rows: Rows) -> None:
        """Record a batch for which there is no memory left, by folding samples into running statistics."""
        keys, values, *more = rows
        share = self._limit // max(1, sum(not other.empty() for other in self._streams.values()))
        if stream.buffer.nbytes < share:
            # Others took more than their part while this stream had nothing to record. Without this, an eval
            # after a long train would have to reduce every single batch.
            for other in self._streams.values():
                if other.buffer.nbytes > share:
                    self._fold(other)
                    other.buffer.shrink(share)
            if stream.buffer.append(keys, values, self.budget, kind, tuple(more)):
                return
        self._fold(stream)
        if stream.buffer.append(keys, values, self.budget, kind, tuple(more)):
            return
        # A batch larger than all the memory.
        whole = tuple(np.ascontiguousarray(column) for column in rows)
        fresh = Snapshot([whole], stream.folded, self.recorded.decoder(kind), stream.ids)
        stream.buffer.fold_in(self._folded(stream, fresh), whole, kind)

    def _fold(self, stream: Stream) -> None:
        """Replace the samples of a stream by their statistics."""
        stream.buffer.seal()
        if not stream.buffer.empty():
            folded = self._folded(stream, stream.snapshot())
            stream.buffer.hand_on()
            stream.buffer.clear(folded)

    def _folded(self, stream: Stream, samples: Snapshot) -> Folded:
        """Return what is kept of samples that are about to be folded, and of those that were before."""
        appeared = stream.appeared if self.recorded.keep_order else None
        folded = self.reducer.fold(samples, appeared, self.recorded.unmapped)
        return folded._replace(stats=tuple(map(self.without_quantiles, folded.stats)))

    def without_quantiles(self, stats: LabelStats) -> LabelStats:
        """Return statistics of samples that are folded; warn, once, if there should have been quantiles."""
        if not self.reducer.fractions:
            return stats
        if not self._folding_told:
            self._folding_told = True
            msg = f"no quantiles for this epoch: {NoQuantiles.FOLDED.sentence} (it is {self._limit:,})"
            warn(msg)
        return stats._like(quantiles={}, no_quantiles=NoQuantiles.FOLDED)
