"""Counting instructions: what valgrind prints is read, and what is missing is said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import counts
import pytest

if TYPE_CHECKING:
    from pathlib import Path

PRINTED = """
==22250== I   refs:      3,466,139,837
==22250== I1  misses:       39,297,401
==22250== D   refs:      1,517,909,862  (1,020,575,792 rd   + 497,334,070 wr)
==22250== D1  misses:       40,440,340  (   36,124,953 rd   +   4,315,387 wr)
==22250== LLd misses:       13,278,634  (   11,579,875 rd   +   1,698,759 wr)
==22250== LL refs:          79,737,741  (   75,422,354 rd   +   4,315,387 wr)
"""


def test_what_valgrind_prints_is_read() -> None:
    assert list(counts.parse(PRINTED).values()) == [3466139837, 1517909862, 40440340, 13278634]
    with pytest.raises(ValueError, match="no instructions in what valgrind printed: nothing"):
        counts.parse("nothing")


def test_without_valgrind_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SystemExit):
        counts.main([])
    assert "valgrind is not installed" in capsys.readouterr().err


def test_what_a_sample_costs_is_what_twice_as_many_cost_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "valgrind")
    monkeypatch.setattr(
        counts, "count", lambda _folder, _labels, samples: dict.fromkeys(counts.COUNTED, 10**9 + 18 * samples)
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- counts:begin --><!-- counts:end -->", encoding="utf-8")
    options = ["--samples", "1000", "--out", str(tmp_path / "counts.json"), "--render", "--page", str(page)]
    results = counts.main(options)
    assert json.loads((tmp_path / "counts.json").read_text(encoding="utf-8")) == results
    assert [case["labels"] for case in results["cases"]] == [labels for _, labels in counts.CASES]
    assert {figure for case in results["cases"] for figure in case["a sample"].values()} == {18.0}
    assert "| float64 | 100,000 | 18.00 |" in page.read_text(encoding="utf-8")
