"""`label_stats`: from two arrays to exact statistics per label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from labeltrack._convert.arrays import looks_multi_hot, to_values
from labeltrack._core.dictionary import Dictionary
from labeltrack._core.quantiles import Samples, check_fractions
from labeltrack._core.reduce import reduce_chunks
from labeltrack._core.reduce_strings import encode_words, reduce_words
from labeltrack._core.strings import encode_strings
from labeltrack._core.threads import check_threads
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
from labeltrack._labels.lookup import as_doubles
from labeltrack._labels.missing import Missing, check_missing, names_of, read_labels, settle, wanted_by
from labeltrack._nan_policy import NanPolicy, check_nan_policy
from labeltrack.errors import warn_multi_hot, warn_nothing_mapped
from labeltrack.stats import LabelStats

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
        label_mapping: ``{display name: label value}``; samples with other labels are ignored.
        nan_policy: ``"propagate"``: a label with NaN samples has NaN statistics. ``"omit"``: NaN samples are
            ignored. ``"raise"``: they are an error.
        missing: What to do with samples whose label is missing (None, NaN, NA, null, masked). ``"error"``: raise.
            ``"skip"``: ignore them. ``"label"``: give them a label of their own, named ``"(missing)"``, which every
            `label_mapping` keeps. Its value is that text among strings and ``-2**63`` among numbers; bools become 0
            and 1 next to it. A label that already has this value is counted with it.
        threads: Number of threads, limited to the number of processors and to 16; None chooses by the number of
            samples. If the system cannot start that many, fewer are used.
        quantiles: Which quantiles to compute, from 0 to 1, for `LabelStats.quantile` and for bounds: ``"iqr"`` needs
            0.25, 0.5 and 0.75. This needs memory for a copy of the values.

    Returns:
        One row for each label that occurs, sorted by label. Sum, mean and standard deviation are the results of
        rational arithmetic, rounded once, bit for bit the same for any order of the samples and any number of
        threads.

    Raises:
        TypeError: Labels or values of an unsupported type.
        ValueError: Shapes that do not match, missing labels under ``"error"``, an invalid option, or NaN under
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
        warn_multi_hot()
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
        warn_nothing_mapped(mapping.labels, (as_doubles(some) if kind == FLOAT else some).tolist())
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
