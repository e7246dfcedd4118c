"""Reports: tables for a terminal, and one HTML file for a browser."""

from labeltrack._tables import printable
from labeltrack.report.recorded import write_report
from labeltrack.report.terminal import Course, history_table, setbacks, show, stats_table

__all__ = ["Course", "history_table", "printable", "setbacks", "show", "stats_table", "write_report"]
