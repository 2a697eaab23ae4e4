"""The version of the package, which cards of bundles carry, and of its numbers, which identities of runs carry."""

__version__ = "0.1.0"
NUMBERS = 1
"""Raised when the same run gives other numbers, so that no record of before is taken for one of today."""
