"""The group-by benchmark: count, mean, std, min and max by label, everybody side by side in one run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from cases import Answer, Array, Case, check, exact_reference, reference
from harness import compare, disturbed, measure, summary
from peers import CONTESTANTS, KERNEL, Contestant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LABELS = (10, 1_000, 100_000)
LABEL_DTYPES = ("int32", "int64")


def default_cases(samples: int, labels: Iterable[int] = LABELS) -> list[Case]:
    """Return the grid: labels by label dtype with float32 values, and one case of float64 values."""
    wanted = list(labels)
    cases = [Case(samples, k, dtype) for k in wanted for dtype in LABEL_DTYPES]
    if 1_000 in wanted:
        cases.append(Case(samples, 1_000, "int64", "float64"))
    return cases


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


def run_case(case: Case, rounds: int, contestants: Iterable[Contestant]) -> dict[str, Any]:
    """Check everybody's answer, then time everybody.

    Returns:
        The case, seconds and million samples a second by contestant, and how labeltrack compares.

    Raises:
        AssertionError: Somebody's answer is wrong; nothing was timed.
    """
    labels, values = case.data()
    expected = reference(labels, values)
    entered = list(contestants)
    runs: dict[str, Callable[[], Any]] = {}
    errors: dict[str, float | None] = {}
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
    times = measure(runs, rounds)
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
        ("kernel_to_best_peer_one_thread", KERNEL, [c.name for c in peers if c.threads == 1]),
        ("default_to_best_peer", "labeltrack", [c.name for c in peers if c.default]),
    ):
        compared = compare(times, ours, rivals)
        if compared is not None:
            ratios[key] = compared
    return {
        "samples": case.samples,
        "labels": case.labels,
        "label_dtype": case.label_dtype,
        "value_dtype": case.value_dtype,
        "contestants": rows,
        "ratios": ratios,
        "disturbed": disturbed(times),
    }
