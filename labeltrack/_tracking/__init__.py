"""What a tracker records between two ends of an epoch: streams of samples, their statistics, and saved states."""
