"""Tables for people."""

from __future__ import annotations

from labeltrack._tables import render as _tables


def test_short_tables_are_whole_and_long_ones_have_a_head_and_a_tail():
    assert _tables.shown_places(12) == list(range(12))
    assert _tables.shown_places(13) == [*range(8), 9, 10, 11, 12]


def test_columns_are_aligned_to_the_right():
    text = _tables.text("Title", [("name", "mean"), ("a", 0.123456789), ("long", 2.0)], 2)
    assert text.splitlines() == ["Title", "name      mean", "   a  0.123457", "long         2"]


def test_a_gap_is_marked_where_rows_are_left_out():
    rows = [("k",), *((k,) for k in _tables.shown_places(30))]
    assert _tables.text("T", rows, 30).split() == ["T", "k", *map(str, range(8)), "…", "26", "27", "28", "29"]
    assert "<td>…</td>" in _tables.html("T", rows, 30)
