"""Preallocated growable columns for the samples of one stream.

Rows lie in chunks. A full chunk is never copied or moved: growing means one more chunk, and a batch of a wider
dtype starts a chunk of that dtype. Emptying keeps the chunks, so that from the second epoch on nothing is
allocated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._arrays import cast

if TYPE_CHECKING:
    from concurrent.futures import Future

Array = npt.NDArray[Any]
Dtype = np.dtype[Any]

FIRST_ROWS = 1 << 12
# Columns below the 4 MiB from which numpy asks for huge pages: one of those that is touched for the first time, in the
# middle of training, takes up to 5 ms in a virtual machine. The slowest append of the first epoch of a hundred million
# samples was 11 ms with four times as many rows, and is 0.3; later epochs, and reading them, take the same time.
LARGEST_ROWS = 1 << 18


@dataclass(slots=True, eq=False)
class Chunk:
    """Rows ``[0, used)`` of two columns.

    Attributes:
        labels: Label column.
        values: Value column.
        used: How many rows are filled.
        limit: Up to which row the short road may fill it.
        handed: How many rows were handed on, and `pending` what still reads them; see `_backlog`.
        label_view: The label column to write through. Writing to a slice of a memoryview compares format and
            shape and copies, all in one call: 0.09 us for 256 rows of numpy, where comparing dtypes and writing
            to a slice of the array takes 0.3; and it reads a TensorFlow tensor as it is.
        value_view: The value column likewise.
    """

    labels: Array
    values: Array
    used: int = 0
    limit: int = field(init=False)
    handed: int = 0
    pending: list[Future[Any]] = field(default_factory=list)
    label_view: Any = field(init=False)
    value_view: Any = field(init=False)

    def __post_init__(self) -> None:
        self.limit = self.labels.shape[0]
        # numpy 1.26's stubs do not know that its arrays are buffers.
        labels: Any = self.labels
        values: Any = self.values
        self.label_view = memoryview(labels)
        self.value_view = memoryview(values)

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.labels.nbytes + self.values.nbytes


class SampleBuffer:
    """Two growable columns, labels and values, appended to together.

    Args:
        label_dtype: Dtype of the label column, of those that the kernels read.
        value_dtype: float32 or float64.

    Attributes:
        open: The chunk that is appended to.
        nbytes: Bytes allocated.

    Example:
        >>> buffer = SampleBuffer(np.dtype(np.int32), np.dtype(np.float32))
        >>> buffer.append(np.array([1, 2], np.int32), np.array([0.5, 0.25], np.float32))
        True
        >>> len(buffer), buffer.filled()[0][1]
        (2, array([0.5 , 0.25], dtype=float32))
    """

    __slots__ = ("_chunks", "_open", "_rows", "label_dtype", "nbytes", "open", "value_dtype")

    def __init__(self, label_dtype: Dtype, value_dtype: Dtype) -> None:
        self.label_dtype = label_dtype
        self.value_dtype = value_dtype
        self.nbytes = 0
        self._open = 0  # its index; the ones after it are empty
        self._rows = 0  # of the batch before
        self._chunks = [Chunk(np.empty(0, label_dtype), np.empty(0, value_dtype))]
        self.open = self._chunks[0]

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(chunk.used for chunk in self._chunks)

    def try_append(self, labels: Any, values: Any) -> bool:
        """Append ``(N,)`` rows if they fit the open chunk as they are; the path of nearly every batch.

        `LabelTracker.update` has the same written out for arrays of numpy: keep both alike.

        Args:
            labels: Array, or other object that offers its memory (the buffer protocol).
            values: Likewise.

        Returns:
            Whether the rows were appended. If not, nothing was changed: dtypes or shapes differ from the
            columns', there is no room, or an object that is no array has not as many rows as the batch before.
        """
        chunk = self.open
        start = chunk.used
        try:
            # Other objects take longer to say how many rows they have than to be copied.
            end = start + (len(labels) if type(labels) is np.ndarray else self._rows)
            if end > chunk.limit:
                return False
            chunk.label_view[start:end] = labels
            chunk.value_view[start:end] = values
        except (ValueError, TypeError, NotImplementedError, BufferError):
            return False
        chunk.used = end
        return True

    def append(self, labels: Array, values: Array, budget: int | None = None) -> bool:
        """Append ``(N,)`` rows, growing and widening the columns as it takes. All or nothing.

        Args:
            labels: Checked labels, of a dtype that the kernels read.
            values: float32 or float64.
            budget: Bytes that may be allocated at most; None for as many as it takes.

        Returns:
            Whether the rows were appended. If not, they would have taken more than the budget, and nothing was
            changed.

        Raises:
            MemoryError: There is none left; nothing was changed.
        """
        label_dtype = np.promote_types(self.label_dtype, labels.dtype)
        value_dtype = np.promote_types(self.value_dtype, values.dtype)
        rows = labels.shape[0]
        room = sum(
            c.labels.shape[0] - c.used for c in self._chunks[self._open :] if _holds(c, label_dtype, value_dtype)
        )
        if rows > room:
            room += self._regain(label_dtype, value_dtype)
        if rows > room:
            size = self._next_size(rows - room, label_dtype.itemsize + value_dtype.itemsize, budget)
            if not size:
                return False
            chunk = Chunk(np.empty(size, label_dtype), np.empty(size, value_dtype))
            if not self._chunks[-1].labels.shape[0]:
                self._chunks.pop()  # the chunk of no rows that a new buffer has
            self._chunks.append(chunk)
            self.nbytes += chunk.nbytes
        self.label_dtype, self.value_dtype = label_dtype, value_dtype
        self._rows = rows
        done = 0
        while done < rows:
            chunk = self._chunks[self._open]
            n = min(rows - done, chunk.labels.shape[0] - chunk.used)
            if n == 0 or not _holds(chunk, label_dtype, value_dtype):
                self._open += 1
                continue
            self.open = chunk
            chunk.labels[chunk.used : chunk.used + n] = labels[done : done + n]
            chunk.values[chunk.used : chunk.used + n] = cast(values[done : done + n], chunk.values.dtype, copy=False)
            chunk.used += n
            done += n
            self._filled(chunk)
        return True

    def hand_on(self) -> None:
        """Do nothing; for subclasses that hand rows on."""

    def _filled(self, chunk: Chunk) -> None:
        """Do nothing; for subclasses that do something with rows that were appended.

        Args:
            chunk: Where they are.
        """

    def _regain(self, label_dtype: Dtype, value_dtype: Dtype) -> int:  # noqa: ARG002 (for subclasses)
        """Return how many rows of those dtypes were made room for, without allocating; none here."""
        return 0

    def filled(self) -> list[tuple[Array, Array]]:
        """Return the rows as pairs of contiguous arrays, without copying."""
        return [(c.labels[: c.used], c.values[: c.used]) for c in self._chunks if c.used]

    def clear(self) -> None:
        """Forget the rows and keep the memory.

        Chunks too narrow for the columns are replaced here, at the end of an epoch, not while training runs.
        """
        for chunk in self._chunks:
            chunk.used = 0
        self._open, self.open = 0, self._chunks[0]
        for i, chunk in enumerate(self._chunks):
            if not _holds(chunk, self.label_dtype, self.value_dtype):
                rows = chunk.labels.shape[0]
                wide = Chunk(np.empty(rows, self.label_dtype), np.empty(rows, self.value_dtype))
                self._chunks[i] = wide
                self.open = self._chunks[0]
                self.nbytes += wide.nbytes - chunk.nbytes

    def shrink(self, nbytes: int) -> None:
        """Give memory back until no more than so many bytes are allocated. The buffer must be empty."""
        while self.nbytes > nbytes:
            self.nbytes -= self._chunks.pop().nbytes
        if not self._chunks:
            self._chunks.append(Chunk(np.empty(0, self.label_dtype), np.empty(0, self.value_dtype)))
        self.open = self._chunks[self._open]

    def _next_size(self, short: int, row: int, budget: int | None) -> int:
        """Return the rows of the next chunk: as many as all before it, within limits; 0 if over the budget."""
        have = sum(chunk.labels.shape[0] for chunk in self._chunks)
        size = max(short, min(LARGEST_ROWS, max(FIRST_ROWS, have)))
        if budget is not None:
            size = min(size, budget // row)
        return size if size >= short else 0


def _holds(chunk: Chunk, label_dtype: Dtype, value_dtype: Dtype) -> bool:
    """Return whether a chunk has the dtypes of the columns."""
    return chunk.labels.dtype == label_dtype and chunk.values.dtype == value_dtype
