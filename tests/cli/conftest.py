"""What tests of the command line share."""

from __future__ import annotations

import pytest
from test_cli import COLOURS


@pytest.fixture(autouse=True)
def _plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the variables away by which a continuous integration asks for colours where there is no terminal."""
    for name in COLOURS:
        monkeypatch.delenv(name, raising=False)
