"""Models to simulate: descriptions from a preset, a `config.json` or a neutral JSON file.

Imports programs, whose `Description` it makes. Read `find.py` first, which chooses the reader.
"""
