"""Answers that are calls, and only calls: a trie over the catalog, a search in it, and doubt.

Imports the model, the executors' vocabulary and the catalog. What a query may ask a level for is
read in `numbers.py`; `decide.py` joins model, scorer and search.
"""
