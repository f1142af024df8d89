"""Faults as tests: thousands of wrong command lines and damaged files, and what comes of each.

`python -m tests.faults` tries them. Read `case.py` first (what is tried), then `boxes.py` (where
and how), `verdict.py` (what counts as what), and the kinds in `kinds/`, one file each.
"""
