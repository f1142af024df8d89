"""The `roofline` fidelity: one closed formula per operation, for one chip or for thousands at once.

Imports programs and hardware, never `tile`. Read `formula.py` first; `columns.py` prices a whole
program on many NPUs with it.
"""
