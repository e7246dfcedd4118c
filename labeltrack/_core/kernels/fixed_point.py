"""What the two fixed-point formats, `fixed32` and `fixed63`, share: choosing a unit, and the loop over samples.

A format stores a sample as an integer times one power of two, the unit, and sums integers: one vector addition per
sample, exact in any order. `reducing` builds the loop from what distinguishes a format, which is what a row is.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import addressof, c_char
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types

from labeltrack._core.kernels import COPIES, DONE, FULL, OUTSIDE, UNSUITABLE
from labeltrack._core.kernels.intrinsics import (
    _STREAM,
    _apart,
    _emit_prefetch,
    _emitting,
    _greater,
    _inline,
    _jit,
    _lesser,
    _lowest_bit,
    _part,
    _prefetch,
    _same,
)

_U0, _U1, _U2, _U3, _U4 = map(np.uint64, range(5))
COUNT_BITS = 21  # bits of the count of a row
MAX_COUNT = (1 << COUNT_BITS) - 1  # samples that a row can hold
SHIFT = 43
"""Bits that sums are shifted right by beside the count; with n bits of a count, from ``2 * n - 1`` to ``64 - n``."""
BLOCK = 192
"""Samples converted at a time; a multiple of 64. With 1000 labels and float32, 192 samples run at 760 million per
second, 256 at 660, as rows, words and input no longer share the L1 cache; at 100 labels 860 and 905."""
REJECTED = 2 * BLOCK + 8
"""Room for the rejected samples of a block, those waiting from earlier blocks, and four places more."""
EXPONENTS = 2048  # exponents of a double; the last is that of NaN and infinities

_REJECTS = 32  # one in so many samples may be rejected in the long run
_EXCESS = 1 << 11  # excess over that, in samples, at which the unit is unsuitable
_MARK = np.uint64(1 << 63)  # the sample was added to the first of several tables, regardless of its turn
_NONFINITE = np.uint64(EXPONENTS - 1)
_MANTISSA = np.uint64(52)  # bits below the exponent
_BIAS = 1022  # that of `math.frexp`
_COUNT_BITS = np.uint64(COUNT_BITS)
_SHIFT, _WRAPPED = np.uint64(SHIFT), np.uint64(64 - SHIFT)
_U64 = np.uint64(64)


class Unit(NamedTuple):
    """How samples become integers."""

    scale: float  # power of two, at least 1, so that scaling does not underflow
    signed: bool  # whether integers are biased, as some are negative
    copies: int  # tables used in turn: 1 or `COPIES`; they are to be added up
    finer: bool  # whether there are four tables of different units instead (`fixed63` only)


class Batch(NamedTuple):
    """The samples from `start` to before `stop` to be added; the slot of each is ``label - low``, below `size`."""

    labels: npt.NDArray[Any]  # ``(N,)`` integers
    samples: npt.NDArray[Any]  # ``(N,)`` float32 or float64
    start: int
    stop: int
    low: int
    size: int
    block: npt.NDArray[Any]  # ``(BLOCK,)`` memory for labels


class Queue(NamedTuple):
    """Samples that a format cannot represent: ``(Q,)`` int64 slots and ``(Q,)`` float64 samples."""

    slots: npt.NDArray[np.int64]
    samples: npt.NDArray[np.float64]


class Scratch(NamedTuple):
    """Scratch memory of the loop over samples. Kernels unpack it once: each access to a field counts a reference."""

    words: npt.NDArray[np.int64]  # ``(W * BLOCK,)`` converted samples
    rejected: npt.NDArray[np.uint64]  # ``(REJECTED,)`` numbers of rejected samples
    places: npt.NDArray[np.uint64]  # ``(2 * BLOCK,)`` where the tables, then the rows of samples are
    lines: npt.NDArray[np.int64]  # ``(32,)`` zeros, on a cache line
    block: npt.NDArray[np.int64]  # ``(>= BLOCK,)`` memory for labels of any type


def new_scratch(words: int) -> Scratch:
    memory = np.zeros(40 + (words + 3) * BLOCK + REJECTED, dtype=np.int64)
    start = -addressof(c_char.from_buffer(memory.data)) // 8 % 8
    lines, memory, block = np.split(memory[start:], [32, (words + 2) * BLOCK + REJECTED + 32])
    numbers = memory[words * BLOCK :].view(np.uint64)
    return Scratch(memory[: words * BLOCK], numbers[:REJECTED], numbers[REJECTED:], lines, block)


class Format(NamedTuple):
    """What distinguishes a fixed-point format where its kernels are compiled."""

    name: str
    log_row: np.uint64  # binary logarithm of the words per row
    count_word: np.uint64  # word of a row whose lowest bits are the count
    ahead: np.uint64  # samples between prefetching a row and adding to it
    far: int  # rows from which they are prefetched
    convert: Callable[..., None]  # writes samples as words, 0 where one is not representable
    rejects: Callable[..., Any]  # returns a bit for each of 64 converted samples that is 0
    add: Callable[..., None]  # adds a converted sample to the row at a word of the table
    add_runs: Callable[..., None]  # adds a block of which many samples in a row have one label
    add_finer: Any = None  # adds a block to tables of several units, if the format has them


# -- choosing a unit --------------------------------------------------------------------------------------------------


@_emitting(lambda builder, mask: builder.ctpop(mask), types.uint64, types.uint64)
def _bits(mask):
    return np.uint64(int(mask).bit_count())


@_emitting(lambda builder, number: builder.bitcast(number, ir.IntType(64)), types.uint64, types.float64)
def _bits_of(number):  # `view` would load a part of numba, 7 ms
    return number.view(np.uint64)


@_jit
def extent(samples, counts):
    """Return the exponent of the largest finite sample, one in 64 ignored; if any is negative; how many are finite.

    The exponent is that of `math.frexp`, 0 for zeros, -1022 for subnormal doubles; `counts` are zeros, one for each.
    """
    # Ten times faster than sorting.
    negative, zeros = False, 0
    for i in range(np.uint64(samples.shape[0])):
        sample = np.float64(samples[i])
        exponent = (_bits_of(sample) >> _MANTISSA) & _NONFINITE
        counts[exponent] += 1
        negative |= (sample < 0.0) & (exponent != _NONFINITE)
        zeros += sample == 0.0
    finite = samples.shape[0] - counts[_NONFINITE]
    exponent, above = _NONFINITE, 0
    while 64 * above <= finite and exponent > _U0:
        exponent -= _U1
        above += counts[exponent]
    # Of those with the lowest exponent, zeros are the smallest.
    return 0 if exponent == _U0 and 64 * (above - zeros) <= finite else np.int64(exponent) - _BIAS, negative, finite


# -- parts of the loop ------------------------------------------------------------------------------------------------


def _emit_fetch(builder: Any, array: Any, start: Any) -> None:  # pragma: no cover (runs while kernels are compiled)
    element = array.type.pointee
    size = {ir.FloatType(): 4, ir.DoubleType(): 8}.get(element) or element.width // 8
    _emit_prefetch(builder, array, start, BLOCK * size // 64, write=False)


@_emitting(_emit_fetch, types.void, None, types.uint64)
def _fetch(array, start):
    """Prefetch a block of an array that is read some blocks later. It need not exist."""


def vector_lanes(*which: int) -> Any:  # pragma: no cover (runs while kernels are compiled)
    return ir.Constant(ir.VectorType(ir.IntType(32), len(which)), list(which))


@_part
def _copy_labels(labels, first, m, low, limit, block):
    """Copy `m` labels, which another thread may change before use; return how many precede one outside the table."""
    least = most = labels[first]
    for i in range(m):
        label = labels[first + i]
        block[i] = label
        least = _lesser(least, label)
        most = _greater(most, label)
    if np.uint64(np.int64(least) - low) < limit and np.uint64(np.int64(most) - low) < limit:
        return m
    for i in range(m):
        if np.uint64(np.int64(block[i]) - low) >= limit:
            return i
    return m


@_inline
def _has_runs(block, m):
    """Return whether 16 labels in a row are the same at the start or in the middle of a block; 3 often are."""
    middle = m >> _U1
    return m >= _U64 and (_same(block, _U0, block[_U0]) or _same(block, middle, block[middle]))


@_inline
def whole_sum(table, place, shifted):
    """Return both words of a sum, from itself modulo 2**64 and the sum of what is above `SHIFT` bits."""
    low = np.uint64(table[place])
    high = np.uint64(shifted) >> _COUNT_BITS
    return low, (high >> _WRAPPED) + np.uint64(low < (high << _SHIFT))


# -- the loop ---------------------------------------------------------------------------------------------------------


def reducing(form: Format) -> Any:
    log_row, count_word, far_ahead, far_rows = form.log_row, form.count_word, form.ahead, form.far
    convert, rejects, add = form.convert, form.rejects, form.add
    add_runs, add_finer, has_finer = form.add_runs, form.add_finer, form.add_finer is not None
    row_words = 1 << int(log_row)

    @_inline
    def find_rejected(words, first, m, mark, rejected, k):
        """Append the numbers of rejected samples, with a mark; return how many there are then."""
        # Four places are written per 64 samples, needed or not: a branch on each would mispredict twice per sample.
        for i in range(_U0, m, _U64):
            mask = rejects(words, i)
            if m - i < _U64:
                mask &= (_U1 << (m - i)) - _U1  # words of an earlier block
            there = _bits(mask)
            start = (first + i) | mark
            for j in range(_U4):
                rejected[k + j] = start + _lowest_bit(mask)
                mask &= mask - _U1
            for j in range(_U4, there):
                rejected[k + j] = start + _lowest_bit(mask)
                mask &= mask - _U1
            k += there
        return k

    @_part
    def queue_rejected(batch, rejected, k, table, turns, unit, queue, n):
        """Queue rejected samples, and correct the counts; return the new `n`."""
        _apart()
        labels, samples, start, _, low, size, _ = batch
        slots, queued = queue
        for i in range(k):
            j = rejected[i] & ~_MARK
            slot = np.uint64(np.int64(labels[j]) - low)
            if slot >= np.uint64(size):  # changed by another thread
                continue
            if not unit.finer:
                # Of four tables, it was counted in that of its turn, or in the first.
                turn = ((j - np.uint64(start)) & _U3) * np.uint64(turns) if rejected[i] == j else _U0
                table[turn + (slot << log_row) + count_word] -= 1
            slots[n] = np.int64(slot)
            queued[n] = samples[j]
            n += _U1
        return n

    @_part
    def add_few(block, words, m, low, table, stride):
        _apart()
        base0 = -low * row_words
        base1 = base0 + stride
        base2 = base1 + stride
        base3 = base2 + stride
        most = m & ~_U3
        for i in range(_U0, most, _U4):
            add(table, base0, np.uint64(np.int64(block[i])) << log_row, words, i)
            add(table, base1, np.uint64(np.int64(block[i + _U1])) << log_row, words, i + _U1)
            add(table, base2, np.uint64(np.int64(block[i + _U2])) << log_row, words, i + _U2)
            add(table, base3, np.uint64(np.int64(block[i + _U3])) << log_row, words, i + _U3)
        for i in range(most, m):
            add(table, base0 + np.int64(i - most) * stride, np.uint64(np.int64(block[i])) << log_row, words, i)

    @_part
    def add_near(block, words, m, low, table):
        _apart()
        base = -low * row_words
        for i in range(m):
            add(table, base, np.uint64(np.int64(block[i])) << log_row, words, i)

    @_part
    def add_far(labels, first, block, words, m, low, table):
        _apart()
        base = -low * row_words
        ahead = first + far_ahead
        fetched = np.uint64(_lesser(np.int64(m), _greater(0, labels.shape[0] - np.int64(ahead))))
        for i in range(fetched):
            _prefetch(table, np.uint64((np.int64(labels[ahead + i]) - low) * row_words))
            add(table, base, np.uint64(np.int64(block[i])) << log_row, words, i)
        for i in range(fetched, m):
            add(table, base, np.uint64(np.int64(block[i])) << log_row, words, i)

    def reduce(batch, table, unit, scratch, queue, n):
        """Add a `Batch` to ``(T * size * WORDS,)`` int64 words on a cache line; queue what the format cannot represent.

        T is `COPIES` if ``unit.finer``, else ``unit.copies``. Returns the position reached, the number of samples
        queued, and why the pass stopped.
        """
        labels, samples, start, stop, low, size, block = batch
        words, rejected, places, lines, _ = scratch
        limit = np.uint64(size)
        stride = size * row_words
        few = unit.copies == COPIES and not unit.finer
        turns = stride if few else 0
        room = queue.slots.shape[0] - REJECTED

        waiting: Any = _U0
        position: Any = start
        excess: Any = 0
        status: Any = DONE
        while position < stop and status == DONE:
            if n > room:
                status = FULL
                break
            end = _lesser(position + BLOCK, stop)
            first = np.uint64(position)
            m = np.uint64(end - position)
            _fetch(labels, first + _STREAM)
            _fetch(samples, first + _STREAM)
            convert(samples, position, end, unit, stride, words, places)
            looked = _copy_labels(labels, first, m, low, limit, block)
            runs = _has_runs(block, m)
            before = waiting
            waiting = find_rejected(words, first, looked, _MARK if runs else _U0, rejected, waiting)
            excess = _greater(0, excess + _REJECTS * np.int64(waiting - before) - np.int64(m))
            if has_finer and unit.finer:
                add_finer(block, looked, low, table, words, places)
            elif runs:
                add_runs(block, looked, low, table, words, lines)
            elif few:
                add_few(block, words, looked, low, table, turns)
            elif size <= far_rows:
                add_near(block, words, looked, low, table)
            else:
                add_far(labels, first, block, words, looked, low, table)
            position += np.int64(looked)
            if looked < m:
                status = OUTSIDE
            elif excess > _EXCESS:
                status = UNSUITABLE
            if waiting > BLOCK or position == stop or status != DONE:
                n = np.int64(queue_rejected(batch, rejected, waiting, table, turns, unit, queue, np.uint64(n)))
                waiting = _U0
        return position, n, status

    # A name of its own, by which it is found in the cache.
    reduce.__name__ = reduce.__qualname__ = f"reduce_{form.name}"
    return _jit(reduce)
