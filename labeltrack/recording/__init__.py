"""Recorded runs: writing every sample during training, and reading it back."""
