"""A readable forward pass of Mu, written once and run by many executors.

Start with `mu_ref/model/mu.py`. Importing this package loads neither Numba nor Matplotlib.
"""

__version__ = "0.1.0"
