"""Reports: tables for a terminal, and one HTML file for a browser.

Example:
    >>> import labeltrack as lt
    >>> table = stats_table(lt.label_stats(["cat", "dog", "dog"], [0.5, 2.0, 1.0]), title="loss")
    >>> table.row_count
    2
"""

from labeltrack._tables import printable
from labeltrack.report.recorded import write_report
from labeltrack.report.terminal import Course, history_table, setbacks, show, stats_table

__all__ = ["Course", "history_table", "printable", "setbacks", "show", "stats_table", "write_report"]
