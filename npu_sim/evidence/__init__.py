"""Is it true? Predictions beside measurements, constants fitted to them, published figures.

Imports every room but the command line. Read `validate.py` first, then `calibrate.py`.
"""
