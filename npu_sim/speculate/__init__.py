"""Drafting on the NPU: what a step of ReDrafter costs, and what it gains at a given acceptance.

Imports programs, and `tile` to price them; the drafter is that of `mu_ref.redrafter`, recorded.
Read `drafter.py` first.
"""
