"""numba's cache of compiled code: where it is not writable, or damaged, one warning says so and all works without."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from functools import cache
from pathlib import Path

from labeltrack.errors import warn

CHECKED = ".checked"  # part of the names of files that end with a checksum
_SUM = 32  # bytes of a checksum
_KERNEL = 1 << 16  # bytes of a compiled kernel, about


def checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def checked(data: bytes) -> bytes | None:
    """Return data without the checksum at its end, or None if that is wrong."""
    content = data[:-_SUM]
    return content if checksum(content) == data[-_SUM:] else None


_problems: list[str] = []


def warn_of_cache(problem: object) -> None:
    """Warn, once per process, that compiled code cannot be cached."""
    if not _problems:
        _problems.append(str(problem))
        msg = (
            f"numba's cache of compiled code cannot be used: {problem}. Everything works, but kernels are compiled "
            "again in every process, which takes some seconds; to avoid that, set the environment variable "
            "NUMBA_CACHE_DIR to a writable folder"
        )
        warn(msg)


@cache
def check_cache() -> None:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") or "NUMBA_CACHE_LOCATOR_CLASSES" in os.environ:
        return
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (opening it decides, as it does for numba)
        except OSError:
            continue
        files = [path for path in folder.glob(f"*{CHECKED}.*") if path.suffix in (".nbi", ".nbc")]
        try:
            with file:
                file.write(bytes(_KERNEL))
        except OSError as error:
            if not files:
                warn_of_cache(f"{folder}: {error}")
        damaged = [path for path in files if _is_damaged(path)]
        for path in damaged:
            with contextlib.suppress(OSError):
                path.unlink()
        if damaged:
            warn_of_cache(f"{damaged[0]} was damaged, and is compiled again")
        return
    warn_of_cache("none of " + ", ".join(map(str, _folders())) + " is writable")


def _is_damaged(path: Path) -> bool:
    try:
        return checked(path.read_bytes()) is None
    except OSError:  # deleted meanwhile, or not a file
        return path.exists()


def _folders() -> list[Path]:
    """Return the folders that numba tries for its cache, in order."""
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
