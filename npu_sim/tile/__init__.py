"""The `tile` fidelity: DMA, matrix and vector engines as queues over tiles, SRAM as a budget.

Imports programs and hardware, never `roofline`. Read in the order of the pipeline: `rows.py`,
`plan.py`, `tiling.py`, `tasks.py`, `schedule.py`, `attention.py`, `engine.py`, `simulate.py`; then
`layers/repeated.py`, which spares most of it where layers are equal. What is called `_kernel` is
the compiled twin of the file beside it; `execute.py` computes values.
"""
