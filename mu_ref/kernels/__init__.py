"""Numba kernels, each the twin of a reference function; compiled once and kept on disk.

Imports configurations and memory, nothing above. Read `products/linear.py` first: it says what a
product is; `float_program.py` and `integer_program.py` say who calls it.
"""
