"""Compiled: fixed-width strings to the codes of a dictionary, whose rows are compared by vector instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config
from numba.core import types
from numba.extending import intrinsic

from labeltrack._kernels import _U0, _U1, _jit, _memory, _part, _prefetch, _wrapping

HASHED = 4
"""Words of a row that its place depends on."""
_WIDEST = 64  # bytes of the longest vector
_LINE = 64  # bytes of a cache line
_AHEAD = 1 << 13  # bytes between prefetching and reading

if config.DISABLE_JIT:

    def _comparing(size: int) -> Any:  # noqa: ARG001 (a vector is as long as a row)
        """Return what compares two rows of words (plain Python mode)."""

        def differ(words: Any, here: Any, known: Any, there: Any, width: Any) -> Any:
            one, other = (array[int(at) : int(at + width)] for array, at in ((words, here), (known, there)))
            return np.uint64((one != other).any())

        return differ

else:
    _INDEX = ir.IntType(64)

    def _comparing(size: int) -> Any:
        """Return what compares two rows of words, `size` bytes at a time.

        The last vector ends where the row does, and may overlap the one before: no word is compared on its own.
        """

        @intrinsic
        def differ(
            _context: Any, words: Any, _here: Any, known: Any, _there: Any, _width: Any
        ) -> Any:  # pragma: no cover (built by the compiler)
            """Return whether two rows of `width` words, at least a vector, differ."""

            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                _, here, _, there, width = args
                ours, theirs = (_memory(context, builder, signature, args, which) for which in (0, 2))
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

            index = types.uint64
            return index(words, index, known, index, index), codegen

        return differ


def _coding(size: int) -> Any:
    """Return the loop over rows of at least `size` bytes."""
    differ = _comparing(size)

    @_part
    def code_rows(
        words: Any, width: Any, start: Any, stop: Any, table: Any, known: Any, hashed: Any, origin: Any, codes: Any
    ) -> Any:
        """Do as `look_rows_up`."""
        mask = np.uint64(table.shape[0] - 1)
        # Four words, whatever they are: a loop over as many as it takes has to read which.
        v0, v1, v2, v3 = hashed[0], hashed[1], hashed[2], hashed[3]
        m0, m1, m2, m3 = hashed[4], hashed[5], hashed[6], hashed[7]
        shift = hashed[8]
        line = np.uint64(_LINE // words.itemsize)
        far = np.uint64(_AHEAD // words.itemsize)
        missing = 0
        here = start * width
        for i in range(start - origin, stop - origin):
            _prefetch(words, here + far)
            if width > line:
                _prefetch(words, here + far + line)
            h = np.uint64(words[here + v0]) * m0 + np.uint64(words[here + v1]) * m1
            h += np.uint64(words[here + v2]) * m2 + np.uint64(words[here + v3]) * m3
            place = h >> shift
            code = table[place]
            while code >= 0 and differ(words, here, known, np.uint64(code) * width, width) != _U0:
                place = (place + _U1) & mask
                code = table[place]
            missing += code < 0
            codes[i] = code
            here += width
        return missing

    return code_rows


_code_4, _code_8, _code_16, _code_32, _code_64 = (_coding(size) for size in (4, 8, 16, 32, _WIDEST))


@_wrapping
@_jit
def look_rows_up(
    words: Any,
    width: int,
    start: int,
    stop: int,
    table: Any,
    known: Any,
    hashed: Any,
    origin: int,
    codes: Any,
) -> Any:
    """Give each fixed-width row of words its code in a dictionary, -1 if it is not there.

    Args:
        words: ``(N * width,)`` uint64 or uint32, a view of a fixed-width string array.
        width: Words of a row.
        start: First row to read.
        stop: One past the last.
        table: ``(2**b,)`` int32: codes, and -1 in empty places.
        known: ``(C * width,)`` of the same type: the row of each code.
        hashed: ``(2 * HASHED + 1,)`` uint64: the words that the place of a row depends on, the odd number that each of
            them is multiplied with, and by how much the sum is shifted to have b bits left.
        origin: The row whose code comes first in `codes`.
        codes: ``(>= stop - origin,)`` int32, written to.

    Returns:
        How many rows are not in the dictionary.
    """
    row, first, end, before = np.uint64(width), np.uint64(start), np.uint64(stop), np.uint64(origin)
    size = width * words.itemsize
    if size >= _WIDEST:
        return np.int64(_code_64(words, row, first, end, table, known, hashed, before, codes))
    if size >= 32:
        return np.int64(_code_32(words, row, first, end, table, known, hashed, before, codes))
    if size >= 16:
        return np.int64(_code_16(words, row, first, end, table, known, hashed, before, codes))
    if size >= 8:
        return np.int64(_code_8(words, row, first, end, table, known, hashed, before, codes))
    return np.int64(_code_4(words, row, first, end, table, known, hashed, before, codes))


@_wrapping
@_jit
def enter_rows(known: Any, width: int, start: int, stop: int, table: Any, hashed: Any) -> Any:
    """Enter rows, all different, into the table of `look_rows_up`.

    Args:
        known: ``(C * width,)`` uint64 or uint32.
        width: Words of a row.
        start: The first code to enter.
        stop: One past the last.
        table: ``(2**b,)`` int32, more than C.
        hashed: See `look_rows_up`.

    Returns:
        How many places were looked at in vain: those of words that are all in one place grow with the square of them.
    """
    mask = np.uint64(table.shape[0] - 1)
    row = np.uint64(width)
    elsewhere = 0
    for code in range(start, stop):
        here = np.uint64(code) * row
        h = _U0
        for j in range(HASHED):
            h += np.uint64(known[here + hashed[j]]) * hashed[HASHED + j]
        place = h >> hashed[2 * HASHED]
        while table[place] >= 0:
            place = (place + _U1) & mask
            elsewhere += 1
        table[place] = code
    return elsewhere
