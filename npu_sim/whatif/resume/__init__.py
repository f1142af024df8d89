"""A sweep that is stopped goes on: its parts on disk, whose they are, and what stands beside them.

Imports the specification of sweeps. Read `parts.py` first.
"""
