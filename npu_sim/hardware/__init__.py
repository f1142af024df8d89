"""Chips: every number with its source, the engines it belongs to, and whether a program fits.

Imports programs only to ask whether they fit. Read `chip.py` first; numbers are in `presets/`.
"""
