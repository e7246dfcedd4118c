"""The look of all figures: modes, marks, texts and settings."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from figures import SAMPLES, course, drawn_lines, history_of, marked, of_means, pixels, texts
from matplotlib.testing.compare import compare_images

import labeltrack as lt
from labeltrack.plot import plot_history


@pytest.mark.parametrize("kind", ["lines", "multiples"])
def test_train_is_solid_and_eval_dashed_and_the_legend_says_so(kind):
    figure = plot_history(history_of(SAMPLES), kind=kind)
    for axes in figure.axes:
        lines = drawn_lines(axes)
        assert [line.is_dashed() for line in lines] == [False] * (len(lines) // 2) + [True] * (len(lines) // 2)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == ["train", "eval"]
    assert [handle.is_dashed() for handle in legend.legend_handles[:2]] == [False, True]
    thin, thick = (handle.get_linewidth() for handle in legend.legend_handles[:2])  # for print in grey
    assert 1.3 * thin < thick


def test_steps_of_two_modes_are_marked_differently():
    (axes,) = plot_history(history_of(SAMPLES)).axes
    filled = {line.get_markerfacecolor() for line in axes.get_lines() if line.get_marker() == "o"}
    assert filled == {"#0072B2", "#D55E00", "white"}


@pytest.mark.parametrize("kind", ["lines", "multiples"])
def test_a_single_step_is_visible_and_on_a_whole_tick(kind):
    history = history_of({"train": {7: ([0, 0, 1, 1], [1.0, 2.0, 3.0, 5.0])}, "eval": {7: ([0, 1], [1.0, 3.0])}})
    figure = plot_history(history, kind=kind)
    points = [point for axes in figure.axes for point in marked(axes, "o")]
    assert sorted(y for _, y in points) == [1.0, 1.5, 3.0, 4.0]
    spots = [{round(x, 6) for x, _ in marked(axes, "o")} for axes in figure.axes]
    assert [len(spot) for spot in spots] == ([4] if kind == "lines" else [2, 2])  # none hides another
    assert all(6.5 < x < 7.5 for x, _ in points)
    pixels(figure)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [7.0]
    assert len(set(texts(figure)) & {"0", "1"}) == 2


@pytest.mark.parametrize("kind", ["lines", "multiples"])
@pytest.mark.parametrize("last", [3, 5, 30])
def test_steps_are_whole_numbers(kind, last):
    figure = plot_history(course(2, last, modes=["train"]), kind=kind)
    pixels(figure)
    for axes in figure.axes:
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


@pytest.mark.parametrize("kind", ["lines", "multiples"])
def test_means_that_are_not_finite_are_marked_at_the_edge_and_explained(kind):
    history = of_means([[1, np.nan, 2, np.inf, 3], [1, 1, 1, 1, 1]])
    figure = plot_history(history, kind=kind)
    crosses = [point for axes in figure.axes for point in marked(axes, "x")]
    assert crosses == [(2.0, 1.0), (4.0, 1.0)]
    assert "mean is NaN or infinite" in texts(figure)
    assert "mean is NaN or infinite" not in texts(plot_history(history, labels=1, kind=kind))


@pytest.mark.parametrize(
    ("n", "kind"), [(3, "lines"), (6, "lines"), (10, "multiples"), (13, "multiples"), (50, "heatmap")]
)
def test_nothing_covers_data(n, kind):
    figure = plot_history(course(n, 8), kind=kind, bounds=["std", "range"])
    pixels(figure)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for axes in figure.axes:
        words = [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes._left_title]
        for text in words:
            if text.get_text() and text.get_text().strip():
                assert not any(text.get_window_extent().overlaps(box) for box in boxes), text.get_text()
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.get_tightbbox()) for axes in figure.axes)
        assert figure.bbox.containsx(legend.get_window_extent().x1)


def test_long_names_of_modes_break_the_legend_into_rows():
    samples = {f"a rather long name of mode {i}": {1: ([0], [1.0]), 2: ([0], [1.0])} for i in range(5)}
    figure = plot_history(history_of(samples), kind="multiples")
    pixels(figure)
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_title_units_and_steps_are_written():
    history = course(2, 2)
    for draw in (plot_history, lt.History.plot):
        assert {"loss by class", "loss (nats)", "epoch"} <= set(texts(draw(history, units="nats", x_label="epoch")))
        assert "Mine" in texts(draw(history, title="Mine"))
        with pytest.raises(TypeError, match=r"plot_history\(\) got an unexpected keyword argument 'x_lable'"):
            draw(history, x_lable="epoch")
    assert "mean loss (nats)" in texts(plot_history(history, units="nats", kind="heatmap"))


NASTY = ["$x_1$", "100 % of $y$ \\alpha", "_hidden", "a\nb", "{", ""]


@pytest.mark.parametrize("kind", ["lines", "multiples", "heatmap"])
@pytest.mark.parametrize("steps", [1, 2])
def test_what_users_write_is_shown_literally(kind, steps, tmp_path):
    history = lt.History(metric="$loss$_a", label="$do_main$")
    mapping = {name: k for k, name in enumerate(NASTY)}
    for step in range(1, steps + 1):
        for mode in ("_$tr_1$", "ev_%"):
            history.add(step, lt.label_stats(range(6), np.arange(6.0), label_mapping=mapping), mode=mode)
    figure = plot_history(history, kind=kind, x_label="$e_1$", units="$\\%$")
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(tmp_path / "a.svg")
    root = ET.parse(tmp_path / "a.svg").getroot()  # noqa: S314 (written a line above)
    words = {"".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")}
    names = {"$x_1$", "100 % of $y$ \\alpha", "_hidden", "a b", "{", "(no name)"}
    if (kind, steps) == ("lines", 1):
        names = names - {"100 % of $y$ \\alpha"} | {"100 % …alpha"}  # side by side there is less room
    expected = names | {"$loss$_a by $do_main$", "$e_1$", "_$tr_1$", "ev_%"}
    assert not expected - words


@pytest.mark.parametrize("n", [3, 10, 50])
@pytest.mark.parametrize(("suffix", "head"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_pictures_are_saved_in_every_format(n, suffix, head, tmp_path):
    path = tmp_path / f"picture.{suffix}"
    plot_history(course(n, 3)).savefig(path)
    data = path.read_bytes()
    assert data.startswith(head)
    assert len(data) > 5000


def test_drawing_neither_loads_pyplot_nor_needs_a_display(tmp_path):
    program = f"""
