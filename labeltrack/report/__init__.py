"""Reports: tables for a terminal, and one HTML file for a browser."""

from labeltrack._tables import printable
from labeltrack.report.recorded import write_report
from labeltrack.report.terminal import history_table, show

__all__ = ["history_table", "printable", "show", "write_report"]
