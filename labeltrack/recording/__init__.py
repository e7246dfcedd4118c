"""Recorded runs: writing every sample while training goes on, and reading it back."""
