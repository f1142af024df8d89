"""Products of matrices: weights of every width, what they read, and attention of many queries.

Imports other kernels only.
"""
