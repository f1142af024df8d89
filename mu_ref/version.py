"""The version of this package: part of a long run's identity, and of what it writes."""

__version__ = "0.5.5"