import sys, labeltrack as lt
assert "matplotlib" not in sys.modules
history = lt.History()
history.add(1, lt.label_stats([0, 1], [1.0, 2.0]))
for kind in ("lines", "multiples", "heatmap"):
    from labeltrack.plot import plot_history
    plot_history(history, kind=kind).savefig({str(tmp_path / "a.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND", "WAYLAND_DISPLAY")
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").stat().st_size > 1000


HOSTILE: Any = {
    "axes.facecolor": "black", "axes.grid": False, "axes.spines.left": False, "figure.facecolor": "black",
    "font.size": 30, "image.cmap": "jet", "legend.frameon": True, "lines.linewidth": 9, "savefig.facecolor": "black",
    "text.color": "white", "text.usetex": True, "xtick.labelsize": 30, "ytick.direction": "in",
}  # fmt: skip


@pytest.mark.parametrize("n", [3, 8, 50])
def test_settings_of_the_caller_change_nothing_and_are_not_changed(n, tmp_path):
    history = course(n, 3)
    plot_history(history).savefig(tmp_path / "plain.png")
    with mpl.rc_context(HOSTILE):
        before = dict(mpl.rcParams)
        plot_history(history).savefig(tmp_path / "hostile.png", dpi=100)
        assert dict(mpl.rcParams) == before
    assert compare_images(str(tmp_path / "plain.png"), str(tmp_path / "hostile.png"), 0) is None


def test_a_transparent_background_is_still_possible(tmp_path):
    from matplotlib.image import imread

    plot_history(course(3, 2)).savefig(tmp_path / "a.png", transparent=True)
    plot_history(course(3, 2)).savefig(tmp_path / "b.png")
    assert imread(tmp_path / "a.png")[0, -1, 3] == 0.0
    assert imread(tmp_path / "b.png")[0, -1].tolist() == [1.0, 1.0, 1.0, 1.0]


def looks(handle):
    dashes = handle._dash_pattern[1]
    return (None if dashes is None else tuple(dashes), handle.get_marker(), handle.get_markerfacecolor() == "white")


@pytest.mark.parametrize("kind", ["lines", "multiples"])
@pytest.mark.parametrize("steps", [3, 50])
def test_no_two_of_many_modes_look_alike(kind, steps):
    modes = [f"m{i:02d}" for i in range(40)]
    samples = {mode: {step: ([0, 1], [1.0 + i, 2.0]) for step in range(steps)} for i, mode in enumerate(modes)}
    figure = plot_history(history_of(samples), kind=kind)
    (legend,) = figure.legends
    handles = legend.legend_handles[: len(modes)]
    assert [text.get_text() for text in legend.get_texts()][: len(modes)] == modes
    assert len({looks(handle) for handle in handles}) == len(modes)
    # The drawing matches the legend: each mode has its line, followed by its markers.
    drawn = [line for line in figure.axes[0].get_lines() if line.get_linewidth() > 1 or line.get_linestyle() == "None"]
    lines = [line for line in drawn if line.get_linestyle() != "None"]
    marks = [line for line in drawn if line.get_linestyle() == "None"]
    each = len(lines) // len(modes)
    assert (len(lines), len(marks)) == (each * len(modes),) * 2
    for i, handle in enumerate(handles):
        assert looks(lines[i * each])[0] is looks(handle)[0] is None or lines[i * each].is_dashed()
        assert looks(marks[i * each])[1:] == looks(handle)[1:]
        assert 1 <= len(marks[i * each].get_xdata()) <= 8


def test_four_modes_of_many_steps_are_told_apart_by_lines_alone():
    samples = {mode: {step: ([0], [1.0]) for step in range(50)} for mode in "abcd"}
    (axes,) = plot_history(history_of(samples)).axes
    assert [line.get_marker() for line in axes.get_lines()] == ["None"] * 4


def test_more_modes_than_can_be_told_apart_are_refused():
    samples = {f"m{i}": {1: ([0], [1.0])} for i in range(100)}
    with pytest.raises(ValueError, match=r"100 modes in one panel cannot be told apart .*choose some with modes="):
        plot_history(history_of(samples))
    assert plot_history(history_of(samples), modes=["m1", "m99"]).axes
