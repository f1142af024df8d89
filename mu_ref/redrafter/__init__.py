"""Apple's ReDrafter: a small recurrent network drafts, the model verifies many tokens at once.

Imports the model, generation, training and quantization; knows no agent. Read `generate.py` first,
then `drafter.py`, `beams.py`, `tree.py` and `verify.py`; `apple.py` is there for comparison only.
"""
