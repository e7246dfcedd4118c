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
_ELEMENTS = 2**26  # logits that are converted to float32 at a time: 256 MB


class Collator:
    """A data collator that also passes on some columns, as lists.

    Args:
        collator: Gets the samples without these columns, unless it asks for them.
        columns: What to pass on.
        taken: The columns that the model takes.
        drop: Whether to remove all other columns from the samples.
    """

    def __init__(
        self, collator: Callable[..., Any], columns: Sequence[str], taken: Sequence[str], *, drop: bool
    ) -> None:
        self.collator = collator
        self.columns = columns
        self.taken = frozenset(taken)
        self.drop = drop
        self.whole = False

    def __call__(self, samples: list[Any], *arguments: Any) -> Any:
        """Return a batch, with the columns under a key of its own."""
        columns = {name: [_plain(sample[name]) for sample in samples] for name in self.columns}
        hidden = set(self.columns) - self.taken
        if not self.whole:
            shown = [name for name in samples[0] if name not in hidden and (name in self.taken or not self.drop)]
            try:
                batch = self.collator([{name: sample[name] for name in shown} for sample in samples], *arguments)
            except KeyError as error:
                if not set(error.args) & set(samples[0]):
                    raise
                self.whole = True  # it is the user's own, and knows its columns
        if self.whole:
            batch = self.collator(samples, *arguments)
            for name in hidden:
                batch.pop(name, None)
        batch[KEY] = columns
        return batch


def _plain(value: Any) -> Any:
    """Return a number or string; of a tensor its only item."""
    return value.item() if hasattr(value, "item") else value


def item(outputs: Any, name: str) -> Any:
    """Return an output of a model; None if it has none of that name."""
    return outputs.get(name) if isinstance(outputs, dict) else getattr(outputs, name, None)


def of_sequences(values: Any, mask: Any, *, mean: bool) -> tuple[Any, Any]:
    """Return mean or sum of each sequence, as float64; and which of them have tokens."""
    numbers = values.float().cpu().numpy().astype(np.float64)
    counted = np.ones(numbers.shape, np.bool_) if mask is None else mask.cpu().numpy()
    numbers, counted = numbers.reshape(len(numbers), -1), counted.reshape(len(counted), -1)
    sums, n = np.where(counted, numbers, 0.0).sum(axis=1), counted.sum(axis=1)
    return (sums / np.maximum(n, 1) if mean else sums), n > 0


def losses(logits: Any, labels: Any, model: Any) -> tuple[Any, Any]:
    """Return the losses of ``(N, ...)`` samples or tokens in float32, and which of them count; None for all."""
    if labels.is_floating_point():
        target = labels.float()
        if getattr(model.config, "problem_type", None) == "multi_label_classification":
            each = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        else:
            each = (logits.float().reshape(target.shape) - target) ** 2
        return each.reshape(len(each), -1).mean(dim=1), None
    if labels.ndim > 1 and _shifts(model):
        logits, labels = logits[:, -labels.shape[1] :][:, :-1], labels[:, 1:]  # virtual tokens come before
    if logits.shape[:-1] != labels.shape:  # classes come second, as in segmentation
        logits = logits.movedim(1, -1)
    rows = max(1, _ELEMENTS // max(1, logits[0].numel()))
    parts = [
        functional.cross_entropy(some.float().flatten(0, -2), of.flatten(), reduction="none", ignore_index=_IGNORED)
        for some, of in zip(logits.split(rows), labels.split(rows), strict=True)
    ]
    return torch.cat(parts).view(labels.shape), None if labels.ndim == 1 else labels != _IGNORED


def _shifts(model: Any) -> bool:
    """Return whether logits of a position are for the label of the next one."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = type(model).__name__
    known = name in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return not getattr(model.config, "is_encoder_decoder", False) and (
        known or name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    )
