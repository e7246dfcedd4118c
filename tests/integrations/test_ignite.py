"""`labeltrack.integrations.ignite` in real engines; numbers are compared with what they have computed."""

from __future__ import annotations

import doctest
import importlib.util
import os
import warnings

import pytest
from integrations.ranks import Ranks

if importlib.util.find_spec("ignite") is None and os.environ.get("LABELTRACK_REQUIRE_INTEGRATIONS") != "1":
    pytest.skip("Ignite is not installed (extra 'ignite')", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ignite.engine import DeterministicEngine, Engine, Events, create_supervised_trainer
    from ignite.handlers import Checkpoint, DiskSaver
    from integrations.ignite_ranks import engines, loader
    from integrations.trainings import Samples, expected, history, plain_loop, rows
    from torch import nn, optim
    from torch.nn import functional
    from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

    import labeltrack
    from labeltrack.integrations import ignite
    from labeltrack.integrations.ignite import LabelTrackHandler

pytestmark = pytest.mark.filterwarnings("ignore::Warning", "error::labeltrack.LabelTrackWarning")


def attached(trainer, evaluator, *validations):
    """Return a handler of both; the evaluator runs when an epoch of training has ended."""
    handler = LabelTrackHandler("y", "per_sample_loss")
    handler.attach(trainer)
    handler.attach(evaluator, mode="eval")
    for seed in validations:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _, seed=seed: evaluator.run(loader(seed)))
    return handler


def test_all_numbers_are_those_of_a_plain_loop():
    seen = []
    trainer, evaluator = engines(seen)
    handler = attached(trainer, evaluator, 2)
    trainer.run(loader(1), max_epochs=2)
    of_plain_loop = [(mode, epoch + 1, *more) for mode, epoch, *more in plain_loop(2, 1)]
    assert history(handler.tracker) == expected(seen) == expected(of_plain_loop)


def test_a_sample_that_comes_again_counts_once_if_it_has_an_id():
    seen = []
    trainer, _ = engines(seen)
    handler = LabelTrackHandler("y", ids="id")
    handler.attach(trainer)
    twice = [*loader(1), *loader(1)]
    with pytest.warns(labeltrack.LabelTrackWarning, match="37"):
        trainer.run(twice, max_epochs=1)
    assert len(seen) == 2 * 37
    assert history(handler.tracker) == expected(seen[:37])


def test_means_are_metrics_of_the_engines():
    trainer, evaluator = engines([])
    handler = attached(trainer, evaluator, 2)
    trainer.run(loader(1), max_epochs=1)
    stats = handler.tracker.history.at(1, "eval")
    found = {row.name: evaluator.state.metrics[f"eval/per_sample_loss_by_y/{row.name}"] for row in stats}
    assert found == dict(zip(stats.names.tolist(), stats.mean.tolist(), strict=True))
    assert evaluator.state.metrics["eval/per_sample_loss_by_y/macro_max"] == max(stats.mean)
    assert "train/per_sample_loss_by_y/0" in trainer.state.metrics


def test_a_second_evaluation_in_an_epoch_counts_alone():
    seen = []
    trainer, evaluator = engines(seen)
    handler = attached(trainer, evaluator, 2)
    trainer.run(loader(1), max_epochs=1)
    seen[:] = [row for row in seen if row[0] == "train"]
    evaluator.run(loader(3))
    assert history(handler.tracker) == expected(seen)


def test_a_recorded_run_has_all_datasets_of_a_step_unless_it_warns(tmp_path):
    trainer, evaluator = engines([])
    other = Engine(evaluator._process_function)
    handler = LabelTrackHandler("y", "per_sample_loss", record_to=tmp_path / "run")
    handler.attach(trainer)
    handler.attach(evaluator, mode="eval")
    handler.attach(other, mode="eval", ds_id="other")
    trainer.run(loader(1), max_epochs=1)

    def recorded():
        handler.tracker.flush()
        return labeltrack.open_run(tmp_path / "run").recompute(progress=False).datasets(1, "eval").keys()

    evaluator.run(loader(2))
    other.run(loader(3))
    assert recorded() == handler.tracker.history.datasets(1, "eval").keys() == {"", "other"}
    with pytest.warns(labeltrack.LabelTrackWarning, match=r"for datasets \['other'\], and the recorded run now lacks"):
        other.run(loader(3))
    assert recorded() == {"other"}
    assert handler.tracker.history.datasets(1, "eval").keys() == {"", "other"}
    handler.tracker.close()


