"""The group-by benchmark: count, mean, std, min and max by label, everybody side by side in one run."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import SPARSE, STRING, WORDS, Answer, Array, Case, check, exact_reference, reference
from harness import FEWEST, compare, disturbed, measure, summary
from peers import CONTESTANTS, KERNEL, ONE_THREAD, Contestant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LABELS = (1, 2, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SIZES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
ORDERS = ("uniform", "zipf", "sorted", "one")
_SLOW, _LONG = 20.0, 0.25  # times as long as the quickest, and seconds, beyond which a few rounds are enough


def axes(samples: int, most_labels: int | None = None, most_samples: int | None = None) -> dict[str, list[Case]]:
    """Return the cases of each axis of the suite.

    Args:
        samples: Number of samples on all axes but the one of sizes.
        most_labels: Leave out cases with more labels.
        most_samples: Leave out cases with more samples.
    """
    some = min(1_000, most_labels or 1_000)
    many = min(100_000, most_labels or 100_000)
    cases = {
        "labels": [Case(samples, k, "int32") for k in LABELS],
        "types": [
            Case(samples, min(some, 200), "uint8"),
            Case(samples, some, "int64"),
            Case(samples, some, SPARSE),
            Case(samples, many, SPARSE),
            Case(samples, some, STRING),
            Case(samples, some, WORDS),
            *(Case(samples, k, "int32", "float64") for k in (10, some, many)),
            Case(samples, some, SPARSE, "float64"),
        ],
        "orders": [Case(samples, k, "int32", order=order) for k in (some, many) for order in ORDERS],
        "samples": [Case(n, some, "int32") for n in SIZES],
    }
    return {
        axis: [
            case
            for case in dict.fromkeys(of_axis)
            if case.labels <= (most_labels or case.labels) and case.samples <= (most_samples or case.samples)
        ]
        for axis, of_axis in cases.items()
    }


def present(contestants: Iterable[Contestant] = CONTESTANTS) -> tuple[list[Contestant], list[str]]:
    """Return the contestants that are installed, and the names of the modules that are not."""
    found = [c for c in contestants if not c.missing()]
    return found, sorted({c.module for c in contestants if c.missing()})


def check_exact(contestant: Contestant, value_dtype: str) -> None:
    """Assert that labeltrack equals the standard library bit for bit on a small array."""
    case = Case(3_000, 7, "int64", value_dtype)
    labels, values = case.data()
    run, answer = contestant.prepare(labels, values, case.labels)
    check(contestant.name, answer(run()), exact_reference(labels, values), rtol=0.0)


def check_some_labels(name: str, answer: Answer, labels: Array, values: Array) -> None:
    """Assert that the first and last label have the exactly rounded mean that labeltrack promises, at full size.

    `math.fsum` rounds the sum once and the division rounds again, so the last bit may differ, and no more.
    """
    for k in {0, len(answer.labels) - 1}:
        mine = values[labels == answer.labels[k]].astype(np.float64)
        mean = math.fsum(mine.tolist()) / mine.size
        error = abs(float(answer.mean[k]) - mean)
        assert error <= math.ulp(mean), f"{name}: mean of label {answer.labels[k]} is off by {error:.3g}"


def run_case(case: Case, rounds: int, contestants: Iterable[Contestant], seconds: float = math.inf) -> dict[str, Any]:
    """Check everybody's answer, then time everybody.

    Args:
        case: What to do.
        rounds: How often, at most.
        contestants: Who takes part, if the case is for them.
        seconds: About how long those who are not slow may take. There are three rounds at least, and those who take
            twenty times as long as the quickest, such as what sorts strings first, take part in no more.

    Returns:
        The case, seconds and million samples per second by contestant, and how labeltrack compares.

    Raises:
        AssertionError: Somebody's answer is wrong; nothing was timed.
    """
    labels, values = case.data()
    expected = reference(labels, values)
    entered = [contestant for contestant in contestants if contestant.enters(case)]
    runs: dict[str, Callable[[], Any]] = {}
    errors: dict[str, float | None] = {}
    once: dict[str, float] = {}
    for contestant in entered:
        run, read = contestant.prepare(labels, values, case.labels)
        result = run()  # also the warm-up: compiles, starts threads, touches memory
        errors[contestant.name] = None
        if contestant.role != "limit":
            answer = read(result)
            errors[contestant.name] = check(contestant.name, answer, expected, contestant.rtol)
            if contestant.role == "labeltrack":
                check_exact(contestant, case.value_dtype)
                check_some_labels(contestant.name, answer, labels, values)
        runs[contestant.name] = run
        del result
        start = time.perf_counter()
        run()
        once[contestant.name] = time.perf_counter() - start
    quickest = min(once[c.name] for c in entered if c.role != "limit")
    slow = {name for name, took in once.items() if took > max(_SLOW * quickest, _LONG)}
    together = sum(took for name, took in once.items() if name not in slow)
    rounds = min(rounds, max(FEWEST, int(min(rounds, seconds / together))))
    times = measure(runs, rounds, slow=slow)
    rows = [
        {
            "name": c.name,
            "role": c.role,
            "threads": c.threads,
            "default": c.default,
            **summary(times[c.name]),
            "million_samples_per_s": case.samples / 1e6 / float(np.median(times[c.name])),
            "million_samples_per_s_best": case.samples / 1e6 / min(times[c.name]),
            # Of mean and standard deviation, against float64 numpy, which itself is off by some 1e-13.
            "largest_relative_error": errors[c.name],
        }
        for c in entered
    ]
    peers = [c for c in entered if c.role == "peer"]
    ratios: dict[str, dict[str, Any]] = {}
    for key, ours, rivals in (
        ("kernel_to_best_peer", KERNEL, [c.name for c in peers if c.default]),
        ("one_thread_to_best_peer", ONE_THREAD, [c.name for c in peers if c.default]),
        ("one_thread_to_best_peer_on_one", ONE_THREAD, [c.name for c in peers if c.threads == 1]),
        ("default_to_best_peer", "labeltrack", [c.name for c in peers if c.default]),
    ):
        compared = compare(times, ours, rivals) if ours in times else None
        if compared is not None:
            ratios[key] = compared
    return {
        "samples": case.samples,
        "labels": case.labels,
        "label_dtype": case.label_dtype,
        "value_dtype": case.value_dtype,
        "order": case.order,
        "rounds": rounds,
        "contestants": rows,
        "ratios": ratios,
        "disturbed": disturbed(times),
    }
