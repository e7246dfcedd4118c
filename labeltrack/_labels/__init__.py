"""Label values become integer codes."""
