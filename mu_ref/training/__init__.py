"""Training on the tape executor: losses, optimizers (Muon, AdamW), schedule, batches, trainer.

Imports the model and its executors; knows no agent. Read `trainer.py` first.
"""
