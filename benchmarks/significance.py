"""How often labels that did not change are said to have changed, and how often those that did.

Every number is a share of simulated labels. Run from the root of the repository::

    python benchmarks/significance.py --render
"""

from __future__ import annotations

import argparse
import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import facts
from report import add_output, grid, publish

import labeltrack as lt
from labeltrack._significance.alarms import anytime_p, find_alarms
from labeltrack._significance.choice import compare_stats
from labeltrack._significance.p_values import moments
from labeltrack._significance.pairs import Pairs, Samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DRAWS: dict[str, Callable[..., Any]] = {
    "exponential": lambda rng, size, shift=1.0: shift * rng.standard_exponential(size),
    "lognormal, σ = 1": lambda rng, size, shift=1.0: shift * rng.lognormal(sigma=1.0, size=size),
    "lognormal, σ = 1.5": lambda rng, size, shift=1.0: shift * rng.lognormal(sigma=1.5, size=size),
    "90 % hits": lambda rng, size, shift=1.0: (rng.random(size) < 0.9 / shift).astype(np.float64),
}
SIZES = ((20, 20), (20, 30), (20, 1000), (100, 100), (100, 1000), (500, 500), (500, 600), (500, 1000))
PAIRS = (20, 100, 500)
LOOKS = ((20, 20), (100, 100), (100, 300), (500, 500))
LEVEL = 0.05
NOISE = 0.1  # by which the losses of one sample differ from one epoch to the next


def simulated(rng: Any, draw: Callable[..., Any], labels: int, before: int, after: int, shift: float = 1.0) -> Any:
    """Return statistics and samples of unrelated samples before and after, of so many labels."""
    codes = tuple(np.repeat(np.arange(labels), n) for n in (before, after))
    values = draw(rng, codes[0].size), draw(rng, codes[1].size, shift)
    return _sides(codes, values, paired=False)


def simulated_pairs(rng: Any, draw: Callable[..., Any], labels: int, n: int, shift: float = 1.0) -> Any:
    """Return statistics and samples of the same samples before and after: losses differ by noise, hits by luck."""
    codes = np.repeat(np.arange(labels), n)
    if draw is DRAWS["90 % hits"]:
        chance = rng.beta(4.5, 0.5, size=codes.size)
        before, after = ((rng.random(codes.size) < chance / by).astype(np.float64) for by in (1.0, shift))
    else:
        base = draw(rng, codes.size)
        before, after = (base * rng.lognormal(sigma=NOISE, size=codes.size) * by for by in (1.0, shift))
    return _sides((codes, codes), (before, after), paired=True)


def _sides(codes: Any, values: Any, *, paired: bool) -> Any:
    before, after = (lt.label_stats(*side) for side in zip(codes, values, strict=True))
    pairs = Pairs(codes[0], values[0], values[1], np.bincount(codes[0])) if paired else None
    return before, after, Samples(codes, values, pairs)


def alarms(found: lt.Comparison) -> dict[str, float]:
    """Return the shares of labels that were tested, and that are below levels; how many labels have a verdict."""
    p = np.nan_to_num(found.p, nan=1.0)
    share = {"tested": float(np.mean(~np.isnan(found.p)))}
    share |= {f"p < {level:g}": float(np.mean(p < level)) for level in (LEVEL, 0.001)}
    return share | {"verdicts": int(np.isin(found.verdict, ("worse", "better")).sum())}


def unpaired(labels: int) -> Iterator[dict[str, Any]]:
    """Yield the alarms of samples that did not change: of Welch's t for all labels, and of what is chosen."""
    for name, draw in DRAWS.items():
        for before, after in SIZES:
            rng = np.random.default_rng([1, before, after])
            old, new, samples = simulated(rng, draw, labels, before, after)
            yield {"samples": name, "before": before, "after": after} | {
                "Welch's t": alarms(compare_stats(old, new, method="welch")),
                "chosen from moments": alarms(compare_stats(old, new)),
                "chosen from samples": alarms(compare_stats(old, new, samples)),
                "Mann-Whitney": alarms(compare_stats(old, new, samples, method="mann-whitney")),
            }


