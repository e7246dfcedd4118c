"""Steps with tensors on a device: the right numbers, without a GPU too."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import TYPE_CHECKING

import pytest
from device import COPIED, DIRECT, NOTHING, main

if TYPE_CHECKING:
    from pathlib import Path

REQUIRE_FRAMEWORKS = os.environ.get("LABELTRACK_REQUIRE_FRAMEWORKS") == "1"


def test_the_command_writes_results(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None and not REQUIRE_FRAMEWORKS:
        pytest.skip("torch is not installed (extra: frameworks)")
    out = tmp_path / "device.json"
    main(["--device", "cpu", "--steps", "4", "--rounds", "1", "--milliseconds", "0.1", "--out", str(out)])
    results = json.loads(out.read_text(encoding="utf-8"))
    assert set(results["step"]) == {NOTHING, DIRECT, COPIED}
    assert all(row["median_s"] > 0 for row in results["step"].values())


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device._has_gpu", lambda: False)
    assert main([]) == {"missing": ["cuda"]}
    assert "no GPU" in capsys.readouterr().out
