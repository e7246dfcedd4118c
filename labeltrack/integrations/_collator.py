"""Columns of samples pass through the data collator of a Hugging Face trainer, beside what its model takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

KEY = "labeltrack"
"""Of the columns in a batch."""


class Columns:
    """Columns of a batch: no container whose items frameworks walk through, which takes 0.1 ms."""

    __slots__ = ("lists", "n")

    def __init__(self, lists: dict[str, list[Any]], n: int) -> None:
        self.lists = lists
        self.n = n  # samples


class Collator:
    """A data collator that also passes on some columns, as lists, if the samples have them."""

    __slots__ = ("collator", "columns", "drop", "hidden", "taken", "wanted")  # all else is that of the collator

    def __init__(
        self, collator: Callable[..., Any], columns: Sequence[str], taken: Sequence[str], *, drop: bool
    ) -> None:
        self.collator = collator
        self.columns = columns
        self.wanted = set(columns)
        self.taken = frozenset(taken)  # by the model
        self.drop = drop  # all others
        self.hidden = self.wanted - self.taken

    def __call__(self, samples: list[Any], *arguments: Any) -> Any:
        """Return a batch, with the columns under a key of its own."""
        columns: dict[str, list[Any]] = {}
        if not hasattr(samples[0], "keys"):
            wanted = ", ".join(self.columns)
            msg = f"track() needs samples that are dicts with {wanted}, got {type(samples[0]).__name__}"
            raise TypeError(msg)
        if samples[0].keys() >= self.wanted:
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
            batch[KEY] = Columns(columns, len(samples))
        return batch

    def __getattr__(self, name: str) -> Any:  # such as the tokenizer, which Trainer saves with the model
        if name == "collator" or name.startswith("__"):  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.collator, name)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self if name in self.__slots__ else self.collator, name, value)

    def _collated(self, samples: list[Any], arguments: Any) -> Any:
        names = [name for name in samples[0] if name in self.taken or not (self.drop or name in self.hidden)]
        return self.collator([{name: sample[name] for name in names} for sample in samples], *arguments)


def _plain(column: list[Any]) -> list[Any]:
    """Return numbers or strings; of tensors their only items."""
    return [value.item() for value in column] if hasattr(column[0], "item") else column
