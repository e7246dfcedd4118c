"""The examples run as a user runs them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
REQUIRED = os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1"


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None and not REQUIRED, reason="torch is not installed (extra 'frameworks')"
)
def test_the_plain_pytorch_loop_prints_a_table_and_saves_a_figure(tmp_path: Path) -> None:
    out = tmp_path / "new" / "directory"
    command = [sys.executable, str(EXAMPLES / "plain_pytorch.py"), str(out), "3"]
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    environment |= {"PYTHONIOENCODING": "utf-8"}
    process = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    rows = [line.removeprefix(">").split() for line in process.stdout.splitlines()]
    means = {words[0]: float(words[2]) for words in rows if words and words[0] in set("0123456789")}
    assert len(means) == 10
    assert list(means.values()) == sorted(means.values(), reverse=True)
    assert (out / "loss_std.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert process.stdout.splitlines()[-1] == f"Written: {out / 'loss_std.png'}"
