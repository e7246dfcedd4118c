"""The columns of recorded samples: labels, metrics and ids; their names, and what a part says of them.

Runs of one label, one metric and no ids are written as in version 1 of the format: columns `label` and `value`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from labeltrack.errors import listing
from labeltrack.recording.arrow_ipc import check

if TYPE_CHECKING:
    import numpy as np

    from labeltrack._labels.codes import Vocabulary

LABEL, VALUE, ID = "label", "value", "id"
ABOUT = ("mode", "ds_id", "step", "session", "rank", "attempt")  # columns of tables that say where samples are from
MOST_COLUMNS = 31  # labels and metrics; readers accept as many, and ids
LONGEST_COLUMN = 1000  # characters of a name
_TAKEN = (ID, *ABOUT, "epoch")  # `epoch` is a folder

OnDuplicate = Literal["first", "count", "error"]
ON_DUPLICATE = (*get_args(OnDuplicate), None)


class Ids(NamedTuple):
    """What the ids of samples are."""

    kind: str  # "integer", "string" or "bytes"
    words: Vocabulary | None = None  # what they are codes of; None for integers


class Columns(NamedTuple):
    """The columns of samples, in their order: labels, values, ids."""

    labels: tuple[str, ...] = (LABEL,)
    values: tuple[str, ...] = (VALUE,)
    ids: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return (*self.labels, *self.values, *((ID,) if self.ids else ()))


def columns_of(names: Sequence[str], metrics: Sequence[str], *, ids: bool = False) -> Columns:
    """Return the columns of samples: one label has no name, and one metric or none is the column `value`."""
    return Columns(tuple(names) or (LABEL,), tuple(metrics) if len(metrics) > 1 else (VALUE,), ids)


def check_columns(names: Sequence[str], metrics: Sequence[str]) -> None:
    """Raise a ValueError if names of labels or metrics cannot be names of columns; see `columns_of`."""
    if not names and len(metrics) < 2:
        return
    columns = columns_of(names, metrics)
    for what, some, other in (("label", names, columns.values), ("metric", metrics, columns.labels)):
        for name in some if what == "label" or len(metrics) > 1 else ():
            if name in _TAKEN or name in other:
                taken = listing(dict.fromkeys((*_TAKEN, *other)), 20)
                msg = (
                    f"samples of a {what} called {name!r} cannot be recorded, as a recorded run has another column of "
                    f"that name (these are {taken}); rename the {what}"
                )
                raise ValueError(msg)
            if not name or len(name) > LONGEST_COLUMN or any("\ud800" <= char <= "\udfff" for char in name):
                msg = (
                    f"samples of a {what} called {name[:40]!r} cannot be recorded: the name of a column has 1 to "
                    f"{LONGEST_COLUMN} characters, without halves of surrogate pairs; rename the {what}"
                )
                raise ValueError(msg)
        if len(set(some)) < len(some):
            msg = f"{what}s to record must have different names, got {listing(some)}"
            raise ValueError(msg)
    if len(names) + len(metrics) > MOST_COLUMNS:
        msg = f"a run can have {MOST_COLUMNS} labels and metrics together, got {len(names)} and {len(metrics)}"
        raise ValueError(msg)


# -- what a part says of its columns ------------------------------------------------------------------------


class Coded(NamedTuple):
    """What the numbers in a column of labels or ids are: of which kind, and codes of which vocabulary."""

    kind: str
    words: str = ""  # number of the vocabulary; empty if they are no codes


def said_of(columns: Columns, labels: Sequence[Coded], ids: Coded | None) -> dict[str, str]:
    """Return what the metadata of a part says of its columns."""
    said = {"kind": ",".join(label.kind for label in labels), "words": ",".join(label.words for label in labels)}
    if columns.labels != (LABEL,):
        said["labels"] = str(len(columns.labels))
    if columns.values != (VALUE,):
        said["metrics"] = str(len(columns.values))
    if ids is not None:
        said |= {"ids": ids.kind, "id_words": ids.words}
    return said


def read_columns(dtypes: Mapping[str, np.dtype[Any]], metadata: Mapping[str, str]) -> Columns:
    """Return the columns of a part; DamagedRunError if they are not what its metadata says."""
    names, ids = tuple(dtypes), "ids" in metadata
    counts = [metadata.get(key, "1") for key in ("labels", "metrics")]
    labels, metrics = (int(text) if text.isdecimal() and text.isascii() else 0 for text in counts)
    columns = Columns(names[:labels], names[labels : labels + metrics], ids)
    plain = [("labels", columns.labels, LABEL), ("metrics", columns.values, VALUE)]
    good = (
        labels > 0
        and metrics > 0
        and len(names) == labels + metrics + ids
        and all(key in metadata or found == (name,) for key, found, name in plain)
        and all(dtypes[name].kind == "f" for name in columns.values)
        and (not ids or (names[-1] == ID and dtypes[ID] == "i8"))
    )
    check(good, f"columns {', '.join(names)}")
    return columns


def read_coded(columns: Columns, metadata: Mapping[str, str]) -> tuple[list[Coded], Coded | None]:
    """Return what labels and ids are according to the metadata of a part; empty if it does not say."""
    kinds, words = (metadata.get(key, "").split(",") for key in ("kind", "words"))
    if not len(kinds) == len(words) == len(columns.labels):
        return [], None
    ids = Coded(metadata.get("ids", ""), metadata.get("id_words", "")) if columns.ids else None
    return [Coded(*pair) for pair in zip(kinds, words, strict=True)], ids
