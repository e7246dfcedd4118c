"""What all kernels are built from: compilation, instructions that numba does not offer, error-free additions.

``fastmath`` and any other licence to reassociate would destroy the error-free transforms and must never be used here.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, njit
from numba.core import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.runtime import rtsys
from numba.extending import intrinsic

from labeltrack._core.kernels import uninterrupted
from labeltrack._core.kernels.cache import CHECKED, checked, checksum, warn_of_cache

STREAM = 512
"""Samples between prefetching and reading labels and samples. Hardware prefetchers stop at the end of a page, and some
fall behind before: with ten labels 1.7 and 3.0 ns per float and double without, 1.45 and 2.75 with (Intel)."""

SAME = 16  # labels in a row that are compared at a time

# Unsigned constants, as numba takes a while to type each cast.
_U0, _U1, _U2, _U3, _U4, _U5, _U6, _U7, _U8 = (np.uint64(number) for number in range(9))
_SAME = np.uint64(SAME)
_STREAM = np.uint64(STREAM)

_compiled = njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)
# Parts of kernels are compiled into their callers: not cached, 20 ms each, and not callable from Python, half a second
# of compilation in all. Calling one from Python crashes.
_part = njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True)
# For parts of a loop that LLVM would not inline.
_inline = njit(nogil=True, error_model="numpy", forceinline=True, no_cfunc_wrapper=True, no_cpython_wrapper=True)


class _Files(IndexDataCacheFile):  # type: ignore[misc]  # pragma: no cover (of compiled code, like what follows)
    """Files of numba's cache with a checksum, as numba runs what it finds in them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # An index of other sources is not unpickled, as it may need modules that are gone, but replaced. All modules of
        # kernels count, as numba only looks at the one that a kernel is in.
        self._version += _SOURCES

    def _dump(self, obj: Any) -> bytes:
        data: bytes = super()._dump(obj)
        return data + checksum(data)

    def _save_index(self, overloads: dict[Any, Any]) -> None:
        data = pickle.dumps(self._version) + super()._dump((self._source_stamp, overloads))
        with self._open_for_write(self._index_path) as file:
            file.write(data + checksum(data))

    def _load_index(self) -> dict[Any, Any]:
        return super()._load_index() if self._is_whole(self._index_path) else {}

    def _load_data(self, name: str) -> Any:
        return super()._load_data(name) if self._is_whole(self._data_path(name)) else None

    def _is_whole(self, path: str) -> bool:
        try:
            whole = checked(Path(path).read_bytes()) is not None
        except FileNotFoundError:
            return False
        if not whole:
            warn_of_cache(f"{path} is damaged")
        return whole


