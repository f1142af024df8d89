"""What if: a scenario, changed field by field, simulated again.

Imports reports and prices; shows nothing but its own plots. Read `scenario.py` first, then
`metrics.py` and `sweep.py`.
"""