def reshaped(labels: int) -> Iterator[dict[str, Any]]:
    """Yield how many labels get a verdict where the samples are spread differently, around the same mean."""
    means = {"lognormal, σ = 1": math.exp(0.5), "lognormal, σ = 1.5": math.exp(1.125)}
    for one, other in (tuple(means), tuple(means)[::-1]):
        for before, after in ((50, 1000), (1000, 50)):
            rng = np.random.default_rng([7, before, after])
            codes = tuple(np.repeat(np.arange(labels), n) for n in (before, after))
            values = tuple(
                DRAWS[name](rng, of.size) / means[name] for name, of in zip((one, other), codes, strict=True)
            )
            old, new, samples = _sides(codes, values, paired=False)
            yield {"samples": f"{one} → {other}", "before": before, "after": after} | {
                method: alarms(compare_stats(old, new, samples, method=method))["verdicts"] / labels
                for method in ("welch", "mann-whitney", "permutation")
            }


def paired(labels: int) -> Iterator[dict[str, Any]]:
    """Yield the alarms of pairs that did not change."""
    for name, draw in DRAWS.items():
        for n in PAIRS:
            old, new, samples = simulated_pairs(np.random.default_rng([6, n]), draw, labels, n)
            row: dict[str, Any] = {"samples": name, "pairs": n}
            for title, method in (("paired t", "paired-t"), ("Wilcoxon", "wilcoxon"), ("chosen", "auto")):
                row[title] = alarms(compare_stats(old, new, samples, method=method))  # type: ignore[arg-type]
            yield row


