"""Which epochs are read: those that ended, unless asked otherwise; what is left out is said and counted."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from test_cli import invoke

import labeltrack as lt

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra 'record')")


def train(path, epochs, *, unfinished=None, start=0):
    """Record epochs of 100 samples, whose values say which session and epoch they are of."""
    with lt.LabelTracker("y", "ce", record_to=path) as tracker:
        for step in epochs:
            tracker.update(np.arange(100) % 3, np.full(100, start + step, np.float32))
            tracker.end_epoch(step, replace=True)
        if unfinished:
            tracker.update(np.zeros(unfinished, np.int64), np.ones(unfinished, np.float32))


def without_last(journal, event):
    """Take the last line of some event out of a journal, as if it had been cut before that."""
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"event": "%s"' % event.encode() in line)
    journal.write_bytes(b"".join(lines[:last]))


def said_by(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    return result, [str(one.message) for one in caught]


@pytest.fixture(name="unfinished")
def _unfinished(tmp_path):
    train(tmp_path / "run", [1, 2], unfinished=40)
    return tmp_path / "run"


def test_samples_of_an_epoch_that_did_not_end_are_left_out_with_a_warning_unless_asked_for(unfinished):
    run = lt.open_run(unfinished)
    table, said = said_by(run.samples)
    assert table.num_rows == 200
    assert len(said) == 1
    assert "did not end" in said[0]
    assert "'train 3'; incomplete=True" in said[0]
    assert run.samples(step=[1, 2]).num_rows == 200  # nothing is left out, and nothing is said
    table, said = said_by(lambda: run.samples(step=3))
    assert (table.num_rows, len(said)) == (0, 1)
    assert run.samples(incomplete=True).num_rows == 240
    assert run.samples(step=3, incomplete=True).num_rows == 40
    assert run.samples(all_attempts=True).num_rows == 240


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_export_has_the_epochs_that_a_recomputation_has(unfinished, tmp_path, ending):
    run = lt.open_run(unfinished)
    out = tmp_path / f"samples.{ending}"
    with pytest.warns(lt.LabelTrackWarning, match="'train 3'; incomplete=True"):
        assert run.export(out, progress=False) == 200
    assert run.export(out, incomplete=True, progress=False) == 240
    with pytest.warns(lt.LabelTrackWarning, match="'train 3'"):
        assert sum(stats.count.sum() for _, stats in run.recompute(progress=False).items()) == 200


def test_the_command_exports_unfinished_epochs_when_asked(unfinished, tmp_path):
    out = tmp_path / "samples.parquet"
    result = invoke("export", unfinished, "-o", out)
    assert result.stdout == f"200 samples written to {out}\n"
    assert "'train 3'; incomplete=True (--incomplete)" in result.stderr
    result = invoke("export", unfinished, "-o", out, "--incomplete")
    assert (result.stdout, result.stderr) == (f"240 samples written to {out}\n", "")
    assert pq.read_table(out)["step"].to_pylist()[-40:] == [3] * 40


def test_epochs_of_which_samples_were_lost_are_left_out_of_samples_as_of_recomputations(tmp_path):
    state = lt.LabelTracker("y", "ce", max_buffer_bytes=2000)
    state.update(np.arange(500) % 3, np.ones(500, np.float32))  # more than is kept: some exist as statistics only
    tracker = lt.LabelTracker("y", "ce", record_to=tmp_path / "run")
    with pytest.warns(lt.LabelTrackWarning, match="statistics only"):
        tracker.load_state_dict(state.state_dict())
        tracker.update([1], [1.0])
        tracker.flush()
        tracker.end_epoch(1)
    tracker.close()
    run = lt.open_run(tmp_path / "run")
    assert run.epochs[0].lost > 0
    for read in (run.samples, lambda: run.recompute(progress=False)):
        result, said = said_by(read)
        assert len(result) == 0
        assert "samples could not be recorded, are left out: 'train 1'" in said[0]


@pytest.mark.parametrize("how", ["cut", "flipped", "deleted"])
def test_an_older_attempt_that_is_used_for_lack_of_a_journal_is_told_with_the_rows_left_out(tmp_path, how):
    path = tmp_path / "run"
    train(path, [1, 2], start=0)
    train(path, [2], start=100)
    journal = path / "journal-0002-0000.log"
    if how == "cut":
        without_last(journal, "epoch")
    elif how == "flipped":
        content = journal.read_bytes()
        place = content.rindex(b'"event": "epoch"')
        journal.write_bytes(content[:place] + b"'" + content[place + 1 :])
    else:
        journal.unlink()
    run = lt.open_run(path)
    for read in (lambda: run.samples(step=2)["value"], lambda: run.recompute(progress=False).at(2).mean):
        values, said = said_by(read)
        assert {float(value) for value in np.asarray(values)} == {2.0}  # those of the older attempt
        assert len(said) == 1
        assert "100 rows are left out" in said[0]
        assert "mode 'train', step 2, session 2, process 0: no journal says that it ended (100 rows)" in said[0]
    everything, said = said_by(lambda: run.samples(step=2, all_attempts=True))
    assert everything["value"].to_pylist() == [2.0] * 100 + [102.0] * 100
    assert "no journal says" not in "".join(said)


def test_an_epoch_that_was_done_again_and_torn_is_no_damage(tmp_path):
    path = tmp_path / "run"
    train(path, [1, 2])
    train(path, [1], unfinished=30)  # stopped in epoch 2, of which the older attempt counts
    run = lt.open_run(path)
    assert run.samples().num_rows == 200
    assert run.recompute(progress=False).steps() == [1, 2]


@pytest.mark.parametrize(
    "steps",
    [
        [1_764_378_000_123_456_789, 1_764_378_001_123_456_789],  # time.time_ns()
        [2**63 - 2, 2**63 - 1],
        [-(2**63), -(2**63) + 1, 0],
    ],
)
def test_every_step_that_a_tracker_accepts_is_recorded_and_read(tmp_path, steps):
    path = tmp_path / "run"
    with lt.LabelTracker("y", "ce", record_to=path) as tracker:
        for step in steps:
            tracker.update([1, 2], [1.0, 2.0])
            tracker.flush()  # the part is begun where the next step is expected
            tracker.end_epoch(step)
        tracker.update([1, 2], [1.0, 2.0])
    run = lt.open_run(path)
    assert run.recompute(progress=False, incomplete=True).steps()[: len(steps)] == tracker.history.steps()
    for step in steps:
        table = run.samples(step=step, columns=["step", "value"])
        assert table.to_pydict() == {"step": [step] * 2, "value": [1.0, 2.0]}
    verification = run.verify(progress=False)
    assert all(part.state == "intact" for part in verification.parts)


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, 10**30])
def test_a_step_that_no_table_holds_is_refused_when_the_epoch_ends(tmp_path, step):
    with lt.LabelTracker("y", "ce", record_to=tmp_path / "run") as tracker:
        tracker.update([1, 2], [1.0, 2.0])
        with pytest.raises(ValueError, match=r"step must be from -2\*\*63 to 2\*\*63 - 1"):
            tracker.end_epoch(step)
        assert tracker.end_epoch(1).count.tolist() == [1, 1]
    assert lt.open_run(tmp_path / "run").samples().num_rows == 2
