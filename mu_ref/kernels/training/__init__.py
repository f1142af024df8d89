"""Kernels of a training step: each computes its values and, beside them, what the way back needs.

Imports the kernels beside it, nothing above. Their plain twins are in `mu_ref/ops/arithmetic.py`.
"""
