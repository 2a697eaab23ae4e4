"""Pre-training and transfer."""
