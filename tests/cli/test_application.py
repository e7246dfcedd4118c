"""How the application reports mistakes, interrupts and bugs, and that programs can call it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import typer
from test_cli import invoke, refusal, run

import labeltrack as lt
from labeltrack import cli
from labeltrack.cli import application as _cli_app
from labeltrack.cli import demo

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["demo", "--out", "x", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["demo", "--out", "x", "--epochs", "many"], "'--epochs'.*; see '.*demo --help'"),
        (["demo"], "Missing option '--out'; see '.*demo --help'"),
        (["demo", "--out"], "'--out' requires an argument"),
        (["demo", "--ouch", "x"], "No such option: --ouch.*--out.*; see '.*demo --help'"),
        (["demo", "--out", "x", "more"], "unexpected extra argument"),
        (["dem"], "No such command 'dem'.*--help'"),
        (["--nothing"], "No such option: --nothing"),
    ],
)
def test_a_mistake_in_the_arguments_gets_one_line_that_says_what_to_do(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(expected, refusal(invoke(*arguments)))
    assert list(tmp_path.iterdir()) == []


def test_mistakes_go_to_stderr_and_end_the_process_with_two() -> None:
    process = run("function", "demo", "--out", "x", "--epochs", 0)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "labeltrack: error: epochs must be at least 1, got 0\n"


def test_a_message_of_many_lines_is_told_in_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as raised:
        _cli_app.fail("first\n   second")
    assert raised.value.exit_code == 2
    assert capsys.readouterr().err == "labeltrack: error: first second\n"


def test_a_key_error_is_told_without_quotes_and_others_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), _cli_app.told(KeyError, ValueError):
        lt.History().at(1, "train")
    assert capsys.readouterr().err.startswith("labeltrack: error: no mode 'train'")
    with pytest.raises(ValueError, match="k must be at least 1"), _cli_app.told(KeyError):
        lt.History().worst(0)


def test_a_bug_is_not_mistaken_for_a_mistake_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        msg = "a bug"
        raise ValueError(msg)

    monkeypatch.setattr(demo, "train", broken)
    result = invoke("demo", "--out", tmp_path)
    assert isinstance(result.exception, ValueError)
    assert result.output == ""


def test_an_interrupted_run_ends_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "train", interrupt)
    assert invoke("demo", "--out", tmp_path).exit_code == 130


def test_an_aborted_question_ends_with_130_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def abort(*_: Any, **__: Any) -> None:
        raise typer.Abort

    monkeypatch.setattr(demo, "train", abort)
    result = invoke("demo", "--out", tmp_path)
    assert (result.exit_code, result.output) == (130, "labeltrack: error: interrupted\n")


def test_the_application_can_be_called_from_a_program() -> None:
    command = typer.main.get_command(cli.app)
    assert command.main(["--version"], prog_name="labeltrack", standalone_mode=False) == 0
    with pytest.raises(typer.BadParameter.__bases__[0], match="No such command"):
        command.main(["dem"], prog_name="labeltrack", standalone_mode=False)
