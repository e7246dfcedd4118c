"""`labeltrack.integrations.keras` with each backend, in a process of its own; `keras_training.py` is what it runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from integrations.ranks import Ranks

REQUIRED = os.environ.get("LABELTRACK_REQUIRE_INTEGRATIONS") == "1"


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_all_numbers_are_those_that_the_model_computed(backend):
    if not REQUIRED and any(importlib.util.find_spec(name) is None for name in ("keras", backend)):
        pytest.skip(f"Keras or {backend} is not installed (extra 'keras')")
    script = Path(__file__).with_name("keras_training.py")
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(paths)}
    env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    command = [sys.executable, "-W", "ignore", script]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tracked"] == found["expected"]
    assert [[mode, epoch] for mode, epoch, _ in found["tracked"]] == [
        [mode, epoch] for mode in ("eval", "train") for epoch in (0, 1, 2)
    ]
    counts = [sum(int(float.fromhex(row[1])) for row in rows) for _, _, rows in found["tracked"]]
    assert (counts, found["pending"]) == ([37] * 6, 0)
    assert found["means"] == pytest.approx(found["plain"], rel=1e-5)  # computed anew, outside of Keras
    assert found["logs"] == found["means"]
    assert found["worst"] == max(found["means"])
    assert found["overall"][0] == pytest.approx(found["overall"][1], rel=1e-6)
    assert [name for name, _ in found["grouped"]] == ["even", "odd"]
    assert sum(count for _, count in found["grouped"]) == 37
    train, evaluation, *computed = found["cut"]
    assert [train, evaluation] == computed
    assert [sum(float.fromhex(row[1]) for row in rows) for rows in (train, evaluation)] == [27, 10]
    assert found["halves"][0] == found["halves"][1]
    assert found["halves counted"][0] == found["halves counted"][1]
    count, mean = found["masked"]
    assert (count, found["counted"]) == (32, 32)
    assert found["of Keras"] == pytest.approx([mean, mean], rel=1e-5)
    assert found["weighted"][0] == pytest.approx(found["weighted"][1], rel=1e-5)
    (text,) = found["told"]
    assert "no sample of mode 'eval' came to the metric" in text
    assert ("compile the model with jit_compile=False" in found["refused"]) == (backend == "tensorflow")
    assert all(both == separate for both, separate in found["together"])
    assert len(found["together"]) == (0 if backend == "torch" else 2)
    assert found["examples"][0] == 0
    assert found["examples"][1] > 0


@pytest.fixture(name="ranks", scope="module")
def _ranks():
    if not REQUIRED and any(importlib.util.find_spec(name) is None for name in ("keras", "torch")):
        pytest.skip("Keras or torch is not installed (extra 'keras')")
    ranks = Ranks("keras_ranks", KERAS_BACKEND="torch")
    yield ranks
    ranks.close()


def by_epoch(history):
    return {(mode, step): rows for mode, _, step, rows in history}


def test_processes_of_a_group_share_every_epoch_though_their_labels_differ_and_go_on_alone(ranks, tmp_path):
    from integrations.trainings import expected

    (seen, found, worst, sinks, *alone), (seen2, found2, worst2, sinks2, *alone2) = ranks.answers("trains", tmp_path)
    assert ({row[2] for row in seen}, {row[2] for row in seen2}) == ({0, 2}, {1, 3})
    assert (found, worst, sinks) == (found2, worst2, 1 - sinks2)
    assert by_epoch(found) == expected(seen + seen2)
    assert len(seen + seen2) == 4 * 37
    assert worst == [max(float.fromhex(row[3]) for row in rows) for mode, *_, rows in found if mode == "eval"]
    for more, whole in (alone, alone2):
        assert len(more) == 2 * 37
        assert by_epoch(whole) == expected(seen + seen2 + more)


def test_a_training_goes_on_with_more_processes_or_fewer(ranks, tmp_path):
    from integrations.trainings import expected

    seen, found = ranks.in_parts(tmp_path)
    assert found == expected(seen)
    assert len(seen) == 2 * 3 * 37


def test_a_rank_whose_labels_are_ignored_takes_part_and_one_that_does_not_evaluate_is_an_error(ranks, tmp_path):
    from integrations.trainings import expected

    (seen, found, text), (_, found2, text2) = ranks.answers("without_samples", tmp_path)
    assert by_epoch(found) == by_epoch(found2) == expected(seen)
    assert len(seen) == 4 * 19
    assert text == text2
    assert "mode or arguments" in text


@pytest.mark.parametrize("case", ["raises", "killed"])
def test_a_rank_that_ends_is_an_error_on_the_other_one(ranks, tmp_path, case):
    assert "another process ended, or did not call sync()" in ranks.told(tmp_path, case)
