"""`labeltrack.integrations.torch`, in real processes of a gloo group; `torch_ranks.py` has what they do."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
from exact import expected_by_label
from integrations.ranks import SLOWNESS, Ranks

if importlib.util.find_spec("torch") is None and "1" not in map(
    os.environ.get, ("LABELTRACK_REQUIRE_FRAMEWORKS", "LABELTRACK_REQUIRE_INTEGRATIONS")
):
    pytest.skip("torch is not installed (extra 'frameworks')", allow_module_level=True)

import torch
from integrations import torch_ranks
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

import labeltrack as lt
from labeltrack.integrations.torch import gather_state, load_gathered, sync, unpadded


@pytest.fixture(name="ranks", scope="module")
def _ranks():
    ranks = Ranks("torch_ranks")
    yield ranks
    ranks.close()


def hexed(columns):
    """Return what `expected_by_label` returns as the ranks write it."""
    return [[label, *map(float.hex, map(float, values))] for label, values in columns.items()]


# -- one epoch of all ranks ---------------------------------------------------------------------------------


def test_every_rank_has_the_samples_of_all_of_them(ranks, tmp_path):
    found = ranks.answers("different_labels", tmp_path, 3)
    assert found[0] == found[1] == found[2]
    train, plain, evaluation, datasets = ([], []), ([], []), ([], []), {}
    for rank in range(3):
        rng = np.random.default_rng(rank)
        labels = rng.integers(10 * rank, 10 * rank + 15, 500).tolist()
        values = rng.lognormal(0, 9, 500).astype(np.float32 if rank else np.float64)
        of_site = (values / 3).tolist()
        for target, some in (
            (train, values.tolist()),
            (train, of_site),
            (plain, values.tolist()),
            (evaluation, (values / 7).tolist()),
        ):
            target[0].extend(labels)
            target[1].extend(some)
        datasets[f"site {rank}"] = hexed(expected_by_label(labels, of_site))
    datasets[""] = hexed(expected_by_label(*plain))
    assert found[0] == [hexed(expected_by_label(*train)), datasets, hexed(expected_by_label(*evaluation))]


def test_labels_of_all_types_are_synchronised(ranks, tmp_path):
    found = ranks.answers("types_of_labels", tmp_path, 3)
    assert found[0] == found[1] == found[2]
    infinite = found[0].pop("infinite")
    assert found[0] == {
        "words": [["cat", 2, 13.0], ["dog", 1, 2.0], ["dög\udcff", 1, 13.0], ["fox", 1, 11.0]],
        "bytes": [["\\xff", 1, 12.0], ["a", 1, 1.0], ["b", 2, 13.0]],
        "huge": [[str(2**64 - 1), 1, 1.0], ["3", 1, 11.0]],
        "floats": [["0.1", 2, 12.0], ["0.5", 1, 2.0]],
        "missing": [["(missing)", 2, 12.0], ["1", 1, 2.0], ["2", 1, 12.0]],
        "several": [[0, "a", 1, 1.0], [0, "b", 1, 1.0], [0, "c", 1, 1.0], [1, "b", 3, 6.0]],
        "class": hexed(expected_by_label([0, 0, 0, 1, 1, 1], [1.0, 1.0, 1.0, 2.0, 2.0, 2.0])),
    }
    assert infinite[0] == hexed(expected_by_label([0, 0], [1.0, 5.0]))[0]
    assert infinite[1][:3] == [1, (2.0).hex(), "inf"]


def test_a_sample_that_several_ranks_have_counts_once_as_the_lowest_rank_has_it(ranks, tmp_path):
    found = ranks.answers("samples_with_ids", tmp_path, 3)
    assert found[0] == found[1] == found[2]
    first = {}
    for rank in range(3):
        for i in range(50 * rank, 50 * rank + 80):
            first.setdefault(i, rank)
    labels = [i % 3 for i in first]
    values = (np.array([*first]) * 0.1 + np.array([*first.values()])).tolist()
    wanted = {
        "ce": hexed(expected_by_label(labels, values)),
        "rank": hexed(expected_by_label(labels, [*first.values()])),
    }
    assert found[0] == [wanted, wanted]


def test_a_rank_without_samples_takes_part(ranks, tmp_path):
    found = ranks.answers("without_samples", tmp_path, 3)
    assert found[0] == found[1] == found[2]
    assert found[0] == [
        hexed(expected_by_label(["0", "a"], [0.0, 1.5])),
        hexed(expected_by_label(["2", "a"], [0.2, 1.5])),
        [],
        hexed(expected_by_label(["a", "0", "a", "1", "a", "2"], [1.5, 0.0, 1.5, 0.1, 1.5, 0.2])),
        [1, 2, 4],
    ]


def test_quantiles_survive_where_the_samples_fit_in_memory(ranks, tmp_path):
    first, second = ranks.answers("quantiles", tmp_path, 2)
    assert first == second
    values = np.concatenate([np.random.default_rng(rank).normal(size=100 * (rank + 1)) for rank in range(2)])
    whole = hexed(expected_by_label([0] * 300, values.tolist()))
    assert first == [[whole, [np.quantile(values, 0.25)]], [whole, 0]]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system does not tell peaks of memory")
def test_the_memory_that_synchronising_takes_is_bounded(ranks, tmp_path):
    for own, whole, took in ranks.answers("memory", tmp_path, 2):
        assert (own, whole) == (300_000, 600_000)
        assert took <= 7 * 72 * whole + 16 * 2**20


def test_every_rank_records_its_own_samples(ranks, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    first, second = ranks.answers("recorded", tmp_path, 2)
    assert first == second
    run = lt.open_run(tmp_path / "run")
    assert [(epoch.rows, epoch.complete) for epoch in run.epochs] == [(4, True), (2, True)]
    history = run.recompute(progress=False)
    again = {
        str(step): [[row.label, *map(float.hex, map(float, row[2:]))] for row in history.at(step)] for step in (1, 2)
    }
    assert again == first


def test_the_groups_of_accelerators_get_one_on_gloo_beside_them_and_groups_may_be_parts(ranks, tmp_path):
    found = ranks.answers("beside_nccl", tmp_path, 3)
    whole = hexed(expected_by_label([0, 1, 2], [1.0, 1.0, 1.0]))
    for rank, (first, second, made, error, part) in enumerate(found):
        assert first == second == whole
        assert made == ["gloo"]
        assert ("not in the group" in error) == (rank == 1)
        assert part == hexed(expected_by_label(*(([1], [2.0]) if rank == 1 else ([0, 2], [2.0, 2.0]))))


def test_without_a_group_nothing_happens():
    tracker = lt.LabelTracker("y", "ce")
    tracker.update([1], [2.0])
    sync(tracker)
    assert tracker.pending == {("train", ""): 1}
    other = lt.LabelTracker("y", "ce")
    load_gathered(other, gather_state(tracker))
    assert other.state_dict() == tracker.state_dict()


# -- errors -------------------------------------------------------------------------------------------------


def test_an_error_on_one_rank_is_one_on_all(ranks, tmp_path):
    texts = {
        "state": ("ZeroDivisionError: division by zero", "RuntimeError: .*rank 1: ZeroDivisionError: division"),
        "taken": ("ZeroDivisionError: division by zero", "RuntimeError: .*rank 1 could not take what the others"),
        "arguments": ("ValueError: .* differ on rank 1 and rank 0",) * 2,
        "modes": ("ValueError: .* mode or arguments",) * 2,
        "types": ("TypeError: .* integer and string labels",) * 2,
    }
    for rank, answer in enumerate(ranks.answers("errors", tmp_path, 3)):
        assert answer.keys() == texts.keys()
        for case, (text, unchanged) in answer.items():
            own, other = texts[case]
            assert re.match(own if rank == 1 else other, text)
            assert unchanged


def test_errors_in_checkpoints_and_in_what_replaces_samples_are_errors_on_all_ranks(ranks, tmp_path):
    for rank, answer in enumerate(ranks.answers("errors_of_states", tmp_path, 3)):
        others = {"checkpoint": "rank 1 could not take what the others sent", "sums": "rank 1: ZeroDivisionError"}
        for case, other in others.items():
            text, unchanged = answer[case]
            assert ("ZeroDivisionError: division by zero" if rank == 1 else other) in text
            assert unchanged


@pytest.mark.parametrize("case", ["raises", "killed", "late"])
def test_a_rank_that_ends_is_an_error_on_every_other_one(ranks, tmp_path, case):
    timeout = 3 * SLOWNESS
    results = ranks.run("ends", tmp_path, 3, seconds=timeout, CASE=case, LATE=str(timeout + 2))
    for rank in (0, 2):
        assert results[rank].status == 0, results[rank].output
        text, seconds, pending = results[rank].answer
        assert "another process ended, or did not call sync()" in text
        assert seconds < timeout + 2
        assert pending == 300_000


# -- checkpoints --------------------------------------------------------------------------------------------


def test_training_goes_on_with_another_number_of_ranks(ranks, tmp_path, monkeypatch):
    saved = ranks.answers("saves", tmp_path, 3)
    assert all(unchanged for unchanged, _ in saved)
    first, second = ranks.answers("resumes", tmp_path, 2)
    assert first == second
    monkeypatch.chdir(tmp_path)
    labels, values = [0, 5, 1, 5, 2, 5], [0.2, 0.3, 0.2, 1.3, 0.2, 2.3]
    evaluation = hexed(expected_by_label(["a"] * 3, [1.0] * 3))
    for found, more in ((first, [1.0, 2.0]), (torch_ranks.resumes(0, 1), [1.0])):
        train = hexed(expected_by_label([*labels, *[8] * len(more)], [*values, *more]))
        assert found == [saved[0][1], train, evaluation]


def test_a_group_of_some_ranks_saves_and_goes_on_alone(ranks, tmp_path):
    (gathering, loading, alone), *pair = ranks.answers("parts", tmp_path, 3)
    assert "not in the group" in gathering
    assert "not in the group" in loading
    assert alone == hexed(expected_by_label([0], [1.0]))
    both = hexed(expected_by_label([1, 2], [1.0, 1.0]))
    assert pair == [[2, both], [0, both]]  # what both have counted once


def test_a_loop_goes_on_with_more_ranks_or_fewer_within_an_epoch_and_between_epochs(ranks, tmp_path):
    from integrations.trainings import expected

    seen, found = ranks.in_parts(tmp_path)
    assert found == expected(seen)
    assert len(seen) == 2 * 3 * 37


# -- evaluation without padding -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 36, 37, 38, 40])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [True, False])
def test_each_sample_of_a_distributed_sampler_is_there_once(n, ranks, drop_last):
    seen = []
    for rank in range(ranks):
        sampler = DistributedSampler(range(n), num_replicas=ranks, rank=rank, shuffle=True, drop_last=drop_last)
        loader = DataLoader(range(n), batch_size=4, sampler=sampler)
        batches = [batch[:real].tolist() for batch, real in unpadded(loader)]
        sampled = DataLoader(range(n), batch_sampler=BatchSampler(sampler, 4, drop_last=False))
        assert [batch[:real].tolist() for batch, real in unpadded(sampled)] == batches
        seen.extend(chain.from_iterable(batches))
    if drop_last and n >= ranks:
        assert len(set(seen)) == len(seen) == n // ranks * ranks
    elif not drop_last:
        assert sorted(seen) == list(range(n))


class Endless:
    """Batches of a sampler again and again."""

    def __init__(self, sampler):
        self.sampler = self.batch_sampler = sampler

    def __iter__(self):
        while True:
            yield from self.sampler


class Kept(DataLoader):
    """Keeps its workers between epochs, as loaders of timm do."""

    iterable = False

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        object.__setattr__(self, "batch_sampler", Endless(self.batch_sampler))
        self.batches = super().__iter__()

    def __iter__(self):
        return islice(self.batches, len(self.batch_sampler.sampler))


def test_a_loader_may_have_a_batch_sampler_of_its_own_beside_a_distributed_sampler():
    sampler = DistributedSampler(range(37), num_replicas=2, rank=1, shuffle=False)
    loader = Kept(range(37), batch_size=4, sampler=sampler)
    loader.batch_sampler.batch_sampler = loader.batch_sampler
    for _ in range(2):
        assert [real for _, real in unpadded(loader)] == [4, 4, 4, 4, 2]


class Halved(BatchSampler):
    """Batches of half the size."""

    def __iter__(self):
        for batch in super().__iter__():
            yield from filter(None, (batch[::2], batch[1::2]))


@pytest.mark.parametrize("n", [36, 37])
def test_a_batch_sampler_that_may_change_the_order_of_repeated_samples_is_warned_of(n):
    loader = DataLoader(range(n), batch_sampler=Halved(DistributedSampler(range(n), 2, 1, shuffle=False), 6, False))
    with pytest.warns(lt.LabelTrackWarning, match="Halved may .* count again") if n % 2 else contextlib.nullcontext():
        assert sum(real for _, real in unpadded(loader)) == -(-n // 2)


def test_the_batches_of_other_loaders_are_whole():
    data = [{"meta": ["x"], "x": (torch.zeros(3, 2), torch.ones(3))}, {"meta": ["y"], "x": (torch.zeros(1, 2), None)}]
    assert [n for _, n in unpadded(data)] == [3, 1]
    with pytest.raises(TypeError, match="expects batches with a tensor, got list"):
        list(unpadded([["a"]]))
