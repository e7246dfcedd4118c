"""Which epochs and parts a question to a run is about, and what has to be said about those that are left out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from labeltrack._filters import Selection
from labeltrack.errors import LabelTrackWarning, listing, missing_key
from labeltrack.history import check_step
from labeltrack.recording.content import EXHAUSTED
from labeltrack.recording.index import describe, superseded
from labeltrack.recording.part import examine
from labeltrack.recording.reader import sources_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labeltrack.recording.arrow_ipc import Batch
    from labeltrack.recording.index import Attempt, Catalog, Epoch
    from labeltrack.recording.reader import Found, Source
    from labeltrack.recording.storage import Storage

Part = tuple["Attempt", str, "Source"]


def epochs_of(catalog: Catalog, modes: Any, what: str, *, incomplete: bool) -> tuple[list[Epoch], list[Epoch]]:
    """Return the epochs of a choice of modes, and those that are left out for being incomplete.

    Args:
        catalog: What there is.
        modes: A name, several, ``"!name"``, or None for all.
        what: Name of the argument, for error messages.
        incomplete: Whether incomplete epochs are taken, too.

    Raises:
        KeyError: There is no such mode.
    """
    modes = _several(modes)
    selection = Selection(modes, what)
    known = {epoch.mode for epoch in catalog.epochs}
    for mode in [] if modes is None else [modes] if isinstance(modes, str) else modes:
        if not mode.startswith("!") and mode not in known:
            raise missing_key(mode, sorted(known), "recorded mode")
    chosen = [epoch for epoch in catalog.epochs if epoch.mode in selection]
    return (
        [epoch for epoch in chosen if epoch.complete or incomplete],
        [epoch for epoch in chosen if not epoch.complete and not incomplete and epoch.attempts],
    )


def parts_of(
    catalog: Catalog, mode: Any, ds_id: Any, epoch: Any, *, incomplete: bool, all_attempts: bool
) -> tuple[list[Part], list[Epoch], list[Epoch]]:
    """Return the parts of a choice, each with its attempt and dataset; the epochs they are of, and those left out.

    Raises:
        KeyError: There is no such mode or epoch.
        TypeError: An epoch is no integer.
    """
    steps = None if epoch is None else {check_step(e) for e in (epoch if isinstance(epoch, Iterable) else [epoch])}
    ds_ids = Selection(_several(ds_id), "ds_id")
    taken, passed = epochs_of(catalog, mode, "mode", incomplete=incomplete or all_attempts)
    known = {one.step for one in (*taken, *passed)}
    if steps is not None:
        missing = steps - known
        if missing:
            raise missing_key(min(missing), sorted(known), "recorded epoch")
        taken, passed = ([one for one in some if one.step in steps] for some in (taken, passed))
    chosen = []
    for one in taken:
        for attempt in (*one.attempts, *one.others) if all_attempts else one.attempts:
            for segment, source in zip(attempt.segments, sources_of(catalog, attempt), strict=True):
                if segment.ds_id in ds_ids:
                    chosen.append((attempt, segment.ds_id, source))
    return chosen, taken, passed


def _several(names: Any) -> Any:
    """Return names that can be gone through twice."""
    return names if names is None or isinstance(names, str) or not isinstance(names, Iterable) else list(names)


def unsaid(storage: Storage, epoch: Epoch, attempts: Sequence[Attempt]) -> list[tuple[Attempt, int]]:
    """Return which of some attempts ended by what their files say, but not by a journal, each with its rows.

    The last batch of an attempt says that the epoch has ended, and then the journal does: if that lacks it, it was
    damaged or cut, and an older attempt counts in place of this one, or none.
    """
    counting = {(one.session, one.rank): one.number for one in epoch.attempts if one.complete}
    since = max((session for session, _ in counting), default=0)
    found = []
    for attempt in attempts:
        older = attempt.session < since or attempt.number < counting.get((attempt.session, attempt.rank), 0)
        if attempt.complete or attempt.dropped or older:
            continue
        names = [segment.name for segment in attempt.segments if segment.place is not None]
        batches = [batch for name in names for batch in _batches(storage, name)]
        if any("step" in batch.metadata for batch in batches):
            found.append((attempt, sum(batch.rows for batch in batches)))
    return found


def _batches(storage: Storage, name: str) -> list[Batch]:
    """Return the batches of a part, their columns unchecked; none if it cannot be read, which reading it tells of."""
    try:
        return examine(name, storage.content(name), check=False).batches
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return []


def warn_damaged(
    root: str, found: Sequence[Found], damage: Sequence[str], passed: Sequence[tuple[Attempt, int]] = ()
) -> None:
    """Warn about parts that are not intact, and what is passed over for lack of a journal, in one warning."""
    bad = [one for one in found if one.message and (one.lost or not one.torn)]
    if not (bad or damage or passed):
        return
    lost = sum(one.lost for one in bad) + sum(rows for _, rows in passed)
    texts = [f"{one.name}: {one.message} ({one.lost} rows lost, {one.rows} intact)" for one in bad]
    texts += [f"{describe(one)}: no journal says that it ended ({rows} rows)" for one, rows in passed]
    msg = f"{root} is damaged; {lost} rows are left out: {listing([*damage, *texts], 3)}. See run.verify()"
    warnings.warn(msg, LabelTrackWarning, stacklevel=3)


def warn_passed(taken: Sequence[Epoch], passed: Sequence[Epoch]) -> None:
    """Warn about epochs that are left out for being incomplete, and those of which an older launch counts."""
    older = [superseded(epoch) for epoch in taken if epoch.newer]
    if older:
        more = f", and {len(older) - 3} more epochs" if len(older) > 3 else ""
        warnings.warn(", ".join(older[:3]) + more, LabelTrackWarning, stacklevel=3)
    if passed:
        names = listing([f"{epoch.mode} {epoch.step}" for epoch in passed], 5)
        absent = "".join(f"; {text}" for text in sorted({epoch.absent for epoch in passed} - {""}))
        msg = (
            f"left out, because it did not end or samples could not be recorded: {names}; "
            f"with incomplete=True (--incomplete), what there is of it is taken{absent}"
        )
        warnings.warn(msg, LabelTrackWarning, stacklevel=3)
