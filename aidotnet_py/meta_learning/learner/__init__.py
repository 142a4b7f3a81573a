"""What every learner does: steps over batches in parallel, training, checkpoints, random state."""
