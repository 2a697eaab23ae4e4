"""What the notebooks of the experiments show: for each a module with its figures and its findings."""
