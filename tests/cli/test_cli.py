"""The command line: what it prints, what it writes, and how it starts."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import labeltrack as lt
from labeltrack import cli
from labeltrack.cli import demo

ENTRY = {
    "module": [sys.executable, "-m", "labeltrack"],
    "function": [sys.executable, "-c", "from labeltrack.cli import main; main()"],
}


COLOURS = (
    "FORCE_COLOR",
    "CLICOLOR_FORCE",
    "PY_COLORS",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
    "GITHUB_ACTIONS",
    "COLUMNS",
)


def plain(text: str) -> str:
    """Return a text without colours, which typer may have decided on before a test could forbid them."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def invoke(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def run(entry: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, in which warnings are errors."""
    environment = {name: value for name, value in os.environ.items() if name not in COLOURS}
    environment |= {"PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}
    command = [*ENTRY[entry], *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)


def refusal(result: Result) -> str:
    """Return the one line that a mistake of the user gets."""
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith("labeltrack: error: ")
    return line


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Run the demo as a user does."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, run("module", "demo", "--out", out, "--epochs", 2)


def test_the_demo_runs_as_a_module_without_a_word_on_stderr(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, process = finished
    assert process.stderr == ""
    assert process.returncode == 0


def test_the_last_lines_list_the_files_that_were_written(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, process = finished
    lines = process.stdout.splitlines()
    listed = [line.split("  ")[1] for line in lines[lines.index("Written:") + 1 :]]
    assert listed == [
        str(out / name)
        for name in ("history.csv", "history.parquet", "loss_std.png", "loss_range.png", "slices.png", "run", "slices")
    ]
    assert sorted(listed) == sorted(str(file) for file in out.iterdir())


def test_the_table_has_every_digit_worst_first_as_in_the_history(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, process = finished
    rows = [line.removeprefix(">").split() for line in process.stdout.splitlines()]
    means = {words[0]: float(words[2]) for words in rows if words and words[0] in demo.DIGITS}
    assert set(means) == set(demo.DIGITS)
    assert list(means.values()) == sorted(means.values(), reverse=True)
    history = demo.train(demo.load_data(), 2)
    worst = history.names()[history.worst(1, mode="eval")[0]]
    (marked,) = (line for line in process.stdout.splitlines() if line.startswith(">"))
    assert marked.split()[1] == worst == next(iter(means))
    assert marked.split()[3] == f"{history.at(2, 'eval')[worst].mean:.3f}"


def test_the_demo_runs_in_this_process(tmp_path: Path) -> None:
    result = invoke("demo", "--out", tmp_path / "out", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "eval, epoch 1: worst first" in result.output
    assert re.search(r"The worst slice is '\w+' with a \w+ stroke, \d+ images: cross-entropy \d", result.output)
    assert "\x1b" not in result.output


def test_without_pyarrow_the_demo_writes_csv_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = invoke("demo", "--out", tmp_path, "--epochs", 1)
    assert result.exit_code == 0, result.output
    for note in (
        'no history.parquet: cannot import pyarrow, required for Arrow tables: pip install "labeltrack[arrow]"',
        'no recorded run: cannot import pyarrow, required for recorded runs: pip install "labeltrack[record]"',
    ):
        assert f"Note: {note}" in result.output
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "history.csv",
        "loss_range.png",
        "loss_std.png",
        "slices.png",
    ]


def test_without_scikit_learn_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"] + ["sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert 'pip install "labeltrack[demo]"' in refusal(invoke("demo", "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("beneath", ["", "a", "a/b"])
def test_an_out_that_is_a_file_or_beneath_one_is_refused_before_training(
    beneath: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "train", None)
    file = tmp_path / "file"
    file.touch()
    assert refusal(invoke("demo", "--out", file / beneath)).endswith(
        f"cannot write to {file / beneath}: {file} is a file, not a directory; choose another directory"
    )


def test_an_out_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert f"cannot write to {tmp_path} (Permission denied)" in refusal(invoke("demo", "--out", tmp_path))


def test_a_disk_that_fills_up_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "history.csv"))

    monkeypatch.setattr(demo, "write_results", refuse)
    result = invoke("demo", "--out", tmp_path, "--epochs", 1)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("labeltrack: error: [Errno 28] No space left on device")


@pytest.mark.parametrize("entry", ENTRY)
def test_the_version_is_shown(entry: str) -> None:
    process = run(entry, "--version")
    assert (process.returncode, process.stdout, process.stderr) == (0, f"labeltrack {lt.__version__}\n", "")


def test_the_module_and_the_entry_point_run_the_same_application(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["labeltrack", "--version"])
    module = str(Path(cli.__file__).parents[1] / "__main__.py")
    for start in (cli.main, lambda: runpy.run_path(module, run_name="__main__")):
        with pytest.raises(SystemExit) as raised:
            start()
        assert raised.value.code == 0
        assert capsys.readouterr().out == f"labeltrack {lt.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_names_the_commands(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert "demo" in plain(result.output)
    assert "Which class gets worse?" in plain(result.output)


def test_help_of_the_demo_names_its_options() -> None:
    result = invoke("demo", "--help")
    assert result.exit_code == 0
    for option in ("--out", "--epochs"):
        assert option in plain(result.output)


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_load_nothing_heavy(option: str) -> None:
    program = f"""
import sys
sys.argv = ["labeltrack", {option!r}]
try:
    from labeltrack.cli import main
    main()
finally:
    heavy = ("numba", "matplotlib", "pyarrow", "sklearn", "labeltrack.cli.demo")
    print([name for name in heavy if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("means", "overall", "worst"),
    [
        ([(3.0, 1.0), (2.0, 0.5)], "is at its best: 1.250.", " So is every single digit."),
        ([(3.0, 1.0), (1.0, 1.5)], "is at its best: 1.250.", "\nBut 'b' got worse: 1.000 at epoch 1, 1.500 now."),
        (
            [(1.0, 2.0), (3.0, 2.0)],
            "is 2.500; it was 1.500 at epoch 1.",
            "\nBut 'a' got worse: 1.000 at epoch 1, 3.000 now.",
        ),
    ],
)
def test_the_finding_names_the_class_that_got_worse(means: list[tuple[float, float]], overall: str, worst: str) -> None:
    history = lt.History()
    for epoch, pair in enumerate(means, start=1):
        history.add(epoch, lt.label_stats(["a", "b"], list(pair)), mode="eval")
    assert demo.finding(history) == f"The mean over all digits {overall}{worst}"
