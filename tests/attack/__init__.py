"""Bad cases made from a seed, run against the code that reads files and takes calls: ``python -m tests.attack``.

`files` damages whatever is read, `calls` gives odd arguments to the library and to commands, `chaos` kills commands,
starts them in pairs and lets them run out of disk.
"""
