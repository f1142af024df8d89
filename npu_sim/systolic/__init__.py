"""A matrix engine of cells that pass numbers to their neighbours, in closed form and cell by cell.

Imports only errors and units: it knows no program and no chip. Read `closed_form.py` first.
"""
