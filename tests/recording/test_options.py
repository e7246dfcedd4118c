"""Where and how a tracker records: options, their limits, and what launchers say."""

from __future__ import annotations

import pytest

import labeltrack as lt


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"path": 3}, TypeError, "a folder, given as a string or path, got int"),
        ({"path": b"x"}, TypeError, "got bytes"),
        ({"path": "s3://bucket/run"}, ValueError, "a folder of this machine"),
        ({"fsync": "always"}, ValueError, "'never', 'epoch', 'flush'"),
        ({"durable": "always"}, ValueError, "'later', 'epoch'"),
        ({"launch": 3}, TypeError, "launch must be a string, got int 3"),
        ({"flush_rows": 100}, ValueError, "from 1024 to 1048576, got 100"),
        ({"flush_rows": 1e5}, ValueError, "flush_rows must be an integer"),
        ({"flush_rows": True}, ValueError, "flush_rows must be an integer"),
        ({"world_size": 0}, ValueError, "world_size must be an integer"),
        ({"rank": 2, "world_size": 2}, ValueError, "rank must be an integer from 0 to 1, got 2"),
    ],
)
def test_a_wrong_option_is_explained(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        lt.RecordingOptions(**{"path": tmp_path, **options})


def test_rank_and_world_size_come_from_the_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (lt.RecordingOptions(tmp_path).rank, lt.RecordingOptions(tmp_path).world_size) == (3, 8)
    assert (
        lt.RecordingOptions(tmp_path, rank=0, world_size=1).rank,
        lt.RecordingOptions(tmp_path, rank=0).world_size,
    ) == (0, 8)


@pytest.mark.parametrize(
    ("said", "same", "other"),
    [
        ({"TORCHELASTIC_RUN_ID": "a", "MASTER_PORT": "1"}, {"MASTER_PORT": "2"}, {"TORCHELASTIC_RUN_ID": "b"}),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1", "SLURM_JOB_ID": "5"}, {"SLURM_JOB_ID": "6"}, {"MASTER_PORT": "2"}),
        ({"SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0"}, {"RANK": "0"}, {"SLURM_STEP_ID": "1"}),
        ({"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "a"}, {"SLURM_JOB_ID": "6"}, {"MASTER_ADDR": "b"}),
    ],
)
def test_launchers_say_which_launch_it_is(tmp_path, monkeypatch, said, same, other):
    for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert lt.RecordingOptions(tmp_path).launch == ""
    launches = []
    for more in ({}, same, other):
        for name, text in (said | more).items():
            monkeypatch.setenv(name, text)
        launches.append(lt.RecordingOptions(tmp_path).launch)
    assert launches[0] == launches[1] != launches[2]
    assert lt.RecordingOptions(tmp_path, launch="mine").launch == "mine"
