"""Compiled: fixed-width strings to integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config
from numba.core import types
from numba.extending import intrinsic

from labeltrack._intrinsics import _U0, _U1, STREAMS, _emit_prefetch, _in_turn, _inline, _jit, _memory, _part, _wrapping

BLOCK = 64
"""Bytes of a character that a block of rows has at each position: 16 rows of ``U`` and 64 of ``S``, so that it is
whole cache lines. Of rows of 48 bytes, 16 took 2.7 ns each from memory, 32 took 3.0 and 64 took 3.6: comparing and
looking up then overlap."""
TOGETHER = 4
"""Positions that are looked up at a time, at most."""
_AHEAD = 64  # rows between prefetching and reading: 2.4 ns for rows of 48 bytes, as with 48 and 96; 2.8 with 16
_LINE = 8  # words of a cache line

if config.DISABLE_JIT:

    def _differs(words: Any, first: Any, size: Any, period: Any, base: Any, mask: Any) -> Any:
        """Return whether words from `first` on differ from `base` in a bit of `mask` (plain Python mode)."""
        here = words[int(first) : int(first + size)]
        repeated = np.resize(base[: int(period)], int(size)), np.resize(mask[: int(period)], int(size))
        return np.uint64(((here ^ repeated[0]) & repeated[1]).any())

    def _looking_up(places: int, *, more: bool) -> Any:
        """Return what looks up the characters of some positions (plain Python mode)."""

        def look_up(
            chars: Any, first: Any, width: Any, rows: Any, positions: Any, steps: Any, p: Any, keys: Any, out: Any
        ) -> Any:
            start, stop = int(first * width), int((first + rows) * width)
            grid = chars[start:stop].reshape(int(rows), int(width))
            found = np.zeros(int(rows), dtype=np.int64)
            for q in range(int(p), int(p) + places):
                found += steps[256 * q + (grid[:, positions[q]] & 255).astype(np.int64)]
            written = keys[int(out) : int(out + rows)]
            written[:] = (written + found if more else found).astype(keys.dtype)
            return np.bitwise_or.reduce(found)

        return look_up

else:
    _WORD, _BYTE = ir.IntType(64), ir.IntType(8)
    _VECTOR = ir.VectorType(_WORD, _LINE)

    @intrinsic
    def _differs(
        _context: Any, words: Any, _first: Any, _size: Any, _period: Any, base: Any, mask: Any
    ) -> Any:  # pragma: no cover (built by the compiler)
        """Return whether words from `first` on differ from `base`, repeated each `period`, in a bit of `mask`.

        Cache lines a period apart are compared one after the other, as base and mask then stay in registers. LLVM's
        loop in the order of memory loads all three: 1.3 instead of 0.7 ns for 48 bytes.
        """

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _, first, size, period, _, _ = args

            def line(which: int, at: Any) -> Any:
                place = builder.gep(_memory(context, builder, signature, args, which), [at])
                return builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=8)

            entry = builder.block
            column, row, after, done = (builder.append_basic_block() for _ in range(4))
            builder.branch(column)
            builder.position_at_end(column)
            j, before = builder.phi(_WORD), builder.phi(_VECTOR)
            expected, relevant = line(4, j), line(5, j)
            builder.branch(row)
            builder.position_at_end(row)
            k, found = builder.phi(_WORD), builder.phi(_VECTOR)
            other = builder.xor(line(0, builder.add(first, k)), expected)
            different = builder.or_(found, builder.and_(other, relevant))
            next_k = builder.add(k, period)
            builder.cbranch(builder.icmp_unsigned("<", next_k, size), row, after)
            builder.position_at_end(after)
            next_j = builder.add(j, _WORD(_LINE))
            builder.cbranch(builder.icmp_unsigned("<", next_j, period), column, done)
            for phi, start, from_column, latch in (
                (j, _WORD(0), next_j, entry),
                (before, ir.Constant(_VECTOR, [0] * _LINE), different, entry),
                (k, j, next_k, column),
                (found, before, different, column),
            ):
                phi.add_incoming(start, latch)
                phi.add_incoming(from_column, after if latch is entry else row)
            builder.position_at_end(done)
            all_bits = ir.IntType(64 * _LINE)
            return builder.zext(builder.icmp_unsigned("!=", builder.bitcast(different, all_bits), all_bits(0)), _WORD)

        return types.uint64(words, types.uint64, types.uint64, types.uint64, base, mask), codegen

    def _looking_up(places: int, *, more: bool) -> Any:
        """Return what looks up the characters of some positions.

        Its loop is spelt out, as LLVM unrolls one of Python and then keeps sixteen indices on the stack: 1.8 instead
        of 1.0 ns for four positions.

        Args:
            places: How many positions, which the compiler has to know.
            more: Whether to add to the keys, for the rest of the positions.
        """

        @intrinsic
        def look_up(
            _context: Any,
            chars: Any,
            _first: Any,
            _width: Any,
            _rows: Any,
            positions: Any,
            steps: Any,
            _p: Any,
            keys: Any,
            _out: Any,
        ) -> Any:  # pragma: no cover (built by the compiler)
            """Write or add the steps of `rows` rows to `keys`, from `out` on; return their sums' bits, or-ed."""

            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                _, first, width, rows, _, _, p, _, out = args
                memory = {which: _memory(context, builder, signature, args, which) for which in (0, 4, 5, 7)}
                char, key = memory[0].type.pointee, memory[7].type.pointee
                here = builder.mul(first, width)
                columns = []
                for q in range(places):
                    position = builder.load(builder.gep(memory[4], [builder.add(p, _WORD(q))]))
                    columns.append(builder.gep(memory[0], [builder.add(here, position)]))
                table = builder.gep(memory[5], [builder.shl(p, _WORD(8))])
                ahead = builder.gep(memory[0], [builder.add(here, builder.mul(width, _WORD(_AHEAD)))])
                begin = builder.gep(memory[7], [out])
                end = builder.gep(begin, [rows])
                entry = builder.block
                loop, done = builder.append_basic_block(), builder.append_basic_block()
                builder.branch(loop)
                builder.position_at_end(loop)
                at, place, bits = builder.phi(_WORD), builder.phi(begin.type), builder.phi(_WORD)
                if not more:
                    _emit_prefetch(builder, builder.gep(ahead, [at]), write=False)
                total = _WORD(0)
                for q, column in enumerate(columns):
                    letter = builder.load(builder.gep(column, [at]))
                    low = builder.zext(builder.trunc(letter, _BYTE) if char.width > 8 else letter, _WORD)
                    step = builder.load(builder.gep(table, [builder.add(low, _WORD(256 * q))]))
                    total = builder.add(total, step)
                either = builder.or_(bits, total)
                written = builder.trunc(total, key) if key.width < 64 else total
                builder.store(builder.add(written, builder.load(place)) if more else written, place)
                next_at, next_place = builder.add(at, width), builder.gep(place, [_WORD(1)])
                for phi, start, then in ((at, _WORD(0), next_at), (place, begin, next_place), (bits, _WORD(0), either)):
                    phi.add_incoming(start, entry)
                    phi.add_incoming(then, loop)
                builder.cbranch(builder.icmp_unsigned("!=", next_place, end), loop, done)
                builder.position_at_end(done)
                return either

            word = types.uint64
            return types.int64(chars, word, word, word, positions, steps, word, keys, word), codegen

        return look_up


