"""Per-label losses of a Hugging Face ``Trainer``: unscaled, unpadded, each sample once, the same on every rank.

Before training starts::

    from labeltrack.integrations.huggingface import track

    tracker = track(trainer, group="domain")
    trainer.train()
    tracker.history.worst(3, mode="eval")

It works for ``Trainer``, ``Seq2SeqTrainer``, TRL's ``SFTTrainer`` and subclasses of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any, Literal

import labeltrack
from labeltrack.integrations._shared import Epochs, needed

with needed(
    'huggingface needs transformers and PyTorch: pip install "labeltrack[huggingface]"', "torch", "transformers"
):
    import torch
    import transformers
    from transformers.trainer_utils import get_last_checkpoint

from labeltrack.integrations._collator import KEY, Collator, Columns
from labeltrack.integrations._per_sample import Samples, item
from labeltrack.integrations.torch import gather_state, load_gathered, real_of, sync

__all__ = ["track"]

Reduce = Literal["token", "sequence", "sample"]


def track(
    trainer: Any,
    group: str | tuple[str, ...] = "domain",
    reduce: Reduce = "token",
    ids: str | None = None,
    *,
    metric: str = "loss",
    loss: Callable[[Any, Mapping[str, Any]], Any] | None = None,
    **options: Any,
) -> labeltrack.LabelTracker:
    """Track the loss by a column of the datasets, from now on, in training and evaluation.

    The values are cross-entropies computed from the logits in float32, without label smoothing: of each token that has
    a label in language models and token classification, of each sample in sequence classification (squared errors in
    regression, binary cross-entropies with several labels). From TRL's SFTTrainer they are its own log-probabilities.

    Each epoch of training is a step of mode ``"train"``, each evaluation one of mode ``"eval"``, with the name of the
    dataset as dataset id where there are several; their number is ``trainer.state.global_step``. Other values of
    `metric_key_prefix`, such as ``"test"`` of ``predict``, are modes, too; that of ``"train"`` is ``"train_eval"``.
    Statistics are those of all processes.

    Their means go to ``trainer.log`` and into the metrics of ``evaluate``, as ``"eval_loss_by_domain/math"``, by the
    rules of `labeltrack.integrations.loggers`: beyond 50 labels, those of the worst ones. There are also those across
    labels, such as ``"eval_loss_by_domain/macro_max"``, the worst label's, which may be the `metric_for_best_model`.
    Checkpoints hold the tracker's state, and training that is resumed continues with it.

    The columns reach the tracker through the data collator, which is wrapped, and never the model. Other columns that
    the model does not take are removed as before, by the training argument `remove_unused_columns`.

    On the CPU, batches wait for each other, and are recorded before anything reads the tracker (see
    `labeltrack.LabelTracker.update_later`). A label that it refuses is an error then.

    Args:
        trainer: Made, but not yet trained.
        group: Column of the datasets with the label of each sample, or a tuple of columns, for several labels.
        reduce: ``"token"``: each token counts. ``"sequence"``: each sequence counts, with the mean of its tokens.
            ``"sample"``: likewise, with their sum. All the same where there is one value per sample.
        ids: Column with the id of each sample, for tables by id; not for ``reduce="token"`` of language models.
        metric: Name of the metric.
        loss: Computes the values instead, from the outputs of the model and the batch: ``(N,)``, or ``(N, T)`` with NaN
            for tokens that do not count.
        options: Further arguments of `labeltrack.LabelTracker`. `sinks` are called on rank 0 alone.

    Returns:
        The tracker; its `history` fills as training proceeds.

    Raises:
        ValueError: A dataset has no such column, `reduce` is unknown, or the trainer hides what is needed: packing,
            padding-free batches, Liger's losses, several GPUs in one process, or batches that one process deals out to
            the others, as by default those of an ``IterableDataset``. The message says what to change. With the first
            batch: the model returns no logits, or its loss has overwritten them, as fused losses do. In training of
            language models in float32: its loss ignores another label than -100.

    Warns:
        LabelTrackWarning: Batches without the columns come, which are not tracked; or the length of a dataset is not
            known, so that samples that are repeated to make ranks equal cannot be told; or nothing says whether the
            labels of a model of your own are for the same token or the next; or a trainer of your own runs the model
            several times with the same batch, of which the last run is tracked.

    Example:
        A file that runs: ``examples/huggingface_trainer.py``.
    """
    if reduce not in ("token", "sequence", "sample"):
        msg = f"reduce must be 'token', 'sequence' or 'sample', got {reduce!r}"
        raise ValueError(msg)
    columns = (group,) if isinstance(group, str) else tuple(group)
    _check_trainer(trainer, [*columns, *([] if ids is None else [ids])])
    options = {"label": columns[0] if isinstance(group, str) else columns, "metric": metric, **options}
    return _Tracked(trainer, columns, reduce, ids, loss, options).tracker


def _check_trainer(trainer: Any, columns: Sequence[str]) -> None:
    """Raise ValueError if something that is needed does not come by."""
    args = trainer.args
    if type(getattr(trainer.train, "__self__", None)) is _Tracked:
        msg = "this trainer is tracked already: make a new one, or track several columns at once, as group=(…, …)"
        raise ValueError(msg)
    if getattr(args, "packing", False) or getattr(args, "eval_packing", False):
        msg = "packed sequences have lost the columns of their samples: set packing=False and eval_packing=False"
        raise ValueError(msg)
    if getattr(trainer, "padding_free", False):
        msg = "padding-free batches have lost where samples begin: set padding_free=False"
        raise ValueError(msg)
    liger = {"fused_linear_cross_entropy": True} | (getattr(args, "liger_kernel_config", None) or {})
    losses = liger["fused_linear_cross_entropy"] or liger.get("cross_entropy")  # the latter overwrites logits
    if getattr(args, "use_liger_kernel", False) and losses:
        msg = (
            "Liger's losses leave neither logits nor losses of tokens: set use_liger_kernel=False, or "
            'liger_kernel_config={"fused_linear_cross_entropy": False, "cross_entropy": False}'
        )
        raise ValueError(msg)
    if args.n_gpu > 1:
        msg = "several GPUs in one process are not supported: start one process per GPU with torchrun or accelerate"
        raise ValueError(msg)
    evaluated = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"eval": trainer.eval_dataset}
    for name, dataset in {"train": trainer.train_dataset, **evaluated}.items():
        there = getattr(dataset, "column_names", None) or columns
        missing = [column for column in columns if column not in there]
        if missing:
            msg = f"the {name} dataset has no column {missing[0]!r}; there are: {', '.join(there)}"
            raise ValueError(msg)
        if args.world_size == 1:
            continue
        stream = isinstance(dataset, torch.utils.data.IterableDataset)
        dispatch = args.accelerator_config.dispatch_batches
        if dispatch or (stream and dispatch is None):
            msg = (
                f"the batches of the {name} dataset are sent by one process to the others, which works for tensors "
                'alone: set accelerator_config={"dispatch_batches": False}'
            )
            raise ValueError(msg)
        if not stream:
            continue
        warnings.warn(
            f"the length of the {name} dataset is not known: samples that are repeated at its end, so that all ranks "
            "have as many, count again, unless ids= tells them",
            labeltrack.LabelTrackWarning,
            stacklevel=3,
        )


class _Tracked(transformers.TrainerCallback):
    """A trainer whose losses are tracked: its methods, wrapped, and what it calls when epochs end."""

    def __init__(
        self,
        trainer: Any,
        columns: tuple[str, ...],
        reduce: Reduce,
        ids: str | None,
        loss: Callable[[Any, Mapping[str, Any]], Any] | None,
        options: dict[str, Any],
    ) -> None:
        self.trainer, self.columns, self.ids, self.loss = trainer, columns, ids, loss
        self.tracker = labeltrack.LabelTracker(**options)
        if not trainer.is_world_process_zero():
            self.tracker.sinks.clear()
        self.sft = any(base.__name__ == "SFTTrainer" for base in type(trainer).__mro__)
        self.resumed: str | None = None
        self._options = {name: value for name, value in options.items() if name not in ("record_to", "sinks")}
        self._epochs = Epochs(self.tracker)
        self._told: set[str] = set()  # modes with batches that were not tracked
        self._number: Any = None  # of the tokens that the loss of a batch was divided by
        self._evaluating: tuple[str, str, labeltrack.LabelTracker] | None = None  # mode, dataset, its own tracker
        self._depth = 0  # of evaluate(), which calls itself with each of several datasets
        self._modes: dict[str, None] = {}  # that were evaluated
        self._hooked: tuple[Any, Any] | None = None  # the model and its hook
        self._inner: Any = None  # the model itself
        self._alone = trainer.args.world_size == 1  # then no batch is padded with samples
        self._listening = False
        self._batch: dict[str, Any] = {}
        self._outputs: Any = None
        self._inputs: dict[str, Any] = {}  # that the model was given for them
        self._samples = Samples(columns, ids, reduce, loss)
        self._original = {
            name: getattr(trainer, name)
            for name in ("compute_loss", "prediction_step", "evaluation_loop", "evaluate", "train")
        }
        for name in self._original:
            setattr(trainer, name, getattr(self, name))
        for name in ("get_train_dataloader", "get_eval_dataloader", "get_test_dataloader"):
            setattr(trainer, name, partial(self._with_columns, getattr(trainer, name)))
        wanted = columns if ids is None else (*columns, ids)
        taken, drop = _taken(trainer), trainer.args.remove_unused_columns
        collator = trainer.data_collator  # perhaps that of another trainer
        own = collator.collator if isinstance(collator, Collator) else collator
        trainer.data_collator = Collator(own, wanted, taken, drop=drop)
        trainer.add_callback(self)

    # -- what the trainer calls ---------------------------------------------------------------------------

    def _with_columns(self, get: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return a data loader of all columns, of which the collator removes those that are not used."""
        args = self.trainer.args
        before, args.remove_unused_columns = args.remove_unused_columns, False
        try:
            return get(*arguments, **options)
        finally:
            args.remove_unused_columns = before

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train, from a checkpoint with the tracker's state in it."""
        resume = options.get("resume_from_checkpoint", arguments[0] if arguments else None)
        if resume is True:
            resume = get_last_checkpoint(self.trainer.args.output_dir)
        self.resumed = resume or None
        return self._original["train"](*arguments, **options)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """Compute the loss of a batch, and record those of its samples."""
        columns = inputs.pop(KEY, None)
        self._number = options.get("num_items_in_batch", arguments[1] if len(arguments) > 1 else None)
        if columns is None:  # of an evaluation, which has taken them, or of another loop
            if self.trainer.model.training:
                self._not_tracked("train")
            return self._original["compute_loss"](model, inputs, *arguments, **options)
        return self._heard("compute_loss", columns, "train", "", model, inputs, *arguments, **options)

    def prediction_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """Evaluate a batch, and record the losses of its samples."""
        columns = inputs.pop(KEY, None)
        mode, ds_id, _ = self._evaluating or ("", "", None)
        if columns is None or not mode:
            self._not_tracked(mode)
            return self._original["prediction_step"](model, inputs, *arguments, **options)
        return self._heard("prediction_step", columns, mode, ds_id, model, inputs, *arguments, **options)

    def evaluation_loop(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate a dataset, with statistics by label among its metrics."""
        prefix = options.get("metric_key_prefix", arguments[4] if len(arguments) > 4 else "eval")
        mode, _, ds_id = prefix.partition("_")
        # An evaluation in an epoch of training must not join its samples.
        mode = {"": "eval", "train": "train_eval"}.get(mode, mode)
        before = self._evaluating
        part = labeltrack.LabelTracker(**self._options)
        self._evaluating = mode, ds_id, part
        try:
            output = self._original["evaluation_loop"](*arguments, **options)
            sync(part, mode=mode)
            output.metrics.update(self._scalars(mode, part.compute(mode), f"{prefix}_"))
        except BaseException:
            self.tracker.reset(mode=mode)
            raise
        finally:
            self._evaluating = before
        self._modes[mode] = None
        if not self._depth:
            self._end_evaluation()
        return output

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        """Evaluate all datasets, and end the epoch of their mode."""
        self._depth += 1
        try:
            metrics = self._original["evaluate"](*arguments, **options)
        finally:
            self._depth -= 1
        if not self._depth:
            self._end_evaluation()
        return metrics

    def _end_evaluation(self) -> None:
        while self._modes:
            mode, _ = self._modes.popitem()
            sync(self.tracker, mode=mode)
            self._epochs.end(self.trainer.state.global_step, mode)

    def on_epoch_end(self, *_arguments: Any, **_options: Any) -> None:
        """End the epoch of mode ``"train"``, and log its statistics."""
        sync(self.tracker, mode="train")
        scalars = self._epochs.end(self.trainer.state.global_step, "train")
        if scalars:
            # SFTTrainer's would add its own metrics of the steps since it last logged, and forget them.
            log = transformers.Trainer.log if self.sft else type(self.trainer).log
            log(self.trainer, {name.removeprefix("train/"): value for name, value in scalars.items()})

    def _not_tracked(self, mode: str) -> None:
        """Warn once of batches without columns."""
        if mode and mode not in self._told:
            self._told.add(mode)
            text = (
                f"batches of mode {mode!r} come without {', '.join(self.columns)} and are not tracked: the dataset "
                "does not have it, or its data loader has another collator than trainer.data_collator"
            )
            warnings.warn(text, labeltrack.LabelTrackWarning, stacklevel=4)

    def on_save(self, *_arguments: Any, **_options: Any) -> None:
        """Save the state of all ranks in the checkpoint that was just written."""
        state = gather_state(self.tracker)
        folder = Path(self.trainer.args.output_dir, f"checkpoint-{self.trainer.state.global_step}")
        if self.trainer.args.should_save and folder.is_dir():
            torch.save(state, folder / f"{KEY}.pt")

    def on_train_begin(self, *_arguments: Any, **_options: Any) -> None:
        """Continue from the checkpoint that training continues from, if it does."""
        if self.resumed is None:
            self.tracker.reset(mode="train")  # of a training that was given up
            return
        path = Path(self.resumed, f"{KEY}.pt")
        if path.exists():
            load_gathered(self.tracker, torch.load(path))
        else:
            warnings.warn(f"{path} does not exist: the history starts here", labeltrack.LabelTrackWarning, stacklevel=2)
        epoch = self.trainer.state.epoch
        if epoch and epoch % 1 == 0:  # the last step of an epoch saves before it ends
            self.on_epoch_end()

    def _scalars(self, mode: str, stats: labeltrack.LabelStats, prefix: str) -> dict[str, float]:
        """Return what to log of one dataset."""
        tracker = self.tracker
        step = self.trainer.state.global_step
        result = labeltrack.EpochResult(step, mode, tracker.metric, tracker.outputs, stats, tracker.history)
        scalars = self._epochs.scalars(result)
        return {f"{prefix}{name.partition('/')[2]}": value for name, value in scalars.items()}

    # -- from batches to samples --------------------------------------------------------------------------

    def _heard(
        self, name: str, columns: Columns, mode: str, ds_id: str, model: Any, inputs: Any, /, *more: Any, **options: Any
    ) -> Any:
        """Call a method of the trainer, and record what the model returns in it."""
        batch = self._batch = dict(inputs)  # the labels may be taken from it
        whole = self.trainer.model
        if self._hooked is None or self._hooked[0] is not whole:  # model_init makes a new one
            if self._hooked is not None:
                self._hooked[1].remove()
            self._hooked = whole, whole.register_forward_hook(self._hear, with_kwargs=True)
            self._inner = self.trainer.accelerator.unwrap_model(whole)  # which takes a millisecond
        self._listening = True
        try:
            result = self._original[name](model, inputs, *more, **options)
            trains = mode == "train"
            # An evaluation may be without labels; those under other names are an error.
            if trains or self.loss is not None or any(batch.get(name) is not None for name in self.trainer.label_names):
                loader = None if self._alone else self._ended(trains=trains)
                self._record(batch, columns, mode, ds_id, loader, result)
        finally:
            self._listening, self._outputs, self._batch, self._inputs = False, None, {}, {}
        return result

    def _hear(self, _model: Any, _arguments: Any, inputs: dict[str, Any], outputs: Any) -> None:
        if not self._listening:
            return
        if self._outputs is not None:  # SFTTrainer runs the model once more if somebody wants logits; others for a term
            before, now = self._rank(self._outputs, self._inputs), self._rank(outputs, inputs)
            if now < before:
                return
            if now == before and not now[0] and any(now[1:3]) and "twice" not in self._told:
                self._told.add("twice")
                text = (
                    "the model runs several times for one batch with the same inputs, and its last run is tracked: if "
                    "another one is to be, run that one last, or the others without gradients"
                )
                warnings.warn(text, labeltrack.LabelTrackWarning, stacklevel=2)
        self._outputs, self._inputs = outputs, inputs

    def _rank(self, outputs: Any, inputs: dict[str, Any]) -> tuple[bool, ...]:
        """Return what tells which run of the model is that of the batch: the highest."""
        own = all(value is self._batch[name] for name, value in inputs.items() if name in self._batch)
        grad = getattr(item(outputs, "logits"), "requires_grad", False) is True
        return item(outputs, "log_probs") is not None, grad, item(outputs, "loss") is not None, own

    def _ended(self, *, trains: bool) -> Any:
        """Return the data loader if this is its last batch, whose end may be padding."""
        # Batches are fetched ahead: only the last one before an optimizer step may be the last of the epoch.
        state = self.trainer.accelerator.gradient_state
        return state.active_dataloader if state.end_of_dataloader and (state.sync_gradients or not trains) else None

    def _record(
        self, batch: Mapping[str, Any], columns: Columns, mode: str, ds_id: str, loader: Any, result: Any
    ) -> None:
        values, counted, make, rows = self._samples(batch, self._outputs, self._inner, self._number, mode, result)
        n, lists = columns.n, columns.lists
        if rows != n:
            msg = (
                f"the batch has {n} samples, and what the model returns {rows}: the "
                "collator packs samples into one, and where they begin is lost; use one that pads them"
            )
            raise ValueError(msg)
        real, size = n if loader is None else real_of(loader, n), values.numel()
        if not real or not size:
            return
        if real < n:  # flat tokens of the first samples are the first ones
            lists = {name: column[:real] for name, column in lists.items()}
            values, counted = (some if some is None else some[: len(some) * real // n] for some in (values, counted))
        waits = values.is_cpu and (self.ids is None or len(values) == n)
        for tracker in (self.tracker,) if self._evaluating is None else (self.tracker, self._evaluating[2]):
            if waits:
                nbytes = 16 * size  # at most
                tracker.update_later((lists, values, counted), make, mode=mode, ds_id=ds_id, nbytes=nbytes)
            else:  # tensors on a device wait there; ids of samples beside tokens are an error at once
                tracker.update(**make([(lists, values, counted)]), mode=mode, ds_id=ds_id)


def _taken(trainer: Any) -> list[str]:
    """Return the columns that the trainer keeps for its model or its collator."""
    # The hook that trainers with columns of their own override, such as TRL's; no public name tells these columns.
    methodcaller("_set_signature_columns_if_needed")(trainer)
    return list(attrgetter("_signature_columns")(trainer))
