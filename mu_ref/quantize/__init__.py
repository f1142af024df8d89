"""From float weights to integers: watch ranges, choose scales, smooth, and report what was lost.

Imports executors and the model; what an integer means stands in `mu_ref.integers`. Read
`calibrate.py` first, then `observe.py`, which gives it ranges.
"""
