"""`label_stats`: the one-liner, from two arrays to exact statistics a label."""

from __future__ import annotations

import operator
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.arrays import looks_multi_hot, to_values
from labeltrack._convert.floats import as_doubles
from labeltrack._core.dictionary import Dictionary
from labeltrack._core.quantiles import Samples, check_fractions
from labeltrack._core.reduce import reduce_chunks
from labeltrack._core.reduce_strings import encode_words, reduce_words
from labeltrack._core.strings import encode_strings
from labeltrack._core.threads import most_threads
from labeltrack._labels.codes import (
    BYTES,
    FLOAT,
    STRING,
    LabelDecoder,
    LabelMapping,
    Vocabulary,
    integer_keys,
    label_kind,
)
from labeltrack._labels.missing import Missing, check_missing, names_of, read_labels, settle, wanted_by
from labeltrack.errors import LabelTrackWarning, listing
from labeltrack.stats import LabelStats, NanPolicy, check_nan_policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def label_stats(
    labels: Any,
    values: Any,
    *,
    label_mapping: Mapping[str, Any] | None = None,
    nan_policy: NanPolicy = "propagate",
    missing: Missing = "error",
    threads: int | None = None,
    quantiles: Iterable[float] = (),
) -> LabelStats:
    """Return count, sum, mean, standard deviation, minimum and maximum of the values of each label, exactly.

    Args:
        labels: ``(N,)`` or ``(N, 1)`` integers, bools, floats or strings, as any array-like.
        values: As many real numbers, as any array-like; or labels and values of one same shape. float32 and
            float64 are reduced as they are, float16 and bfloat16 as float32, bool and integers as float64.
        label_mapping: ``{display name: label value}``; samples of other labels are passed over.
        nan_policy: ``"propagate"``: a label with NaN samples has NaN statistics. ``"omit"``: NaN samples are
            left out. ``"raise"``: they are an error.
        missing: What samples do whose label is missing (None, NaN, NA, null, masked). ``"error"``: they are one.
            ``"skip"``: they are left out. ``"label"``: they have a label of their own, which is called ``"(missing)"``
            and is kept by any `label_mapping`. Its value is that text among strings, and ``-2**63`` among numbers;
            bools become 0 and 1 beside it. A label that has this very value is taken for it.
        threads: How many threads share the work, 16 or as many as there are processors at most; None chooses by the
            number of samples. Where the system has no thread to give, fewer do.
        quantiles: Which quantiles to compute, from 0 to 1, for `LabelStats.quantile` and for bounds: ``"iqr"`` takes
            0.25, 0.5 and 0.75. It takes memory for the values once more.

    Returns:
        One row for each label that occurs, sorted by label. Sum, mean and standard deviation are what
        rational arithmetic gives, rounded once, bit for bit the same for any order of the samples and any
        number of threads.

    Raises:
        TypeError: Labels or values of a type that cannot be used.
        ValueError: Shapes that do not belong together, missing labels under ``"error"``, a bad option, or NaN under
            ``"raise"``.

    Warns:
        LabelTrackWarning: No label of the mapping occurs, or labels look multi-hot.

    Example:
        >>> import labeltrack as lt
        >>> stats = lt.label_stats([0, 1, 1], [0.5, 2.0, 3.0], label_mapping={"cat": 0, "dog": 1})
        >>> stats.names.tolist(), stats.mean.tolist()
        (['cat', 'dog'], [0.5, 2.5])
        >>> lt.label_stats([0, 1, 1], [0.5, 2.0, 3.0], quantiles=[0.5, 0.9]).quantile(0.9)
        array([0.5, 2.9])
    """
    policy = check_nan_policy(nan_policy)
    fractions = check_fractions(quantiles)
    threads = check_threads(threads)
    mapping = None if label_mapping is None else LabelMapping(label_mapping)
    missing = check_missing(missing, mapping)
    (array, gone), numbers = read_labels(labels), to_values(values)
    if mapping is None and looks_multi_hot(array, numbers):
        warn_multi_hot(stacklevel=2)
    flat_labels, flat_values = settle(array, numbers, gone, missing)
    flat_values = np.ascontiguousarray(flat_values)
    kind = label_kind(flat_labels)
    dictionary = Dictionary(flat_labels) if flat_labels.dtype.kind in "US" else None
    if dictionary is not None and dictionary.possible and mapping is None and not fractions:
        reduced = reduce_words(dictionary, flat_values, threads=threads)
        if reduced is not None:
            stats = LabelStats(*reduced, names=names_of(None, missing), nan_policy=policy)
            stats._check_finite()
            return stats
    keys, space = _to_keys(flat_labels, kind, dictionary, threads)
    wanted = None if mapping is None else space.encode(wanted_by(mapping, missing))
    chunk = (np.ascontiguousarray(keys), flat_values)
    found, accumulator = reduce_chunks([chunk], space, wanted=wanted, threads=threads)
    if mapping is not None and flat_labels.size and not found.size:
        some = np.unique(flat_labels[:100_000])
        warn_nothing_mapped(mapping, (as_doubles(some) if kind == FLOAT else some).tolist(), stacklevel=2)
    stats = LabelStats(found, accumulator, names=names_of(mapping, missing), nan_policy=policy)
    stats._check_finite()
    if fractions:
        samples = Samples([chunk], space.keys(found), np.arange(found.shape[0]))
        stats = stats._with_quantiles([samples], fractions, threads=threads)
    return stats