def test_evaluations_within_an_epoch_replace_each_other_and_several_datasets_are_kept_apart():
    seen = []
    trainer, evaluator = engines(seen)
    other = Engine(evaluator._process_function)
    handler = attached(trainer, evaluator)
    handler.attach(other, mode="eval", ds_id="other")
    trainer.add_event_handler(Events.ITERATION_COMPLETED(every=2), lambda _: evaluator.run(loader(2)))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: other.run(loader(3)))
    trainer.add_event_handler(Events.COMPLETED, lambda _: evaluator.run(loader(4)))
    trainer.run(loader(1), max_epochs=2)
    parts = {}
    for row in seen:
        parts.setdefault((row[0], row[1]), []).append(row)
    # Evaluations of 37 samples: two and the other dataset; in the last epoch, three, the other dataset, and one more.
    for epoch, of_evaluator, of_other in ((1, slice(37, 74), slice(74, 111)), (2, slice(148, 185), slice(111, 148))):
        found = handler.tracker.history.datasets(epoch, "eval")
        evaluated = parts["eval", epoch]
        assert {name: rows(stats) for name, stats in found.items()} == {
            "": expected(evaluated[of_evaluator])["eval", epoch],
            "other": expected(evaluated[of_other])["eval", epoch],
        }
        assert rows(handler.tracker.history.at(epoch, "train")) == expected(parts["train", epoch])["train", epoch]


@pytest.mark.parametrize("epoch_length", [2, 3, 4, 6])
def test_what_a_sampler_repeats_is_left_out_whatever_the_length_of_an_epoch_and_what_is_skipped(epoch_length):
    samples, seen, batches = Samples(1), [], []
    sampler = DistributedSampler(samples, num_replicas=2, rank=1, shuffle=False)  # repeats the first sample at its end

    def step(engine, batch):
        batches.append(batch)
        if len(batches) == 2:
            return None
        values = batch["x"].sum(1)
        rows = zip(batch["y"].tolist(), values.tolist(), batch["id"].tolist(), strict=True)
        seen.extend(("train", engine.state.epoch, label, value, 0) for label, value, place in rows if place != 0)
        return {"per_sample_loss": values}

    trainer, handler = Engine(step), LabelTrackHandler()
    several = LabelTrackHandler({"y": "y", "even": lambda batch: batch["y"] % 2}, {"value": "per_sample_loss"})
    for each in (handler, several):
        each.attach(trainer)
    for epochs in (2, 3):
        trainer.run(DataLoader(samples, batch_size=8, sampler=sampler), max_epochs=epochs, epoch_length=epoch_length)
    assert len(batches) == 3 * epoch_length
    assert history(handler.tracker) == expected(seen)
    found = several.tracker["value"].history
    assert {("train", step): rows(found.at(step).by("y")) for step in found.steps("train")} == expected(seen)


def test_the_trainer_gives_the_step_even_if_it_is_not_attached_first_and_no_engine_is_attached_twice():
    seen, handler = [], LabelTrackHandler()
    trainer, evaluator = engines(seen)
    handler.attach(evaluator, mode="eval")
    handler.attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(loader(2)))
    trainer.run(loader(1), max_epochs=2)
    assert history(handler.tracker) == expected(seen)
    with pytest.raises(ValueError, match="attached already, with mode 'eval': its samples would count twice"):
        handler.attach(evaluator, mode="eval", ds_id="other")


