"""From the batches of a Hugging Face trainer to a value per sample or token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from transformers.models.auto import modeling_auto

KEY = "labeltrack"
"""Of the columns in a batch."""
_IGNORED = -100  # label of tokens that do not count
# Logits of which losses are computed at a time: 4 MB stay in caches, which is 5 times as fast with 8,000 or more words.
_ELEMENTS = 2**20
_SAVED = attrgetter("_saved_self", "_saved_target")  # names that PyTorch documents
_FEW = 2**14  # logits of classes that may wait for their losses
# Steps of autograd from logits to their log-softmax that change no number, or leave out positions.
_SAME = {f"{name}Backward0" for name in ("ToCopy", "View", "UnsafeView", "ReshapeAlias", "Clone", "Slice", "Alias")}


class Columns:
    """Columns of a batch: no container whose items frameworks walk through, which takes 0.1 ms."""

    __slots__ = ("lists",)

    def __init__(self, lists: dict[str, list[Any]]) -> None:
        self.lists = lists

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(next(iter(self.lists.values())))


class Collator:
    """A data collator that also passes on some columns, as lists, if the samples have them."""

    def __init__(
        self, collator: Callable[..., Any], columns: Sequence[str], taken: Sequence[str], *, drop: bool
    ) -> None:
        self.collator = collator
        self.columns = columns
        self.taken = frozenset(taken)  # by the model
        self.drop = drop  # all others
        self.hidden = set(columns) - self.taken

    def __call__(self, samples: list[Any], *arguments: Any) -> Any:
        """Return a batch, with the columns under a key of its own."""
        columns: dict[str, list[Any]] = {}
        if all(name in samples[0] for name in self.columns):
            columns = {name: _plain([sample[name] for sample in samples]) for name in self.columns}
        try:
            batch = self._collated(samples, arguments)
        except KeyError as error:
            if not set(error.args) & self.hidden & set(samples[0]):
                raise
            self.taken |= self.hidden  # it is the user's own, and knows its columns
            batch = self._collated(samples, arguments)
        for name in self.hidden:
            batch.pop(name, None)
        if columns:
            batch[KEY] = Columns(columns)
        return batch

    def _collated(self, samples: list[Any], arguments: Any) -> Any:
        names = [name for name in samples[0] if name in self.taken or not (self.drop or name in self.hidden)]
        return self.collator([{name: sample[name] for name in names} for sample in samples], *arguments)


class Classes(NamedTuple):
    """Makes samples of the logits and labels of samples, for `labeltrack.LabelTracker.update_later`."""

    columns: tuple[str, ...]  # of the labels
    ids: str | None  # that of the ids

    def __call__(self, batches: list[Any]) -> dict[str, Any]:
        """Return the arguments of `update`."""
        lists, logits, labels = zip(*batches, strict=True)
        _check_alike(lists, logits)
        try:
            with torch.no_grad():
                target = torch.cat(labels)
                values, counted = losses(torch.cat(logits), target, None, shift=False)
        except (IndexError, RuntimeError) as error:  # a label beyond the classes
            msg = f"the logits give no loss for a label ({str(error).rstrip('.')}): pass loss= to track() to compute it"
            raise ValueError(msg) from error
        return _arguments(self.columns, self.ids, lists, values, counted)


class Values(NamedTuple):
    """Likewise of the values of samples or tokens."""

    columns: tuple[str, ...]
    ids: str | None
    shape: tuple[int, ...]  # of the values of a sample

    def __call__(self, batches: list[Any]) -> dict[str, Any]:
        """Return the arguments of `update`; which values count, bools or labels of tokens tell, flat or not."""
        lists, values, counted = zip(*batches, strict=True)
        _check_alike(lists, values)
        mask = None
        if any(each is not None for each in counted):
            masks = [_mask(each, of) for each, of in zip(counted, values, strict=True)]
            mask = torch.cat(masks).view(-1, *self.shape)
        flat = torch.cat([each.reshape(-1) for each in values])
        return _arguments(self.columns, self.ids, lists, flat.view(-1, *self.shape), mask)


class Samples:
    """Reads the values of samples or tokens from a batch and what the model returned for it."""

    def __init__(
        self, columns: tuple[str, ...], ids: str | None, reduce: str, loss: Callable[[Any, Any], Any] | None
    ) -> None:
        self._columns = columns
        self._ids = ids
        self._reduce = reduce
        self._loss = loss
        self._classes = Classes(columns, ids)
        self._shift: bool | None = None  # whether logits are for the next label

    def __call__(self, batch: Mapping[str, Any], outputs: Any, model: Any, number: Any) -> tuple[Any, Any, Any, int]:
        """Return what is kept of a batch: two tensors; what makes samples of it; and how many samples they are."""
        # After a step, code is out of caches, where each call takes some microseconds: usual batches are told with few.
        labels, logits = batch.get("labels"), item(outputs, "logits")
        unusual = self._loss is not None or item(outputs, "log_probs") is not None
        if labels is not None and logits is not None and not unusual:
            plain = logits.is_cpu and logits.ndim == 2 and labels.ndim == 1 and not labels.is_floating_point()
            if plain and logits.numel() <= _FEW:
                return logits.detach().clone(), labels.clone(), self._classes, logits.shape[0]
            if self._reduce == "token" and logits.is_cpu:
                found = losses_in_graph(item(outputs, "loss"), logits)
                if found is not None:
                    n = logits.shape[0]
                    return *found, Values(self._columns, self._ids, (found[0].numel() // n,)), n
        with torch.no_grad():
            values, counted = self._values(batch, outputs, model, number)
            if values.ndim > 1 and self._reduce != "token":
                values, counted = of_sequences(values, counted, mean=self._reduce == "sequence")
        return values, counted, Values(self._columns, self._ids, tuple(values.shape[1:])), len(values)

    def _values(self, batch: Mapping[str, Any], outputs: Any, model: Any, number: Any) -> tuple[Any, Any]:
        """Return ``(N, ...)`` values, and which of them count: None for all, bools or flat labels of tokens."""
        if self._loss is not None:
            values = torch.as_tensor(self._loss(outputs, batch)).clone()
            return values, ~values.isnan() if values.ndim > 1 else None
        log_probs = item(outputs, "log_probs")
        if log_probs is not None:
            return -log_probs, outputs.label_mask
        labels, logits = batch.get("labels"), item(outputs, "logits")
        if logits is None and isinstance(outputs, tuple):
            logits = outputs[int(outputs[0].ndim == 0)]  # after the loss
        if labels is None or logits is None:
            msg = f"track() needs labels and logits, or loss=; the batch has {list(batch)}, the outputs {list(outputs)}"
            raise ValueError(msg)
        loss = outputs[0] if isinstance(outputs, tuple) else item(outputs, "loss")
        kept = losses_in_graph(loss, logits) if logits.ndim > 2 else None  # computing a few anew takes less
        if kept is not None:
            values, counted = (flat.view(len(logits), -1) for flat in kept)
            return values, counted != _IGNORED
        if self._shift is None and labels.ndim > 1:
            self._shift = shifts(model, outputs, labels, number)
        return losses(logits, labels, model, shift=bool(self._shift))


def _mask(counted: Any, values: Any) -> Any:
    """Return which of the values of a batch count, flat."""
    if counted is None:
        return torch.ones(values.numel(), dtype=torch.bool, device=values.device)
    return counted.reshape(-1) if counted.dtype == torch.bool else counted.reshape(-1) != _IGNORED


def _check_alike(lists: Any, tensors: Any) -> None:
    """Raise TypeError if batches together would be converted to other labels, ids or values than one by one."""
    if len(lists) == 1:
        return
    alike = len({each.dtype for each in tensors}) == 1
    for name in lists[0]:
        column = list(chain.from_iterable([each[name] for each in lists]))
        types = set(map(type, column))
        floats = types == {int} and max(column) >= 2**63  # NumPy makes these of them, beside smaller ones
        alike = alike and len(types) <= 1 and not floats
    if not alike:
        msg = "these batches are of several types"
        raise TypeError(msg)


def _arguments(columns: tuple[str, ...], ids: str | None, lists: Any, values: Any, mask: Any) -> dict[str, Any]:
    """Return the arguments of `update`: lists of labels as they are, or beside several values of each sample."""
    labels: list[Any] = [list(chain.from_iterable([each[name] for each in lists])) for name in columns]
    if values.ndim > 1:
        labels = [np.array(each).reshape(-1, *[1] * (values.ndim - 1)) for each in labels]
    more = {} if ids is None else {"ids": list(chain.from_iterable([each[ids] for each in lists]))}
    mask = None if mask is None or (mask.is_cpu and mask.all()) else mask  # the usual case, which is faster
    return {"labels": labels[0] if len(labels) == 1 else tuple(labels), "values": values, "where": mask, **more}


def _plain(column: list[Any]) -> list[Any]:
    """Return numbers or strings; of tensors their only items."""
    return [value.item() for value in column] if hasattr(column[0], "item") else column


def item(outputs: Any, name: str) -> Any:
    """Return an output of a model; None if it has none of that name."""
    return outputs.get(name) if isinstance(outputs, dict) else getattr(outputs, name, None)


def of_sequences(values: Any, mask: Any, *, mean: bool) -> tuple[Any, Any]:
    """Return mean or sum of each sequence, as float64; and which of them have tokens."""
    if values.device.type not in ("cpu", "cuda"):  # some have no float64
        values, mask = values.cpu(), None if mask is None else mask.cpu()
    values = values.flatten(1)
    counted = torch.ones_like(values, dtype=torch.bool) if mask is None else mask.flatten(1)
    sums, n = values.double().where(counted, 0.0).sum(dim=1), counted.sum(dim=1)
    return (sums / n.clamp(min=1) if mean else sums), n > 0


def losses_in_graph(loss: Any, logits: Any) -> tuple[Any, Any] | None:
    """Return the flat cross-entropies of tokens that autograd keeps of a loss, and labels; None if it is another."""
    # Computing them again takes as long as the model took, which is a tenth of the step of a small language model.
    nodes: list[Any] = [getattr(loss, "grad_fn", None)]
    first = logits.grad_fn
    if nodes[0] is None or first is None or logits.ndim != 3:
        return None
    for node in nodes:
        name = type(node).__name__
        if name == "NllLossBackward0":
            softmax = node.next_functions[0][0]
            if type(softmax).__name__ != "LogSoftmaxBackward0":
                return None
            if _source(softmax.next_functions[0][0]) is not _source(first):
                return None
            try:
                log_probs, target = _SAVED(node)
            except (AttributeError, RuntimeError):  # another PyTorch has other names, or the backward pass is over
                return None
            n, length, words = logits.shape
            tokens, classes = log_probs.shape
            whole = tokens in (n * length, n * length - n)  # those that shift may leave one out
            if classes != words or not tokens or not whole or log_probs.dtype != torch.float32:
                return None
            values = functional.nll_loss(log_probs.detach(), target, None, None, _IGNORED, None, "none")
            return values, target.clone()
        if len(nodes) < 16:
            nodes += [after for after, _ in node.next_functions if after is not None]
    return None


def _source(node: Any) -> Any:
    """Return the step of autograd that computed the numbers."""
    while type(node).__name__ in _SAME:
        node = node.next_functions[0][0]
    return node


def losses(logits: Any, labels: Any, model: Any, *, shift: bool) -> tuple[Any, Any]:
    """Return the losses of ``(N, ...)`` samples or tokens in float32, and which of them count; None for all."""
    if labels.is_floating_point():
        target = labels.float()
        if getattr(model.config, "problem_type", None) == "multi_label_classification":
            each = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        else:
            each = (logits.float().reshape(target.shape) - target) ** 2
        return each.reshape(len(each), -1).mean(dim=1), None
    if labels.ndim > 1 and shift:
        logits, labels = logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:]  # virtual tokens come before
    if logits.shape[:-1] != labels.shape:  # classes come second, as in segmentation
        logits = logits.movedim(1, -1)
    if labels.ndim == 1:  # few numbers: pieces take twice as long
        each = functional.cross_entropy(logits.float(), labels, reduction="none", ignore_index=_IGNORED)
        return each, labels != _IGNORED
    rows = max(1, _ELEMENTS // max(1, logits[0].numel()))
    parts = [
        functional.cross_entropy(some.float().flatten(0, -2), of.flatten(), reduction="none", ignore_index=_IGNORED)
        for some, of in zip(logits.split(rows), labels.split(rows), strict=True)
    ]
    return torch.cat(parts).view(labels.shape), labels != _IGNORED


def shifts(model: Any, outputs: Any, labels: Any, number: Any) -> bool:
    """Return whether logits of a position are for the label of the next one; loss / tokens or their `number` tells."""
    # Names do not: some models want labels that are shifted already, such as BartForCausalLM.
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = type(model).__name__
    known = name in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    expected = not getattr(model.config, "is_encoder_decoder", False) and (
        known or name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    )
    loss, logits = item(outputs, "loss"), item(outputs, "logits")
    if loss is None or logits is None or loss.ndim or (logits.ndim, labels.ndim) != (3, 2):
        return expected
    away = {}
    for shift in (expected, not expected):
        values, mask = losses(logits.detach(), labels, model, shift=shift)
        total, of = float(values[mask].double().sum()), float(loss)
        means = [total / n for n in (int(mask.sum()), 0 if number is None else int(number)) if n]
        away[shift] = min((abs(mean - of) / max(abs(of), 1e-12) for mean in means), default=0.0)
    wrong = away[expected] > 1e-4 > 10 * away[not expected]
    return expected != wrong
