"""How results are shown: in the terminal, and as tables in the README and on pages of the documentation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers import KERNEL, ONE_THREAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HERE = Path(__file__).resolve().parent
DISTURBED = "~: the median round took at least half as long again as the best one"
RATIOS = {
    "kernel_to_best_peer": "kernel, 1 thread / best peer",
    "one_thread_to_best_peer": "labeltrack, 1 thread / best peer",
    "one_thread_to_best_peer_on_one": "labeltrack, 1 thread / best peer on 1 thread",
    "default_to_best_peer": "labeltrack / best peer",
}
SHOWN = ("one_thread_to_best_peer", "default_to_best_peer")
"""The ratios among all results."""
PEERS_SHOWN = ("polars", "duckdb", "pandas")
"""The peers that have a column in the README."""


def _words(case: dict[str, Any]) -> str:
    """Return the types and the order of a case."""
    order = {"uniform": "", "zipf": ", Zipf", "sorted": ", sorted", "one": ", all one of them"}[case["order"]]
    return f"{case['label_dtype']}, {case['value_dtype']}{order}"


def table(results: dict[str, Any]) -> str:
    """Return million samples per second, median and best round, with one row per library and case, and the ratios."""
    rows = []
    for case in results["cases"]:
        rows.append([f"**{case['samples']:,} samples, {case['labels']:,} labels, {_words(case)}**", "", ""])
        for row in case["contestants"]:
            mark = " ~" if row["name"] in case["disturbed"] else ""
            speeds = (f"{row[key]:.0f}" for key in ("million_samples_per_s", "million_samples_per_s_best"))
            rows.append([row["name"] + mark, *speeds])
        for key, title in RATIOS.items():
            if entry := case["ratios"].get(key):
                spread = f"({entry['quartile_low']:.2f}–{entry['quartile_high']:.2f})"
                to = "; ".join(dict.fromkeys([entry["to"], entry["to_best"]]))
                rows.append([f"{title} ({to})", f"{entry['ratio']:.2f} {spread}", f"{entry['ratio_best']:.2f}"])
    return "\n".join([*grid(["million samples per second", "median", "best"], rows), "", DISTURBED])


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> list[str]:
    """Return the lines of a Markdown table whose first `text` columns are text, the others numbers."""
    aligned = ["---"] * text + ["---:"] * (len(head) - text)
    return [f"| {' | '.join(cells)} |" for cells in (head, aligned, *rows)]


def machine(results: dict[str, Any]) -> str:
    """Return the machine and the versions that figures are from."""
    about = results["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    return f"{about['cpus']} CPUs ({about['cpu']}), Python {about['python']}; {versions}."


def markdown(results: dict[str, Any]) -> str:
    """Return a table per axis, with one row per case and the speed of every library with its default threads."""
    cases = results["cases"]
    named = [row for case in cases for row in case["contestants"]]
    names = list(dict.fromkeys(row["name"] for row in named if row["default"] or row["name"] == ONE_THREAD))
    lines = ["# Group-by: all results", ""]
    for axis in dict.fromkeys(case["axis"] for case in cases):
        of_axis = [case for case in cases if case["axis"] == axis]
        there = {row["name"] for case in of_axis for row in case["contestants"]}
        columns = [name for name in names if name in there and name != KERNEL]
        head = ["samples", "labels", "types", *columns, *(f"{RATIOS[key]} (best rounds)" for key in SHOWN)]
        rows = []
        for case in of_axis:
            speed = _speeds(case)
            cells = [f"{case['samples']:,}", f"{case['labels']:,}", _words(case)]
            cells += [speed.get(name, "–") for name in columns]
            rows.append([*cells, *(_ratio(case["ratios"].get(key)) for key in SHOWN)])
        lines += [*grid(head, rows, text=3), ""]
    return "\n".join([*lines, *_about(results)])


def summary(results: dict[str, Any]) -> str:
    """Return the README's table: one row per number of labels, the peers that most people use, and the best of all."""
    peers = {row["name"] for case in results["cases"] for row in case["contestants"] if row["role"] == "peer"}
    peers -= {name for name in peers if name.endswith("1 thread")}
    columns = ("labeltrack", ONE_THREAD, *PEERS_SHOWN)
    rows = []
    for case in results["cases"]:
        speed = _speeds(case)
        best = case["ratios"].get("default_to_best_peer")
        cells = [f"{case['labels']:,}", *(speed.get(name, "–") for name in columns)]
        rows.append([*cells, f"{best['to']} {speed[best['to']]} ({best['ratio']:.1f}×)" if best else "–"])
    head = ["labels", "labeltrack", "1 thread", *PEERS_SHOWN, f"best of {len(peers)} peers"]
    first = results["cases"][0]
    scope = f"{first['samples']:,} samples, {_words(first)}; (n×): labeltrack is n times as fast."
    return "\n".join([*grid(head, rows, text=0), "", scope, *_about(results)])


