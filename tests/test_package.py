"""The package as a whole: public names, layers, light import, typing marker."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import labeltrack as lt

ROOT = Path(lt.__file__).parent

# From the bottom up: a module imports from its own floor and those below, wherever in the file the import stands.
FLOORS = [
    ["_version", "errors"],
    ["_core.kernels"],
    ["_kernels"],
    ["_core"],
    ["_convert", "_filters", "_serialize", "_tables"],
    ["_labels"],
    ["_nan_policy", "_columns", "bounds"],
    ["stats"],
    ["_buffers", "functional", "plot"],
    ["_significance"],
    ["page"],
    ["history"],
    ["recording"],
    ["compare"],
    ["_tracking"],
    ["tracker", "collection"],
    ["report"],
    ["cli", "integrations", "__main__"],
]


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (
            lt.label_stats,
            (
                "(labels, values, *, label_mapping=None, nan_policy='propagate', missing='error', threads=None, "
                "quantiles=(), where=None)"
            ),
        ),
        (
            lt.LabelTracker,
            (
                "(label, metric, label_mapping=None, bounds='std', mode=None, ds_id=None, outputs=None, *, "
                "nan_policy='propagate', missing='error', max_buffer_bytes=268435456, record_to=None, "
                "keep_order=False, ignore_label=None, on_duplicate=None, sinks=())"
            ),
        ),
        (
            lt.TrackerCollection,
            (
                "(label, metrics, label_mapping=None, bounds='std', mode=None, ds_id=None, outputs=None, *, "
                "nan_policy='propagate', missing='error', max_buffer_bytes=268435456, record_to=None, "
                "keep_order=False, ignore_label=None, on_duplicate=None, sinks=())"
            ),
        ),
        (lt.LabelTracker.update, "(self, labels, values, *, mode='train', ds_id='', where=None, ids=None)"),
        (lt.LabelTracker.update_later, "(self, batch, make, *, mode='train', ds_id='', nbytes=0)"),
        (lt.TrackerCollection.update, "(self, labels, values, *, mode='train', ds_id='', where=None, ids=None)"),
        (lt.LabelTracker.compute, "(self, mode='train')"),
        (lt.LabelTracker.merge_state, "(self, trackers, *, place=0)"),
        (lt.LabelTracker.end_epoch, "(self, step, *, mode='train', replace=False)"),
        (lt.History.at, "(self, step, mode=None, ds_id=None)"),
        (lt.History.series, "(self, label, statistic='mean', mode=None, ds_id=None)"),
        (
            lt.History.worst,
            "(self, k=5, by='mean', mode=None, *, step=None, ds_id=None, higher_is_worse=True)",
        ),
        (lt.History.pooled, "(self, mode=None, steps=None, ds_id=None)"),
        (lt.History.by, "(self, *names)"),
        (
            lt.History.plot,
            (
                "(self, bounds=<the tracker's>, modes=None, labels=None, *, kind='auto', highlight=None, top=None, "
                "by=None, step=None, **options)"
            ),
        ),
        (
            lt.History.compare,
            "(self, before, after, mode=None, ds_id=None, *, higher_is_worse=True, alpha=0.05)",
        ),
        (
            lt.compare,
            (
                "(a, b=None, *, mode=None, steps=None, ds_id=None, metric=None, higher_is_worse=True, alpha=0.05, "
                "method='auto')"
            ),
        ),
        (lt.merge_stats, "(parts)"),
        (
            lt.Run.dynamics,
            (
                "(self, mode=None, metric=None, *, step=None, ds_id=None, correct=None, on_duplicate=None, "
                "nan_policy=None, incomplete=False, engine='local', progress=True)"
            ),
        ),
        (
            lt.Run.hardest,
            (
                "(self, k=10, label=None, step=None, *, mode=None, metric=None, by='mean', higher_is_worse=True, "
                "**options)"
            ),
        ),
    ],
)
def test_the_public_signatures_are_the_agreed_ones(function, signature):
    bare = inspect.signature(function)
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in bare.parameters.values()]
    assert str(bare.replace(parameters=parameters, return_annotation=inspect.Signature.empty)) == signature


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("labeltrack") == lt.__version__


def test_the_package_is_marked_as_typed():
    assert (ROOT / "py.typed").exists()


def modules():
    paths = {path: path.relative_to(ROOT).with_suffix("").parts for path in ROOT.rglob("*.py")}
    return {
        ".".join(part for part in parts if part != "__init__"): path
        for path, parts in paths.items()
        if parts != ("__init__",)
    }


def imports(name):
    """Return what a module of the package imports from it, ``TYPE_CHECKING`` and functions included."""
    found, known = set(), {*modules(), *{module.rpartition(".")[0] for module in modules()}}
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "labeltrack":
            _, _, module = node.module.partition(".")
            for alias in node.names:
                whole = f"{module}.{alias.name}".lstrip(".")
                found.add(whole if whole in known else module)
    return found - {name, ""}


def floor(name):
    fits = [
        (len(room), number)
        for number, rooms in enumerate(FLOORS)
        for room in rooms
        if f"{name}.".startswith(f"{room}.")
    ]
    assert fits, f"{name} is in no room"
    return max(fits)[1]


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_its_own_floor_and_those_below(name):
    upwards = {other for other in imports(name) if floor(other) > floor(name)}
    assert not upwards


def test_no_module_imports_in_a_circle():
    below = {name: imports(name) for name in modules()}
    below = {name: {other for other in others if other in below} for name, others in below.items()}
    while leaves := [name for name, others in below.items() if not others]:
        for leaf in leaves:
            del below[leaf]
        below = {name: others - set(leaves) for name, others in below.items()}
    assert not below


def test_compiled_functions_live_in_modules_of_kernels():
    users = {name for name, path in modules().items() if "numba import" in path.read_text(encoding="utf-8")}
    users |= {name for name in modules() if "_core.kernels.intrinsics" in imports(name)}
    assert all(name.startswith("_core.kernels.") or name == "_kernels" for name in users)


def test_importing_the_package_loads_nothing_heavier_than_numpy():
    code = (
        "import sys, labeltrack; "
        "heavy = 'numba', 'matplotlib', 'pyarrow', 'rich', 'typer', 'pandas', 'scipy', 'torch'; "
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_tracking_loads_numba_only_when_an_epoch_ends():
    code = (
        "import sys, labeltrack as lt; t = lt.LabelTracker('y', 'ce'); t.update([0, 1], [1, 2]); "
        "t.update(['a'], [1], mode='eval'); print('numba' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


INTEGRATIONS = sorted(name for name in modules() if name.startswith("integrations."))


def names_of(node):
    """Return the names of an expression such as ``a.b``, outermost last; none of another."""
    if isinstance(node, ast.Attribute):
        return [*names_of(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else []


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_an_integration_imports_nothing_private(name):
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    inside = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    others = [module for module in inside if module.split(".")[0] == "labeltrack"]
    assert all(module.startswith("labeltrack.integrations.") for module in others)
    used = {node.attr for node in ast.walk(tree) if names_of(node)[:-1] == ["labeltrack"]}
    assert used <= {*lt.__all__, "stats", "bounds"}


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_an_integration_reads_no_private_attribute_but_its_own(name):
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    private = {
        ".".join(names_of(node))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    assert all(path.startswith("self._") and path.count(".") == 1 for path in private)


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_an_integration_subclasses_nothing_of_the_package(name):
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    assert all(names_of(base) and names_of(base)[0] != "labeltrack" for base in bases)


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_object_swaps_its_attributes_as_a_whole(name):
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        swapped = isinstance(node, ast.Call) and names_of(node.func)[-2:] == ["__dict__", "update"]
        targets = node.targets if isinstance(node, ast.Assign) else []
        assert not swapped
        assert not [target for target in targets if names_of(target)[-1:] == ["__dict__"]]
