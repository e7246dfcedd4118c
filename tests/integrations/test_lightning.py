"""`labeltrack.integrations.lightning` in real trainings; numbers are compared with what modules have returned."""

from __future__ import annotations

import doctest
import importlib.util
import os
import warnings

import pytest
from integrations.ranks import Ranks

if importlib.util.find_spec("lightning") is None and os.environ.get("LABELTRACK_REQUIRE_INTEGRATIONS") != "1":
    pytest.skip("Lightning is not installed (extra 'lightning')", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from integrations.lightning_ranks import Module, rows, trainer_of
    from integrations.trainings import Samples, expected, history, plain_loop
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader, DistributedSampler

    from labeltrack.integrations import lightning, loggers
    from labeltrack.integrations.lightning import LabelTrackCallback

pytestmark = pytest.mark.filterwarnings("ignore::Warning", "error::labeltrack.LabelTrackWarning")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_all_numbers_are_those_of_a_plain_loop(accumulate):
    module, callback = Module(), LabelTrackCallback("y", "per_sample_loss")
    trainer_of(callback, max_epochs=2, accumulate_grad_batches=accumulate).fit(module)
    assert history(callback.tracker) == expected(module.seen) == expected(plain_loop(2, accumulate))
    assert sum(row[0] == "train" for row in module.seen) == 2 * 37


def test_losses_of_mixed_precision_are_those_that_the_module_returns():
    module, callback = Module(), LabelTrackCallback()
    trainer_of(callback, max_epochs=1, precision="bf16-mixed").fit(module)
    assert history(callback.tracker) == expected(module.seen)


def test_tests_and_several_sets_for_validation_are_kept_apart():
    module, callback = Module(loaders=2), LabelTrackCallback()
    trainer = trainer_of(callback, max_epochs=1)
    trainer.fit(module)
    trainer.test(module, verbose=False)
    found = expected(module.seen)
    parts = callback.tracker.history.datasets(0, "eval")
    assert [rows(parts[name]) for name in ("0", "1")] == [found["eval0", 0], found["eval1", 0]]
    assert rows(callback.tracker.history.at(1, "test")) == found["test", 1]


def test_a_validation_may_have_other_loaders_than_the_training_in_any_collection():
    module, callback = Module(), LabelTrackCallback()
    trainer = trainer_of(callback, max_epochs=1)
    trainer.fit(module)
    module.loaders, module.seen = 3, []
    first, second, third = (DataLoader(Samples(seed), batch_size=8) for seed in (2, 3, 4))
    trainer.validate(module, {"a": [first, second], "b": third}, verbose=False)
    parts = callback.tracker.history.datasets(1, "eval")
    assert {(f"eval{name}", 1): rows(stats) for name, stats in parts.items()} == expected(module.seen)
    assert list(parts) == ["0", "1", "2"]


def test_labels_ids_and_values_may_be_functions():
    module = Module()
    callback = LabelTrackCallback(
        {"class": "y", "odd": lambda batch: batch["y"] % 2 == 1},
        lambda outputs: outputs["per_sample_loss"] * 2,
        ids="id",
        outputs="double",
    )
    trainer_of(callback, max_epochs=1).fit(module)
    stats = callback.tracker.history.at(0, "train")
    doubled = [(mode, epoch, label, 2 * loss, 0) for mode, epoch, label, loss, _ in module.seen]
    assert rows(stats.by("class")) == expected(doubled)["train", 0]
    assert stats.label_names == ("class", "odd")
    assert sum(stats.count) == 37


def test_several_metrics_make_a_collection(tmp_path):
    module = Module()
    value = {"ce": "per_sample_loss", "double": lambda outputs: outputs["per_sample_loss"] * 2}
    callback = LabelTrackCallback(value=value)
    trainer = trainer_of(callback, max_epochs=1)
    trainer.fit(module)
    seen = {"ce": module.seen, "double": [(*row[:3], 2 * row[3], 0) for row in module.seen]}
    for metric, rows_seen in seen.items():
        assert rows(callback.tracker[metric].history.at(0, "train")) == expected(rows_seen)["train", 0]
    assert {"eval/ce_by_y/macro_max", "eval/double_by_y/macro_max"} <= trainer.logged_metrics.keys()
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = LabelTrackCallback(value=value)
    trainer_of(again, max_epochs=1).fit(Module(), ckpt_path=tmp_path / "one.ckpt")
    assert rows(again.tracker["double"].history.at(0, "train")) == expected(seen["double"])["train", 0]


class Watching(LabelTrackCallback):
    def __init__(self):
        super().__init__()
        self.calls = set()

    def on_train_start(self, *arguments):
        super().on_train_start(*arguments)
        assert "training" not in self.calls
        self.calls.add("training")

    def on_train_batch_start(self, *arguments):
        super().on_train_batch_start(*arguments)
        self.calls.add("start")

    def on_after_backward(self, *arguments):
        super().on_after_backward(*arguments)
        self.calls.add("backward")


def test_a_subclass_may_have_hooks_of_its_own():
    module, callback = Module(), Watching()
    trainer_of(callback, max_epochs=1).fit(module)
    assert callback.calls == {"training", "start", "backward"}
    assert history(callback.tracker) == expected(module.seen)


class Together(Module):
    def train_dataloader(self):
        return {"a": super().train_dataloader(), "b": super().val_dataloader()}

    def training_step(self, batch, _batch_idx):
        found = [self._step(batch[name], "train") for name in ("a", "b")]
        return {"loss": found[0]["loss"], "per_sample_loss": torch.cat([one["per_sample_loss"] for one in found])}


def test_batches_of_several_loaders_for_training_come_together():
    module = Together()
    callback = LabelTrackCallback(lambda batch: torch.cat([batch[name]["y"] for name in ("a", "b")]))
    trainer_of(callback, max_epochs=2, limit_val_batches=0).fit(module)
    assert history(callback.tracker) == expected(module.seen)
    assert len(module.seen) == 2 * 2 * 37


class Validated(Together):
    def val_dataloader(self):
        samples = Samples(2)
        return DataLoader(samples, 5, sampler=DistributedSampler(samples, num_replicas=1, rank=0, shuffle=False))


def test_what_a_sampler_of_ranks_repeats_is_not_taken_from_training_that_has_several_loaders():
    module, callback = Validated(), LabelTrackCallback(lambda batch: _both(batch)["y"])
    trainer_of(callback, max_epochs=3, use_distributed_sampler=False).fit(module)
    assert history(callback.tracker) == expected(module.seen)


def _both(batch):
    return {"y": torch.cat([batch[name]["y"] for name in ("a", "b")])} if "a" in batch else batch


class Manual(Module):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        found = super().training_step(batch, batch_idx)
        self.optimizers().zero_grad()
        self.manual_backward(found["loss"])
        self.optimizers().step()
        return {"per_sample_loss": found["per_sample_loss"]}


@pytest.mark.parametrize(
    ("of", "options", "counts"),  # samples of the last epoch
    [
        (Module, {"limit_val_batches": 2, "limit_train_batches": 3}, [24, 16]),
        (Module, {"val_check_interval": 0.5}, [37, 37]),
        (Module, {"check_val_every_n_epoch": 2}, [37, 37]),
        (Module, {"max_steps": 7}, [16]),
        (Module, {"precision": "bf16-true"}, [37, 37]),
        (Manual, {}, [37, 37]),
    ],
    ids=str,
)
def test_however_epochs_are_cut_the_numbers_are_those_of_what_was_computed(of, options, counts):
    module, callback = of(), LabelTrackCallback()
    trainer_of(callback, **{"max_epochs": 2, **options}).fit(module)
    last = {}
    for row in module.seen:  # a validation that is repeated in an epoch counts alone
        last[row[0], row[1], row[4]] = row
    found = history(callback.tracker)
    assert found == expected(last.values())
    assert [sum(found.count) for (_, _, step), found in callback.tracker.history.items() if step == 1] == counts[::-1]


class Predicting(Module):
    def predict_step(self, batch, *_place):
        return self._step(batch, "predict")


def test_validations_by_hand_replace_each_other_and_predictions_are_not_tracked():
    module, callback = Predicting(), LabelTrackCallback()
    trainer = trainer_of(callback)
    for seed in (2, 3):
        module.seen.clear()
        trainer.validate(module, DataLoader(Samples(seed), batch_size=8), verbose=False)
    evaluated = list(module.seen)
    trainer.predict(module, DataLoader(Samples(4), batch_size=8))
    assert history(callback.tracker) == expected(evaluated)


class Skipping(Module):
    def training_step(self, batch, batch_idx):
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


def test_steps_that_are_skipped_have_no_samples():
    module, callback = Skipping(), LabelTrackCallback()
    trainer_of(callback, max_epochs=1).fit(module)
    assert history(callback.tracker) == expected(module.seen)
    assert sum(callback.tracker.history.at(0, "train").count) == 29


class Averages(Module):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx)["loss"]


