"""Compiled: fixed-width strings to the codes of a dictionary, whose rows are compared by vector instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config
from numba.core import types
from numba.extending import intrinsic

from labeltrack._kernels import _U0, _U1, STREAMS, _inline, _jit, _memory, _part, _prefetch_read, _wrapping

HASHED = 4
"""Words of a row that its place depends on."""
GROUP = 8
"""Characters that are packed into a word."""
_WIDEST = 64  # bytes of the longest vector
_BLOCK = 16  # rows that are packed at a time
_LINE = 64  # bytes of a cache line
MOVED = 13
"""Bits of a sum that say which move there is, at most."""
_BELOW = np.uint64(34)  # where these bits begin, below those of a place
_FURTHEST = 1 << 10  # moves that are tried
_AHEAD = 1 << 13  # bytes between prefetching and reading
_PACKED_AHEAD = 1 << 11  # as much, of each stream

if config.DISABLE_JIT:

    def _eight(chars: Any, at: Any) -> Any:
        """Return eight bytes from `at` on as a word (plain Python mode)."""
        return chars[int(at) : int(at) + GROUP].view(np.uint64)[0]

    def _comparing(size: int) -> Any:  # noqa: ARG001 (a vector is as long as a row)
        """Return what compares two rows of words (plain Python mode)."""

        def differ(words: Any, here: Any, known: Any, there: Any, width: Any) -> Any:
            one, other = (array[int(at) : int(at + width)] for array, at in ((words, here), (known, there)))
            return np.uint64((one != other).any())

        return differ

else:
    _INDEX = ir.IntType(64)

    @intrinsic
    def _eight(_context: Any, chars: Any, _at: Any) -> Any:  # pragma: no cover (built by the compiler)
        """Return eight bytes from `at` on as a word."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = builder.gep(_memory(context, builder, signature, args, 0), [args[1]])
            return builder.load(builder.bitcast(place, _INDEX.as_pointer()), align=1)

        return types.uint64(chars, types.uint64), codegen

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


@_inline
def _place(h: Any, shift: Any, moves: Any) -> Any:
    """Return the place of a row in the table by the sum `h` of its products.

    The uppermost bits are a place, and some below say which entry of `moves` it is moved by, so that each word has a
    place for itself. In one of eight places a word there are some that have not; which these are nobody can foresee,
    and a branch that goes wrong for one row in ten took a third of all the time.
    """
    which = (h >> _BELOW) & np.uint64(moves.shape[0] - 1)
    return (h >> shift) ^ np.uint64(moves[which])


