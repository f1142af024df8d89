"""What if: a scenario, changed field by field, measured again.

Imports reports and prices; shows nothing but its own plots. Read `scenario.py` first, then
`measure.py` and `sweep.py`.
"""
