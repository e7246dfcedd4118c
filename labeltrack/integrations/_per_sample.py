"""From the batches of a Hugging Face trainer to a value per sample or token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from transformers.models.auto import modeling_auto

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEY = "labeltrack"
"""Of the columns in a batch."""
_IGNORED = -100  # label of tokens that do not count
# Logits of which losses are computed at a time: 4 MB stay in caches, which is 5 times as fast with 8,000 or more words.
_ELEMENTS = 2**20
_FEW = 2**11  # losses of tokens, of which each may have a word of its own: more take longer
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
    """A data collator that also passes on some columns, as lists.

    Args:
        collator: Gets the samples without these columns, unless it asks for them.
        columns: What to pass on, if the samples have it.
        taken: The columns that the model takes.
        drop: Whether to remove all others from the samples.
    """

    def __init__(
        self, collator: Callable[..., Any], columns: Sequence[str], taken: Sequence[str], *, drop: bool
    ) -> None:
        self.collator = collator
        self.columns = columns
        self.taken = frozenset(taken)
        self.drop = drop
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


def of_tokens(labels: list[list[Any]], values: Any, mask: Any, *, whole: bool) -> tuple[list[Any], Any, Any]:
    """Return labels, ``(N, ...)`` values and mask as they are recorded: a word for each of a few values, if it can be.

    With labels of shape (N, 1), recording 4 x 63 values took 360 us in cold caches instead of 137. `whole` batches keep
    their shape, that of ids.
    """
    words, *more = labels
    plain = mask is not None and (values.dtype, mask.dtype) == (torch.float32, torch.bool) and values.is_cpu
    if whole or more or not plain or not isinstance(words[0], str) or values.numel() > _FEW:
        return [np.array(each).reshape(-1, *[1] * (values.ndim - 1)) for each in labels], values, mask
    counted = mask.numpy()
    counts = counted.reshape(len(words), -1).sum(axis=1).tolist()
    each = [word for word, n in zip(words, counts, strict=True) for _ in range(n)]
    return [each], values.numpy()[counted], None


def losses_in_graph(loss: Any, logits: Any) -> tuple[Any, Any] | None:
    """Return what autograd keeps of a loss of tokens: the cross-entropies that it is made of, and which of them count.

    None if the loss is made of something else, or not of all of these logits in float32. Computing the cross-entropies
    again takes as long as the model took, which is a tenth of the step of a small language model.
    """
    nodes: list[Any] = [getattr(loss, "grad_fn", None)]
    if nodes[0] is None or logits.grad_fn is None:
        return None
    for node in nodes:
        if type(node).__name__ == "NllLossBackward0":
            softmax = node.next_functions[0][0]
            if type(softmax).__name__ != "LogSoftmaxBackward0":
                return None
            if _source(softmax.next_functions[0][0]) is not _source(logits.grad_fn):
                return None
            try:
                # Names that PyTorch documents.
                log_probs, target = (getattr(node, f"_saved_{name}").detach() for name in ("self", "target"))
            except RuntimeError:  # the backward pass is over
                return None
            n, length, *more = logits.shape
            shapes = [(n * tokens, *more) for tokens in (length, length - 1)]  # those that shift may leave one out
            if log_probs.dtype != torch.float32 or log_probs.shape not in shapes:
                return None
            values = functional.nll_loss(log_probs, target, reduction="none", ignore_index=_IGNORED)
            return values.view(n, -1), (target != _IGNORED).view(n, -1)
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
    """Return whether logits of a position are for the label of the next one.

    Some models want labels that are shifted already, such as BartForCausalLM, which names do not tell: the loss of the
    batch does.

    Args:
        model: The model itself.
        outputs: What it returned.
        labels: What it learns.
        number: Of the tokens that its loss was divided by, if it is not the mean.
    """
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
