"""Integrations whose framework is not installed."""

from __future__ import annotations

import subprocess
import sys


def test_without_fastestimator_the_error_says_how_to_get_it():
    code = (
        "import sys; sys.modules['fastestimator'] = None\n"
        "try:\n    import labeltrack.integrations.fastestimator\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "labeltrack[fastestimator]"' in done.stdout
