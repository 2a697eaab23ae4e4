"""Examples in splits, files and batches."""
