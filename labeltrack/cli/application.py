"""The command-line application, and how mistakes are reported.

A command reports a mistake of the user through `fail` or `told`: one line on stderr that says what to do, and exit
code 2. Anything else that is raised is a bug, and shows as a traceback.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

import typer
from typer.core import TyperGroup

from labeltrack.errors import LabelTrackWarning

if TYPE_CHECKING:
    from labeltrack.recording.run import Run

# What reading and computing raises where the user has to do something.
MISTAKES = (ValueError, OSError, KeyError, TypeError, ImportError)
_USER_ERROR = 2
# The base of all mistakes in options and arguments. Where it lives depends on the version of typer: later ones bring
# their own copy of click. What it is a base of does not.
_UsageError: Any = typer.BadParameter.__bases__[0]


class _Commands(TyperGroup):
    """The commands; a mistake in options and arguments is one line, like every other mistake."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command, and leave with its exit code unless ``standalone_mode=False`` is given."""
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except _UsageError as error:
            where = "labeltrack" if error.ctx is None else error.ctx.command_path
            tell(f"{error.format_message().removesuffix('.')}; see '{where} --help'")
            code = _USER_ERROR
        except typer.Abort:
            tell("interrupted")
            code = 130
        sys.exit(code or 0)


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def fail(message: object) -> NoReturn:
    """Report in one line on stderr what is wrong and what to do, and exit with code 2."""
    tell(message)
    raise typer.Exit(_USER_ERROR)


@contextmanager
def told(*kinds: type[Exception]) -> Iterator[None]:
    """Within the block, exceptions of some kinds are mistakes of the user: their message is reported as by `fail`."""
    try:
        yield
    except kinds as error:
        # A KeyError shows its message in quotes, as if it were the key.
        fail(error.args[0] if isinstance(error, KeyError) and error.args else error)


def tell(message: object, what: str = "error") -> None:
    """Write one line on stderr."""
    typer.echo(f"labeltrack: {what}: {' '.join(str(message).split())}", err=True)


@contextmanager
def warned() -> Iterator[None]:
    """Within the block, warnings of labeltrack are for the user: a line each on stderr, when it is over."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LabelTrackWarning)
        yield
    for one in caught:
        if issubclass(one.category, LabelTrackWarning):
            tell(one.message, "warning")
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def add_command(command: Callable[..., None]) -> None:
    """Add a command, whose docstring is its help; where a parameter is a dataclass, each field of that is an option."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared: dict[str, Any] = {}
    hints, parameters = get_type_hints(command, include_extras=True), []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint):
            shared[parameter.name], types = hint, get_type_hints(hint, include_extras=True)
            parameters += [
                inspect.Parameter(field.name, keyword, default=field.default, annotation=types[field.name])
                for field in fields(hint)
            ]
        else:
            parameters.append(parameter.replace(kind=keyword, annotation=hint))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, made in shared.items():
            given[name] = made(**{field.name: given.pop(field.name) for field in fields(made)})
        command(**given)

    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.command()(run)


def open_recorded(path: str) -> Run:
    """Open a recorded run."""
    from labeltrack.recording.run import open_run  # noqa: PLC0415

    with told(*MISTAKES):
        return open_run(path)