def test_errors_say_what_a_step_has_to_return_and_what_a_batch_has():
    with pytest.raises(
        KeyError, match=r"the step has to return \{'per_sample_loss': one .*'train', got keys \['loss'\]"
    ):
        trainer_of(LabelTrackCallback(), max_epochs=1).fit(Averages())
    with pytest.raises(KeyError, match=r"the step has to return .*'eval', got keys \['loss', 'per_sample_loss'\]"):
        trainer_of(LabelTrackCallback(value="ce"), max_epochs=1).validate(Module(), verbose=False)
    with pytest.raises(KeyError, match=r"no 'class' in the batch, which has keys \['id', 'x', 'y'\]"):
        trainer_of(LabelTrackCallback("class"), max_epochs=1).fit(Module())


def test_means_are_logged_and_the_worst_one_may_be_monitored(tmp_path):
    callback, found = LabelTrackCallback(sinks=[]), []
    callback.tracker.sinks.append(found.append)
    best = ModelCheckpoint(tmp_path, monitor="eval/per_sample_loss_by_y/macro_max", mode="min")
    logger = CSVLogger(tmp_path)
    trainer = trainer_of(callback, best, max_epochs=3, logger=logger, enable_checkpointing=True, log_every_n_steps=1)
    trainer.fit(Module())
    worst = [max(callback.tracker.history.at(step, "eval").mean) for step in range(3)]
    assert best.best_model_score.item() == pytest.approx(min(worst), rel=1e-6)
    logged = trainer.logged_metrics
    for row in callback.tracker.history.at(2, "train"):
        assert logged[f"train/per_sample_loss_by_y/{row.name}"].item() == pytest.approx(row.mean, rel=1e-6)
    assert "eval/per_sample_loss_by_y/0" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text()
    assert [(result.mode, result.step) for result in found] == [
        (mode, step) for step in range(3) for mode in ("eval", "train")
    ]
    silent = LabelTrackCallback(log=False)
    trainer = trainer_of(silent, max_epochs=1)
    trainer.fit(Module())
    assert (trainer.logged_metrics, len(silent.tracker.history)) == ({}, 2)