def _digest() -> str:
    """Return a digest of all modules of kernels: installers may give files of different versions one time."""
    here = Path(__file__).parent
    sources = [*sorted(here.glob("*.py")), here.parents[1] / "_kernels.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


_SOURCES = _digest()  # now, as files may be replaced before the first kernel is compiled


class _Cache(FunctionCache):  # type: ignore[misc]  # pragma: no cover
    """numba's cache of a kernel; where it fails, as with damaged files or on a full disk, the kernel is compiled."""

    def __init__(self, kernel: Any) -> None:
        super().__init__(kernel)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _Files(self._cache_path, self._impl.filename_base + CHECKED, stamp)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # Not what a closure holds, which differs between processes: names tell the kernels of a factory apart.
        return sig, codegen.magic_tuple()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            # Not numba's own, which imports all that only compiling needs, SciPy included: 0.2 s of a first call.
            rtsys.initialize(target_context)
            return self._load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 (damaged cache files raise anything; the source can be compiled)
            warn_of_cache(f"{self._cache_path}: {error!r}")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # noqa: BLE001
            self.disable()
            warn_of_cache(f"{self._cache_path}: {error!r}")


def _jit(kernel: Any) -> Any:
    """Compile a kernel on its first call, or load it from numba's cache."""
    if not config.DISABLE_JIT:  # pragma: no cover
        found = _compiled(kernel)
        # An interrupt during compilation would leave numba unusable.
        found._compile_for_args = functools.partial(uninterrupted, found._compile_for_args)  # noqa: SLF001
        # Not numba's search for extensions among all installed packages, 5 to 20 ms: kernels use none.
        found._compilation_chain_init_hook = lambda: None  # noqa: SLF001
        try:
            found._cache = _Cache(kernel)  # noqa: SLF001 (as its enable_caching() does)
        except RuntimeError as error:  # there is no folder that can be written to
            warn_of_cache(error)
        return found

    @functools.wraps(kernel)
    def quiet(*args: Any) -> Any:
        # Overflow of integers and cancelling infinities are silent, as in compiled code.
        with np.errstate(over="ignore", invalid="ignore"):
            return kernel(*args)

    return quiet


def _memory(context: Any, builder: Any, signature: Any, args: Any, which: int) -> Any:  # pragma: no cover
    """Return the address of the memory of an array among the arguments of an intrinsic."""
    return context.make_array(signature.args[which])(context, builder, args[which]).data


def _emitting(emit: Callable[..., Any], result: Any, *kinds: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator of functions that compiled code replaces by what `emit` emits; interpreted code calls them."""
    # `emit` gets a builder and the operands, of types `kinds`, None for any; an array as the address of its memory.

    def decorate(function: Callable[..., Any]) -> Any:
        if config.DISABLE_JIT:
            return function

        def typed(_context: Any, *given: Any) -> Any:  # pragma: no cover (called by the compiler)
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                arrays = [isinstance(kind, types.Array) for kind in signature.args]
                operands = (
                    _memory(context, builder, signature, args, which) if array else args[which]
                    for which, array in enumerate(arrays)
                )
                emitted = emit(builder, *operands)
                return context.get_dummy_value() if result == types.void else emitted

            return result(*(mine or kind for mine, kind in zip(kinds, given, strict=True))), codegen

        names = ["_context", *inspect.signature(function).parameters]  # pragma: no cover
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # pragma: no cover
        return intrinsic(functools.update_wrapper(typed, function, ("__name__", "__qualname__", "__doc__"), ()))

    return decorate


if config.DISABLE_JIT:
    _lesser, _greater = min, max

else:

    def _chosen(sign: str) -> Any:
        """Return the choice of one of two numbers; numba compiles `min` and `max` for each use: 0.3 s in all."""

        def build(typing_context: Any, a: Any, b: Any) -> Any:  # pragma: no cover (called by the compiler)
            kind = typing_context.unify_types(a, b)

            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                x, y = (context.cast(builder, arg, of, kind) for arg, of in zip(args, signature.args, strict=True))
                if isinstance(kind, types.Float):
                    other = builder.fcmp_ordered(sign, y, x)
                else:
                    other = (builder.icmp_signed if kind.signed else builder.icmp_unsigned)(sign, y, x)
                return builder.select(other, y, x)

            return kind(a, b), codegen

        return intrinsic(build)

    _lesser, _greater = _chosen("<"), _chosen(">")


@_emitting(lambda builder, a, b, c: builder.fma(a, b, c), types.float64, types.float64, types.float64, types.float64)
def fma(a, b, c):
    """``a * b + c`` with one rounding. numba offers none before Python 3.13's ``math.fma``."""
    if a == 0.0 or b == 0.0:
        return a * b + c
    from fractions import Fraction  # noqa: PLC0415 (never loaded in compiled mode)

    return float(Fraction(a) * Fraction(b) + Fraction(c))


@_inline
def two_sum(a, b):
    """Return ``s, e`` with ``s = fl(a + b)`` and ``s + e == a + b`` exactly (Knuth; no branch)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@_inline
def two_prod(a, b):
    """Return ``p, e`` with ``p = fl(a * b)`` and ``p + e == a * b`` exactly, barring underflow."""
    p = a * b
    return p, fma(a, b, -p)


# -- instructions that numba does not offer ---------------------------------------------------------------------------

_FLAG, _LANE, _WORD = ir.IntType(1), ir.IntType(32), ir.IntType(64)


@_emitting(lambda builder: builder.function.attributes.add("noinline"), types.void)
def _apart():
    """Tell LLVM not to inline the function that calls this, for which numba has no option."""


def _emit_lowest_bit(builder: Any, mask: Any) -> Any:  # pragma: no cover (runs while kernels are compiled)
    kind = ir.FunctionType(_WORD, [_WORD, _FLAG])
    return builder.call(builder.module.declare_intrinsic("llvm.cttz", [_WORD], kind), [mask, _FLAG(0)])


@_emitting(_emit_lowest_bit, types.uint64, types.uint64)
def _lowest_bit(mask):
    """Return the number of zeros below the lowest bit that is set, 64 if none is."""
    return np.uint64((int(mask) & -int(mask)).bit_length() - 1 if mask else 64)


def _emit_prefetch(builder: Any, array: Any, start: Any, lines: int, *, write: bool) -> None:  # pragma: no cover
    """Emit prefetches of cache lines; on some processors, reading takes a tenth longer if these are for writing."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _LANE, _LANE, _LANE])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    place = builder.bitcast(builder.gep(array, [start]), pointer)
    for line in range(lines):
        where = builder.gep(place, [_WORD(64 * line)])
        builder.call(prefetch, [where, _LANE(int(write)), _LANE(3), _LANE(1)])


@_emitting(functools.partial(_emit_prefetch, lines=1, write=True), types.void, None, types.uint64)
def _prefetch(table, r):
    """Prefetch the cache line of the word at `r`, which need not exist, to be written to."""


@_emitting(functools.partial(_emit_prefetch, lines=1, write=False), types.void, None, types.uint64)
def _prefetch_read(array, i):
    """Prefetch the cache line of element `i`, which need not exist."""


def _emit_same(builder: Any, labels: Any, i: Any, label: Any) -> Any:  # pragma: no cover
    many, bits = ir.VectorType(label.type, SAME), ir.IntType(SAME)
    place = builder.bitcast(builder.gep(labels, [i]), many.as_pointer())
    row = builder.load(place, align=label.type.width // 8)
    nothing = ir.Constant(many, ir.Undefined)
    first = builder.insert_element(nothing, label, _LANE(0))
    spread = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_LANE, SAME), [0] * SAME))
    equal = builder.bitcast(builder.icmp_unsigned("==", row, spread), bits)
    return builder.icmp_unsigned("==", equal, bits(-1))


@_emitting(_emit_same, types.boolean, None, types.uint64, None)
def _same(labels, i, label):
    """Return whether the `SAME` labels from `i` on are all this one, by one comparison of vectors."""
    return bool((labels[int(i) : int(i) + SAME] == label).all())


@_inline
def _one_label(labels, start, stop):
    """Return how many of the labels from `start` on are the same one; 1 unless at least four are."""
    first = labels[start]
    if start + _U4 > stop:
        return _U1
    if labels[start + _U1] != first or labels[start + _U2] != first or labels[start + _U3] != first:
        return _U1
    end = start + _U4
    while end + _SAME <= stop and _same(labels, end, first):  # instead of sixteen branches
        end += _SAME
    while end < stop and labels[end] == first:
        end += _U1
    return end - start
