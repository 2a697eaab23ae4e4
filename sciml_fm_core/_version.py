"""The version of the package, which identities of runs and cards of bundles carry."""

__version__ = "0.1.0"