# -- checkpoints ----------------------------------------------------------------------------------------------


def test_a_training_that_is_resumed_has_the_numbers_of_one_that_was_not(tmp_path):
    whole, module = LabelTrackCallback(), Module()
    trainer_of(whole, max_epochs=4).fit(module)
    first, second = LabelTrackCallback(), LabelTrackCallback()
    trainer = trainer_of(first, max_epochs=2)
    trainer.fit(Module())
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    trainer_of(second, max_epochs=4).fit(Module(), ckpt_path=tmp_path / "two.ckpt")
    assert history(second.tracker) == history(whole.tracker) == expected(module.seen)


@pytest.mark.parametrize("options", [{"every_n_train_steps": 3}, {"monitor": None}, {"save_on_train_epoch_end": False}])
def test_no_sample_is_lost_or_counted_twice_where_a_checkpoint_was_saved_in_an_epoch(tmp_path, options):
    saved = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}-{step}", **options)
    module = Module()
    trainer_of(LabelTrackCallback(), saved, max_epochs=2, enable_checkpointing=True).fit(module)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert paths
    for path in paths:
        callback, resumed = LabelTrackCallback(), Module()
        trainer = trainer_of(callback, max_epochs=3)
        trainer.fit(resumed, ckpt_path=path)
        steps = torch.load(path, weights_only=False)["global_step"]
        before, trained = [], 0
        for row in module.seen:  # what had been trained when it was saved: batches of 8, 5 of them an epoch
            trained += row[0] == "train"
            if trained <= min(steps % 5 * 8, 37) + steps // 5 * 37 and row[:2] not in {
                r[:2] for r in resumed.seen if r[0] == "eval"
            }:
                before.append(row)
        assert history(callback.tracker) == expected(before + resumed.seen), path.name


