"""``python -m labeltrack``: the command line."""

from __future__ import annotations

from labeltrack.cli import main

if __name__ == "__main__":
    main()
