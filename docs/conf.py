"""The docs site: ``nox -s docs``, or ``sphinx-build -W --keep-going -c docs . build/docs``.

The source folder is the repository, so that links from page to page are the same here and on a Git host. Before the
pages are read, the code of the gallery is run, and the pages of commands and integrations are written; all of that goes
into ``docs/_generated``, which is not committed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import typer
from sphinx.domains.python import PyObject
from sphinx.util import inspect
from typer.cli import get_docs_for_click

import labeltrack
from labeltrack.cli import app as commands

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "docs" / "_generated"
FILES = GENERATED / "files"  # copied to the site as they are
FILES.mkdir(parents=True, exist_ok=True)

project = "labeltrack"
author = "The labeltrack authors"
version = release = labeltrack.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "benchmarks/*.md", "benchmarks/results/*.md"]
exclude_patterns = [".*", "build", "dist", "docs/_generated/commands.md", "docs/_generated/files/**"]
default_role = "py:obj"  # a name in backquotes is a link where it is a public name, and code elsewhere

smartquotes_action = "De"  # quotes are code more often than not
myst_heading_anchors = 4

autodoc_mock_imports = ["fastestimator", "ignite", "keras", "lightning", "torch", "transformers"]
decorators = ModuleType("fastestimator.util.traceability_util")
decorators.traceable = lambda: lambda decorated: decorated  # a mock would hide the class
sys.modules[decorators.__name__] = decorators
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
attributes = next(kind for kind in PyObject.doc_field_types if kind.name == "variable")
attributes.label = "Attributes"
attributes.rolename = ""  # names are no links: several classes have attributes of the same name

html_theme = "furo"
html_title = f"labeltrack {release}"
html_additional_pages = {"index": "redirect.html"}
html_extra_path = ["_generated/files"]
templates_path = ["_templates"]
html_copy_source = False
html_show_copyright = False


def run_page(page: Path, folder: Path) -> None:
    """Run the code of a page from top to bottom in a folder."""
    names: dict[str, Any] = {}
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("error")
        for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            exec(compile(code, str(page), "exec"), names)  # noqa: S102 (it is our own page)


def write_commands(path: Path) -> None:
    """Write what ``--help`` says of every command."""
    command = typer.main.get_command(commands)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="labeltrack"), name="labeltrack")
    text = text[text.index("## ") :]  # the page has a title and an overview of its own
    text = re.sub(r"`[^`]*`|(--[\w-]+)", lambda found: f"`{found[1]}`" if found[1] else found[0], text)
    path.write_text(text, encoding="utf-8")


def write_integrations(path: Path) -> None:
    """Write the page of all modules in ``labeltrack.integrations``."""
    lines = ["# Integrations", ""]
    for module in sorted((ROOT / "labeltrack" / "integrations").glob("[!_]*.py")):
        name = f"labeltrack.integrations.{module.stem}"
        lines += [f"## {module.stem}", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def generate(_: Sphinx) -> None:
    """Write everything that pages show and the repository does not have."""
    shutil.rmtree(GENERATED)
    FILES.mkdir(parents=True)
    run_page(ROOT / "docs" / "gallery.md", GENERATED)
    for page in GENERATED.glob("*.html"):
        page.rename(FILES / page.name)
    write_commands(GENERATED / "commands.md")
    write_integrations(GENERATED / "integrations.md")


def signature_of_init(_: Sphinx, what: str, __: str, thing: Any, *_rest: Any) -> tuple[str, str] | None:
    """Return the signature of a class that has a mocked base, which would hide it."""
    if what != "class" or not any(base.__module__.partition(".")[0] in autodoc_mock_imports for base in thing.__mro__):
        return None
    return inspect.stringify_signature(
        inspect.signature(thing.__init__, bound_method=True), show_return_annotation=False
    ), ""


def setup(app: Sphinx) -> None:
    """Connect what is done before pages are read, and to signatures."""
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-signature", signature_of_init)
