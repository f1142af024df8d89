"""Kernels of speculative decoding: beams and their trees, and whole passes of drafts and checks.

Imports the machines, and nothing but kernels.
"""
