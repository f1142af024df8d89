"""The compiled executors: the model's operations are written down, then run by Numba kernels.

Imports `ops`, `integers` and `kernels`. Read `deferred.py` first: what is written down and when it
runs; then `floats.py`, `integers.py` or `int4.py`, one executor each.
"""
