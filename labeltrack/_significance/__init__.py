"""Whether a change of a label is more than noise: tests, their choice, and the table of results."""
