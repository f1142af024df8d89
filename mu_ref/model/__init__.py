"""What is computed: the forward pass, written once over the operations of `mu_ref.ops`.

Imports configurations and the vocabulary of operations; no executor, no Numba. Read `mu.py` first,
then `decoder.py` and `attention.py`.

Every function takes its arguments in one order: `ops`, the executor; the configuration, `model` or
one `stack` of it; what is computed on; what is read beside it (masks, cache, memory); and last the
site, the name under which an operation finds its weights. What a function does not need is left
out: one without `ops` is plain NumPy, on positions and masks, and computes no activation.
"""
