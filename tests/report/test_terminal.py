"""Tables: what is shown, in which order, and that no name can break them."""

from __future__ import annotations

import io
import math
import statistics
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

import labeltrack as lt
from labeltrack import report
from labeltrack.report import terminal

if TYPE_CHECKING:
    from rich.table import Table


def text(table: Table, width: int = 100) -> str:
    """Return what a terminal of a width shows, without colour."""
    file = io.StringIO()
    report.show(table, Console(file=file, width=width, force_terminal=True, color_system=None))
    return file.getvalue()


def rows(table: Table, width: int = 100) -> list[list[str]]:
    """Return the words of every line between the two rules, the worst mark included."""
    lines = [line.split() for line in text(table, width).splitlines()]
    rule = next(at for at, words in enumerate(lines) if words and set(words[0]) <= {"─", "┼"})
    return [words for words in lines[rule + 1 :] if words]


def stats_of(**samples: list[float]) -> lt.LabelStats:
    """Return the statistics of the samples of each label."""
    labels = [name for name, values in samples.items() for _ in values]
    return lt.label_stats(labels, [value for values in samples.values() for value in values])


def table_of(stats: lt.LabelStats, others: dict[str, lt.LabelStats] | None = None, **options: Any) -> Table:
    """Return the table of a history of one epoch, beside other modes."""
    history = lt.History(metric="loss")
    for mode, of in {"eval": stats, **(others or {})}.items():
        history.add(1, of, mode=mode)
    return report.history_table(history, mode="eval", **options)


def rows_of(stats: lt.LabelStats, others: dict[str, lt.LabelStats] | None = None, **options: Any) -> list[list[str]]:
    """Return the words of the lines of that table, without the best step, which is the only one."""
    found = rows(table_of(stats, others, **options), width=200)
    return [words[:-2] if words[-1] == "(1)" else words for words in found]


@pytest.fixture
def history() -> lt.History:
    """Two epochs of train and eval; b gets worse, c comes late."""
    history = lt.History(metric="ce", label="animal")
    history.add(1, stats_of(a=[4.0], b=[1.0, 2.0]), mode="train")
    history.add(1, stats_of(a=[5.0], b=[1.0, 2.0]), mode="eval")
    history.add(2, stats_of(a=[1.0], b=[0.5, 1.0]), mode="train")
    history.add(2, stats_of(a=[2.0], b=[2.0, 4.0], c=[0.25]), mode="eval")
    return history


def test_the_worst_label_is_first_and_marked() -> None:
    shown = rows_of(stats_of(good=[0.1], worst=[9.0], bad=[3.0]))
    assert [words[:2] for words in shown[:3]] == [[">", "worst"], ["bad", "1"], ["good", "1"]]
    assert "\n".join(" ".join(words) for words in shown).count(">") == 1


def test_the_lowest_is_first_when_lower_is_worse() -> None:
    shown = rows_of(stats_of(good=[0.9], poor=[0.2]), higher_is_worse=False)
    assert [shown[0][1], shown[1][0]] == ["poor", "good"]


def test_a_label_with_nan_is_worst_either_way() -> None:
    stats = stats_of(a=[9.0], b=[float("nan")])
    for higher_is_worse in (True, False):
        shown = rows_of(stats, higher_is_worse=higher_is_worse)
        assert shown[0] == [">", "b", "1", "nan", "nan", "nan", "nan"]


@pytest.mark.parametrize(("by", "first"), [("mean", "a"), ("max", "b"), ("std", "b"), ("count", "b"), ("sum", "c")])
def test_any_statistic_can_rank(by: str, first: str) -> None:
    stats = stats_of(a=[5.0], b=[0.0, 0.0, 0.0, 6.0], c=[4.0, 4.0])
    table = table_of(stats, by=by)
    assert rows(table)[0][1] == first
    assert ("sum" in [str(column.header) for column in table.columns]) == (by == "sum")


def test_a_quantile_can_rank_and_has_a_column_of_its_own() -> None:
    labels, values = ["a", "b", "b", "b"], [5.0, 0.0, 6.0, 7.0]
    stats, other = (lt.label_stats(labels, some, quantiles=[0.5]) for some in (values, [1.0, 2.0, 3.0, 4.0]))
    worst, second, total = rows_of(stats, {"before": other}, by="median")
    assert (worst[1], worst[-2:], second[0], second[-2:]) == ("b", ["6.000", "3.000"], "a", ["5.000", "1.000"])
    headers = [str(column.header) for column in table_of(stats, {"before": other}, by="median").columns]
    assert headers[-3:-1] == ["median", "before\nmedian"]
    assert total == ["all", "4", "4.500", "3.109", "0.000", "7.000"]  # the median of all is not known


def test_an_unknown_statistic_is_refused_with_a_list_of_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown statistic 'variance'.*'mean'"):
        table_of(stats_of(a=[1.0]), by="variance")


def test_the_last_row_is_of_all_samples_together() -> None:
    samples = {"a": [0.5, 1.25, 9.0], "b": [2.0], "c": [3.0, 3.0]}
    values = [value for part in samples.values() for value in part]
    assert rows_of(stats_of(**samples))[-1] == [
        "all",
        "6",
        "3.125",
        f"{statistics.stdev(values):.3f}",
        "0.500",
        "9.000",
    ]


