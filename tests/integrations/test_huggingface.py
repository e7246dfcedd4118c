"""`labeltrack.integrations.huggingface`: every number against a plain loop over the same model and data.

`huggingface_ranks.py` has the trainings.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics

import numpy as np
import pytest
from exact import expected_by_label
from integrations.ranks import Ranks

import labeltrack as lt

MISSING = [name for name in ("torch", "transformers", "trl", "datasets") if importlib.util.find_spec(name) is None]
if MISSING and os.environ.get("LABELTRACK_REQUIRE_INTEGRATIONS") != "1":
    pytest.skip(f"{MISSING[0]} is not installed: `nox -s frameworks` does that", allow_module_level=True)


@pytest.fixture(name="ranks", scope="module")
def _ranks():
    ranks = Ranks("huggingface_ranks")
    yield ranks
    ranks.close()


def reduced(losses, reduce):
    if reduce == "token" or len(losses) == 1 or not losses:
        return losses
    total = float(np.sum(np.array(losses, dtype=np.float64)))
    return [total / len(losses) if reduce == "sequence" else total]


def table(found, labels, group="domain", reduce="token"):
    """Return the statistics of ``[row, losses]``, each row once, computed with rational numbers."""
    pairs = []
    for row, losses in dict(found[::-1]).items():  # the first of equal ones
        domain, lang, name = labels[str(row)]
        label = (domain, lang) if isinstance(group, list) else {"domain": domain, "row": name}[group]
        pairs += [(label, value) for value in reduced(losses, reduce)]
    columns = expected_by_label(*zip(*pairs, strict=True))
    return [
        [[*label] if isinstance(label, tuple) else label, *map(float.hex, map(float, row))]
        for label, row in columns.items()
    ]


def check(answers, case, epochs=2):
    """Compare the statistics of all ranks with those of the plain loops."""
    assert all(answer["history"] == answers[0]["history"] for answer in answers)
    history = {(mode, ds_id, step): rows for mode, ds_id, step, rows in answers[0]["history"]}
    how = case.get("group", "domain"), case.get("reduce", "token")
    steps = sorted(step for mode, _, step in history if mode == "train")
    assert len(steps) == epochs
    size = len(answers[0]["seen"]) // epochs
    for epoch, step in enumerate(steps):
        batches = [answer["seen"][epoch * size : (epoch + 1) * size] for answer in answers]
        # Round by round, as they were dealt to the ranks: what a rank repeats at the end comes later.
        found = [pair for some in zip(*batches, strict=True) for batch in some for pair in batch]
        assert len(dict(found)) == 37
        assert history["train", "", step] == table(found, answers[0]["labels"]["train"], *how)
    names = [name for name in answers[0]["labels"] if name != "train"]
    assert {(mode, name) for mode, name, _ in history} == {("train", ""), *(("eval", name) for name in names)}
    for name in names:
        found = answers[0]["evaluated"][name]
        assert history["eval", name, steps[-1]] == table(found, answers[0]["labels"][name], *how)
    return history


def check_near(found, pairs, name=""):
    """Compare the statistics of a plain loop; the last bits depend on how many logits are computed at a time."""
    columns = expected_by_label(*zip(*pairs, strict=True))
    assert [row[0] for row in found] == [*columns], name
    for row, (count, *numbers) in zip(found, columns.values(), strict=True):
        near = pytest.approx([*map(float, numbers)], rel=1e-5, abs=1e-6)
        assert float.fromhex(row[1]) == count, name
        assert [float.fromhex(number) for number in row[2:]] == near, name


ACCUMULATED = {"gradient_accumulation_steps": 3, "bf16": True}
CASES = {
    "sequence classification": {"task": "classes"},
    "regression": {"task": "regression"},
    "several labels of the model": {"task": "multi-label"},
    "token classification": {"task": "tokens"},
    "causal language model": {"task": "causal"},
    "sequence to sequence": {"task": "seq2seq"},
    "SFTTrainer": {"task": "sft"},
    "mean of each sequence": {"task": "causal", "reduce": "sequence"},
    "sum of each sample": {"task": "tokens", "reduce": "sample"},
    "several groups": {"task": "causal", "group": ["domain", "lang"]},
    "gradient accumulation": {"task": "causal", "gradient_accumulation_steps": 3},
    "bf16": {"task": "causal", "bf16": True},
    **{
        f"{task} with accumulation and bf16": {"task": task} | ACCUMULATED
        for task in ("classes", "tokens", "seq2seq", "sft")
    },
    "label smoothing": {"task": "causal", "label_smoothing_factor": 0.1},
    "SFTTrainer with label smoothing": {"task": "sft", "label_smoothing_factor": 0.1},
    "SFTTrainer that makes tokens of texts": {"task": "sft", "texts": True},
    "SFTTrainer that computes metrics of logits": {"task": "sft", "metrics": True},
    "SFTTrainer with Liger's other kernels": {"task": "sft", "use_liger_kernel": True},
    "Liger's other kernels": {
        "task": "causal",
        "use_liger_kernel": True,
        "liger_kernel_config": {"fused_linear_cross_entropy": False},
    },
    "several datasets": {"task": "classes", "several": True},
    "a collator of the user": {"task": "classes", "collator": "own"},
    "lists of dicts": {"task": "classes", "lists": True},
    "columns kept by the user": {"task": "classes", "remove_unused_columns": False, "collator": "own"},
    "workers that load the data": {"task": "classes", "dataloader_num_workers": 1},
    "sequences of like lengths": {"task": "causal", "train_sampling_strategy": "group_by_length"},
    "evaluations within an epoch": {"task": "classes", "eval_strategy": "steps", "eval_steps": 3},
    "metrics batch by batch": {
        "task": "classes",
        "batch_eval_metrics": True,
        "include_for_metrics": ["inputs", "loss"],
    },
    "outputs that are tuples": {"task": "classes", "tuples": True},
}


@pytest.mark.parametrize("name", CASES)
def test_every_number_is_that_of_a_plain_loop(ranks, tmp_path, name):
    case = CASES[name]
    check(ranks.answers("trains", tmp_path, 1, CASE=json.dumps(case)), case)


@pytest.mark.parametrize(
    "case",
    [
        {"task": "classes", "group": "row", "several": True},  # ranks have different labels, and one has none of "b"
        {"task": "tokens", "group": "row"} | ACCUMULATED,
        {"task": "causal", "gradient_accumulation_steps": 3, "several": True},
        {"task": "seq2seq", "group": "row", "reduce": "sequence"},
        {"task": "sft", "group": ["domain", "lang"], "several": True},
    ],
    ids=lambda case: case["task"],
)
def test_two_processes_count_each_sample_once(ranks, tmp_path, case):
    answers = ranks.answers("trains", tmp_path, 2, CASE=json.dumps(case))
    assert sum(len(batch) for answer in answers for batch in answer["seen"]) > 2 * 37
    check(answers, case)


def test_training_is_the_same_to_the_last_bit_and_other_unused_columns_are_removed_as_before(ranks, tmp_path):
    (answer,) = ranks.answers("same_training", tmp_path, 1)
    for name, (plain, tracked) in answer.items():
        assert plain[1:] == tracked[1:], name
        assert tracked[3], name  # the arguments of the training
        assert set(plain[0]) - {"domain"} == set(tracked[0]), name
    unused = {"lang", "row", "unused"}
    assert {name: bool(unused & set(tracked[0])) for name, (_, tracked) in answer.items()} == {
        name: name in ("kept", "columns of its own") for name in answer
    }


@pytest.mark.parametrize("task", ["classes", "tokens", "causal", "seq2seq", "sft"])
@pytest.mark.parametrize(("world", "stop"), [(1, 6), (2, 3)])
def test_of_everything_at_once_and_interrupted_within_an_epoch_each_sample_counts_once(
    ranks, tmp_path, world, stop, task
):
    case = {"task": task, "stop": stop, "several": True, "label_smoothing_factor": 0.1} | ACCUMULATED
    check(ranks.answers("trains", tmp_path, world, CASE=json.dumps(case)), case)


def test_a_training_goes_on_with_more_ranks_or_fewer_within_an_epoch_and_between_epochs(ranks, tmp_path):
    from integrations.trainings import expected

    seen, found = ranks.in_parts(tmp_path)
    assert found == expected(seen)
    assert len({(row[1], row[4].split()[0]) for row in seen}) == 3 * 37


def test_what_was_trained_is_counted_wherever_training_ends_and_whatever_draws_the_samples(ranks, tmp_path):
    (answer,) = ranks.answers("odd_trainings", tmp_path, 1)
    ends = {"steps": [10, 13], "stream": [10, 12], "drawn": [13], "whole batches": [9]}  # batches until an epoch ended
    assert answer.keys() == ends.keys()
    for name, (history, seen, labels, pending) in answer.items():
        assert pending == 0
        assert len(seen) == ends[name][-1]
        parts = [seen[start:end] for start, end in zip([0, *ends[name]], ends[name], strict=False)]
        found = [
            [(labels[str(row)][0], loss) for batch in part for row, losses in batch for loss in losses]
            for part in parts
        ]
        assert [rows for *_, rows in history] == [
            [
                [label, *map(float.hex, map(float, row))]
                for label, row in expected_by_label(*zip(*pairs, strict=True)).items()
            ]
            for pairs in found
        ]


def test_evaluations_by_hand_replace_those_of_the_same_dataset_alone(ranks, tmp_path):
    (answer,) = ranks.answers("evaluations_by_hand", tmp_path, 1)
    history = {ds_id: rows for mode, ds_id, step, rows in answer["history"] if (mode, step) == ("eval", 0)}
    assert set(history) == {"", "other", "a", "b"}
    assert history[""] == history["b"] == table(answer["evaluated"], answer["labels"])
    assert history["a"] == history["other"]
    first, second, other = answer["metrics"]
    assert first == second
    assert {
        f"eval_other_loss_by_domain/{row[0]}": float.fromhex(row[3]) for row in history["other"]
    }.items() <= other.items()
    assert answer["sinks"] == [["eval", 3]] * 4
    assert answer["unlabelled"] == len(answer["labels"])
    for mode, text in zip(("test", "train"), answer["told"], strict=True):
        assert f"batches of mode '{mode}' come without domain and are not tracked" in text


def test_evaluations_of_what_is_trained_on_do_not_join_the_training(ranks, tmp_path):
    (answer,) = ranks.answers("evaluations_of_callbacks", tmp_path, 1)
    assert len(answer) == 2
    for rows, seen, noted, evaluated, labels in answer:
        history = {(mode, step): found for mode, _, step, found in rows}
        assert set(history) == {(mode, step) for mode in ("train", "train_eval", "eval") for step in (10, 20)}
        for epoch, step in enumerate((10, 20)):
            found = [pair for batch in seen[10 * epoch : 10 * epoch + 10] for pair in batch]
            assert history["train", step] == table(found, labels)
            assert history["train_eval", step] == history["eval", step]
        assert history["eval", 20] == table(evaluated, labels)
        assert noted == [
            [step, f"{prefix}_loss_by_domain/macro_max"] for step in (10, 20) for prefix in ("train", "eval")
        ]


@pytest.mark.parametrize("world", [1, 2])  # with several, the trainer multiplies the loss by their number
def test_whether_labels_are_shifted_is_seen_in_the_loss_of_the_model(ranks, tmp_path, world):
    (count, mean, n, expected, of_trainer), *_ = ranks.answers("already_shifted", tmp_path, world)
    assert count == n
    assert mean == pytest.approx(expected, rel=1e-6)
    assert mean == pytest.approx(of_trainer / world, rel=0.01)  # a mean of means of batches


def test_losses_of_tokens_are_right_however_a_model_computes_its_own(ranks, tmp_path):
    ((answer, warned),) = ranks.answers("own_losses", tmp_path, 1)
    assert warned == ["other logits", "some tokens", "no cross-entropy"]
    assert answer.pop("no logits").startswith("track() needs labels and logits, or loss=; the batch has ['input_ids',")
    assert answer.pop("ignored").startswith(
        "the model's loss ignores tokens with label 3 (ignore_index), and track() those"
    )
    assert len(answer) == 21
    for kind, (((mode, _, _, found),), pairs) in answer.items():
        assert mode == ("eval" if kind.endswith(", evaluated") else "train"), kind
        check_near(found, pairs, kind)


def test_logits_that_a_loss_overwrites_or_leaves_out_are_an_error_at_once(ranks, tmp_path):
    (answer,) = ranks.answers("kernels", tmp_path, 1)
    refused = {
        "the logits are gradients: ": [
            *(f"{kind}, 0, train" for kind in ("plain", "term", "smoothing", "function", "own values")),
            *("plain, 3, train", "always, 0, eval", "always, 3, eval"),
        ],
        "track() needs labels and logits, or loss=": [f"{kind}, 0, train" for kind in ("none", "empty", "lazy")],
    }
    refused["logits of shape (4, 1, 60) are not those of labels of shape (4, 6): pass loss="] = ["last, 0, train"]
    for text, names in refused.items():
        for name in names:
            assert answer.pop(name).startswith(text), name
    replaced = [f"replaced, {classes}, eval" for classes in (0, 3)]  # logits are whole then, and so are their losses
    assert {*answer} == {
        *("a copy, 0, train", "opposite, 2, train", "plain, 0, eval", "plain, 3, eval", *replaced),
    }
    for name, (((_, _, _, found),), pairs) in answer.items():
        check_near(found, pairs, name)


def test_logits_and_labels_of_other_shapes_and_those_that_sum_to_zero_are_what_they_are(ranks, tmp_path):
    (answer,) = ranks.answers("shapes", tmp_path, 1)
    assert len(answer) == 4
    for name, (((_, _, _, found),), pairs) in answer.items():
        check_near(found, pairs, name)


def test_tokens_that_a_model_puts_before_a_sequence_have_no_losses(ranks, tmp_path):
    (((((mode, _, _, found),), pairs)),) = ranks.answers("prompted", tmp_path, 1)
    assert mode == "eval"
    check_near(found, pairs)


def test_the_run_of_the_model_with_the_batch_is_tracked_and_runs_that_are_alike_are_told(ranks, tmp_path):
    (answer,) = ranks.answers("several_runs", tmp_path, 1)
    for name, (totals, plain, warned) in answer.items():
        assert warned == (name in ("twice", "reference")), name
        for mode in (0, 1)[: 1 + (name != "reference")]:  # nothing tells a reference model's run in evaluations
            assert totals[mode] == [plain[mode][0], pytest.approx(plain[mode][1], rel=1e-5)], name


def test_a_label_beyond_the_classes_that_training_accepts_is_an_error_and_loses_no_other_batch(ranks, tmp_path):
    ((untracked, text, steps, number, found, pairs),) = ranks.answers("beyond_the_classes", tmp_path, 1)
    assert untracked == steps == 5
    assert "no loss for a label (Target 7 is out of bounds): pass loss= to track()" in text
    assert f"This is update_later() number {number} in mode 'train'" in text
    assert len(pairs) == 16
    check_near(found, pairs)


def test_models_may_be_made_anew_and_checkpoints_may_be_without_a_tracker(ranks, tmp_path):
    (((whole, resumed), labels, told),) = ranks.answers("made_anew", tmp_path, 1)
    for (history, seen), steps in ((whole, (10, 20)), (resumed, (20,))):
        train = {step: rows for mode, _, step, rows in history if mode == "train"}
        assert tuple(train) == steps
        for place, step in enumerate(steps):
            found = [pair for batch in seen[10 * place : 10 * place + 10] for pair in batch]
            assert train[step] == table(found, labels)
    assert [text.endswith("checkpoint-10/labeltrack.pt does not exist: the history starts here") for text in told] == [
        True
    ]


def test_an_evaluation_that_fails_leaves_no_samples(ranks, tmp_path):
    ((before, after, pending, calls),) = ranks.answers("fails_in_evaluation", tmp_path, 1)
    assert before == after
    assert (pending, calls) == (0, 8)  # the third of five batches failed


def test_batches_that_a_collator_has_packed_are_refused(ranks, tmp_path):
    (text,) = ranks.answers("packs", tmp_path, 1)
    assert text.startswith("the batch has 4 samples, and what the model returns 1: the collator packs")


def test_streams_on_several_ranks_need_their_own_batches_and_ids(ranks, tmp_path):
    for answer in ranks.answers("streams", tmp_path, 2):
        for text in (answer["error"], answer["dispatched"]):
            assert 'set accelerator_config={"dispatch_batches": False}' in text
        assert ["repeated at its end" in text for text in answer["told"]] == [True]
        assert (answer["counts"], answer["seen"]) == ([37], 20)


@pytest.mark.parametrize("case", ["raises", "killed"])
def test_a_rank_that_ends_in_training_is_an_error_on_the_other_one(ranks, tmp_path, case):
    assert ranks.told(tmp_path, case)


def test_a_tracker_that_fails_on_one_rank_is_an_error_on_both(ranks, tmp_path):
    other, own = ranks.answers("fails_to_synchronise", tmp_path, 2)
    assert own == "ZeroDivisionError: division by zero"
    assert "rank 1: ZeroDivisionError: division by zero" in other


def test_losses_are_logged_and_choose_the_best_checkpoint(ranks, tmp_path):
    (answer,) = ranks.answers("logs_and_checkpoints", tmp_path, 1)
    logged = {key: value for entry in answer["log"] for key, value in entry.items() if entry["step"] == 20}
    history = {(mode, step): rows for mode, _, step, rows in answer["history"]}
    for mode, prefix in (("train", ""), ("eval", "eval_")):
        means = {f"{prefix}loss_by_domain/{row[0]}": float.fromhex(row[3]) for row in history[mode, 20]}
        assert means.items() <= logged.items()
        assert logged[f"{prefix}loss_by_domain/macro_max"] == max(means.values())
        assert logged[f"{prefix}loss_by_domain/macro_mean"] == statistics.mean(means.values())
    key = "eval_loss_by_domain/macro_max"
    worst = [entry[key] for entry in answer["log"] if key in entry]
    assert answer["best"] == min(worst[:2])
    names = ("labeltrack.pt", "tokenizer.json")
    assert answer["files"] == [f"out/checkpoint-{step}/{name}" for step in (10, 20) for name in names]
    # The best model was loaded and evaluated again, which replaces the last step.
    assert history["eval", 20] == table(answer["evaluated"][""], answer["labels"][""])
    assert answer["again"][key] == answer["best"]
    assert answer["predicted"]["test_loss_by_domain/macro_max"] == max(
        float.fromhex(row[3]) for row in history["test", 20]
    )
    assert sum(float.fromhex(row[1]) for row in history["test", 20]) == 37


def test_of_many_labels_the_worst_are_logged(ranks, tmp_path):
    (metrics,) = ranks.answers("many_labels", tmp_path, 1)
    shown = {key.removeprefix("eval_ce_by_row/"): value for key, value in metrics.items() if "_ce_by_row/" in key}
    across = [shown.pop(f"macro_{name}") for name in ("min", "q25", "median", "q75", "max")]
    assert across == sorted(across)
    assert across[0] < shown.pop("macro_mean") < across[-1]
    assert len(shown) == 10
    assert across[-1] == max(shown.values())


def test_the_values_may_be_others_and_the_group_may_be_what_the_model_learns(ranks, tmp_path):
    ((history, metrics, pairs),) = ranks.answers("other_losses", tmp_path, 1)
    columns = expected_by_label(*zip(*pairs, strict=True))
    assert history == [["eval", "", 0, [[label, *map(float.hex, map(float, row))] for label, row in columns.items()]]]
    assert metrics["eval_accuracy_by_labels/1"] == columns[1][2]


def test_ranks_record_the_samples_of_all_epochs_by_their_ids(ranks, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra 'record')")
    (first, labels), (second, _) = ranks.answers("with_ids", tmp_path, 2)
    assert first == second
    run = lt.open_run(tmp_path / "run")
    for mode, _, step, rows in first:
        table = run.samples(mode, step).to_pydict()
        if mode == "train":
            assert sorted(table["id"]) == sorted(f"row {row}" for row in labels)
            assert [labels[id_.split()[1]][0] for id_ in table["id"]] == table["label"]
        columns = expected_by_label(table["label"], table["value"])
        assert rows == [[label, *map(float.hex, map(float, row))] for label, row in columns.items()]
    assert set(run.dynamics(mode="train").columns()["count"].tolist()) == {2}


def test_evaluation_that_generates_is_tracked(ranks, tmp_path):
    (answer,) = ranks.answers("generates", tmp_path, 1)
    ((mode, _, _, rows),) = answer["history"]
    assert (mode, rows) == ("eval", table(answer["evaluated"][""], answer["labels"][""]))


def test_what_cannot_be_tracked_is_refused_at_the_start(ranks, tmp_path):
    (answer,) = ranks.answers("refuses", tmp_path, 1)
    expected = {
        "column": "the train dataset has no column 'domian'; there are: input_ids, attention_mask, domain",
        "reduce": "reduce must be 'token', 'sequence' or 'sample', got 'batch'",
        "liger": "set use_liger_kernel=False, or liger_kernel_config=",
        "losses of liger": "set use_liger_kernel=False, or liger_kernel_config=",
        "liger and classes": "set use_liger_kernel=False, or liger_kernel_config=",
        "packing": "set packing=False",
        "wrapped packing": "set packing=False",
        "packing of evaluations": "eval_packing=False",
        "padding-free": "set padding_free=False",
        "gpus": "torchrun",
        "ids of tokens": "ids of shape (4,) do not match values of shape (4, 3)",
        "answers": "track() needs labels and logits, or loss=; the batch has ['input_ids', 'start_positions'",
        "twice": "this trainer is tracked already",
        "tuples": "track() needs samples that are dicts with domain, got tuple",
    }
    assert answer.keys() == expected.keys()
    for name, text in expected.items():
        assert text in answer[name]


# -- loops with Accelerate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2])
def test_loaders_that_accelerate_prepared_have_each_sample_once(ranks, tmp_path, world):
    answers = ranks.answers("accelerated", tmp_path, world)
    told = [answer.pop() for answer in answers]
    assert ["the length of the dataset is not known" in text for texts in told for text in texts] == [True] * (
        world == 2
    ) * 2
    for n, found in zip((37, 37, 37, 32, 3, 36 // (4 * world) * 4 * world), zip(*answers, strict=True), strict=True):
        assert sorted(sample for batches, _ in found for batch in batches for sample in batch) == list(range(n))
        assert [counts for _, counts in found] == [[1] * n] * world  # also where one of them has no samples


def test_a_loop_with_accelerate_goes_on_with_more_ranks_or_fewer_within_an_epoch_and_between_epochs(ranks, tmp_path):
    from integrations.trainings import expected

    seen, found = ranks.in_parts(tmp_path, "goes_on_with_accelerate")
    assert found == expected(seen)
    assert len(seen) == 2 * 3 * 37


@pytest.mark.parametrize("case", ["raises eval", "killed eval", "killed train"])
def test_a_rank_that_ends_in_a_loop_with_accelerate_is_an_error_on_the_other_one(ranks, tmp_path, case):
    text = ranks.told(tmp_path, case, function="ends_with_accelerate")
    assert ("gloo/transport" if "train" in case else "another process ended, or did not call sync()") in text
