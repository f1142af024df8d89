"""Stretches of operations that come again: known, replayed, and run ahead of the model.

`replay.py` knows the rows of a stretch, `repeats.py` captures and replays it, `told.py` lets
compiled code tell of each token, `drafting.py` is for passes of drafts and checks. Imports
`deferred.py` and `memory.py` of the room around it, and `kernels`.
"""
