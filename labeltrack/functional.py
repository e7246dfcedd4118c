"""`label_stats`: from two arrays to exact statistics per label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labeltrack._convert.arrays import looks_multi_hot, to_values
from labeltrack._core.arrays import Array, Integers, Mask
from labeltrack._core.quantiles import Samples, check_fractions
from labeltrack._core.reduce import reduce_columns
from labeltrack._core.strings import Dictionary, reduce_words
from labeltrack._core.threads import check_threads
from labeltrack._labels.codes import INTEGER, LabelDecoder, to_keys
from labeltrack._labels.combined import separate_labels
from labeltrack._labels.masks import are_multi_hot, counted, one_label, read_mask, several_labels
from labeltrack._labels.missing import Missing, read_labels
from labeltrack._labels.options import ONLY, Labels
from labeltrack._nan_policy import NanPolicy, check_nan_policy
from labeltrack.errors import warn_multi_hot, warn_no_combination, warn_nothing_mapped
from labeltrack.stats import LabelStats

if TYPE_CHECKING:
    from labeltrack._core.accumulator import Accumulator

_NO_KEYS = np.empty(0, dtype=np.int64)


class _Reduced(NamedTuple):
    """Statistics, and what quantiles are computed from: samples, and the ``(K,)`` keys of the labels in them."""

    labels: Array
    accumulator: Accumulator
    names: Mapping[Any, str] | None
    chunk: tuple[Array, Array]
    keys: Integers


def label_stats(
    labels: Any,
    values: Any,
    *,
    label_mapping: Mapping[str, Any] | Sequence[Any] | None = None,
    nan_policy: NanPolicy = "propagate",
    missing: Missing | Mapping[str, Missing] | Sequence[Missing] = "error",
    threads: int | None = None,
    quantiles: Iterable[float] = (),
    where: Any = None,
) -> LabelStats:
    """Return count, sum, mean, standard deviation, minimum and maximum of the values of each label, exactly.

    Args:
        labels: ``(N,)`` or ``(N, 1)`` integers, bools, floats or strings, as any array-like. Several labels per sample
            are a mapping ``{name of the label: labels}``, or a tuple of array-likes, which are then called
            ``"label_0"``, ``"label_1"`` and so on. There is one row for each combination that occurs, and
            `LabelStats.by` gives the statistics of each label alone.
        values: As many real numbers, as any array-like; or labels and values of one same shape; or labels of as many
            dimensions, some of length 1, such as ``(N, 1)`` labels of documents for ``(N, T)`` losses of tokens.
            float32 and float64 are reduced as they are, float16 and bfloat16 as float32, bool and integers as float64.
        label_mapping: ``{display name: label value}``; samples with other labels are ignored. With several labels, one
            mapping or None for each, as ``{name of the label: mapping}`` or a tuple.
        nan_policy: ``"propagate"``: a label with NaN samples has NaN statistics. ``"omit"``: NaN samples are
            ignored. ``"raise"``: they are an error.
        missing: What to do with samples whose label is missing (None, NaN, NA, null, masked). ``"error"``: raise.
            ``"skip"``: ignore them. ``"label"``: give them a label of their own, named ``"(missing)"``, which every
            `label_mapping` keeps. Its value is that text among strings and ``-2**63`` among numbers; bools become 0
            and 1 next to it. A label that already has this value is counted with it. With several labels, one option
            for all or, as for `label_mapping`, one for each.
        threads: Number of threads, limited to the number of processors and to 16; None chooses by the number of
            samples. Fewer are used where labels are many and samples of each few, or the system cannot start them.
        quantiles: Which quantiles to compute, from 0 to 1, for `LabelStats.quantile` and for bounds: ``"iqr"`` needs
            0.25, 0.5 and 0.75. This needs memory for a copy of the values.
        where: Bools in the shape of the values, or in one that broadcasts to it, as in numpy: samples where it is False
            are ignored, with any label and value, NaN and missing ones included. None counts all samples.

    Returns:
        One row for each label, or combination of labels, that occurs, sorted by label. Sum, mean and standard deviation
        are the results of rational arithmetic, rounded once, bit for bit the same for any order of the samples and any
        number of threads.

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

        Two labels per sample, and padding that does not count:

        >>> sites = ["a", "b", "b", "a"]
        >>> stats = lt.label_stats({"class": [0, 1, 1, -100], "site": sites}, [0.5, 2.0, 3.0, 9.0],
        ...                        where=[True, True, True, False])
        >>> stats[1, "b"].mean, stats.by("site")["a"].mean
        (2.5, 0.5)
    """
    policy = check_nan_policy(nan_policy)
    fractions = check_fractions(quantiles)
    columns, numbers = separate_labels(labels), to_values(values)
    mask, threads = read_mask(where, numbers), check_threads(threads)
    if columns is None:
        reduced = _one_label(labels, numbers, mask, label_mapping, missing, threads, whole=bool(fractions))
    else:
        reduced = _several_labels(columns, numbers, mask, label_mapping, missing, threads)
    stats = LabelStats(reduced.labels, reduced.accumulator, names=reduced.names, nan_policy=policy)
    stats._check_finite()
    if fractions:
        samples = Samples([reduced.chunk], reduced.keys, np.arange(len(stats)))
        stats = stats._with_quantiles([samples], fractions, threads=threads)
    return stats


def _one_label(
    labels: Any, values: Array, mask: Mask | None, label_mapping: Any, missing: Any, threads: int | None, *, whole: bool
) -> _Reduced:
    option, read = Labels(ONLY, label_mapping, missing).options[ONLY], read_labels(labels)
    mapping = option.mapping
    if mapping is None and looks_multi_hot(read[0], values):
        warn_multi_hot()
    if mask is None and read[0].size == values.size:
        flat_labels, flat_values = counted(read, values, None, option)
        flat_values = np.ascontiguousarray(flat_values)
        dictionary = Dictionary(flat_labels) if flat_labels.dtype.kind in "US" else None
        if dictionary is not None and dictionary.possible and mapping is None and not whole:
            words = reduce_words(dictionary, flat_values, threads=threads)
            if words is not None:
                return _Reduced(*words, option.shown, (flat_labels, flat_values), _NO_KEYS)
        keys, space = to_keys(flat_labels, dictionary, threads=threads)
    else:
        keys, flat_values, space = one_label(read, values, mask, option.missing, threads=threads)
    wanted = None if mapping is None else space.encode(option.wanted or ())
    found, (accumulator,) = reduce_columns([(keys, flat_values)], space, wanted=wanted, threads=threads)
    if mapping is not None and keys.size and not found.size:
        some = space.decode(np.unique(keys[:100_000]).astype(np.int64, copy=False))
        warn_nothing_mapped(mapping, np.unique(some).tolist())
    return _Reduced(found, accumulator, option.shown, (keys, flat_values), space.keys(found) if whole else _NO_KEYS)


def _several_labels(
    columns: Mapping[str, Any], values: Array, mask: Mask | None, label_mapping: Any, missing: Any, threads: int | None
) -> _Reduced:
    options = Labels(tuple(columns), label_mapping, missing)
    keys, flat_values, space, unmatched = several_labels(columns, values, mask, options.options, threads=threads)
    if label_mapping is None and are_multi_hot(columns, values):
        warn_multi_hot(several=True)
    found, (accumulator,) = reduce_columns([(keys, flat_values)], LabelDecoder(INTEGER), threads=threads)
    if values.size and not found.size and options.mapped:
        warn_no_combination(options.mappings, unmatched)
    return _Reduced(space.decode(found), accumulator, options.shown, (keys, flat_values), found)
