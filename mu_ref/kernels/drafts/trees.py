"""Twins of the bookkeeping around the drafter: packing beams, choosing beams."""

import math

import numpy as np

from mu_ref.kernels.compiled import kernel
from mu_ref.kernels.floats import exp

__all__ = ["pack", "select"]


@kernel
def pack(beams):
    """Twin of `pack` in `mu_ref/redrafter/tree.py`: a Tree's fields in order. Contract: exact."""
    batch, width, n = beams.shape
    unpacker = np.empty((batch, width, n), np.int64)
    n_nodes, met = np.zeros(batch, np.int64), np.empty(batch * width * n, np.int64)
    total = 0
    for b in range(batch):
        for i in range(width):
            shared = 0  # tokens of this beam that an earlier one began with
            for j in range(i):
                k = 0
                while k < n and beams[b, i, k] == beams[b, j, k]:
                    k += 1
                while shared < k:
                    unpacker[b, i, shared] = unpacker[b, j, shared]
                    shared += 1
            for k in range(shared, n):
                unpacker[b, i, k] = n_nodes[b]
                n_nodes[b] += 1
                met[total] = (b * width + i) * n + k
                total += 1
    # Rows are padded to the longest, with nodes of the rows that follow, as in the reference.
    n_packed = n_nodes.max()
    nodes = np.empty((batch, n_packed), np.int64)
    sees = np.zeros((batch, n_packed, n_packed), np.bool_)
    first = 0
    for b in range(batch):
        for p in range(n_packed):
            nodes[b, p] = met[min(first + p, total - 1)]
            beam, depth = nodes[b, p] // n % width, nodes[b, p] % n  # where it is met first
            for k in range(depth + 1):
                sees[b, p, unpacker[b, beam, k]] = True
        first += n_nodes[b]
    return nodes, unpacker, n_nodes, sees


@kernel
def select(log_p, logits, beam_width):
    """Twin of `select` in `mu_ref/redrafter/beams.py`: source, token, score. Contract: bound.

    Sums are in float32: scores of one beam shift together by up to 1e-5, so tokens are the same but
    for candidates closer than that. log_p is [batch, n], logits [batch, n, vocab_size]; n *
    vocab_size is at least beam_width.
    """
    batch, n, vocab_size = logits.shape
    source = np.empty((batch, beam_width), np.int64)
    token = np.empty((batch, beam_width), np.int64)
    score = np.empty((batch, beam_width), log_p.dtype)
    below, powers = np.empty(vocab_size, np.float32), np.empty(vocab_size, np.int32)
    for b in range(batch):
        found = 0
        for w in range(n):
            z = logits[b, w]
            largest = z[0]
            for v in range(vocab_size):
                largest = max(largest, z[v])
            for v in range(vocab_size):
                below[v] = np.float32(z[v] - largest)
            exp(below, powers)  # in place
            base = log_p[b, w] - largest - math.log(np.sum(below))
            for v in range(vocab_size):
                s = log_p.dtype.type(base + z[v])
                if found == beam_width and s <= score[b, found - 1]:
                    continue  # on a tie the earlier candidate stays, which has the lower index
                at = min(found, beam_width - 1)
                while at > 0 and score[b, at - 1] < s:
                    score[b, at] = score[b, at - 1]
                    source[b, at], token[b, at] = source[b, at - 1], token[b, at - 1]
                    at -= 1
                score[b, at], source[b, at], token[b, at] = s, w, v
                found = min(found + 1, beam_width)
    return source, token, score
