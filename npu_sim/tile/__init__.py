"""The `tile` fidelity: DMA, matrix and vector engines as queues over tiles, SRAM as a budget.

Imports programs and hardware, never `roofline`. Read in the order of the pipeline: `rows.py`,
`tiling.py`, `tasks.py`, `schedule.py`, `engine.py`, `simulate.py`; `execute.py` computes values.
"""
