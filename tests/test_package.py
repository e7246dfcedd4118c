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

PUBLIC = [
    "History",
    "LabelRow",
    "LabelStats",
    "LabelTrackWarning",
    "LabelTracker",
    "Recording",
    "Run",
    "__version__",
    "label_stats",
    "merge_stats",
    "open_run",
]

LAYERS = [
    {"errors"},
    {
        "_cache",
        "_compiled",
        "_intrinsics",
        "_kernels",
        "_finalise_kernels",
        "_hash_kernels",
        "_unit_kernels",
        "_fixed",
        "_threads",
        "_student",
        "_accumulate",
        "_arrays",
        "_floats",
        "_objects",
        "_buffers",
        "_select",
        "_tables",
        "_ipc",
        "_content",
        "_parts",
        "_backlog",
        "_journal",
        "_locks",
        "_output",
        "_progress",
        "_state",
        "_texts",
        "_storage",
        "_version",
        "_quantile_kernels",
        "_selection_kernels",
        "_partition_kernels",
        "_tight_kernels",
        "_wide_kernels",
        "_string_kernels",
        "_dictionary_kernels",
        "_memory",
        "_strings",
        "_dictionary",
    },
    {
        "_labels",
        "_missing",
        "_partition",
        "_quantile",
        "_quantile_few",
        "_reduce",
        "_reduce_strings",
        "stats",
        "bounds",
        "functional",
        "_regroup",
    },
    {
        "history",
        "store",
        "recorder",
        "recording",
        "_streams",
        "_membership",
        "_catalog",
        "_choice",
        "_scan",
        "_export",
        "_verify",
        "_dask",
    },
    {"tracker", "run", "plot", "_plot_data", "_plot_forms", "_plot_scales", "_plot_style", "report"},
    {"demo", "cli", "_cli_app", "_cli_runs", "__main__", "integrations.fastestimator"},
]


def test_the_public_names_are_the_agreed_ones():
    assert sorted(lt.__all__) == sorted(PUBLIC)
    assert all(hasattr(lt, name) for name in PUBLIC)


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (
            lt.label_stats,
            (
                "(labels, values, *, label_mapping=None, nan_policy='propagate', missing='error', threads=None, "
                "quantiles=())"
            ),
        ),
        (
            lt.LabelTracker,
            (
                "(label, metric, label_mapping=None, bounds='std', mode=None, ds_id=None, outputs=None, *, "
                "nan_policy='propagate', missing='error', max_buffer_bytes=268435456, record_to=None)"
            ),
        ),
        (lt.LabelTracker.update, "(self, labels, values, *, mode='train', ds_id='')"),
        (lt.LabelTracker.end_epoch, "(self, step, *, mode='train', replace=False)"),
        (lt.History.at, "(self, step, mode='train', ds_id=None)"),
        (lt.History.plot, "(self, bounds=None, modes=None, labels=None)"),
        (lt.merge_stats, "(parts)"),
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
    paths = [path for path in ROOT.rglob("*.py") if path.stem != "__init__"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


def test_every_module_has_its_layer():
    assert set(modules()) <= set().union(*LAYERS)


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_its_own_layer_and_those_below(name):
    level = {module: i for i, layer in enumerate(LAYERS) for module in layer}
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    imported = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("labeltrack"):
            _, _, module = node.module.partition(".")
            imported |= {module} if module else {alias.name for alias in node.names}
    # `History.plot` draws on demand: a method for the user's convenience, not a dependency.
    allowed = {"plot"} if name == "history" else set()
    upwards = {other for other in imported & set(level) if level[other] > level[name]} - allowed
    assert not upwards


def test_compiled_functions_live_in_modules_of_kernels():
    users = {
        name
        for name, path in modules().items()
        if "import numba" in path.read_text(encoding="utf-8") or "from numba" in path.read_text(encoding="utf-8")
    }
    builders = {name for name in modules() if "._intrinsics import" in modules()[name].read_text(encoding="utf-8")}
    assert all(name.endswith("_kernels") for name in builders)
    assert users == {
        "_intrinsics",
        "_tight_kernels",
        "_wide_kernels",
        "_dictionary_kernels",
        "_selection_kernels",
    }


def test_no_module_imports_in_a_circle():
    for name in modules():
        framework = name.removeprefix("integrations.")
        if (
            name == "__main__"
            or (name.endswith("_kernels") and name != "_tight_kernels")  # which takes most others, a second each
            or (framework != name and importlib.util.find_spec(framework) is None)
        ):
            continue
        code = f"import labeltrack.{name}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing_heavier_than_numpy():
    code = (
        "import sys, labeltrack; "
        "print([m for m in ('numba', 'matplotlib', 'pyarrow', 'rich', 'typer', 'pandas', 'torch') if m in sys.modules])"
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


@pytest.mark.parametrize("name", sorted(name for name in modules() if name.startswith("integrations.")))
def test_an_integration_uses_the_public_names_alone(name):
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))
    inside = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    assert not [module for module in inside if module.split(".")[0] == "labeltrack"]
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "labeltrack"
    }
    assert used <= {*PUBLIC, "stats", "bounds"}
