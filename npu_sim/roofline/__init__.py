"""The `roofline` fidelity: one closed formula per operation, for one chip or for thousands at once.

Imports programs and hardware. Read `formula.py` first; `columns.py` is the same over arrays.
"""
