"""From the batches of a Hugging Face trainer to a value per sample or token."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from transformers.models.auto import modeling_auto

import labeltrack

_IGNORED = -100  # label of tokens that do not count
# Logits of which losses are computed at a time: 4 MB stay in caches, which is 5 times as fast with 8,000 or more words.
_ELEMENTS = 2**20
_SAVED = attrgetter("_saved_self", "_saved_target", "_saved_ignore_index")  # names that PyTorch documents
_NODES = 32  # of a loss that are searched for a cross-entropy
_FEW = 2**14  # logits of classes that may wait for their losses
_ROWS = 64  # of logits that are checked in the first batch
_WIDE = 2**22  # bytes that labels of tokens may take in all, one for each
_SEVERAL = "these batches are of several types or too wide together"
# Steps of autograd from logits to their log-softmax that change no number, or leave out positions.
_SAME = {f"{name}Backward0" for name in ("ToCopy", "View", "UnsafeView", "ReshapeAlias", "Clone", "Slice", "Alias")}


_STRAIGHT = ("ForTokenClassification", "ForMaskedLM", "ForPreTraining")  # models whose labels are for the same position


class Classes(NamedTuple):
    """Makes samples of the logits and labels of samples, for `labeltrack.LabelTracker.update_later`."""

    columns: tuple[str, ...]  # of the labels
    ids: str | None  # that of the ids

    def __call__(self, batches: list[Any]) -> dict[str, Any]:
        """Return the arguments of `update`."""
        lists, logits, labels = zip(*batches, strict=True)
        columns = _together(lists, logits, labels)
        try:
            with torch.no_grad():
                values, counted = losses(torch.cat(logits), torch.cat(labels), None, shift=False)
        except (IndexError, RuntimeError) as error:  # a label beyond the classes
            msg = f"the logits give no loss for a label ({str(error).rstrip('.')}): pass loss= to track() to compute it"
            raise ValueError(msg) from error
        return _arguments(self, columns, values, counted)


class Values(NamedTuple):
    """Likewise of the values of samples or tokens, flat; which of them count, bools or labels of tokens tell."""

    columns: tuple[str, ...]
    ids: str | None
    flat: bool = True  # tells them from `Classes` where they are compared

    def __call__(self, batches: list[Any]) -> dict[str, Any]:
        """Return the arguments of `update`."""
        lists, values, counted = zip(*batches, strict=True)
        columns = _together(lists, values, counted)
        flat, mask = torch.cat(values), None if counted[0] is None else torch.cat(counted)
        samples = [len(some[self.columns[0]]) for some in lists]
        each = [some.numel() // n for some, n in zip(values, samples, strict=True)]  # values of a sample
        alike = min(each) == max(each)  # then words are coded once per sample
        if max(each) > 1:
            for name in self.columns:
                array = _array(columns[name])
                if not alike and (array.dtype.kind == "O" or array.itemsize * flat.numel() > _WIDE):
                    raise TypeError(_SEVERAL)  # then one by one, without a copy for each token
                columns[name] = array.reshape(-1, 1) if alike else array.repeat(np.repeat(each, samples))
            if alike:
                flat, mask = (some if some is None else some.view(-1, each[0]) for some in (flat, mask))
        return _arguments(self, columns, flat, mask)


class Samples:
    """Reads the values of samples or tokens from a batch and what the model returned for it."""

    def __init__(
        self, columns: tuple[str, ...], ids: str | None, reduce: str, loss: Callable[[Any, Any], Any] | None
    ) -> None:
        self._columns = columns
        self._ids = ids
        self._reduce = reduce
        self._loss = loss
        self._classes, self._flat = Classes(columns, ids), Values(columns, ids)
        self._shift: bool | None = None  # whether logits are for the next label
        self._checked: set[str] = set()  # modes whose logits are logits

    def __call__(
        self, batch: Mapping[str, Any], outputs: Any, model: Any, number: Any, mode: str, result: Any
    ) -> tuple[Any, Any, Any, int]:
        """Return what is kept of a batch: two tensors; what makes samples of it; and how many samples they are."""
        # After a step, code is out of caches, where each call takes some microseconds: usual batches are told with few.
        labels, logits = batch.get("labels"), item(outputs, "logits")
        unusual = self._loss is not None or item(outputs, "log_probs") is not None
        if labels is not None and isinstance(logits, torch.Tensor) and not unusual and logits.is_cpu:
            shape = logits.shape
            if len(shape) == 3:
                found = losses_in_graph(item(outputs, "loss"), logits, shape) if self._reduce == "token" else None
                if found is not None:
                    if self._shift is None:
                        self._shift = _shift_of(found[1], labels)
                    return *found, self._flat, shape[0]
            elif len(shape) == 2 and logits.numel() <= _FEW and labels.ndim == 1 and not labels.is_floating_point():
                if mode not in self._checked:
                    self._check(logits, labels, outputs, model, number, mode, result)
                return logits.data.clone(), labels.clone(), self._classes, shape[0]  # `detach` takes 5 us more
        with torch.no_grad():
            values, counted = self._values(batch, outputs, model, number, mode, result)
            if values.ndim > 1 and self._reduce != "token":
                values, counted = of_sequences(values, counted, mean=self._reduce == "sequence")
        return values.reshape(-1), None if counted is None else counted.reshape(-1), self._flat, len(values)

    def _values(
        self, batch: Mapping[str, Any], outputs: Any, model: Any, number: Any, mode: str, result: Any
    ) -> tuple[Any, Any]:
        """Return ``(N, ...)`` values, and which of them count: None for all, bools or flat labels of tokens."""
        log_probs = item(outputs, "log_probs")
        if log_probs is not None and self._loss is None:
            return -log_probs, outputs.label_mask
        labels: Any = batch.get("labels")
        logits: Any = item(outputs, "logits")
        if logits is None and isinstance(outputs, tuple):
            logits = outputs[int(getattr(outputs[0], "ndim", 1) == 0)]  # after the loss
        there = isinstance(labels, torch.Tensor) and isinstance(logits, torch.Tensor) and logits.numel() > 0
        if there and mode not in self._checked:
            self._check(logits, labels, outputs, model, number, mode, result)
        if self._loss is not None:
            values = torch.as_tensor(self._loss(outputs, batch)).clone()
            if not values.ndim:
                msg = "the function loss= must return a value per sample, (N,), or per token, (N, T); it returned one"
                raise ValueError(msg)
            return values, ~values.isnan() if values.ndim > 1 else None
        if not there:
            names = [name for name, value in outputs.items() if value is not None] if isinstance(outputs, dict) else []
            msg = (
                f"track() needs labels and logits, or loss=; the batch has {list(batch)}, the outputs {names}: switch "
                "off what computes the loss without logits, such as Liger's fused_linear_cross_entropy, cut "
                "cross-entropy or Unsloth's (UNSLOTH_RETURN_LOGITS=1)"
            )
            raise ValueError(msg)
        loss = outputs[0] if isinstance(outputs, tuple) else item(outputs, "loss")
        kept = None
        if logits.ndim == 3:  # computing fewer anew takes less
            kept = losses_in_graph(loss, logits, logits.shape)
        if kept is not None:
            self._shift = _shift_of(kept[1], labels) if self._shift is None else self._shift
            values, counted = (flat.view(len(logits), -1) for flat in kept)
            return values, counted != _IGNORED
        if self._shift is None and labels.ndim > 1:
            self._shift = shifts(model, outputs, labels, number)
        return losses(logits, labels, model, shift=bool(self._shift))

    def _check(self, logits: Any, labels: Any, outputs: Any, model: Any, number: Any, mode: str, result: Any) -> None:
        """Raise ValueError if the first logits of a mode are gradients, which some losses write where logits were."""
        # Kernels write through pointers, which no version counter shows; and evaluations keep no graph that tells.
        loss = outputs[0] if isinstance(outputs, tuple) else item(outputs, "loss")
        if getattr(loss, "ndim", 1):
            loss = result[0] if isinstance(result, tuple) else result
        if overwritten(loss, logits, labels, model, number):
            msg = (
                "the logits are gradients: a loss that overwrites them, such as Liger's cross-entropy, comes before "
                "track() reads them: switch it off, as with cross_entropy=False where Liger patches the model"
            )
            raise ValueError(msg)
        if (labels != _IGNORED).any():
            self._checked.add(mode)


def _together(lists: Any, *tensors: Any) -> dict[str, Any]:
    """Return columns of batches; TypeError if these or tensors would be converted otherwise than one by one."""
    columns = {name: list(chain.from_iterable([some[name] for some in lists])) for name in lists[0]}
    if len(lists) > 1:
        alike = all(len({None if each is None else each.dtype for each in some}) == 1 for some in tensors)
        for column in columns.values():
            types = set(map(type, column))
            floats = types == {int} and max(column) >= 2**63  # NumPy makes these of them, beside smaller ones
            alike = alike and len(types) <= 1 and not floats
        if not alike:
            raise TypeError(_SEVERAL)
    return columns


def _array(column: list[Any]) -> Any:
    """Return labels as an array: of objects if another type would change them."""
    array = np.array(column, None if len(set(map(type, column))) == 1 else object)
    if array.tolist() != column or (array.dtype.kind == "f" and type(column[0]) is int):  # "a\0"; some above 2**63
        array = np.array(column, dtype=object)
    return array


def _arguments(of: Classes | Values, columns: dict[str, Any], values: Any, mask: Any) -> dict[str, Any]:
    """Return the arguments of `update`."""
    labels = tuple([columns[name] for name in of.columns])
    more = {} if of.ids is None else {"ids": columns[of.ids]}
    if mask is not None:
        mask = mask.numpy() if mask.is_cpu else mask  # torch would start threads for a few
        mask = mask if mask.dtype in (torch.bool, np.bool_) else mask != _IGNORED
        mask = None if isinstance(mask, np.ndarray) and mask.all() else mask  # the usual case, which is faster
    return {"labels": labels[0] if len(labels) == 1 else labels, "values": values, "where": mask, **more}


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


def losses_in_graph(loss: Any, logits: Any, shape: Any) -> tuple[Any, Any] | None:
    """Return the flat cross-entropies of tokens that autograd keeps of a loss, and labels; None if it is another."""
    # Computing them again takes as long as the model took, which is a tenth of the step of a small language model.
    node = getattr(loss, "grad_fn", None)
    for _ in range(8):  # what else is in a loss mostly comes after it: a list of all nodes takes longer
        if node is None or type(node).__name__ == "NllLossBackward0":
            break
        before = node.next_functions
        node = before[0][0] if before else None
    else:
        node = None
    if node is None or not _is_of(node, logits):
        node = next((each for each in _entropies(loss) if each is not node and _is_of(each, logits)), None)
        if node is None:
            return None
    try:
        log_probs, target, ignored = _SAVED(node)
    except (AttributeError, RuntimeError):  # another PyTorch has other names, or the backward pass is over
        return None
    n, length, words = shape
    tokens, classes = log_probs.shape
    whole = tokens in (n * length, n * length - n)  # those that shift may leave one out
    if classes != words or not tokens or not whole or log_probs.dtype != torch.float32:
        return None
    if 0 <= ignored < 2**63 and (target == ignored).any():  # PyTorch returns -100 as unsigned
        msg = (
            f"the model's loss ignores tokens with label {ignored} (ignore_index), and track() those with {_IGNORED}: "
            "let the data and the loss use that, or pass loss="
        )
        raise ValueError(msg)
    return functional.nll_loss(log_probs.data, target, None, None, _IGNORED, None, "none"), target.clone()


def _entropies(loss: Any) -> Iterator[Any]:
    """Yield the steps of autograd that computed cross-entropies of a loss, or means of them."""
    start = getattr(loss, "grad_fn", None)
    nodes = [] if start is None else [start]
    for node in nodes:
        if type(node).__name__ == "NllLossBackward0":
            yield node
        elif len(nodes) < _NODES:
            nodes += [after for after, _ in node.next_functions if after is not None]


def _is_of(node: Any, logits: Any) -> bool:
    """Return whether a cross-entropy is that of the logits."""
    softmax = node.next_functions[0][0]
    if type(softmax).__name__ != "LogSoftmaxBackward0":
        return False
    output, place = softmax.next_functions[0]
    first, nr = logits.grad_fn, logits.output_nr
    while output is not first and type(output).__name__ in _SAME:
        output, place = output.next_functions[0]
    while output is not first and type(first).__name__ in _SAME:
        first, nr = first.next_functions[0]
    return output is first and place == nr


def losses(logits: Any, labels: Any, model: Any, *, shift: bool) -> tuple[Any, Any]:
    """Return the losses of ``(N, ...)`` samples or tokens in float32, and which of them count; None for all."""
    if labels.is_floating_point():
        target = labels.float()
        if getattr(model.config, "problem_type", None) == "multi_label_classification":
            each = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        else:
            each = (logits.float().reshape(target.shape) - target) ** 2
        return each.reshape(len(each), -1).mean(dim=1), None
    given = f"logits of shape {tuple(logits.shape)} are not those of labels of shape {tuple(labels.shape)}"
    if logits.ndim == 2 < labels.ndim + 1 and len(logits) == labels.numel():  # as models flatten them
        logits = logits.view(*labels.shape, -1)
    logits, labels = _aligned(logits, labels, shift=shift)
    if logits.shape[:-1] != labels.shape:
        msg = f"{given}: pass loss= to track() to compute the values"
        raise ValueError(msg)
    if labels.ndim == 1:  # few numbers: pieces take twice as long
        return _entropies_of(logits, labels), labels != _IGNORED
    rows = max(1, _ELEMENTS // max(1, logits[0].numel()))
    parts = [
        _entropies_of(some.flatten(0, -2), of.flatten())
        for some, of in zip(logits.split(rows), labels.split(rows), strict=True)
    ]
    return torch.cat(parts).view(labels.shape), labels != _IGNORED


def _aligned(logits: Any, labels: Any, *, shift: bool) -> tuple[Any, Any]:
    """Return ``(N, ..., C)`` logits and ``(N, ...)`` labels of the same positions."""
    if labels.ndim > 1 and shift:
        logits, labels = logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:]  # virtual tokens come before
    if logits.shape[:-1] != labels.shape:  # classes come second, as in segmentation
        logits = logits.movedim(1, -1)
    return logits, labels


def _entropies_of(logits: Any, labels: Any) -> Any:
    # What `cross_entropy` does; Liger replaces that name by a function that may write into logits.
    return functional.nll_loss(torch.log_softmax(logits.float(), 1), labels, None, None, _IGNORED, None, "none")


def overwritten(loss: Any, logits: Any, labels: Any, model: Any, number: Any) -> bool:
    """Return whether logits look like the gradients of cross-entropies, and the loss is not what they give."""
    if labels.is_floating_point() or logits.ndim != labels.ndim + 1:
        return False
    for shift in (False, True)[: 1 + (labels.ndim == 2)]:
        some, of = _aligned(logits.detach(), labels, shift=shift)
        if some.shape[:-1] != of.shape:
            continue
        at = tuple((of != _IGNORED).nonzero()[:_ROWS].T)
        rows, own = some[at].float(), of[at].long().clamp(0, some.shape[-1] - 1)[:, None]
        # Softmax minus one-hot, or a part of it: none beyond 1, rows sum to zero, the label's is the lowest.
        enough = (
            16 if some.shape[-1] == 2 else 4
        )  # logits of two classes are often [-z, z], and half of these like that
        zero = rows.sum(1).abs() <= 1e-2 * rows.abs().sum(1)
        lowest = rows.gather(1, own)[:, 0] <= rows.amin(1)
        if len(rows) >= enough and 0 < rows.abs().amax() < 1.01 and 2 * zero.sum() >= len(rows) and lowest.all():
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                return True
            exact = loss.dtype in (torch.float32, torch.float64)
            away = _away(loss, *losses(logits.detach(), labels, model, shift=shift), number)
            return away > (1e-3 if exact else 1e-2)
    return False


def _away(loss: Any, values: Any, mask: Any, number: Any) -> float:
    """Return how far a loss is from the mean of values, or their sum divided by `number`, relative to itself."""
    of = float(loss.detach())
    # Where the trainer counts the tokens of all ranks, it has multiplied the loss of the model, in place, by the ranks.
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    totals = [float(values[mask].double().sum()) * k for k in {1, torch.distributed.get_world_size() if several else 1}]
    numbers = [n for n in (int(mask.sum()), 0 if number is None else int(number)) if n]
    means = [total / n for total in totals for n in numbers]
    return min((abs(mean - of) / max(abs(of), 1e-12) for mean in means), default=0.0)


def _shift_of(target: Any, labels: Any) -> bool | None:
    """Return whether what a model took as labels are those of the next positions; None if both would be."""
    n, length = labels.shape if labels.ndim == 2 else (0, 0)
    if not n or target.numel() not in (n * length, n * length - n):
        return None
    rows = target.view(n, -1)
    same = rows.shape[1] == length and torch.equal(rows, labels)
    moved = torch.equal(rows[:, : length - 1], labels[:, 1:])
    return moved if same != moved else None


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
    if logits.shape[1] > labels.shape[1]:  # virtual tokens come before, of which only causal models have logits
        return expected
    away = {
        shift: _away(loss, *losses(logits.detach(), labels, model, shift=shift), number)
        for shift in (expected, not expected)
    }
    if not expected and min(away.values()) > 1e-3 and not name.endswith(_STRAIGHT):
        text = (
            f"the loss of {name} is the mean of no losses of tokens, with labels for the same position or the next: "
            "track() takes them to be for the same one; if they are not, pass loss="
        )
        warnings.warn(text, labeltrack.LabelTrackWarning, stacklevel=2)
    wrong = away[expected] > 1e-4 > 10 * away[not expected]
    return expected != wrong
