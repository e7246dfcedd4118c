"""How results are shown: a table in the terminal, and one in the README."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

RATIOS = {
    "kernel_to_best_peer": "kernel, 1 thread / best peer",
    "kernel_to_best_peer_one_thread": "kernel, 1 thread / best peer on 1 thread",
    "default_to_best_peer": "labeltrack / best peer",
}


def table(results: dict[str, Any]) -> Table:
    """Return million samples a second, median and best round, one row for everybody in every case."""
    shown = Table(title=f"million samples a second, {results['rounds']} rounds")
    shown.add_column("case")
    shown.add_column("")
    shown.add_column("median", justify="right")
    shown.add_column("best", justify="right")
    for case in results["cases"]:
        axes = f"{case['labels']:,} labels\n{case['label_dtype']}, {case['value_dtype']}"
        for row in case["contestants"]:
            mark = " ~" if row["name"] in case["disturbed"] else ""
            speeds = (f"{row[key]:.0f}" for key in ("million_samples_per_s", "million_samples_per_s_best"))
            shown.add_row(axes, row["name"] + mark, *speeds)
            axes = ""
        for key, title in RATIOS.items():
            entry = case["ratios"].get(key)
            if entry is not None:
                spread = f"({entry['quartile_low']:.2f}–{entry['quartile_high']:.2f})"
                to = entry["to"] if entry["to"] == entry["to_best"] else f"{entry['to']}; {entry['to_best']}"
                cells = (f"[bold]{entry['ratio']:.2f}[/] {spread}", f"[bold]{entry['ratio_best']:.2f}")
                shown.add_row("", f"[bold]{title}[/] ({to})", *cells)
        shown.add_section()
    shown.caption = "~ disturbed: the median round took half as long again as the best one"
    return shown


def markdown(results: dict[str, Any]) -> str:
    """Return the table of the README: one row a case, columns for everybody at the threads they take by default."""
    cases = results["cases"]
    names = [row["name"] for row in cases[0]["contestants"] if row["default"]]
    head = ["labels", "dtypes", *names, f"{RATIOS['kernel_to_best_peer']} (best rounds)"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for case in cases:
        speed = {row["name"]: f"{row['million_samples_per_s']:.0f}" for row in case["contestants"]}
        speed |= {name: f"{speed[name]} ~" for name in case["disturbed"]}
        entry = case["ratios"].get("kernel_to_best_peer")
        compared = (
            f"{entry['ratio']:.2f} to {entry['to']} ({entry['ratio_best']:.2f} to {entry['to_best']})" if entry else "–"
        )
        axes = [f"{case['labels']:,}", f"{case['label_dtype']}, {case['value_dtype']}"]
        lines.append("| " + " | ".join([*axes, *(speed[name] for name in names), compared]) + " |")
    about = results["facts"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    sizes = ", ".join(f"{n:,}" for n in sorted({case["samples"] for case in cases}))
    lines += [
        "",
        f"Million samples a second, median of {results['rounds']} interleaved rounds over {sizes} samples, each with",
        f"the threads it takes by default; {about['cpus']} CPUs ({about['cpu']}), Python {about['python']};",
        f"{versions}.",
    ]
    if any(case["disturbed"] for case in cases):
        lines.append("~: the median round took half as long again as the best one; other programs were running.")
    if results["missing"]:
        lines.append(f"Not installed, so not measured: {', '.join(results['missing'])}.")
    return "\n".join(lines)


def rewrite(readme: Path, block: str, title: str = "benchmark") -> None:
    """Put a block between the markers ``<!-- title:begin -->`` and ``<!-- title:end -->`` of a file.

    Raises:
        ValueError: The markers are missing or not in order; the file is left as it is.
    """
    text = readme.read_text(encoding="utf-8")
    first, last = f"<!-- {title}:begin -->", f"<!-- {title}:end -->"
    begin, end = text.find(first), text.find(last)
    if begin < 0 or end < begin:
        msg = f"{readme.name} must have the lines {first} and {last}, in this order, where the table is to stand"
        raise ValueError(msg)
    after = text[end:]
    readme.write_text(f"{text[: begin + len(first)]}\n\n{block}\n\n{after}", encoding="utf-8")
