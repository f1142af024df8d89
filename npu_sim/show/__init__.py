"""What people look at: tables, traces, Gantt charts, pictures, the arithmetic behind one time.

Imports reports and runs, never what-ifs or evidence. Read `tables.py` first.
"""
