"""Who is measured: labeltrack, what a user would pick instead, and how fast the arrays can be read at all.

Each library is used as an expert would use it: data in its own container before the clock starts, the fastest way to
ask for count, mean, std, min and max by label, and every hint it accepts, such as the number of labels. The docstrings
name the slower variants.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from cases import Answer, Array, Case

import labeltrack as lt
from labeltrack._core.accumulator import Accumulator

if TYPE_CHECKING:
    from labeltrack._core.rounding import Totals

Prepared = tuple[Callable[[], Any], Callable[[Any], Answer]]
"""A function that is timed, and one that reads its result, which is not."""

_FLOAT64_SUMS = 1e-6
"""Tolerance for peers that sum in float64 and may return float32."""
_FLOAT32_SUMS = 1e-2
"""Tolerance for peers that sum float32 values in float32. Off by 1e-5 to 1e-3 at a million samples a label."""


@dataclass(frozen=True)
class Contestant:
    """One way to get the answer.

    Attributes:
        name: Unique name.
        role: ``"labeltrack"``, ``"peer"`` or ``"limit"`` (which does less).
        module: What it imports.
        prepare: Takes labels, values and the number of labels; returns what to time and how to read its result.
        rtol: Relative error allowed of mean and standard deviation.
        threads: Number of threads, if known; None for as many as it likes.
        default: Whether that is its default number of threads.
        dense_only: Whether it takes only labels 0 … K−1.
        most_samples: More would take minutes.
        framework: Whether it is in the extra `frameworks`, not `bench`.
    """

    name: str
    role: Literal["labeltrack", "peer", "limit"]
    module: str
    prepare: Callable[[Array, Array, int], Prepared]
    rtol: float = _FLOAT64_SUMS
    threads: int | None = None
    default: bool = True
    dense_only: bool = False
    most_samples: int | None = None
    framework: bool = False

    def enters(self, case: Case) -> bool:
        """Return whether it takes part in a case."""
        few_enough = self.most_samples is None or case.samples <= self.most_samples
        return few_enough and (case.dense or not self.dense_only)

    def missing(self) -> bool:
        """Return whether the library is not installed."""
        return importlib.util.find_spec(self.module) is None


# -- labeltrack -------------------------------------------------------------------------------------------


def kernel(labels: Array, values: Array, size: int) -> Prepared:
    """The compiled kernel on a table of known size: no validation, no search for the labels; one thread."""

    def run() -> Totals:
        table = Accumulator(size)
        table.add(labels, values)
        return table.totals()

    def answer(totals: Totals) -> Answer:
        columns = (totals.count, totals.mean, totals.std, totals.min, totals.max)
        return Answer(np.arange(size), *columns).occurring()

    return run, answer


def label_stats(threads: int | None) -> Callable[[Array, Array, int], Prepared]:
    """The public function: validation, the search for the labels, and every statistic read."""

    def prepare(labels: Array, values: Array, _size: int) -> Prepared:
        def run() -> lt.LabelStats:
            stats = lt.label_stats(labels, values, threads=threads)
            _ = stats.mean  # all statistics are rounded when one is read
            return stats

        def answer(stats: lt.LabelStats) -> Answer:
            return Answer(stats.labels, stats.count, stats.mean, stats.std, stats.min, stats.max)

        return run, answer

    return prepare


def _plain(column: Array) -> Array:
    """Return strings as numpy has them; other columns as they are."""
    return column.astype(str) if column.dtype.kind not in "iufb" else column


def _codes(labels: Array) -> Array | None:
    """Return the distinct labels to code with ``np.unique``, on the clock; None if the labels are 0 … K−1 already."""
    dense = labels.dtype.kind in "iu" and labels.size and labels.min() >= 0 and labels.max() <= 100 * labels.size
    return None if dense else np.unique(labels)


def _summable(labels: Array, values: Array) -> Array:
    """Return the values as float64 where float32 sums would be plainly wrong; the cast is not on the clock.

    With a million samples per label, means are off by a percent; with a few, variances have no correct digit.
    """
    found = _codes(labels)
    codes = labels if found is None else np.searchsorted(found, labels)
    counts = np.bincount(codes)
    wrong = counts.max(initial=0) > 1_000_000 or labels.size < 50 * counts.shape[0]
    return values.astype(np.float64) if wrong else values


def _limited(run: Callable[[], Any], library: Any, threads: int | None) -> Callable[[], Any]:
    """Return a function that runs with at most so many threads of numba or torch."""

    def limited() -> Any:
        before = library.get_num_threads()
        library.set_num_threads(threads)
        try:
            return run()
        finally:
            library.set_num_threads(before)

    return run if threads is None else limited


# -- peers ------------------------------------------------------------------------------------------------


def polars(labels: Array, values: Array, _size: int) -> Prepared:
    """Lazy group_by. Eager group_by is two to four times slower; the streaming engine is no faster."""
    pl = importlib.import_module("polars")
    v = pl.col("v")
    query = (
        pl.DataFrame({"l": labels, "v": values})
        .lazy()
        .group_by("l")
        .agg(
            pl.len().alias("count"),
            v.mean().alias("mean"),
            v.std().alias("std"),
            v.min().alias("min"),
            v.max().alias("max"),
        )
        .sort("l")
    )
    return query.collect, lambda frame: Answer(*(_plain(column.to_numpy()) for column in frame.get_columns()))


def duckdb(threads: int | None) -> Callable[[Array, Array, int], Prepared]:
    """SQL over a table of its own. Over Arrow or pandas data it is as fast or slower."""

    def prepare(labels: Array, values: Array, _size: int) -> Prepared:
        connection = importlib.import_module("duckdb").connect()
        if threads is not None:
            connection.execute(f"SET threads = {threads}")
        columns = {"l": labels, "v": values}
        connection.register("source", columns)
        connection.execute("CREATE TABLE samples AS SELECT l, v FROM source")
        connection.unregister("source")
        query = "SELECT l, count(*), avg(v), stddev_samp(v), min(v), max(v) FROM samples GROUP BY l ORDER BY l"

        def run() -> dict[str, Any]:
            result: dict[str, Any] = connection.execute(query).fetchnumpy()
            return result

        # One sample has NULL for a standard deviation, so that column may come masked.
        return run, lambda columns: Answer(*(_plain(np.ma.filled(column, np.nan)) for column in columns.values()))

    return prepare


def pandas(labels: Array, values: Array, _size: int) -> Prepared:
    """``groupby(...).agg`` in Cython. ``engine="numba"`` is as fast after a compilation of seven seconds."""
    pd = importlib.import_module("pandas")
    frame = pd.DataFrame({"l": labels, "v": values})

    def run() -> Any:
        return frame.groupby("l", sort=True)["v"].agg(["count", "mean", "std", "min", "max"])

    def answer(table: Any) -> Answer:
        return Answer(_plain(table.index.to_numpy()), *(table[name].to_numpy() for name in table.columns))

    return run, answer


def pyarrow(threads: int | None) -> Callable[[Array, Array, int], Prepared]:
    """``Table.group_by``. One ``min_max`` is 40 % faster than ``min`` and ``max``."""

    def prepare(labels: Array, values: Array, _size: int) -> Prepared:
        pa = importlib.import_module("pyarrow")
        compute = importlib.import_module("pyarrow.compute")
        table = pa.table({"l": labels, "v": values})
        wanted = [
            ("v", "count", compute.CountOptions(mode="all")),
            ("v", "mean"),
            ("v", "stddev", compute.VarianceOptions(ddof=1)),
            ("v", "min_max"),
        ]

        def run() -> Any:
            return table.group_by("l", use_threads=threads is None).aggregate(wanted).sort_by("l")

        def answer(result: Any) -> Answer:
            extremes = result["v_min_max"].combine_chunks()
            columns = [result[name] for name in ("l", "v_count", "v_mean", "v_stddev")]
            columns += [extremes.field("min"), extremes.field("max")]
            return Answer(*(_plain(column.to_numpy(zero_copy_only=False)) for column in columns))

        return run, answer

    return prepare


def numpy_groupies(threads: int | None) -> Callable[[Array, Array, int], Prepared]:
    """Five calls of the compiled ``aggregate``; the numpy implementation is five to ten times slower."""

    def prepare(labels: Array, values: Array, size: int) -> Prepared:
        aggregate = importlib.import_module("numpy_groupies").aggregate_nb
        numba = importlib.import_module("numba")
        found, values = _codes(labels), _summable(labels, values)

        def run() -> list[Array]:
            codes = labels if found is None else np.unique(labels, return_inverse=True)[1]
            return [
                aggregate(codes, values, func="len", size=size),
                aggregate(codes, values, func="mean", size=size),
                aggregate(codes, values, func="std", ddof=1, size=size),
                aggregate(codes, values, func="min", size=size),
                aggregate(codes, values, func="max", size=size),
            ]

        size = size if found is None else found.shape[0]
        names = np.arange(size) if found is None else found
        return _limited(run, numba, threads), lambda columns: Answer(names, *columns).occurring()

    return prepare


def numbagg(labels: Array, values: Array, size: int) -> Prepared:
    """Five calls, each on one thread. Labels of fewer than 32 bits are cast, on the clock."""
    nb = importlib.import_module("numbagg")
    found, values = _codes(labels), _summable(labels, values)
    size = size if found is None else found.shape[0]

    def run() -> list[Array]:
        codes = labels if found is None else np.unique(labels, return_inverse=True)[1]
        if codes.dtype.itemsize < 4:
            codes = codes.astype(np.int32)
        with np.errstate(invalid="ignore"):  # it divides by zero for labels with at most one sample
            return [
                nb.group_nancount(values, codes, num_labels=size),
                nb.group_nanmean(values, codes, num_labels=size),
                nb.group_nanstd(values, codes, num_labels=size, ddof=1),
                nb.group_nanmin(values, codes, num_labels=size),
                nb.group_nanmax(values, codes, num_labels=size),
            ]

    names = np.arange(size) if found is None else found
    return run, lambda columns: Answer(names, *columns).occurring()


def torchmetrics(threads: int | None) -> Callable[[Array, Array, int], Prepared]:
    """A metric whose states have one entry per label."""

    def prepare(labels: Array, values: Array, size: int) -> Prepared:
        torch = importlib.import_module("torch")
        module = importlib.import_module("torch_metric")
        found = _codes(labels)
        plain = torch.from_numpy(labels) if found is None else None
        samples = torch.from_numpy(values)
        size = size if found is None else found.shape[0]

        def run() -> list[Any]:
            codes = torch.from_numpy(np.unique(labels, return_inverse=True)[1]) if plain is None else plain
            metric = module.LabelMetric(size)
            metric.update(codes, samples)
            return list(metric.compute())

        names = np.arange(size) if found is None else found

        def answer(columns: list[Any]) -> Answer:
            # One entry is squeezed to none.
            return Answer(names, *(np.atleast_1d(column.numpy()) for column in columns)).occurring()

        return _limited(run, torch, threads), answer

    return prepare


def pure_python(labels: Array, values: Array, _size: int) -> Prepared:
    """A list of floats for each label and the `statistics` module, as FastEstimator's LabelTracker does it."""

    def run() -> dict[Any, list[float]]:
        groups: dict[Any, list[float]] = defaultdict(list)
        for label, value in zip(labels.tolist(), values.tolist(), strict=True):
            groups[label].append(value)
        return {
            label: [
                len(group),
                statistics.mean(group),
                statistics.stdev(group) if len(group) > 1 else 0.0,
                min(group),
                max(group),
            ]
            for label, group in sorted(groups.items())
        }

    return run, lambda rows: Answer(np.array(list(rows)), *(np.array(x) for x in zip(*rows.values(), strict=True)))