def test_a_table_of_no_labels_can_be_shown() -> None:
    assert rows_of(lt.label_stats([], []))[-1][:2] == ["all", "0"]


@pytest.mark.parametrize(
    "name", ["[bold]x[/bold]", "[/]", "[link=https://example.org]x", ":smile:", "a [red]", "\\[b]"]
)
def test_names_are_never_taken_for_markup(name: str) -> None:
    stats = lt.label_stats([0, 1], [1.0, 0.0], label_mapping={name: 0, "other": 1})
    history = lt.History(metric=name, label=name)
    history.add(1, stats, mode=name)
    history.add(1, stats, mode=f"not {name}")
    assert text(report.history_table(history, mode=name), width=200).count(name) >= 5
    assert name in text(report.history_table(history, mode=name, title=name), width=200).splitlines()[0]


@pytest.mark.parametrize(("name", "shown"), [("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("a\tb", "a\\tb"), ("", "''")])
def test_names_cannot_break_a_line_or_command_the_terminal(name: str, shown: str) -> None:
    out = text(table_of(lt.label_stats([0, 1], [1.0, 0.0], label_mapping={name: 0, "other": 1})))
    assert shown in out
    assert "\x1b" not in out


def test_limit_shows_the_worst_few_and_says_how_many_there_are_besides() -> None:
    stats = lt.label_stats(list(range(10)), list(range(10)))
    out = text(table_of(stats, limit=3))
    assert [words[-6] for words in rows_of(stats, limit=3)[:3]] == ["9", "8", "7"]
    assert "and 7 more labels" in out
    assert "more" not in text(table_of(stats, limit=10))
    assert text(table_of(stats, limit=9)).splitlines()[-1].rstrip() == "and 1 more label"
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"limit must be at least 1.*got {limit}"):
            table_of(stats, limit=limit)


def test_other_statistics_stand_beside_and_a_label_they_lack_has_a_dash() -> None:
    shown = rows_of(stats_of(a=[2.0], b=[1.0]), {"train": stats_of(b=[0.5])})
    assert shown[0][-1] == "-"
    assert [words[-1] for words in shown[1:]] == ["0.500", "0.500"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.0, -0.0], ["0.000", "0.000"]),
        ([1234.5678, 0.0123], ["1235", "0"]),
        ([12.345, 0.0123], ["12.35", "0.01"]),
        ([0.123456, 0.00001], ["0.1235", "0.0000"]),
        ([0.00012345, 0.0], ["1.234e-04", "0.0000"]),
        ([1.5e9, 2.0], ["1.500e+09", "2"]),
        ([math.inf, 1.0], ["inf", "1.000"]),
        ([math.inf, math.nan], ["inf", "nan"]),
        ([-1e-9, 1.0], ["0.000", "1.000"]),
    ],
)
def test_numbers_share_their_decimals(values: list[float], shown: list[str]) -> None:
    write = terminal._writer(values)
    assert [write(value) for value in values] == shown


def test_extremes_beside_nothing_finite_are_written_as_numbers() -> None:
    shown = rows_of(stats_of(a=[math.nan], b=[math.inf, 1.0, 1.5e-5]))
    assert shown[1] == ["b", "3", "inf", "nan", "1.500e-05", "inf"]
    assert rows_of(stats_of(a=[math.nan], b=[math.inf, 1.0]))[1][4] == "1.000"


def test_a_narrow_terminal_folds_names_and_cuts_no_number() -> None:
    stats = lt.label_stats(
        [0, 1], [123.25, 0.5], label_mapping={"a name of forty characters, or thereabouts": 0, "b": 1}
    )
    wide, narrow = (text(table_of(stats, title="t"), width=width) for width in (120, 30))
    assert "a name of forty characters, or thereabouts" in wide
    assert "…" not in narrow
    for number in ("123.2", "0.5", "61.9", "count", "max"):
        assert number in narrow


def test_a_file_gets_the_whole_width_whatever_the_width_of_the_console() -> None:
    file = io.StringIO()
    console = Console(file=file, width=20)
    name = "n" * 100
    report.show(table_of(lt.label_stats([name], [1.0])), console)
    assert name in file.getvalue()
    assert console.width == 20


def test_the_worst_is_readable_where_there_is_neither_colour_nor_unicode() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), force_terminal=True, color_system=None, width=80)
    report.show(table_of(stats_of(a=[2.0], b=[1.0]), title="loss", limit=1), console)
    console.file.flush()
    assert raw.getvalue().decode("ascii").count("> |a") == 1


def test_the_worst_is_emphasised_where_there_is_colour() -> None:
    file = io.StringIO()
    report.show(table_of(stats_of(a=[2.0], b=[1.0])), Console(file=file, force_terminal=True, width=80))
    (worst,) = (line for line in file.getvalue().splitlines() if ">" in line)
    (better,) = (line for line in file.getvalue().splitlines() if " b " in line)
    assert "\x1b[1;31m" in worst
    assert "\x1b[1;31m" not in better


