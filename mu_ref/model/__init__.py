"""What is computed: the forward pass, written once over the operations of `mu_ref.ops`.

Imports configurations and the vocabulary of operations; no executor, no Numba. Read `mu.py` first,
then `decoder.py` and `attention.py`.
"""