def test_no_sample_is_lost_where_a_training_is_interrupted_twice_in_an_epoch(tmp_path):
    seen = []
    for first, last in ((0, 3), (3, 5), (5, 10)):  # the second one once all batches of an epoch are done
        saved = ModelCheckpoint(tmp_path, filename=f"{last}", every_n_train_steps=last, save_on_train_epoch_end=False)
        module, callback = Module(), LabelTrackCallback()
        options = {"max_epochs": 2, "max_steps": last, "limit_val_batches": 0, "enable_checkpointing": True}
        trainer_of(callback, saved, **options).fit(module, ckpt_path=tmp_path / f"{first}.ckpt" if first else None)
        seen += module.seen
    assert history(callback.tracker) == expected(seen)
    assert len(callback.tracker.history) == 2


def test_an_epoch_that_was_interrupted_begins_again():
    module, callback = Module(), LabelTrackCallback()
    module.stop_after = (1, 3)
    trainer = trainer_of(callback, max_epochs=2)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(module)
    assert callback.tracker.pending == {("train", ""): 24}
    module.stop_after, module.seen = None, [row for row in module.seen if row[1] == 0]
    trainer = trainer_of(callback, max_epochs=1)
    again = Module()
    trainer.fit(again)
    assert history(callback.tracker) == expected(again.seen)


# -- several ranks --------------------------------------------------------------------------------------------


@pytest.fixture(name="ranks", scope="module")
def _ranks():
    ranks = Ranks("lightning_ranks")
    yield ranks
    ranks.close()


def test_ranks_with_different_labels_share_every_epoch_without_what_was_padded(ranks, tmp_path):
    found = ranks.answers("trains", tmp_path)
    assert found[0]["history"] == found[1]["history"]
    assert found[0]["test"] == found[1]["test"]
    seen, once = [], set()
    for answer in found:
        for mode, epoch, label, loss, place in answer["seen"]:
            if (mode, epoch, place) not in once:
                once.add((mode, epoch, place))
                seen.append((mode, epoch, label, loss, place))
    of = expected(seen)
    assert found[0]["test"] == of.pop(("test", 2))
    assert {(mode, step): stats for mode, _, step, stats in found[0]["history"]} == of
    assert len(seen) == 37 * 6
    assert sum(len(answer["seen"]) for answer in found) == 38 * 6


def test_a_training_goes_on_with_more_ranks_or_fewer_within_an_epoch_and_between_epochs(ranks, tmp_path):
    seen, found = ranks.in_parts(tmp_path)
    assert found == expected(seen)
    assert len(seen) == 2 * 3 * 37


def test_a_rank_without_samples_takes_part(ranks, tmp_path):
    first, second = ranks.answers("without_samples", tmp_path)
    for (seen, found), (_, found2), n in zip(first, second, (1, 19), strict=True):
        assert found == found2 == expected(seen)["eval", 0]
        assert len(seen) == n


def test_a_validation_on_two_ranks_may_have_other_loaders_than_the_training(ranks, tmp_path):
    first, second = ranks.answers("validates", tmp_path)
    for n, (seen, found, told), (seen2, found2, told2) in zip((5, 35), first, second, strict=False):
        once = {row[4]: row for row in reversed([*seen, *seen2]) if row[:2] == ["eval", 1]}  # that of the lowest rank
        assert len(once) == n
        assert found == found2 == expected(once.values())["eval", 1]
        assert not told + told2
    assert 'count again, unless ids="key" tells them' in str(second[2][2])  # the rank whose samples repeat some


@pytest.mark.parametrize("case", ["raises", "killed"])
def test_a_rank_that_ends_in_a_validation_is_an_error_on_the_other_one(ranks, tmp_path, case):
    assert "another process ended, or did not call sync()" in ranks.told(tmp_path, case)


@pytest.mark.parametrize("module", [lightning, loggers], ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_examples_in_the_docstrings_are_right(module):
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
