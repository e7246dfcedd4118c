"""What these tests share; other modules here are programs that they run, which import frameworks."""

from pathlib import Path

collect_ignore = [path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
