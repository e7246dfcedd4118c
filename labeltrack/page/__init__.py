"""The HTML report of `History.to_html` and `labeltrack.report.write_report`: one file, which needs no network."""
