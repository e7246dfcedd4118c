"""Compiled code works without a cache and with a damaged one; there is one warning, in time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COMPILED

import labeltrack

EPOCHS = """
import sys, warnings
import numpy as np
exec(sys.argv[1])
import labeltrack as lt
tracker = lt.LabelTracker("y", "ce")
for epoch in (1, 2):
    for batch in range(2):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            tracker.update(np.array([0, 1, 1]), np.array([0.5, 1.0, 3.0]))
        print("update", [str(each.message) for each in told if each.category is lt.LabelTrackWarning])
        assert all(each.filename == "<string>" for each in told)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert tracker.end_epoch(epoch).mean.tolist() == [0.5, 2.0]
    print("end", [str(each.message) for each in told])
"""
LONGER = """
import labeltrack, numpy
warnings.simplefilter("error")
for values in (numpy.arange(5000, dtype="f4"), numpy.arange(5000) / 7):
    assert labeltrack.label_stats(numpy.zeros(5000, int), values).count == [5000]
"""
QUIET = "update []\nupdate []\nend []\n"


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Return a folder with a copy of the package, in which nothing can be cached."""
    folder = tmp_path_factory.mktemp("site-packages")
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(labeltrack.__file__).parent, folder / "labeltrack", ignore=unwanted)
    for place in (".", "_core", "_core/kernels"):
        (folder / "labeltrack" / place / "__pycache__").touch()  # a file: no folder can be made here, not even by root
    return folder


def epochs(copied, before="", **environment):
    """Return the warnings while two epochs are tracked in a new process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "PYTHON", "XDG"))}
    given = {"PYTHONPATH": str(copied), "HOME": str(copied / "labeltrack" / "__pycache__"), **environment}
    command = [sys.executable, "-c", EPOCHS, before]
    done = subprocess.run(command, env=kept | given, capture_output=True, text=True, check=False, cwd=copied)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def compiled(copied, tmp_path_factory):
    """Return a cache of what two epochs and longer columns need."""
    folder = tmp_path_factory.mktemp("cache")
    assert epochs(copied, LONGER, NUMBA_CACHE_DIR=str(folder)) == 2 * QUIET
    return folder


needs_compiler = pytest.mark.skipif(not COMPILED, reason="nothing is compiled")


@needs_compiler
@pytest.mark.parametrize("given", [None, "below a file"])
def test_without_a_writable_folder_the_first_update_warns(copied, given):
    more = {} if given is None else {"NUMBA_CACHE_DIR": str(copied / "labeltrack" / "__init__.py" / "cache")}
    first, *others = epochs(copied, **more).splitlines()
    assert "is writable" in first
    assert "NUMBA_CACHE_DIR" in first
    assert others == (2 * QUIET).splitlines()[1:]


@needs_compiler
def test_a_full_disk_warns_in_the_first_update(copied, tmp_path):
    pytest.importorskip("resource")
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"  # no file may be longer
    first, *others = epochs(copied, full, NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
    assert "numba's cache of compiled code cannot be used" in first
    assert others == (2 * QUIET).splitlines()[1:]


@needs_compiler
def test_damaged_files_are_found_by_the_first_update_and_made_anew(copied, compiled, tmp_path):
    kept = {"NUMBA_CACHE_DIR": str(tmp_path)}
    shutil.copytree(compiled, tmp_path, dirs_exist_ok=True)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for number, path in enumerate(files):
        data = bytearray(path.read_bytes())
        if number % 3 == 0:
            path.write_bytes(data[: len(data) * number // len(files)])  # cut short, or empty
        elif number % 3 == 1:
            data[len(data) * number // len(files)] ^= 4
            path.write_bytes(data)
        else:
            path.write_bytes(b"something else")
    first, *others = epochs(copied, **kept).splitlines()
    assert "was damaged" in first
    assert others == (2 * QUIET).splitlines()[1:]
    assert epochs(copied, **kept) == 2 * QUIET  # and all is well again


@needs_compiler
def test_files_that_are_damaged_while_a_process_runs_are_not_run(copied, compiled, tmp_path):
    kept = {"NUMBA_CACHE_DIR": str(tmp_path)}
    shutil.copytree(compiled, tmp_path, dirs_exist_ok=True)
    files = [path for path in tmp_path.rglob("*.nbc") if path.is_file()]
    unchecked = "import labeltrack._tracking.changes as module; module.check_cache = lambda: None"
    for path in files:
        data = bytearray(path.read_bytes())
        for at in range(0, len(data), 100):
            data[at] ^= 255
        path.write_bytes(data)
    said = epochs(copied, unchecked, **kept)
    assert said.count("is damaged") == 1


@needs_compiler
def test_cached_kernels_run_without_what_only_compiling_needs(tmp_path):
    code = (
        "import sys, numpy as np, labeltrack as lt; labels = np.arange(100_000) % 7; "
        "print(lt.label_stats(labels, labels * 0.5).mean.tolist(), 'numba.np.arraymath' in sys.modules)"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    means = [0.5 * label for label in range(7)]
    assert [run.stdout.strip() for run in runs] == [f"{means} True", f"{means} False"]


@needs_compiler
def test_kernels_are_loaded_in_the_next_process_until_any_module_of_kernels_changes(copied, compiled, tmp_path):
    shutil.copytree(compiled, tmp_path, dirs_exist_ok=True)

    def now():
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}

    def cached():
        assert epochs(copied, LONGER, NUMBA_CACHE_DIR=str(tmp_path)) == 2 * QUIET
        return now()

    first = now()
    assert {"fixed_point.reduce_fixed32", "fixed_point.reduce_fixed63"} <= {name.partition("-")[0] for name in first}
    assert cached() == first
    module = copied / "labeltrack" / "_core" / "kernels" / "rows.py"
    text, times = module.read_text(encoding="utf-8"), module.stat()
    module.write_text(text[:3] + text[3].swapcase() + text[4:], encoding="utf-8")  # of the same length
    os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert module.read_text(encoding="utf-8") != text
    changed = cached()
    assert all(changed[name] > first[name] for name in first if name.endswith(".nbi"))
    kernels = module.parent  # another version has other names, and cached types those of before
    for path in [*kernels.glob("*.py"), kernels.parent / "fixed_point.py"]:
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\bUnit\b", "Scale", text), encoding="utf-8")
    renamed = cached()
    assert any(renamed[name] > changed[name] for name in changed)
    assert cached() == renamed


def test_there_is_no_warning_where_nothing_is_compiled(copied):
    assert epochs(copied, NUMBA_DISABLE_JIT="1") == 2 * QUIET
