"""The Settings agent: a query in plain English in, one checked call out; no setting is changed.

Imports every room of `mu_ref` but the command line. Read `agent.py` first; the catalog and the call
grammar stand in `catalog.py` and `calls.py`, queries to train on in `queries/`.
"""
