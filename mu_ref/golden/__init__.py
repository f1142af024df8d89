"""The oracle for ports: numbers that another implementation must reproduce.

Imports the model, the readers and the executors; knows no agent. Read `forward.py` first.
"""
