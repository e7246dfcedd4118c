"""What was tracked: `run.json`, its version of the format, and the columns of samples: labels, metrics and ids.

Runs of one label, one metric and no ids are written as in version 1 of the format: columns `label` and `value`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from labeltrack._labels.codes import read_mapping
from labeltrack._labels.missing import check_missing
from labeltrack._nan_policy import check_nan_policy
from labeltrack._tables import whole_file
from labeltrack.bounds import resolve_all
from labeltrack.errors import DamagedRunError, check_option, listing
from labeltrack.recording.arrow_ipc import check
from labeltrack.recording.journal import as_json, checksum
from labeltrack.recording.storage import rename, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from labeltrack._labels.codes import Vocabulary
    from labeltrack.bounds import BoundName
    from labeltrack.recording.storage import Storage

DESCRIPTION = "run.json"
LARGEST_DESCRIPTION = 16 * 2**20  # bytes; a mapping of 100 000 labels takes 3 MB
FORMAT, VERSION = "labeltrack run", 2
_LATER = ("ids", "duplicates")  # since version 2
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


@dataclass(frozen=True)
class Description:
    """The content of `run.json`; ValueError if names of labels or metrics cannot be names of columns."""

    metric: str | tuple[str, ...]  # its name; those of several
    label: str | tuple[str, ...]  # its name; those of several labels per sample
    label_mapping: Mapping[str, Any] | None = None  # of several labels, a mapping or None for each, by its name
    bounds: tuple[BoundName, ...] = ("std",)
    nan_policy: str = "propagate"
    dtypes: tuple[tuple[str, ...], ...] = ()  # of the columns of samples that were recorded
    labeltrack: str = ""  # version that began the run
    created: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
    missing: str | Mapping[str, str] = "error"  # of several labels, one for each by its name, unless all are the same
    id: str = ""  # random, the same in all files of the run; empty in runs of early versions
    ids: bool = False  # whether samples have ids
    duplicates: str = "first"  # which samples of one id count in an epoch and dataset: "first", or "count" for all

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) and len(self.metric) == 1:
            object.__setattr__(self, "metric", self.metric[0])
        if isinstance(self.missing, Mapping) and len(set(self.missing.values())) == 1:
            object.__setattr__(self, "missing", next(iter(self.missing.values())))
        if self.names and self.label_mapping is not None:
            each = {name: self.label_mapping.get(name) for name in self.names}
            object.__setattr__(self, "label_mapping", each if any(each.values()) else None)
        check_columns(self.names, self.metrics)
        check_option("duplicates", self.duplicates, ("first", "count"))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of several labels per sample; empty for one."""
        return () if isinstance(self.label, str) else tuple(self.label)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return (self.metric,) if isinstance(self.metric, str) else tuple(self.metric)

    @property
    def columns(self) -> Columns:
        """The columns of samples."""
        return columns_of(self.names, self.metrics, ids=self.ids)

    @property
    def missing_of_each(self) -> tuple[str, ...]:
        """What samples without a label did, for each label."""
        names = self.names or (str(self.label),)
        return tuple(self.missing if isinstance(self.missing, str) else self.missing[name] for name in names)

    @property
    def version(self) -> int:
        """The version of the format: 2 for several labels or metrics, or samples that have ids, else 1."""
        return 2 if self.ids or self.names or len(self.metrics) > 1 else 1

    def plain(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        said = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        later = {name: said.pop(name) for name in _LATER}
        if self.label_mapping is not None and self.names:
            said["label_mapping"] = [_mapping_to_json(self.label_mapping[name]) for name in self.names]
        else:
            said["label_mapping"] = _mapping_to_json(self.label_mapping)
        if isinstance(self.missing, Mapping):
            said["missing"] = [self.missing[name] for name in self.names]
        return {"format": FORMAT, "version": self.version, **said, **(later if self.version > 1 else {})}

    @classmethod
    def from_plain(cls, plain: Any) -> Description:
        """Return what `plain` was called on; ValueError if that is none, is damaged or of a later version."""
        if not isinstance(plain, dict) or plain.get("format") != FORMAT:
            msg = "it is no description of a recorded run"
            raise ValueError(msg)
        version = plain.get("version")
        if not isinstance(version, int) or version > VERSION:
            msg = (
                f"it is of version {version!r} of the format, this labeltrack reads up to {VERSION}; update labeltrack"
            )
            raise ValueError(msg)
        try:
            return cls._checked(plain, several=version > 1)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            msg = f"it is damaged: {error}"
            raise DamagedRunError(msg) from None

    @classmethod
    def _checked(cls, plain: dict[str, Any], *, several: bool) -> Description:
        said = {"id": "", "missing": "error", **plain}  # early versions did not write these
        names: dict[str, Any] = {key: _names(said[key], key, several=several) for key in ("metric", "label")}
        names |= {key: _names(said[key], key, several=False) for key in ("labeltrack", "created", "id")}
        labels, mapping, missing = names["label"], said["label_mapping"], said["missing"]
        if isinstance(labels, str):
            mapping = _mapping_from_json(mapping)
        elif mapping is not None:
            mapping = {name: _mapping_from_json(one) for name, one in zip(labels, mapping, strict=True)}
        if isinstance(labels, str) or isinstance(missing, str):
            missing = check_missing(missing)
        else:
            missing = {name: check_missing(one) for name, one in zip(labels, missing, strict=True)}
        rest: dict[str, Any] = {"ids": bool(said["ids"]), "duplicates": said["duplicates"]} if several else {}
        return cls(
            label_mapping=mapping,
            bounds=tuple(bound.name for bound in resolve_all(said["bounds"])),
            dtypes=_dtypes(said["dtypes"], several=several),
            nan_policy=check_nan_policy(said["nan_policy"]),
            missing=missing,
            **names,
            **rest,
        )

    def write(self, folder: Path, *, replace: bool = True) -> None:
        """Write it so that a crash leaves the old or the new file; FileExistsError if one was not to be replaced."""
        plain = self.plain()
        path = folder / DESCRIPTION
        fresh = path if replace else path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        with whole_file(fresh) as half:
            half.write_bytes(as_json({**plain, "xxh3": checksum(as_json(plain, sort_keys=True))}, indent=1) + b"\n")
        if not replace:
            try:
                rename(fresh, path)
            except OSError:
                fresh.unlink()
                raise
        sync_folder(folder)

    @classmethod
    def read(cls, storage: Storage) -> Description:
        """Return the description of a run; FileNotFoundError if there is none, and errors as in `from_plain`."""
        where = f"{storage.root}/{DESCRIPTION}"
        try:
            with storage.open(DESCRIPTION) as file:
                raw = file.read(LARGEST_DESCRIPTION + 1)
        except FileNotFoundError:
            msg = f"no recorded run in {storage.root}: it has no {DESCRIPTION}"
            raise FileNotFoundError(msg) from None
        if len(raw) > LARGEST_DESCRIPTION:
            msg = f"{where} has more than the {LARGEST_DESCRIPTION} bytes there may be"
            raise DamagedRunError(msg)
        try:
            plain = json.loads(raw.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            msg = f"{where} is damaged: it is not JSON"
            raise DamagedRunError(msg) from None
        said = plain.pop("xxh3", None) if isinstance(plain, dict) else None
        try:
            description = cls.from_plain(plain)
        except ValueError as error:
            msg = f"{where}: {error}"
            raise type(error)(msg) from None
        if said != checksum(as_json(plain, sort_keys=True)):
            msg = f"{where} is damaged: its checksum does not agree"
            raise DamagedRunError(msg)
        return description


def _names(said: Any, what: str, *, several: bool) -> str | tuple[str, ...]:
    """Return a name, or several; TypeError if it is something else."""
    if isinstance(said, str):
        return said
    if not several or not isinstance(said, list) or not said or not all(isinstance(name, str) for name in said):
        msg = f"{what} must be a string, not {type(said).__name__}"
        raise TypeError(msg)
    return tuple(said)


def _dtypes(said: Any, *, several: bool) -> tuple[tuple[str, ...], ...]:
    found = tuple(tuple(map(str, types)) for types in said)
    if not all(len(types) == 2 or (several and len(types) > 2) for types in found):
        msg = "dtypes must have a type for each column"
        raise ValueError(msg)
    return found


def _mapping_to_json(mapping: Mapping[str, Any] | None) -> Any:
    if mapping is None:
        return None
    plain = {name: label.item() if hasattr(label, "item") else label for name, label in mapping.items()}
    return [[name, {"bytes": label.hex()} if isinstance(label, bytes) else label] for name, label in plain.items()]


def _mapping_from_json(said: Any) -> dict[str, Any] | None:
    if said is None:
        return None
    mapping = {name: bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value for name, value in said}
    read_mapping(mapping)
    if len(mapping) < len(said):
        msg = "label_mapping has a name twice"
        raise ValueError(msg)
    return mapping


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
