"""What can be had without labels, or without training: the method, and the runs that measure it."""