def _to_keys(
    labels: npt.NDArray[Any], kind: str, dictionary: Dictionary | None, threads: int | None
) -> tuple[npt.NDArray[Any], LabelDecoder]:
    """Return ``(N,)`` labels of any kind as keys for the kernels, and their decoder."""
    if kind in (STRING, BYTES) and labels.dtype.kind == "O":
        words = Vocabulary(kind)
        return words.encode(labels), words.decoder(kind)
    if kind == FLOAT and labels.dtype.itemsize < 8:
        return integer_keys(labels.astype(np.float64), kind), LabelDecoder(kind, narrow=labels.dtype)
    if dictionary is None:
        return integer_keys(labels, kind), LabelDecoder(kind)
    codes = encode_words(dictionary, threads=threads)
    if codes is not None:
        return codes, LabelDecoder(kind, dictionary.words)
    codes, first = encode_strings(labels, threads=threads)
    return codes, LabelDecoder(kind, labels[first])


def warn_nothing_mapped(mapping: LabelMapping, occurred: list[Any], *, stacklevel: int) -> None:
    """Warn that no sample has a label of the mapping, and say which labels did occur."""
    msg = (
        f"no sample has a label of label_mapping: it maps {listing(mapping.labels)}, "
        f"but the labels that occurred are {listing(occurred)}"
    )
    warnings.warn(msg, LabelTrackWarning, stacklevel=stacklevel + 1)


def warn_never(mapping: LabelMapping, whole: Iterable[LabelStats], *, stacklevel: int) -> None:
    """Warn of labels of a mapping that none of the statistics of a whole run has, if it has others."""
    every = list(whole)
    never = {label: name for label, name in mapping.names.items() if not any(label in stats for stats in every)}
    if never and any(len(stats) for stats in every):
        msg = (
            f"label_mapping has labels that never occurred: {listing(never)}, called {listing(never.values())}. "
            "Are they of the type of the labels?"
        )
        warnings.warn(msg, LabelTrackWarning, stacklevel=stacklevel + 1)


def warn_multi_hot(*, stacklevel: int) -> None:
    """Warn that labels are grouped by 0 and 1 where columns were probably meant."""
    msg = (
        "labels of two dimensions hold nothing but 0 and 1, and their samples are grouped by these two. If they are "
        "multi-hot, a column for each class, group by column instead: "
        "label_stats(np.broadcast_to(np.arange(labels.shape[1]), labels.shape), values). "
        "If 0 and 1 is what was meant, pass labels.ravel() and values.ravel(), or a label_mapping"
    )
    warnings.warn(msg, LabelTrackWarning, stacklevel=stacklevel + 1)


def check_threads(threads: Any) -> int | None:
    """Return a number of threads, None for a choice by the number of samples. More than are of use become as many.

    Raises:
        ValueError: No positive integer.
    """
    if threads is None:
        return None
    try:
        number = operator.index(threads)
    except TypeError:
        number = 0
    if number < 1:
        msg = f"threads must be a positive integer or None, got {threads!r}"
        raise ValueError(msg)
    return min(number, most_threads())