def _coding(size: int) -> Any:
    """Return the loop over rows of at least `size` bytes."""
    differ = _comparing(size)

    @_part
    def code_rows(
        words: Any,
        width: Any,
        start: Any,
        stop: Any,
        table: Any,
        moves: Any,
        known: Any,
        hashed: Any,
        origin: Any,
        codes: Any,
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
            _prefetch_read(words, here + far)
            if width > line:
                _prefetch_read(words, here + far + line)
            h = np.uint64(words[here + v0]) * m0 + np.uint64(words[here + v1]) * m1
            h += np.uint64(words[here + v2]) * m2 + np.uint64(words[here + v3]) * m3
            place = _place(h, shift, moves)
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
    moves: Any,
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
        moves: ``(2**c,)`` uint16, c being `MOVED` at most: what places are moved by.
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
        return np.int64(_code_64(words, row, first, end, table, moves, known, hashed, before, codes))
    if size >= 32:
        return np.int64(_code_32(words, row, first, end, table, moves, known, hashed, before, codes))
    if size >= 16:
        return np.int64(_code_16(words, row, first, end, table, moves, known, hashed, before, codes))
    if size >= 8:
        return np.int64(_code_8(words, row, first, end, table, moves, known, hashed, before, codes))
    return np.int64(_code_4(words, row, first, end, table, moves, known, hashed, before, codes))


def _coding_packed(groups: int) -> Any:
    """Return the loop over rows of so many groups of bytes."""
    step = np.uint64(groups)

    @_part
    def code_rows(
        chars: Any,
        width: Any,
        begin: Any,
        end: Any,
        packed: Any,
        table: Any,
        moves: Any,
        known: Any,
        hashed: Any,
        before: Any,
        codes: Any,
    ) -> Any:
        """Do as `look_packed_up`, but return the bits of the codes, or-ed."""
        mask = np.uint64(table.shape[0] - 1)
        m0, m1, m2, m3 = hashed[4], hashed[5], hashed[6], hashed[7]
        shift = hashed[8]
        last = width - np.uint64(GROUP)
        k1, k2, k3 = _U0, _U0, _U0
        codes_bits = np.int32(0)
        block, streams, far = np.uint64(_BLOCK), np.uint64(STREAMS), np.uint64(_PACKED_AHEAD // 4)
        each = (end - begin) // block // streams
        for b in range((end - begin + block - _U1) // block):
            first = begin + (b if b >= each * streams else b % streams * each + b // streams) * block
            rows = min(block, end - first)
            out = first - before
            bits = np.uint32(0)
            for i in range(rows * width):
                char = chars[first * width + i]
                packed[i] = np.uint8(char)
                bits = np.uint32(bits | char)
            here = _U0
            ahead = first * width + far
            for i in range(out, out + rows):
                _prefetch_read(chars, ahead + here)
                if groups > 2:  # rows are longer than a cache line
                    _prefetch_read(chars, ahead + here + np.uint64(_LINE // 4))
                k0 = _eight(packed, here)
                h = k0 * m0
                if groups > 1:
                    k1 = _eight(packed, here + (np.uint64(GROUP) if groups > 2 else last))
                    h += k1 * m1
                if groups > 2:
                    k2 = _eight(packed, here + (np.uint64(2 * GROUP) if groups > 3 else last))
                    h += k2 * m2
                if groups > 3:
                    k3 = _eight(packed, here + last)
                    h += k3 * m3
                place = _place(h, shift, moves)
                code = table[place]
                while code >= 0:
                    there = np.uint64(code) * step
                    other = known[there] ^ k0
                    if groups > 1:
                        other |= known[there + _U1] ^ k1
                    if groups > 2:
                        other |= known[there + np.uint64(2)] ^ k2
                    if groups > 3:
                        other |= known[there + np.uint64(3)] ^ k3
                    if other == _U0:
                        break
                    place = (place + _U1) & mask
                    code = table[place]
                codes_bits |= code
                codes[i] = code
                here += width
            if bits > np.uint32(255):  # no word of such a character is known
                for i in range(rows):
                    for j in range((first + i) * width, (first + i + _U1) * width):
                        if chars[j] > np.uint32(255):
                            codes[out + i] = codes_bits = np.int32(-1)
        return codes_bits

    return code_rows


_packed_1, _packed_2, _packed_3, _packed_4 = (_coding_packed(groups) for groups in range(1, HASHED + 1))


@_wrapping
@_jit
def look_packed_up(
    chars: Any,
    width: int,
    start: int,
    stop: int,
    table: Any,
    moves: Any,
    known: Any,
    hashed: Any,
    origin: int,
    codes: Any,
) -> Any:
    """Give each fixed-width row of characters its code in a dictionary of words of Latin-1, -1 if it is not there.

    The lowest bytes of the characters of a block of rows are written next to each other first, so that there is a
    fourth of what has to be multiplied and compared: 2.3 instead of 4 ns for twelve of them.

    Args:
        chars: ``(N * width,)`` uint32, a view of a fixed-width string array.
        width: Characters of a row, `GROUP` at least and `HASHED` times that at most.
        start: See `look_rows_up`, as all arguments that are not named here.
        stop: One past the last.
        table: Codes.
        moves: What places are moved by.
        known: ``(C * -(-width // GROUP),)`` uint64: the characters of each code, as they are packed.
        hashed: What the place of a row depends on: all words, in their order.
        origin: The row whose code comes first.
        codes: Written to.

    Returns:
        How many rows are not in the dictionary.
    """
    row, begin, end, before = np.uint64(width), np.uint64(start), np.uint64(stop), np.uint64(origin)
    packed = np.empty(_BLOCK * width, dtype=np.uint8)
    if width <= GROUP:
        bits = _packed_1(chars, row, begin, end, packed, table, moves, known, hashed, before, codes)
    elif width <= 2 * GROUP:
        bits = _packed_2(chars, row, begin, end, packed, table, moves, known, hashed, before, codes)
    elif width <= 3 * GROUP:
        bits = _packed_3(chars, row, begin, end, packed, table, moves, known, hashed, before, codes)
    else:
        bits = _packed_4(chars, row, begin, end, packed, table, moves, known, hashed, before, codes)
    missing = 0
    if bits < 0:
        for i in range(begin - before, end - before):
            missing += codes[i] < 0
    return missing


@_part
def _sum(known: Any, here: Any, hashed: Any) -> Any:
    """Return the sum of products that the place of a row depends on."""
    h = _U0
    for j in range(HASHED):
        h += np.uint64(known[here + hashed[j]]) * hashed[HASHED + j]
    return h


@_part
def _enter(table: Any, place: Any, code: Any) -> Any:
    """Enter a code in the first empty place from `place` on; return how many there were before it."""
    mask = np.uint64(table.shape[0] - 1)
    elsewhere = 0
    while table[place] >= 0:
        place = (place + _U1) & mask
        elsewhere += 1
    table[place] = code
    return elsewhere


@_wrapping
@_jit
def enter_rows(known: Any, width: int, start: int, stop: int, table: Any, moves: Any, hashed: Any) -> Any:
    """Enter rows, all different, into the table of `look_rows_up`, whose places are moved as they are.

    Args:
        known: ``(C * width,)`` uint64 or uint32.
        width: Words of a row.
        start: The first code to enter.
        stop: One past the last.
        table: ``(2**b,)`` int32, more than C.
        moves: See `look_rows_up`.
        hashed: See `look_rows_up`.

    Returns:
        How many places were looked at in vain: those of words that are all in one place grow with the square of them.
    """
    elsewhere = 0
    for code in range(start, stop):
        h = _sum(known, np.uint64(code) * np.uint64(width), hashed)
        elsewhere += _enter(table, _place(h, hashed[2 * HASHED], moves), code)
    return elsewhere


@_wrapping
@_jit
def arrange_rows(known: Any, width: int, table: Any, moves: Any, hashed: Any) -> Any:
    """Enter rows, all different, into an empty table, and find moves by which as many as can be have their own place.

    Rows of one move are entered together, where there are most of them first: "hash and displace" of F. C. Botelho,
    D. Belazzougui, M. Dietzfelbinger, "Compress, Hash, and Displace", ESA 2009.

    Args:
        known: See `enter_rows`.
        width: Words of a row.
        table: ``(2**b,)`` int32, -1 everywhere.
        moves: ``(2**c,)`` uint16, written to.
        hashed: See `look_rows_up`.

    Returns:
        What `enter_rows` does.
    """
    n, shift = known.shape[0] // width, hashed[2 * HASHED]
    sums = np.empty(n, dtype=np.uint64)
    ends = np.zeros(moves.shape[0] + 1, dtype=np.int64)
    last = np.uint64(moves.shape[0] - 1)
    moves[:] = 0
    for code in range(n):
        sums[code] = _sum(known, np.uint64(code) * np.uint64(width), hashed)
        ends[1 + ((sums[code] >> _BELOW) & last)] += 1
    most = ends.max()
    for which in range(moves.shape[0]):
        ends[which + 1] += ends[which]
    ordered = np.empty(n, dtype=np.int64)
    starts = ends[:-1].copy()
    for code in range(n):
        which = (sums[code] >> _BELOW) & last
        ordered[starts[which]] = code
        starts[which] += 1
    elsewhere = 0
    furthest = min(table.shape[0], _FURTHEST)
    for many in range(most, 0, -1):
        for which in range(moves.shape[0]):
            first, end = ends[which], ends[which + 1]
            if end - first != many:
                continue
            for move in range(furthest):
                entered = 0
                for k in range(first, end):
                    place = (sums[ordered[k]] >> shift) ^ np.uint64(move)
                    if table[place] >= 0:
                        break
                    table[place] = ordered[k]
                    entered += 1
                if entered == many:
                    moves[which] = move
                    break
                for k in range(first, first + entered):
                    table[(sums[ordered[k]] >> shift) ^ np.uint64(move)] = -1
            else:
                for k in range(first, end):
                    elsewhere += _enter(table, sums[ordered[k]] >> shift, ordered[k])
    return elsewhere
