"""Integrations whose framework is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "framework", "command"),
    [
        ("fastestimator", "fastestimator", 'pip install "labeltrack[fastestimator]"'),
        ("torch", "torch", "pip install torch"),
        ("huggingface", "transformers", 'pip install "labeltrack[huggingface]"'),
        ("ignite", "ignite", 'pip install "labeltrack[ignite]"'),
        ("keras", "keras", 'pip install "labeltrack[keras]"'),
        ("lightning", "lightning", 'pip install "labeltrack[lightning]"'),
    ],
)
def test_without_a_framework_the_error_says_how_to_get_it(module, framework, command):
    code = (
        f"import sys; sys.modules[{framework!r}] = None\n"
        f"try:\n    import labeltrack.integrations.{module}\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert command in done.stdout
