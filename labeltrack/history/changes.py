"""What changed between the steps of a history, and whether it is more than noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labeltrack.history.reading import Reading

if TYPE_CHECKING:
    from labeltrack._significance.comparison import Comparison


class Changes(Reading):
    """Comparisons of steps."""

    metric: str

    def compare(
        self,
        before: int,
        after: int,
        mode: str | None = None,
        ds_id: str | None = None,
        *,
        higher_is_worse: bool = True,
        alpha: float = 0.05,
    ) -> Comparison:
        """Compare two steps, label by label; see `labeltrack.compare`.

        Args:
            before: Step to compare with.
            after: Step to judge.
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            ds_id: Dataset; None pools all of them.
            higher_is_worse: True for a loss, False for an accuracy.
            alpha: Limit of q for a verdict.

        Raises:
            ImportError: scipy is not installed (extra ``stats``).
            KeyError: There is no such mode, dataset or step.
            ValueError: `mode` is None, and it is not clear which; or `alpha` is not between 0 and 1.

        Example:
            >>> import labeltrack as lt
            >>> history = lt.History(metric="ce")
            >>> for step, shift in ((3, 0.0), (7, 0.25)):
            ...     losses = [0.5 + 0.01 * i for i in range(40)] + [1.0 + 0.01 * i + shift for i in range(40)]
            ...     history.add(step, lt.label_stats(["cat"] * 40 + ["dog"] * 40, losses), mode="eval")
            >>> history.compare(3, 7).worse()
            ['dog']
        """
        from labeltrack._significance.choice import compare_stats  # noqa: PLC0415 (only for this)

        mode = self._single(mode)
        sides = self.at(before, mode, ds_id), self.at(after, mode, ds_id)
        return compare_stats(
            *sides,
            title=f"{mode}, step {before} → step {after}" + (f" of {ds_id}" if ds_id else ""),
            metric=self.metric,
            higher_is_worse=higher_is_worse,
            alpha=alpha,
        )
