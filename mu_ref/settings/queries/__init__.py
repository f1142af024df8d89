"""Queries to train and test on: reading labelled ones, and making more from the catalog.

Imports the tokenizer and the catalog; knows no model. Read `labelled.py` first.
"""