class Stream(IterableDataset):
    def __iter__(self):
        samples = Samples(1)
        return (samples[place] for place in range(len(samples)))


def test_a_stream_of_unknown_length_is_tracked():
    seen = []
    trainer, _ = engines(seen)
    handler = LabelTrackHandler()
    handler.attach(trainer)
    trainer.run(DataLoader(Stream(), batch_size=8), max_epochs=2)  # the first epoch says how long one is
    assert history(handler.tracker) == expected(seen)
    assert [sum(stats.count) for _, stats in handler.tracker.history.items()] == [37, 37]


def test_an_epoch_that_max_iters_cuts_is_pending_and_continued_on_resuming():
    seen = []
    trainer, other = engines(seen)
    handler = attached(trainer, other)
    trainer.run(loader(1), max_iters=7)
    assert len(handler.tracker.history) == 1
    assert rows(handler.tracker.compute("train")) == expected(seen[37:])["train", 2]
    resumed, other = engines(seen)
    again = attached(resumed, other)
    resumed.load_state_dict(trainer.state_dict())
    again.load_state_dict(handler.state_dict())
    resumed.run(loader(1), max_iters=15)
    assert history(again.tracker) == expected(seen)
    assert len(again.tracker.history) == 3


def test_an_evaluation_of_the_training_data_takes_no_step_from_a_trainer_of_another_mode():
    seen, handler = [], LabelTrackHandler()
    trainer, evaluator = engines(seen)
    handler.attach(trainer, mode="online")
    handler.attach(evaluator, mode="train")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(loader(2)))
    trainer.run(loader(1), max_epochs=2)
    found = {key for key, _ in handler.tracker.history.items()}
    assert found == {(mode, "", step) for mode in ("online", "train") for step in (1, 2)}


def test_a_batch_sampler_around_a_distributed_sampler_is_not_warned_of_where_samples_have_ids():
    class Own(BatchSampler):
        pass

    samples, seen = Samples(1), []
    batches = Own(DistributedSampler(samples, num_replicas=2, rank=0, shuffle=False), 8, drop_last=False)
    trainer, _ = engines(seen, of=DeterministicEngine)
    handler = LabelTrackHandler(ids="id")
    handler.attach(trainer)
    trainer.run(DataLoader(samples, batch_sampler=batches), max_epochs=1)
    assert history(handler.tracker) == expected(seen)


def test_several_metrics_make_a_collection():
    seen = []
    trainer, _ = engines(seen)
    handler = LabelTrackHandler(value={"ce": "per_sample_loss", "double": lambda output: output["per_sample_loss"] * 2})
    handler.attach(trainer)
    trainer.run(loader(1), max_epochs=1)
    assert rows(handler.tracker["ce"].history.at(1)) == expected(seen)["train", 1]
    doubled = [(*row[:3], 2 * row[3], 0) for row in seen]
    assert rows(handler.tracker["double"].history.at(1)) == expected(doubled)["train", 1]
    assert trainer.state.metrics["train/double_by_y/macro_max"] == 2 * trainer.state.metrics["train/ce_by_y/macro_max"]


def test_the_supervised_trainer_needs_an_output_with_the_losses():
    model = nn.Linear(5, 4)
    options = {"prepare_batch": lambda batch, **_: (batch["x"], batch["y"])}
    arguments = (model, optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss())
    handler = LabelTrackHandler("y")
    trainer = create_supervised_trainer(*arguments, **options)
    handler.attach(trainer)
    with pytest.raises(KeyError, match=r"has to return \{'per_sample_loss': .* got float"):
        trainer.run(loader(1))
    found = []

    def losses(_x, y, predicted, _loss):
        found.extend(functional.cross_entropy(predicted, y, reduction="none").tolist())
        return {"per_sample_loss": functional.cross_entropy(predicted, y, reduction="none")}

    handler = LabelTrackHandler("y")
    trainer = create_supervised_trainer(
        *arguments,
        **options,
        output_transform=losses,
        gradient_accumulation_steps=2,
        model_transform=lambda y: y.bfloat16(),
    )
    handler.attach(trainer)
    trainer.run(loader(1))
    labels = [label for batch in loader(1) for label in batch["y"].tolist()]
    assert history(handler.tracker) == expected(
        [("train", 1, y, loss, 0) for y, loss in zip(labels, found, strict=True)]
    )


