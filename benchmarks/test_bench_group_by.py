"""The group-by: everybody's answer, and with ``--benchmark-enable`` everybody's time."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import group_by
import numpy as np
import pytest
from cases import SPARSE, STRING, WORDS, Answer, Array, Case, check, exact_reference, reference
from group_by import ORDERS, axes, check_exact, present, run_case
from harness import compare, disturbed, measure
from peers import CONTESTANTS, ONE_THREAD, Contestant, Prepared
from report import rewrite
from run import main

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

SAMPLES = int(os.environ.get("LABELTRACK_BENCH_SAMPLES", "100000"))
# With a few samples a label, variances in float32 have no right digit left, and numbagg's comes out negative.
CASES = [case for cases in axes(SAMPLES, SAMPLES // 50, SAMPLES).values() for case in cases]
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
REQUIRE_PEERS = os.environ.get("LABELTRACK_REQUIRE_PEERS") == "1"
REQUIRE_FRAMEWORKS = os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1"


def require(contestant: Contestant) -> None:
    """Skip if the library is missing, unless the environment says that it must not be."""
    if contestant.missing() and not (REQUIRE_FRAMEWORKS if contestant.framework else REQUIRE_PEERS):
        extra = "frameworks" if contestant.framework else "bench"
        pytest.importorskip(contestant.module, reason=f"{contestant.module} is not installed (extra: {extra})")


@pytest.mark.parametrize(
    ("case", "contestant"),
    [
        pytest.param(case, contestant, id=f"{case}-{contestant.name}")
        for case in dict.fromkeys(CASES)
        for contestant in CONTESTANTS
        if contestant.enters(case)
    ],
)
def test_group_by(benchmark: BenchmarkFixture, case: Case, contestant: Contestant) -> None:
    require(contestant)
    benchmark.group = str(case)
    labels, values = case.data()
    run, answer = contestant.prepare(labels, values, case.labels)
    if contestant.role != "limit":
        check(contestant.name, answer(run()), reference(labels, values), contestant.rtol)
    benchmark(run)


@pytest.mark.parametrize("value_dtype", ["float32", "float64"])
@pytest.mark.parametrize("contestant", [c for c in CONTESTANTS if c.role == "labeltrack"], ids=lambda c: c.name)
def test_labeltrack_equals_the_standard_library_bit_for_bit(contestant: Contestant, value_dtype: str) -> None:
    check_exact(contestant, value_dtype)


@pytest.mark.parametrize("contestant", [c for c in CONTESTANTS if c.role != "limit"], ids=lambda c: c.name)
def test_everybody_leaves_out_labels_without_samples_and_copes_with_one(contestant: Contestant) -> None:
    require(contestant)
    labels, values = np.array([4, 1, 4]), np.array([0.5, 2.0, 1.5], dtype=np.float32)
    run, answer = contestant.prepare(labels, values, 6)
    check(contestant.name, answer(run()), exact_reference(labels, values), 1e-6)


# -- the harness itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize("label_dtype", ["int64", SPARSE, STRING, WORDS])
@pytest.mark.parametrize("order", ORDERS)
def test_the_two_references_agree(label_dtype: str, order: str) -> None:
    labels, values = Case(5_000, 9, label_dtype, order=order).data()
    assert np.unique(labels).shape[0] == (1 if order == "one" else 9)
    assert check("reference", reference(labels, values), exact_reference(labels, values), 1e-12) > 0.0


@pytest.mark.parametrize("column", [field.name for field in fields(Answer)])
@pytest.mark.parametrize("wrong", [1.0, np.nan])
def test_a_wrong_answer_is_found(column: str, wrong: float) -> None:
    right = exact_reference(*Case(100, 3).data())
    changed = np.array(getattr(right, column), dtype=np.float64)
    changed[1] += wrong
    with pytest.raises(AssertionError, match=column):
        check("somebody", replace(right, **{column: changed}), right, 1e-2)


def test_nobody_is_timed_when_an_answer_is_wrong() -> None:
    timed = []

    def prepare(labels: Array, values: Array, _size: int) -> Prepared:
        right = reference(labels, values)
        return lambda: timed.append(1), lambda _: replace(right, mean=right.mean + 1.0)

    with pytest.raises(AssertionError, match="liar: mean is off"):
        run_case(Case(1_000, 3), 5, [Contestant("liar", "peer", "numpy", prepare)])
    assert len(timed) == 1


def test_rounds_are_interleaved_and_preparations_are_called_each_time() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = measure(runs, 4, {"b": lambda: order.append("before b")})
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 4, "b": 4, "c": 4}
    rounds = [order[i : i + 4] for i in range(0, 16, 4)]
    assert all(sorted(one) == ["a", "b", "before b", "c"] for one in rounds)
    assert all(one.index("b") == one.index("before b") + 1 for one in rounds)


def test_those_who_are_slow_take_part_in_a_few_rounds() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    times = measure(runs, 5, slow={"c"})
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 5, "b": 5, "c": 3}
    assert sorted(order[:9]) == sorted("abc" * 3)
    assert sorted(order[9:]) == sorted("ab" * 2)
    compared = compare({"we": [1.0, 1.0, 1.0, 9.0], "slow": [3.0, 4.0, 5.0]}, "we", ["slow"])
    assert compared is not None
    assert compared["ratio"] == 4.0


def test_one_who_sorts_strings_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    sitting_out: list[set[str]] = []

    def measured(runs: dict[str, Any], rounds: int, *, slow: set[str]) -> dict[str, list[float]]:
        sitting_out.append(slow)
        return measure(runs, rounds, rest=0.0, slow=slow)

    def prepare(labels: Array, values: Array, _size: int) -> Prepared:
        answer = reference(labels, values)
        return lambda: time.sleep(0.3), lambda _: answer

    monkeypatch.setattr(group_by, "measure", measured)
    quick = next(c for c in CONTESTANTS if c.name == ONE_THREAD)
    found = run_case(Case(1_000, 3), 5, [quick, Contestant("sleeper", "peer", "numpy", prepare)])
    assert sitting_out == [{"sleeper"}]
    assert found["rounds"] == 5
    assert found["ratios"]["one_thread_to_best_peer"]["ratio"] > 1.0


def test_the_ratio_is_to_the_fastest_rival_and_the_quiet_one_to_that_of_the_fastest_round() -> None:
    times = {"we": [1.0, 1.0, 2.0], "steady": [2.0, 2.0, 4.0], "jumpy": [0.5, 9.0, 9.0]}
    compared = compare(times, "we", ["steady", "jumpy"])
    assert compared is not None
    assert (compared["to"], compared["ratio"]) == ("steady", 2.0)
    assert (compared["to_best"], compared["ratio_best"]) == ("jumpy", 0.5)
    assert compare(times, "we", []) is None
    assert disturbed(times) == ["jumpy"]


def test_a_missing_peer_is_named() -> None:
    there, missing = present([*CONTESTANTS[:1], Contestant("x", "peer", "no_such_library", CONTESTANTS[0].prepare)])
    assert [c.name for c in there] == [CONTESTANTS[0].name]
    assert missing == ["no_such_library"]


def test_the_command_writes_results_and_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def without_some(name: str, package: str | None = None) -> Any:
        return None if name in ("pandas", "torchmetrics") else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_some)
    out, readme = tmp_path / "deep" / "results.json", tmp_path / "README.md"
    readme.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")
    arguments = ["--samples", "2000", "--rounds", "2", "--most-labels", "10", "--most-samples", "10000"]
    main([*arguments, "--axis", "labels", "samples", "--out", str(out), "--render", "--readme", str(readme)])
    results = json.loads(out.read_text(encoding="utf-8"))
    assert results["missing"] == ["pandas", "torchmetrics"]
    assert [(case["axis"], case["samples"], case["labels"]) for case in results["cases"]] == [
        *(("labels", 2000, k) for k in (1, 2, 10)),
        ("samples", 10000, 10),
    ]
    assert out.with_suffix(".png").stat().st_size > 10_000
    tables = out.with_suffix(".md").read_text(encoding="utf-8")
    assert tables.count("| samples | labels |") == 2
    assert "Python lists" in tables
    main(["--again", "--out", str(out), "--render", "--readme", str(readme)])
    assert out.with_suffix(".md").read_text(encoding="utf-8") == tables
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n{BEGIN}\n\n| labels | labeltrack | 1 thread |")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old" not in text
    assert "Not installed, so not measured: pandas, torchmetrics." in text


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}\n"])
def test_a_readme_without_markers_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"README\.md must have the lines .*benchmark:begin"):
        rewrite(readme, "block")
    assert readme.read_text(encoding="utf-8") == text
