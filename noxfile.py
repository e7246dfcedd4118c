#!/usr/bin/env -S python3
# /// script
# dependencies = ["nox>=2024.10.9"]
# ///
"""Sessions: ``nox`` runs lint, typecheck and tests; ``nox -l`` lists the others."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import nox

if TYPE_CHECKING:
    from collections.abc import Callable

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13"]
# Fewer rounds of random damage, crashes and runs; one session, and plain pytest, run all of them.
QUICK = {"LABELTRACK_QUICK": "1"}
# Crashes, damage and processes depend on the system, hardly on versions: 3.11 and 3.13 run them.
FAULTS = [
    *("tests/core/kernels/test_cache.py", "tests/test_races.py", "tests/test_recorded_folders.py"),
    *(f"tests/recording/test_{name}.py" for name in ("reader_on_cluster", "repair", "session", "storage", "writer")),
]
# What is printed and drawn.
SHOWN = ["tests/cli", "tests/page", "tests/plot", "tests/test_docs.py", "tests/test_examples.py"]
# Tests that run all lines of the kernels.
KERNELS = ["tests/core", "tests/test_kernels.py", "labeltrack/_core", "labeltrack/_kernels.py"]


def without(*paths: str) -> list[str]:
    """Return the options of pytest that leave out files and folders."""
    return [f"--ignore={path}" for path in paths]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("ruff>=0.15")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types strictly, those of the public API by example."""
    session.install("mypy>=1.11", "-e", ".[test,bench]", "nox")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests, and each benchmark once as a test; on 3.11 with the frameworks, on 3.12 a part."""
    session.install("-e", ".[test,bench]")
    env = {"LABELTRACK_REQUIRE_PEERS": "1", **QUICK}
    some = ["tests", "labeltrack", *without("tests/core", *FAULTS, *SHOWN)] if session.python == "3.12" else []
    if session.python == "3.11":
        env["LABELTRACK_QUICK"] = ""
        session.install("-e", ".[frameworks]", "torch==2.13.0")
        env["LABELTRACK_REQUIRE_FRAMEWORKS"] = "1"
    session.run("pytest", *some, *session.posargs, env=env)


@nox.session(python=PYTHONS[-1] if shutil.which(f"python{PYTHONS[-1]}") else None, default=False)
def coverage(session: nox.Session) -> None:
    """Run all tests and measure coverage, that of kernels as plain Python; less than 98 % fails."""
    session.install("-e", ".[test]")
    plain = {**QUICK, "NUMBA_DISABLE_JIT": "1"}
    session.run("pytest", "--cov", "--cov-report=", "--cov-fail-under=0", *KERNELS, *session.posargs, env=plain)
    session.run("pytest", "--cov", "--cov-append", "tests", "labeltrack", *session.posargs, env=QUICK)


@nox.session(python="3.11", default=False)
def minimums(session: nox.Session) -> None:
    """Run the tests with the oldest supported numpy; `fastestimator` runs those of plots and conversions with it."""
    session.install("-e", ".[test]", "numpy==1.26.4", "pandas<3", "pyarrow<26")
    some = without("tests/convert", "tests/test_interrupts.py", *FAULTS, *SHOWN)
    session.run("pytest", "tests", "labeltrack", *some, *session.posargs, env=QUICK)


# What Traceability needs to write its report and the tests to read it, with the Debian packages.
PROGRAMS = {"dot": "graphviz", "latexmk": "latexmk", "pdflatex": "texlive-latex-extra", "pdftotext": "poppler-utils"}
STYLES = {
    "adjustbox.sty": "texlive-latex-extra",
    "lmodern.sty": "lmodern",
    "ulem.sty": "texlive-plain-generic",
    "siunitx.sty": "texlive-science",
}

BROWSER = {"chromium": "chromium", "chromedriver": "chromium-driver"}


def report_tools_missing() -> list[str]:
    """Return the Debian packages of the missing report tools."""
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    for style, package in STYLES.items():
        found = shutil.which("kpsewhich") and subprocess.run(["kpsewhich", style], capture_output=True, check=False)
        if not found or found.returncode != 0:
            missing.add(package)
    return sorted(missing)


def installed(session: nox.Session, missing: Callable[[], list[str]]) -> list[str]:
    """Install missing Debian packages, if this is root; return those that are still missing."""
    packages = missing()
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        session.run("apt-get", "update", "-qq", external=True)
        install = ("apt-get", "install", "--yes", "-qq", "--no-install-recommends")
        session.run(*install, *packages, env={"DEBIAN_FRONTEND": "noninteractive"}, external=True, silent=True)
        packages = missing()
    return packages


def integration_coverage(session: nox.Session, names: str, *more: str) -> list[str]:
    """Return options of pytest that measure the coverage of integrations of such names; less than 98 % fails."""
    folder = Path("labeltrack/integrations").absolute()  # some tests change the working directory
    others = sorted({*folder.glob("*.py")} - {*folder.glob(names)})
    # Not the configuration of the project, which omits integrations.
    config = Path(session.virtualenv.location, "coverage.ini")
    lines = ["[run]", "branch = true", *more, "omit =", *(f"    {path}" for path in others)]
    config.write_text("\n".join(lines), encoding="utf-8")
    return [f"--cov={folder}", f"--cov-config={config}", "--cov-fail-under=98"]


@nox.session(python="3.11", default=False)
def fastestimator(session: nox.Session) -> None:
    """Run the tests in the real FastEstimator; also those of plots and conversions, with the versions that it pins."""
    if missing := installed(session, report_tools_missing):
        session.error(f"FastEstimator's Traceability needs Graphviz and LaTeX; install {' '.join(missing)}")
    # Where nothing is compiled beforehand, as uv has it, importing its old packages warns of their source.
    compiled = {"UV_COMPILE_BYTECODE": "1"}
    # This version of torch comes without CUDA packages where the index offers such a build.
    session.install("-e", ".[fastestimator]", "torch==2.13.0", env=compiled)
    # pyarrow 26 does not import with this numpy, and this matplotlib calls what pyparsing 3.3 deprecates.
    session.install("pyarrow<26", "pyparsing<3.3", env=compiled)
    session.install("distributed>=2024.5", "duckdb", "hypothesis>=6.100", "polars>=1.0", "xxhash>=3.4", env=compiled)
    session.install("pytest>=8.2", "pytest-benchmark>=5.0", "pytest-cov>=5.0", env=compiled)
    session.run("python", "-c", "import numpy; assert numpy.__version__ == '1.26.4', numpy.__version__")
    env = {"LABELTRACK_REQUIRE_FASTESTIMATOR": "1", **QUICK}
    # Another session may write the default file at the same time.
    env["COVERAGE_FILE"] = str(Path(session.virtualenv.location, ".coverage"))
    # The trace, and what meets old versions here alone: of matplotlib, pandas and TensorFlow.
    paths = ["tests/integrations/test_fastestimator.py", "tests/plot", "tests/convert", "tests/test_docs.py"]
    paths += ["labeltrack/plot", "benchmarks/test_bench_fastestimator_trace.py"]
    session.run("pytest", *integration_coverage(session, "fastestimator.py"), *paths, *session.posargs, env=env)


@nox.session(python="3.11", default=False)
def frameworks(session: nox.Session) -> None:
    """Run the tests, examples, pages and benchmark of the integrations in the real frameworks."""
    # This version of torch comes without CUDA packages where the index offers such a build.
    session.install("-e", ".[record,huggingface,ignite,keras,lightning]", "torch==2.13.0", "datasets>=5", "trl>=1.16")
    session.install("jax", "tensorflow-cpu", "tensorboard")  # backends of Keras
    session.install("wandb", "mlflow", "trackio", "aim", "comet-ml", "dvclive")
    session.install("hypothesis>=6.100", "pytest>=8.2", "pytest-benchmark>=5.0", "pytest-cov>=7.0", "coverage>=7.10")
    env = {"LABELTRACK_REQUIRE_INTEGRATIONS": "1", "LABELTRACK_REQUIRE_LOGGERS": "1", "HF_HUB_OFFLINE": "1"}
    # Another session may write the default file at the same time.
    env["COVERAGE_FILE"] = str(Path(session.virtualenv.location, ".coverage"))
    # FastEstimator has a session of its own. Most tests run in processes that are started or forked, and end at once.
    options = integration_coverage(session, "[!f]*.py", "parallel = true", "patch = subprocess, _exit, fork")
    paths = ["tests/integrations", "tests/test_examples.py", "benchmarks/test_bench_frameworks.py"]
    paths.append("tests/test_docs.py::test_the_code_about_a_framework_runs")
    session.run("pytest", *options, *paths, *session.posargs, env=env)


def browser_missing() -> list[str]:
    """Return the Debian packages of a missing browser."""
    return [package for program, package in BROWSER.items() if shutil.which(program) is None]


@nox.session(python="3.11", default=False)
def browser(session: nox.Session) -> None:
    """Run the tests of the HTML report in real Chromium."""
    if missing := installed(session, browser_missing):
        session.error(f"the report is tested in Chromium; install {' '.join(missing)}")
    session.install("-e", ".[browser,record,stats]", "hypothesis>=6.100", "pytest>=8.2", "pytest-benchmark>=5.0")
    session.run("pytest", "tests/page", *session.posargs, env={"LABELTRACK_REQUIRE_BROWSER": "1"})


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Run doctests and the code of all pages, and build the docs site in build/docs; a warning is an error."""
    session.install("-e", ".[docs,test]")
    session.run("pytest", "tests/test_docs.py", "labeltrack", *session.posargs, env=QUICK)
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "-q", "-c", "docs", ".", "build/docs")


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Measure against the peers, and write the results and the tables of README and docs."""
    session.install("-e", ".[bench]", "torch==2.13.0", "torchmetrics>=1.4")
    session.run("python", "benchmarks/run.py", "--render", *session.posargs)
    session.run("python", "benchmarks/recorded_runs.py", "--render")
    session.run("python", "benchmarks/quantiles.py", "--render")
    session.run("python", "benchmarks/costs.py", "--render")
    session.run("python", "benchmarks/update.py")


@nox.session(default=False)
def compare(session: nox.Session) -> None:
    """Measure another version (a git revision or a folder) beside this one; `nox -s compare -- main~3`."""
    session.install("-e", ".[bench]")
    session.run("python", "benchmarks/compare.py", *session.posargs)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the distributions and check what is in them."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", "dist/labeltrack-*")


if __name__ == "__main__":
    nox.main()
