"""The HTML report: one file that shows in any browser what changed, without a network.

`History.to_html` and `labeltrack.report.write_report` write it. ``content`` compares and tests, ``payload`` packs the
data for the scripts in ``assets``, and ``document`` says what was found in a sentence and makes the file.
"""
