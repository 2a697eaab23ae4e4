"""What do fewer bits cost: the method, and the runs that measure it."""