@pytest.mark.parametrize(
    ("event", "first"),
    [
        (Events.ITERATION_COMPLETED(once=7), False),
        (Events.ITERATION_COMPLETED(once=5), False),  # the last one of an epoch
        (Events.EPOCH_COMPLETED(once=1), False),
        (Events.EPOCH_COMPLETED(once=1), True),
    ],
)
def test_a_training_that_is_resumed_loses_no_sample_and_counts_none_twice(tmp_path, event, first):
    seen = []
    trainer, _ = engines(seen)
    handler = LabelTrackHandler()
    saved = Checkpoint({"trainer": trainer, "labels": handler}, DiskSaver(tmp_path, require_empty=False))
    if first:  # it is called before the handler has ended the epoch
        trainer.add_event_handler(event, saved)
    handler.attach(trainer)
    if not first:
        trainer.add_event_handler(event, saved)
    trainer.add_event_handler(event, trainer.terminate)
    trainer.run(loader(1), max_epochs=3)
    resumed, other = engines(seen)
    again = attached(resumed, other)
    Checkpoint.load_objects({"trainer": resumed, "labels": again}, tmp_path / saved.last_checkpoint)
    resumed.run(loader(1), max_epochs=3)
    assert len(seen) >= 3 * 37
    assert history(again.tracker) == expected(seen)


@pytest.fixture(name="ranks", scope="module")
def _ranks():
    ranks = Ranks("ignite_ranks")
    yield ranks
    ranks.close()


def test_ranks_with_different_labels_accumulate_in_mixed_precision_and_share_every_epoch(ranks, tmp_path):
    found = ranks.answers("trains", tmp_path)
    assert found[0]["history"] == found[1]["history"]
    once = {}
    for rank, answer in enumerate(found):
        plain = [(mode, epoch + 1, *more) for mode, epoch, *more in plain_loop(2, 2, mixed=True, rank=rank, ranks=2)]
        assert [tuple(row) for row in answer["seen"]] == plain
        assert {label for _, _, label, _, place in plain if place % 2 == rank} == {rank, rank + 2}
        for row in plain:  # without what was padded
            once.setdefault((*row[:2], row[-1]), row)
    assert {(mode, step): stats for mode, _, step, stats in found[0]["history"]} == expected(once.values())
    assert (len(once), sum(len(answer["seen"]) for answer in found)) == (4 * 37, 4 * 38)
    assert [answer["sinks"] for answer in found] == [1, 0]


def test_a_training_goes_on_with_more_ranks_or_fewer_within_an_epoch_and_between_epochs(ranks, tmp_path):
    seen, found = ranks.in_parts(tmp_path)
    assert found == expected(seen)
    assert len(seen) == 2 * 3 * 37


@pytest.mark.parametrize("case", ["raises", "killed"])
def test_a_rank_that_ends_is_an_error_on_the_other_one(ranks, tmp_path, case):
    assert "another process ended, or did not call sync()" in ranks.told(tmp_path, case)


def test_a_rank_without_samples_takes_part(ranks, tmp_path):
    first, second = ranks.answers("without_samples", tmp_path)
    assert first == second == [[1, 37], [2, 37]]


def test_an_engine_without_samples_has_no_epoch():
    trainer = Engine(lambda _engine, _batch: None)
    handler = LabelTrackHandler()
    handler.attach(trainer)
    trainer.run([1, 2])
    assert len(handler.tracker.history) == 0
    assert handler.state_dict()["epoch"] == 1


def test_the_example_in_the_docstring_is_right():
    result = doctest.testmod(ignite, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
