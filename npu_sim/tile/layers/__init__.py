"""Layers that repeat: a call of many equal layers is timed on a few of them, to the same numbers.

Read `repeated.py`.
"""
