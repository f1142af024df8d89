"""Commands that train: from labels, from a teacher, and a second task by LoRA.

Imports the rooms that every command may import. Drafters are trained in `mu_ref/cli/redrafter.py`.
"""
