"""What changed between the steps of a history, and whether it is more than noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labeltrack._filters import compared_step
from labeltrack.history.entries import Entries

if TYPE_CHECKING:
    import os

    from labeltrack._significance.comparison import Comparison
    from labeltrack._significance.sequence import Alarm
    from labeltrack.bounds import BoundName


class Changes(Entries):
    """Comparisons of steps."""

    metric: str
    label: str
    bounds: tuple[BoundName, ...]

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
        title = f"{mode}, step {before} → step {after}" + (f" of {ds_id}" if ds_id else "")
        options: dict[str, Any] = {"metric": self.metric, "higher_is_worse": higher_is_worse, "alpha": alpha}
        return compare_stats(self.at(before, mode, ds_id), self.at(after, mode, ds_id), title=title, **options)

    def alarms(
        self,
        mode: str | None = None,
        ds_id: str | None = None,
        *,
        against: int | None = None,
        higher_is_worse: bool = True,
        alpha: float = 0.05,
    ) -> list[Alarm]:
        """Return the labels that got worse since a step, at any of the steps after it.

        This may be asked after every epoch: however many looks there are, a label that did not change is an alarm with
        a probability of at most about `alpha`. A test repeated at every epoch is not: with 50 looks, it sees changes in
        nearly half of the labels that did not change. Once there is an alarm, it stays.

        Every look counts twice: all samples since the step that is compared with, which shows changes that last, and
        the samples of the look alone, which show sudden ones. Both use means and standard deviations only. Where sizes
        differ and samples are so skewed that these do not suffice, there is no alarm; nor with fewer than 20 samples. A
        mean that is no longer finite is an alarm without a test.

        Args:
            mode: Mode; None for ``"eval"`` if there is such a mode, else for the only one.
            ds_id: Dataset; None pools all of them.
            against: Step to compare with, which must not be chosen for its results; None for the first.
            higher_is_worse: True for a loss, False for an accuracy.
            alpha: Limit of q: p-values after Benjamini and Hochberg across the labels.

        Returns:
            The labels, with the step of the alarm, means and p-values, the largest change first.

        Raises:
            ImportError: scipy is not installed (extra ``stats``).
            KeyError: There is no such mode, dataset or step.
            ValueError: `mode` is None, and it is not clear which; or `alpha` is not between 0 and 1.

        Example:
            >>> import labeltrack as lt
            >>> history = lt.History()
            >>> for step in range(1, 6):
            ...     losses = [0.5 + 0.01 * i + (step > 3) * 0.25 for i in range(40)]
            ...     history.add(step, lt.label_stats(["cat"] * 40, losses), mode="eval")
            >>> [(alarm.label, alarm.step) for alarm in history.alarms()]
            [('cat', 4)]
        """
        from labeltrack._significance.sequence import find_alarms  # noqa: PLC0415 (only for this)

        mode = self._single(mode)
        found = dict(self._of(mode, ds_id))
        against = min(found) if against is None else against
        reference = self.at(against, mode, ds_id)
        looks = [(step, stats) for step, stats in found.items() if step > against]
        return find_alarms(reference, looks, higher_is_worse=higher_is_worse, alpha=alpha)

    def to_html(
        self,
        path: str | os.PathLike[str],
        mode: str | None = None,
        ds_id: str | None = None,
        *,
        against: int | str = "previous",
        higher_is_worse: bool = True,
        alpha: float = 0.05,
        title: str | None = None,
    ) -> None:
        """Write a report: one HTML file with the verdict, a table of all labels, curves and a heatmap.

        It needs nothing but a browser: no network and no other file. Of a recorded run,
        `labeltrack.report.write_report` shows the samples, too. Without scipy (extra ``stats``), nothing is tested.

        Args:
            path: A name that ends in .html; an existing file is replaced on success.
            mode: Mode that is judged; None for ``"eval"`` if there is such a mode, else for the only one. The curves
                of other modes can be drawn beside it.
            ds_id: Dataset; None pools all of them.
            against: What the last step is compared with: ``"previous"``, ``"first"`` or a step.
            higher_is_worse: True for a loss, False for an accuracy.
            alpha: Limit of q for a verdict.
            title: Title of the page; None for metric and label.

        Raises:
            KeyError: There is no such mode, dataset or step.
            OSError: The file cannot be written; an existing one stays.
            ValueError: `mode` is None, and it is not clear which; `alpha` is not between 0 and 1; or the name has
                another ending.

        Example:
            >>> import tempfile, pathlib
            >>> import labeltrack as lt
            >>> history = lt.History(metric="ce", label="animal")
            >>> for step, shift in ((1, 0.0), (2, 0.25)):
            ...     losses = [0.5 + 0.01 * i for i in range(40)] + [1.0 + 0.01 * i + shift for i in range(40)]
            ...     history.add(step, lt.label_stats(["cat"] * 40 + ["dog"] * 40, losses), mode="eval")
            >>> path = pathlib.Path(tempfile.mkdtemp(), "report.html")
            >>> history.to_html(path)
            >>> "1 of 2 labels got worse from step 1 to step 2" in path.read_text(encoding="utf-8")
            True
        """
        from labeltrack.page.content import Track, judged  # noqa: PLC0415 (only for this)
        from labeltrack.page.document import write_page  # noqa: PLC0415

        mode = self._single(mode)
        shown = [mode, *(of for of in self.modes if of != mode and self._having(of, ds_id))]
        tracks = [Track(of, self._of(of, ds_id)) for of in shown]
        looks = dict(tracks[0].looks)
        at = compared_step(list(looks)[:-1], against)
        content = judged(
            tracks,
            (self.metric, self.label),
            None if at is None else looks[at],
            title=title,
            bounds=self.bounds,
            higher_is_worse=higher_is_worse,
            alpha=alpha,
            sides="" if at is None else f"step {at} to step {max(looks)}",
        )
        write_page(content, path)
