"""What runs: operations with their bytes and arithmetic, recorded from the forward pass.

Imports `mu_ref` and knows no hardware. Read `program.py` first, then `recorder.py`, the executor
that writes a program down, and `request.py`, which asks it for a whole request.
"""
