"""Arrays, tensors, columns and lists become checked numpy arrays."""