def _about(results: dict[str, Any]) -> list[str]:
    """Return what the figures mean, and where they are from."""
    rounds = sorted({case["rounds"] for case in results["cases"]})
    some = f"{rounds[0]}" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
    lines = [
        f"Million samples per second, median of {some} interleaved rounds, each library with its default threads;",
        machine(results),
    ]
    if any(case["disturbed"] for case in results["cases"]):
        lines.append(f"{DISTURBED}; other programs were running.")
    if results["missing"]:
        lines.append(f"Not installed, so not measured: {', '.join(results['missing'])}.")
    return lines


def _speeds(case: dict[str, Any]) -> dict[str, str]:
    """Return million samples per second by library."""
    return {
        row["name"]: _speed(row["million_samples_per_s"]) + " ~" * (row["name"] in case["disturbed"])
        for row in case["contestants"]
    }


def _speed(million: float) -> str:
    return f"{million:.0f}" if million >= 10 else f"{million:.1f}"


def _ratio(entry: dict[str, Any] | None) -> str:
    return f"{entry['ratio']:.2f} to {entry['to']} ({entry['ratio_best']:.2f})" if entry else "–"


def figure(results: dict[str, Any], path: Path) -> bool:
    """Draw speed against the number of labels; return False if there are fewer than two points."""
    cases = [case for case in results["cases"] if case["axis"] == "labels"]
    if len(cases) < 2:
        return False
    from matplotlib.figure import Figure  # noqa: PLC0415 (not needed to measure)

    drawn = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = drawn.subplots()
    names = list(dict.fromkeys(row["name"] for case in cases for row in case["contestants"] if row["default"]))
    styles: dict[str, dict[str, Any]] = {"labeltrack": {"linewidth": 3.0, "color": "#d62728", "zorder": 5}}
    styles[ONE_THREAD] = {"linewidth": 2.0, "color": "#d62728", "linestyle": "--", "zorder": 4}
    styles["read limit"] = {"linewidth": 1.0, "color": "#777777", "linestyle": ":"}
    colors = iter(("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf", "#bcbd22", "#e377c2"))
    for name in (*(n for n in names if n != KERNEL), ONE_THREAD):
        points = [
            (case["labels"], row["million_samples_per_s"])
            for case in cases
            for row in case["contestants"]
            if row["name"] == name
        ]
        if points:
            style = styles.get(name) or {"linewidth": 1.2, "color": next(colors)}
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name, **style)
    axes.set(xscale="log", yscale="log", xlabel="labels", ylabel="million samples per second")
    axes.set_title(f"count, mean, std, min and max by label: {cases[0]['samples']:,} samples, {_words(cases[0])}")
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside right center", frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=150)
    return True


def rewrite(readme: Path, block: str, title: str = "benchmark") -> None:
    """Put a block between the markers ``<!-- title:begin -->`` and ``<!-- title:end -->`` of a file.

    Raises:
        ValueError: The markers are missing or out of order; the file is not changed.
    """
    text = readme.read_text(encoding="utf-8")
    first, last = f"<!-- {title}:begin -->", f"<!-- {title}:end -->"
    begin, end = text.find(first), text.find(last)
    if begin < 0 or end < begin:
        msg = f"{readme.name} must have the lines {first} and {last}, in this order, where the table belongs"
        raise ValueError(msg)
    after = text[end:]
    readme.write_text(f"{text[: begin + len(first)]}\n\n{block}\n\n{after}", encoding="utf-8")


def add_output(parser: argparse.ArgumentParser, name: str, page: str | None = "performance.md") -> None:
    """Add the options of a benchmark that writes ``results/{name}.json``, and a table on a page in docs/ if any."""
    parser.add_argument("--out", type=Path, default=HERE / "results" / f"{name}.json")
    if page is not None:
        parser.add_argument("--render", action="store_true", help=f"also write the table in docs/{page}")
        parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / page, help=argparse.SUPPRESS)
    parser.set_defaults(name=name)


def publish(results: dict[str, Any], text: str, options: argparse.Namespace) -> None:
    """Write results and print their table, according to the options of `add_output`."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(text)
    if getattr(options, "render", False):
        rewrite(options.page, text, options.name)
