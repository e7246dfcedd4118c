"""`run.json`: what was tracked, and in which version of the format."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labeltrack._labels.codes import LabelMapping
from labeltrack._labels.missing import check_missing
from labeltrack._nan_policy import check_nan_policy
from labeltrack._tables import whole_file
from labeltrack.bounds import resolve_all
from labeltrack.errors import DamagedRunError, listing, need
from labeltrack.recording.journal import as_json
from labeltrack.recording.layout import DESCRIPTION, rename, sync_folder
from labeltrack.recording.schema import Columns, check_columns, columns_of

if TYPE_CHECKING:
    from pathlib import Path

    from labeltrack.bounds import BoundName
    from labeltrack.recording.storage import Storage

FORMAT, VERSION = "labeltrack run", 2
_LATER = ("ids", "duplicates")  # since version 2
_DUPLICATES = ("first", "count")
LARGEST_DESCRIPTION = 16 * 2**20  # bytes; a mapping of 100 000 labels takes 3 MB


@dataclass(frozen=True)
class Description:
    """The content of `run.json`; ValueError if names of labels or metrics cannot be names of columns.

    Version 2 of the format is for runs of several labels or metrics, or of samples that have ids; all others are
    described as in version 1.
    """

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
        if self.duplicates not in _DUPLICATES:
            msg = f"duplicates must be one of {listing(_DUPLICATES)}, got {self.duplicates!r}"
            raise ValueError(msg)

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
        """The version of the format that it takes."""
        return 2 if self.ids or self.names or len(self.metrics) > 1 else 1

    def plain(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        said = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name not in _LATER}
        plain = {
            "format": FORMAT,
            "version": self.version,
            **said,
            "label_mapping": _mapping_to_json(self.label_mapping),
            "bounds": list(self.bounds),
            "dtypes": [list(types) for types in self.dtypes],
        }
        if self.version == 1:
            return plain
        if self.names and self.label_mapping is not None:
            plain["label_mapping"] = [_mapping_to_json(self.label_mapping[name]) for name in self.names]
        if isinstance(self.missing, Mapping):
            plain["missing"] = [self.missing[name] for name in self.names]
        several = {key: list(getattr(self, key)) for key in ("metric", "label") if not isinstance(said[key], str)}
        return {**plain, **several, **{name: getattr(self, name) for name in _LATER}}

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
        texts = {"labeltrack": plain["labeltrack"], "created": plain["created"], "id": plain.get("id", "")}
        names = {key: _names(plain[key], key, several=several) for key in ("metric", "label")}
        for name, text in texts.items():
            _names(text, name, several=False)
        labels = names["label"]
        mapping, missing = plain["label_mapping"], plain.get("missing", "error")  # early versions did not write it
        if isinstance(labels, str):
            mapping = _mapping_from_json(mapping)
        elif mapping is not None:
            mapping = {name: _mapping_from_json(one) for name, one in zip(labels, mapping, strict=True)}
        if isinstance(labels, str) or isinstance(missing, str):
            missing = check_missing(missing)
        else:
            missing = {name: check_missing(one) for name, one in zip(labels, missing, strict=True)}
        return cls(
            label_mapping=mapping,
            bounds=tuple(bound.name for bound in resolve_all(plain["bounds"])),
            dtypes=_dtypes(plain["dtypes"], several=several),
            nan_policy=check_nan_policy(plain["nan_policy"]),
            missing=missing,
            ids=several and bool(plain["ids"]),
            duplicates=plain["duplicates"] if several else "first",
            metric=names["metric"],
            label=labels,
            **texts,
        )

    def write(self, folder: Path, *, replace: bool = True) -> None:
        """Write it so that at any moment, also after a crash, the old or the new file is there.

        FileExistsError if there is one that was not to be replaced.
        """
        plain = self.plain()
        path = folder / DESCRIPTION
        fresh = path if replace else path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        with whole_file(fresh) as half:
            half.write_bytes(as_json({**plain, "xxh3": _checksum(plain)}, indent=1) + b"\n")
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
        if said != _checksum(plain):
            msg = f"{where} is damaged: its checksum does not agree"
            raise DamagedRunError(msg)
        return description


def _checksum(plain: Mapping[str, Any]) -> str:
    text: str = need("xxhash").xxh3_64_hexdigest(as_json(plain, sort_keys=True))
    return text


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
    return None if mapping is None else [[name, _to_json(label)] for name, label in mapping.items()]


def _mapping_from_json(said: Any) -> dict[str, Any] | None:
    if said is None:
        return None
    mapping = {name: bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value for name, value in said}
    LabelMapping(mapping)
    if len(mapping) < len(said):
        msg = "label_mapping has a name twice"
        raise ValueError(msg)
    return mapping


def _to_json(label: Any) -> Any:
    plain = label.item() if hasattr(label, "item") else label
    return {"bytes": plain.hex()} if isinstance(plain, bytes) else plain
