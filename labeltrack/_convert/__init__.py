"""Whatever a training loop holds becomes checked numpy arrays."""
