"""The rest of Mu's recipe on Settings data: distillation, and LoRA for a task of its own.

`distill.py` and `lora.py` are two runs with a folder each; `tasks.py` makes their texts. Imports
the agent's training, never the agent.
"""
