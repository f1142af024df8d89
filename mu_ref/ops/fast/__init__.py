"""The compiled executors: the model's operations are deferred, then run by Numba kernels.

Imports `ops`, `integers` and `kernels`. Read `deferred.py` first: it follows `ops.linear(...)` from
the call to the kernel. Then `floats.py` (float32 and int4 weights) or `integers.py`, one executor
each, with what they ask beside them: `matrices.py`, how a weight lies in memory, and `sites.py`,
what an integer site needs. `memory.py` is for values, the room `stretches/` for steps that come
again.
"""
