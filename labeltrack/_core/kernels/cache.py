"""The cache of compiled code: where it cannot be written, or is damaged, everything works without, and is told once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

from labeltrack.errors import LabelTrackWarning, outside

CHECKED = ".checked"
"""In the names of files that end with a checksum."""
_SUM = 32  # bytes of a checksum
_SOME = 1 << 16  # bytes, about as many as a kernel has


def checksum(data: bytes) -> bytes:
    """Return what is written behind some bytes."""
    return hashlib.sha256(data).digest()


def checked(data: bytes) -> bytes | None:
    """Return some bytes without the checksum behind them, None if it is another one."""
    found, known = data[:-_SUM], data[-_SUM:]
    return found if checksum(found) == known else None


@cache
def _told() -> list[str]:
    return []


def tell(problem: object) -> None:
    """Warn, once in a process, that compiled code cannot be kept."""
    if not _told():
        _told().append(str(problem))
        msg = (
            f"numba's cache of compiled code cannot be used: {problem}. Everything works, but is compiled anew, which "
            "takes some seconds in every process; to keep it, set the environment variable NUMBA_CACHE_DIR to a folder "
            "that can be written to"
        )
        warnings.warn(msg, LabelTrackWarning, stacklevel=outside())


@cache
def look_at_cache() -> None:
    """Warn if compiled code cannot be kept, before anything is compiled, which would be at the end of an epoch.

    It takes numba a third of a second to say so.
    """
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") or "NUMBA_CACHE_LOCATOR_CLASSES" in os.environ:
        return
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (whether it can be made decides, as it does for numba)
        except OSError:
            continue
        files = [path for path in folder.glob(f"*{CHECKED}.*") if path.suffix in (".nbi", ".nbc")]
        try:
            with file:
                file.write(bytes(_SOME))
        except OSError as error:
            if not files:
                tell(f"{folder}: {error}")
        damaged = [path for path in files if _is_damaged(path)]
        for path in damaged:
            with contextlib.suppress(OSError):
                path.unlink()
        if damaged:
            tell(f"{damaged[0]} was damaged, which is repaired")
        return
    tell("none of " + ", ".join(map(str, _folders())) + " can be written to")


def _is_damaged(path: Path) -> bool:
    try:
        return checked(path.read_bytes()) is None
    except OSError:  # gone meanwhile, or no file
        return path.exists()


def _folders() -> list[Path]:
    """Return where numba looks for a place to keep compiled code, in its order."""
    here = Path(__file__).resolve().parent
    name = f"{here.name}_{hashlib.sha1(str(here).encode()).hexdigest()}"  # noqa: S324 (as numba has it)
    config = getattr(sys.modules.get("numba"), "config", None)
    given = os.environ.get("NUMBA_CACHE_DIR", "") if config is None else config.CACHE_DIR
    if sys.platform == "win32":
        user = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "numba" / "Cache"
    elif sys.platform == "darwin":
        user = Path(os.path.expanduser("~/Library/Caches/numba"))  # noqa: PTH111 (there may be no home)
    else:
        user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "numba"  # noqa: PTH111
    return [*([Path(given) / name] if given else []), here / "__pycache__", user / name]
