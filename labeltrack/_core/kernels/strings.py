"""Compiled: fixed-width strings to codes, by open addressing; vectors compare rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from labeltrack._core.kernels.intrinsics import (
    _U0,
    _U1,
    _U4,
    _U5,
    _apart,
    _emitting,
    _inline,
    _jit,
    _part,
    _prefetch_read,
)

UNROLLED = 4  # words of a row that its place may depend on at no cost
_ALIKE = 8  # other rows that may agree with a row in all of these; then it depends on more
_WIDEST = 64  # bytes of the longest vector
_LINE = 64  # bytes of a cache line
_AHEAD = 1 << 13  # bytes between prefetching and reading

_INDEX = ir.IntType(64)


def _comparing(size: int) -> Any:
    """Return what compares two rows, `size` bytes at a time; the last vector may overlap the one before."""

    def emit(builder: Any, ours: Any, here: Any, theirs: Any, there: Any, width: Any) -> Any:  # pragma: no cover
        word = ours.type.pointee
        lanes = max(1, 8 * size // word.width)
        vector = ir.VectorType(word, lanes)

        def part(memory: Any, start: Any, at: Any) -> Any:
            place = builder.gep(memory, [builder.add(start, at)])
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=word.width // 8)

        def difference(at: Any) -> Any:
            return builder.xor(part(ours, here, at), part(theirs, there, at))

        last = builder.sub(width, _INDEX(lanes))
        found = builder.or_(difference(_INDEX(0)), difference(last))
        if size == _WIDEST:  # a row may have more than two of them
            entry = builder.block
            loop, body, done = (builder.append_basic_block() for _ in range(3))
            builder.branch(loop)
            builder.position_at_end(loop)
            at, sofar = builder.phi(_INDEX), builder.phi(vector)
            builder.cbranch(builder.icmp_unsigned("<", at, last), body, done)
            builder.position_at_end(body)
            more = builder.or_(sofar, difference(at))
            following = builder.add(at, _INDEX(lanes))
            builder.branch(loop)
            for phi, start, then in ((at, _INDEX(lanes), following), (sofar, found, more)):
                phi.add_incoming(start, entry)
                phi.add_incoming(then, body)
            builder.position_at_end(done)
            found = sofar
        bits = ir.IntType(word.width * lanes)
        return builder.zext(builder.icmp_unsigned("!=", builder.bitcast(found, bits), bits(0)), _INDEX)

    @_emitting(emit, types.uint64, None, types.uint64, None, types.uint64, types.uint64)
    def differ(words, here, known, there, width):
        """Return whether two rows of `width` words, at least a vector, differ."""
        one, other = (array[int(at) : int(at + width)] for array, at in ((words, here), (known, there)))
        return np.uint64((one != other).any())

    return differ


def _coding(size: int, learn: bool, more: bool) -> Any:
    differ = _comparing(size)

    def encode_rows(words, width, start, stop, table, known, hashed, n, codes):
        """Write the codes of rows of `width` words (uint64, uint32), that of `start` first, -1 for unknown ones.

        If it learns, an unknown row gets the next code, `n`, until `known`, with the row of each code, is full. `table`
        has ``2**b`` codes, -1 in empty places. The place of a row is a sum of products, shifted to leave b bits:
        ``hashed[0]`` says of how many of its words, and of which; ``hashed[1]`` by how much it is shifted, and odd
        factors; ``hashed[2]`` how many known rows have other places, as theirs were taken, and the first of these
        factors again, zero for words that do not count.

        Returns:
            The row reached, the number of codes, and whether a row is unknown.
        """
        mask, row, room = np.uint64(table.shape[0] - 1), np.uint64(width), known.shape[0] // width
        line = np.uint64(_LINE // words.itemsize)
        far = np.uint64(_AHEAD // words.itemsize)
        every, i, rows, here = np.int32(0), _U0, np.uint64(stop - start), np.uint64(start * width)
        while True:
            count, shift = hashed[0, 0], hashed[1, 0]
            # Always four words, unrolled.
            v0, v1, v2, v3 = hashed[0, 1], hashed[0, 2], hashed[0, 3], hashed[0, 4]
            m0, m1, m2, m3 = hashed[2, 1], hashed[2, 2], hashed[2, 3], hashed[2, 4]
            while i < rows:
                _prefetch_read(words, here + far)
                if row > line:
                    _prefetch_read(words, here + far + line)
                h = np.uint64(words[here + v0]) * m0 + np.uint64(words[here + v1]) * m1
                h += np.uint64(words[here + v2]) * m2 + np.uint64(words[here + v3]) * m3
                if more and count > _U4:  # asked in each turn, it takes up to a third longer
                    h += _further_words(words, here, hashed)
                place = h >> shift
                code = table[place]
                while code >= 0 and differ(words, here, known, np.uint64(code) * row, row) != _U0:
                    place = (place + _U1) & mask
                    code = table[place]
                if not learn:
                    every |= code
                elif code < 0:
                    break
                codes[i] = code
                here += row
                i += _U1
            if not learn or i == rows or n == room:
                return start + np.int64(i), n, every < 0
            for j in range(width):
                known[n * width + j] = words[here + np.uint64(j)]
            codes[i] = n
            home = _place(words, here, hashed)
            if table[home] < 0:
                table[home] = n
            else:
                _tell_apart(n, row, table, known, hashed)
            n += 1
            here += row
            i += _U1

    # A name of its own, by which it is found in the cache.
    encode_rows.__name__ = encode_rows.__qualname__ = f"{'learn' if learn else 'look_up'}_{size}{'_more' * more}"
    return _jit(encode_rows)


@_inline
def _place(words, here, hashed):
    """Return the place of a row."""
    h = _U0
    for k in range(_U1, hashed[0, 0] + _U1):
        h += np.uint64(words[here + hashed[0, k]]) * hashed[1, k]
    return h >> hashed[1, 0]


@_part
def _further_words(words, here, hashed):
    """Return the sum of products of the words that are not unrolled."""
    _apart()
    h = _U0
    for k in range(_U5, hashed[0, 0] + _U1):
        h += np.uint64(words[here + hashed[0, k]]) * hashed[1, k]
    return h


@_part
def _tell_apart(code, width, table, known, hashed):
    """Enter a known row whose place is taken; if it agrees with others in all words that places depend on, add one."""
    _apart()
    word = _enter(code, width, table, known, hashed)
    while word < width:
        hashed[0, 0] += _U1
        hashed[0, hashed[0, 0]] = word
        for k in range(_U1, np.uint64(UNROLLED) + _U1):
            hashed[2, k] = hashed[1, k] if k <= hashed[0, 0] else _U0
        hashed[2, 0] = _U0
        for p in range(table.shape[0]):
            table[p] = -1
        for c in range(code + 1):
            word = _enter(c, width, table, known, hashed)


@_part
def _enter(code, width, table, known, hashed):
    """Enter a known row and return `width`; or return one more word that places are to depend on."""
    mask, mine, more = np.uint64(table.shape[0] - 1), np.uint64(code) * width, hashed[0, 0] + _U1
    place = home = _place(known, mine, hashed)
    bear = _U0 if hashed[0, 0] < np.uint64(UNROLLED) else np.uint64(_ALIKE)
    while table[place] >= 0:
        other = np.uint64(table[place]) * width
        alike = True
        for k in range(_U1, more):
            alike &= known[mine + hashed[0, k]] == known[other + hashed[0, k]]
        if alike and bear == _U0:
            word = width  # if another thread has changed the row, it may be known
            for j in range(width):
                if known[mine + np.uint64(j)] != known[other + np.uint64(j)]:
                    word = np.uint64(j)
            return word
        bear -= np.uint64(alike)
        place = (place + _U1) & mask
    hashed[2, 0] += np.uint64(place != home)
    table[place] = code
    return width


_SIZES = (_WIDEST, 32, 16, 8, 4)
_ENCODERS = {
    (size, *kind): _coding(size, *kind)
    for size in _SIZES
    for kind in ((False, False), (False, size > 8), (True, size > 8))  # shorter rows have no more words
}


def encoder(size: int, *, learn: bool, more: bool) -> Any:
    """Return the kernel for rows of so many bytes, compiled for each, in half the time that one for all takes.

    `more` says whether places depend on more words than are unrolled, which learning may change.
    """
    vector = next(least for least in _SIZES if least <= size)
    return _ENCODERS[vector, learn, (more or learn) and vector > 8]