_look_up_1, _look_up_2, _look_up_3, _look_up_4 = (_looking_up(places, more=False) for places in (1, 2, 3, 4))
_look_up_more = _looking_up(TOGETHER, more=True)


@_jit
def number_rows(
    words: Any,
    chars: Any,
    width: int,
    start: int,
    stop: int,
    base: Any,
    mask: Any,
    base_chars: Any,
    mask_chars: Any,
    positions: Any,
    steps: Any,
    origin: int,
    keys: Any,
) -> np.int64:
    """Number fixed-width strings in a mixed radix, whose digits are the characters of the positions that vary.

    Whether nothing else varies is found out for a block of rows at once, in vector registers. Both together take
    2.4 ns for a row of 48 bytes of which three characters vary; 1.8 where it is in the second-level cache.

    Args:
        words: ``(N * bytes // 8,)`` uint64, a view of the rows.
        chars: ``(N * width,)`` uint32 or uint8, another one.
        width: Characters of a row.
        start: First row to read, a multiple of `BLOCK`.
        stop: One past the last; a multiple of it, or N.
        base: ``(BLOCK * width // 8,)`` uint64: the bits that must not vary, of a block of rows.
        mask: Likewise, which bits these are.
        base_chars: `base` as characters.
        mask_chars: `mask` as characters.
        positions: ``(P,)`` int64: which characters of a row vary; at least one, which then may as well not vary.
        steps: ``(P * 256,)`` int64: what each character, modulo 256, adds to the number; a sum with an unknown one
            must be negative, that of `TOGETHER` positions or fewer.
        origin: The row whose number comes first in `keys`.
        keys: ``(>= stop - origin,)`` int32 or int64, written to.

    Returns:
        The first row of the first block that holds an unknown character; `stop` if there is none.
    """
    row, size = np.uint64(width), np.uint64(base.shape[0])
    block = np.uint64(BLOCK // chars.itemsize)
    row_bytes = width * chars.itemsize
    # Rows and cache lines both begin after so many words, of which a block is a multiple.
    period = np.uint64(row_bytes // min(row_bytes & -row_bytes, 8 * _LINE) * _LINE)
    count = np.uint64((positions.shape[0] - 1) % TOGETHER + 1)
    begin, end, before, streams = np.uint64(start), np.uint64(stop), np.uint64(origin), np.uint64(STREAMS)
    each = (end - begin) // block // streams
    k, many = _U0, (end - begin + block - _U1) // block
    while k < many:
        # In a function of its own, a block would take 60 ns more for counting references to arrays.
        first = begin + _in_turn(k, each) * block
        last = min(first + block, end)
        different = _U0
        if last - first == block:
            different = _differs(words, first // block * size, size, period, base, mask)
        else:
            here = first * row
            for j in range((last - first) * row):
                different |= np.uint64((chars[here + j] ^ base_chars[j]) & mask_chars[j])
        bits = np.int64(-1)
        if different == _U0:
            rows, out = last - first, first - before
            if count == _U1:
                bits = _look_up_1(chars, first, row, rows, positions, steps, _U0, keys, out)
            elif count == np.uint64(2):
                bits = _look_up_2(chars, first, row, rows, positions, steps, _U0, keys, out)
            elif count == np.uint64(3):
                bits = _look_up_3(chars, first, row, rows, positions, steps, _U0, keys, out)
            else:
                bits = _look_up_4(chars, first, row, rows, positions, steps, _U0, keys, out)
            for p in range(count, np.uint64(positions.shape[0]), np.uint64(TOGETHER)):
                bits |= _look_up_more(chars, first, row, rows, positions, steps, p, keys, out)
        k += _U1
        if bits < 0:
            if k > each * streams:
                return np.int64(first)
            k, each = _U0, _U0  # once more, one after the other, as blocks before this one may not be known either
    return np.int64(stop)


ALL_ROWS, KNOWN_ROWS, MISSING_ROWS = 0, 1, 2
"""Which rows `encode_rows` codes: all; those that it knows, which several threads may do; those without a code."""


@_inline
def _hash_row(words: Any, start: Any, varying: Any) -> Any:
    """Return a hash of the words of a row that are not the same in all rows: of names, a few at the end."""
    h = _U0
    for j in range(1, varying[0] + 1):
        h = (h ^ words[start + np.uint64(varying[j])]) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    return h ^ (h >> np.uint64(32))


@_wrapping
@_jit
def encode_rows(
    words: Any,
    width: int,
    start: int,
    stop: int,
    mode: int,
    table: Any,
    known: Any,
    varying: Any,
    first: Any,
    n: int,
    codes: Any,
) -> tuple[int, int, int]:
    """Give each fixed-width row of words its code by open addressing; equal rows get equal codes.

    Args:
        words: ``(N * width,)`` uint64, such as a view of a fixed-width string array.
        width: Words of a row.
        start: First row to read.
        stop: One past the last.
        mode: Which rows to code; the others keep the code they have. Unknown ones get -1 under `KNOWN_ROWS`.
        table: ``(2**b,)`` int32: a code, or -1 for an empty place.
        known: ``(C * width,)`` uint64: the row of each code, C at most half the table. Copies, as those in `words` may
            lie anywhere: with 100 000 labels, looking there took three times as long.
        varying: ``(1 + width,)`` int64: how many words are not the same in all known rows, and which.
        first: ``(C,)`` int64: where in `words` each code was first seen.
        n: Number of codes in use.
        codes: ``(N,)`` int32, written at the row's own index.

    Returns:
        The position reached (short of `stop` if `known` is full), the number of codes, and how many rows were unknown
        under `KNOWN_ROWS`.
    """
    mask = np.uint64(table.shape[0] - 1)
    row = np.uint64(width)
    unknown = 0
    for i in range(start, stop):
        if mode == MISSING_ROWS and codes[i] >= 0:
            continue
        here = np.uint64(i) * row
        place = _hash_row(words, here, varying) & mask
        while True:
            code = table[place]
            if code >= 0:
                other = np.uint64(code) * row
                different = _U0
                for j in range(width):
                    different |= words[here + np.uint64(j)] ^ known[other + np.uint64(j)]
                if different == _U0:
                    break
                place = (place + _U1) & mask
                continue
            if mode == KNOWN_ROWS:
                unknown += 1
                break
            if n >= first.shape[0]:
                return i, n, unknown
            code = n
            first[code] = i
            n += 1
            _learn_row(words, here, width, code, place, table, known, varying)
            break
        codes[i] = code
    return stop, n, unknown


@_part
def _learn_row(words: Any, here: Any, width: int, code: int, place: Any, table: Any, known: Any, varying: Any) -> None:
    """Add a row to those that are known; if a word varies for the first time, hash all of them anew."""
    row = np.uint64(width)
    mask = np.uint64(table.shape[0] - 1)
    mine = np.uint64(code) * row
    before = varying[0]
    for j in range(width):
        word = words[here + np.uint64(j)]
        known[mine + np.uint64(j)] = word
        if word != known[j]:
            seen = False
            for v in range(1, varying[0] + 1):
                seen |= varying[v] == j
            if not seen:
                varying[0] += 1
                varying[varying[0]] = j
    if varying[0] == before:
        table[place] = code
        return
    for p in range(table.shape[0]):
        table[p] = -1
    for c in range(code + 1):
        place = _hash_row(known, np.uint64(c) * row, varying) & mask
        while table[place] >= 0:
            place = (place + _U1) & mask
        table[place] = c
