"""Bad cases made from a seed, run against the code that reads files and takes calls: ``python -m tests.attack``.

Each module that has a `NAME` and an ``attack(seed, folder)`` is a kind. An attack makes one case, in a folder of its
own, and returns None if it was refused as it should be, or what came was right; else it says what is wrong.
"""