# -- the limit --------------------------------------------------------------------------------------------


def read_limit(labels: Array, values: Array, _size: int) -> Prepared:
    """Both arrays summed by numpy, which answers nothing about labels."""

    def no_answer(_: Any) -> Answer:
        msg = "the read limit has no answer"
        raise TypeError(msg)

    words = labels if labels.dtype.kind in "iu" else labels.view(np.uint32)
    return lambda: (words.sum(), values.sum()), no_answer


KERNEL = "labeltrack kernel, 1 thread"
ONE_THREAD = "labeltrack, 1 thread"

CONTESTANTS = (
    Contestant(KERNEL, "labeltrack", "labeltrack", kernel, threads=1, dense_only=True),
    Contestant(ONE_THREAD, "labeltrack", "labeltrack", label_stats(1), threads=1, default=False),
    Contestant("labeltrack", "labeltrack", "labeltrack", label_stats(None)),
    Contestant("polars", "peer", "polars", polars),
    Contestant("duckdb", "peer", "duckdb", duckdb(None)),
    Contestant("duckdb, 1 thread", "peer", "duckdb", duckdb(1), threads=1, default=False),
    Contestant("pandas", "peer", "pandas", pandas, threads=1),
    Contestant("pyarrow", "peer", "pyarrow", pyarrow(None)),
    Contestant("pyarrow, 1 thread", "peer", "pyarrow", pyarrow(1), threads=1, default=False),
    Contestant("numpy_groupies", "peer", "numpy_groupies", numpy_groupies(None), rtol=_FLOAT32_SUMS),
    Contestant(
        "numpy_groupies, 1 thread", "peer", "numpy_groupies", numpy_groupies(1), _FLOAT32_SUMS, threads=1, default=False
    ),
    Contestant("numbagg", "peer", "numbagg", numbagg, rtol=_FLOAT32_SUMS, threads=1),
    Contestant("torchmetrics", "peer", "torchmetrics", torchmetrics(None), framework=True),
    Contestant(
        "torchmetrics, 1 thread",
        "peer",
        "torchmetrics",
        torchmetrics(1),
        threads=1,
        default=False,
        framework=True,
    ),
    Contestant("Python lists", "peer", "statistics", pure_python, threads=1, most_samples=100_000),
    Contestant("read limit", "limit", "numpy", read_limit, threads=1),
)
