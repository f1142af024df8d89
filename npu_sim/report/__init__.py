"""Answers: phases, energy and budgets of a request at either fidelity.

Joins `roofline` and `tile`; everything that is printed or drawn starts from its `Report`. Read
`fidelity.py` first.
"""