def test_the_table_of_a_history_shows_the_last_step_the_other_modes_and_the_best_step(history: lt.History) -> None:
    table = report.history_table(history, mode="eval")
    assert [str(column.header) for column in table.columns][-2:] == ["train\nmean", "best\n(step)"]
    assert str(table.title) == "ce by animal: eval, step 2, worst mean first"
    assert rows(table) == [
        [">", "b", "2", "3.000", "1.414", "2.000", "4.000", "0.750", "1.500", "(1)"],
        ["a", "1", "2.000", "0.000", "2.000", "2.000", "1.000", "2.000", "(2)"],
        ["c", "1", "0.250", "0.000", "0.250", "0.250", "-", "0.250", "(2)"],
        ["all", "4", "2.062", f"{statistics.stdev([2.0, 4.0, 2.0, 0.25]):.3f}", "0.250", "4.000", "0.833"],
    ]


def test_the_table_of_a_history_takes_a_step_a_title_and_the_direction(history: lt.History) -> None:
    table = report.history_table(history, mode="eval", step=1, title="first", higher_is_worse=False, limit=1)
    assert str(table.title) == "first"
    assert rows(table)[0] == [">", "b", "2", "1.500", "0.707", "1.000", "2.000", "1.500", "3.000", "(2)"]


def test_a_mode_without_that_step_is_not_compared(history: lt.History) -> None:
    history.add(3, stats_of(a=[1.0]), mode="eval")
    assert "train\nmean" not in [str(column.header) for column in report.history_table(history, mode="eval").columns]


def test_a_mode_that_is_not_there_is_refused_with_a_list_of_those_that_are(history: lt.History) -> None:
    with pytest.raises(KeyError, match=r"'evil'.*'eval'"):
        report.history_table(history, mode="evil")


def test_the_best_of_a_label_is_the_first_of_equals_and_a_nan_is_none() -> None:
    history = lt.History()
    for step, values in enumerate(([3.0, math.nan, 1.0], [1.0, 2.0, math.nan], [1.0, 5.0, math.inf]), 1):
        history.add(step, lt.label_stats(["a", "b", "c"], values), mode="eval")
    shown = [(words[words[0] == ">"], *words[-2:]) for words in rows(report.history_table(history))[:3]]
    assert shown == [("c", "1.000", "(1)"), ("b", "2.000", "(2)"), ("a", "1.000", "(2)")]


def test_labels_without_samples_have_dashes_come_last_and_are_named_below() -> None:
    mapping = {"cat": 0, "dog": 1, "eel": 2}
    history = lt.History(metric="ce", label="y")
    history.add(1, lt.label_stats([0, 1, 1], [0.5, 1.0, 3.0], label_mapping=mapping), mode="eval")
    history.add(2, lt.label_stats([0], [1.0], label_mapping=mapping), mode="eval")
    history.add(2, lt.label_stats([1], [1.0], label_mapping=mapping), mode="train")
    whole = history.with_absent()
    said = text(report.history_table(whole, mode="eval"))
    lines = [line.split() for line in said.splitlines() if line.split()[:1] in (["dog"], ["eel"]) or "cat" in line]
    assert lines == [
        [">", "cat", "1", "1.000", "0.000", "1.000", "1.000", "-", "0.500", "(1)"],
        ["dog", "0", "-", "-", "-", "-", "1.000", "2.000", "(1)"],
        ["eel", "0", "-", "-", "-", "-", "-", "-"],
    ]
    assert "without samples: dog, eel" in said
    assert "and 2 more labels; without samples: dog, eel" in text(report.history_table(whole, mode="eval", limit=1))
    many = lt.label_stats([0], [1.0]).with_absent(range(1, 30))
    assert "without samples: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …" in " ".join(text(table_of(many)).split())


def test_tables_of_several_labels_are_of_one_of_them_if_its_name_is_given() -> None:
    history = lt.History(metric="loss", label="class and site")
    for step, values in ((1, [1.0, 2.0, 3.0]), (2, [2.0, 8.0, 1.0])):
        history.add(step, lt.label_stats({"class": ["cat", "dog", "cat"], "site": ["a", "a", "b"]}, values))
    history.add(2, history.at(1), mode="test")
    whole = report.history_table(history, mode="train")
    assert (rows(whole)[0][:4], str(whole.columns[1].header)) == ([">", "dog,", "a", "1"], "class and site")
    table = report.history_table(history, mode="train", by="site")
    assert [row[:4] for row in rows(table)[:2]] == [[">", "a", "2", "5.000"], ["b", "1", "1.000", "0.000"]]
    assert str(table.columns[1].header) == "site"
    beside = rows(report.history_table(history, mode="train", by=["site", "class"]))
    assert [row[-3] for row in beside[:3]] == ["2.000", "1.000", "3.000"]
    assert [row[:2] for row in beside[1:3]] == [["a,", "cat"], ["b,", "cat"]]
    assert [row[-2:] for row in rows(table)[:2]] == [["1.500", "(1)"], ["1.000", "(2)"]]
    assert "loss by site: train, step 2, worst mean first" in text(table)
