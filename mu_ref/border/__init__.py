"""What comes from a user, understood whole or refused, and what goes out, whole or not at all.

Imports errors, and `memory.py` for arrays. Files come in by `reading.py` and `arrays.py`, numbers
and texts by `ranges.py` and `text.py`; `files.py` plans and makes those that are written;
`conversion.py` is what Typer need not do of a command line.
"""