def looks(labels: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield how many labels that did not change are an alarm at any of so many looks."""
    for name, draw in DRAWS.items():
        for first, later in LOOKS:
            rng = np.random.default_rng([3, first, later])
            places = np.arange(labels)

            def look(n: int, draw: Any = draw, rng: Any = rng) -> lt.LabelStats:
                return lt.label_stats(np.repeat(np.arange(labels), n), draw(rng, labels * n))

            reference, seen = look(first), [(step, look(later)) for step in range(count)]
            old = moments(reference, places, labels)
            naive = np.zeros(labels, dtype=bool)
            for _, stats in seen:
                naive |= compare_stats(reference, stats, method="welch").p < LEVEL
            *_, p = anytime_p(old, seen, [places] * count, higher_is_worse=True)
            found = find_alarms(reference, seen, higher_is_worse=True, alpha=LEVEL)
            yield {"samples": name, "first": first, "later": later, "Welch's t": float(naive.mean())} | {
                "anytime p": float(np.mean(p < LEVEL)),
                "alarms": len(found),
            }


def power(labels: int) -> Iterator[dict[str, Any]]:
    """Yield how many labels that got worse are seen at p < 0.05, beside functions of scipy and statsmodels."""
    stats, weighted = (importlib.import_module(name) for name in ("scipy.stats", "statsmodels.stats.weightstats"))
    for name, draw in DRAWS.items():
        rng = np.random.default_rng([4])
        for what, (old, new, samples) in {
            "100 pairs, 5 % worse": simulated_pairs(rng, draw, labels, 100, 1.05),
            "500 and 500 samples, 20 % worse": simulated(rng, draw, labels, 500, 500, 1.2),
            "1000 and 50 samples, 50 % worse": simulated(rng, draw, labels, 1000, 50, 1.5),
        }.items():
            sides = [np.split(x, labels) for x in samples.values]
            pairs = list(zip(*sides, strict=True))
            peers: dict[str, Callable[..., Any]] = {
                "scipy ttest_ind": lambda a, b: stats.ttest_ind(b, a, equal_var=False).pvalue,
                "statsmodels ttest_ind": lambda a, b: weighted.ttest_ind(b, a, usevar="unequal")[1],
                "scipy mannwhitneyu": lambda a, b: stats.mannwhitneyu(b, a).pvalue,
            }
            if name == "90 % hits":
                del peers["scipy mannwhitneyu"]
                peers["scipy fisher_exact"] = lambda a, b: stats.fisher_exact(_table(a, b)).pvalue
            if samples.pairs is not None and name == "90 % hits":
                peers["scipy binomtest"] = lambda a, b: _mcnemar(stats, b - a)
            elif samples.pairs is not None:
                peers["scipy ttest_rel"] = lambda a, b: stats.ttest_rel(b, a).pvalue
                peers["scipy wilcoxon"] = lambda a, b: stats.wilcoxon(b - a).pvalue
            found = compare_stats(old, new, samples)
            methods, counts = np.unique(found.method, return_counts=True)
            alone = compare_stats(old, new)
            yield {
                "samples": name,
                "change": what,
                "chosen from samples": float(np.mean(found.p < LEVEL)),
                "methods": dict(zip(methods.tolist(), counts.tolist(), strict=True)),
                "chosen from moments": float(np.mean(np.nan_to_num(alone.p, nan=1.0) < LEVEL)),
            } | {title: float(np.mean([test(*pair) < LEVEL for pair in pairs])) for title, test in peers.items()}


def _table(before: Any, after: Any) -> Any:
    return [[side.sum(), side.size - side.sum()] for side in (before, after)]


def _mcnemar(stats: Any, change: Any) -> float:
    moved = int(np.abs(change).sum())
    return float(stats.binomtest(int((change > 0).sum()), moved).pvalue) if moved else 1.0


def agreement(labels: int) -> float:
    """Return the largest difference of q-values from those of statsmodels, relative to them."""
    multitest = importlib.import_module("statsmodels.stats.multitest")
    old, new, _ = simulated(np.random.default_rng(5), DRAWS["exponential"], labels, 100, 100, 1.2)
    found = compare_stats(old, new)
    return float(np.max(np.abs(found.q / multitest.multipletests(found.p, method="fdr_bh")[1] - 1)))


# -- tables -----------------------------------------------------------------------------------------------


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def _text(results: dict[str, Any]) -> str:
    lines = [f"False alarms among {results['labels']:,} labels that did not change, at p < 0.05, in percent:", ""]
    rows = [
        [
            f"{row['samples']}, {row['before']} and {row['after']}",
            _percent(row["Welch's t"]["p < 0.05"]),
            f"{_percent(row['chosen from moments']['p < 0.05'])} ({row['chosen from moments']['tested']:.0%})",
            _percent(row["Mann-Whitney"]["p < 0.05"]),
            _percent(row["chosen from samples"]["p < 0.05"]),
            str(row["chosen from samples"]["verdicts"]),
        ]
        for row in results["unpaired"]
    ]
    heads = ["Welch's t", "chosen from moments (tested)", "Mann-Whitney", "chosen from samples", "verdicts"]
    lines += [*grid(["samples", *heads], rows), ""]
    lines += ["Labels of which the mean did not change, but the spread did, and that get a verdict, in percent:", ""]
    rows = [
        [
            f"{row['samples']}, {row['before']} and {row['after']}",
            *(_percent(row[name]) for name in ("welch", "mann-whitney", "permutation")),
        ]
        for row in results["reshaped"]
    ]
    lines += [*grid(["samples", "Welch's t", "Mann-Whitney", "permutation"], rows), ""]
    rows = [
        [
            f"{row['samples']}, {row['pairs']} pairs",
            *(_percent(row[name]["p < 0.05"]) for name in ("paired t", "Wilcoxon", "chosen")),
            str(row["chosen"]["verdicts"]),
        ]
        for row in results["paired"]
    ]
    lines += [*grid(["pairs", "paired t", "Wilcoxon", "chosen", "verdicts"], rows), ""]
    lines += [f"The same with {results['looks']} looks; an alarm at any of them counts:", ""]
    rows = [
        [
            f"{row['samples']}, {row['first']} and then {row['later']}",
            *(_percent(row[name]) for name in ("Welch's t", "anytime p")),
            str(row["alarms"]),
        ]
        for row in results["sequence"]
    ]
    lines += [*grid(["samples", "Welch's t", "`alarms()`, p < 0.05", "alarms"], rows), ""]
    lines += ["Labels that got worse and are seen at p < 0.05, in percent:", ""]
    peers = ["chosen from samples", "chosen from moments", "scipy ttest_ind", "statsmodels ttest_ind"]
    peers += ["scipy mannwhitneyu", "scipy fisher_exact", "scipy ttest_rel", "scipy wilcoxon", "scipy binomtest"]
    rows = [
        [f"{row['samples']}: {row['change']}", *(_percent(row.get(name, math.nan)) for name in peers)]
        for row in results["power"]
    ]
    return "\n".join([*lines, *grid(["change", *peers], rows)])


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the simulations; return the results."""
    parser = argparse.ArgumentParser(description="Simulate false alarms and power.")
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--looks", type=int, default=50)
    add_output(parser, "significance", "comparing.md")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {
        "facts": facts(["numpy", "scipy", "statsmodels"]),
        "labels": options.labels,
        "looks": options.looks,
        "q beside statsmodels": agreement(options.labels),
        "unpaired": list(unpaired(options.labels)),
        "reshaped": list(reshaped(options.labels)),
        "paired": list(paired(options.labels)),
        "sequence": list(looks(options.labels, options.looks)),
        "power": list(power(options.labels)),
    }
    publish(results, _text(results), options)
    return results


if __name__ == "__main__":
    main()
