"""The compiled step of `rank_training.py`; loaded where a scorer is trained, and nowhere else."""

from pathlib import Path

import numpy as np

from mu_ref.compiled import compiled_folder, kernel_of

__all__ = ["descend"]

kernel = kernel_of(compiled_folder("mu-ref-rank", [Path(__file__)]), nogil=True)


@kernel
def descend(weights, squares, found, ends, labels, parts, rate, decay, sparse):
    """Twin of `descend` in `rank_training.py`. Contract: rounding, as sums have another order."""
    n_columns, n_forms = weights.shape[1], len(parts)
    sums, slopes = np.zeros(n_columns, np.float32), np.zeros(n_columns, np.float32)
    p = np.zeros(n_forms, np.float32)
    loss, start = 0.0, 0
    for example in range(len(labels)):
        rows = found[start : ends[example]]
        start = ends[example]
        scale = np.float32(1 / np.sqrt(len(rows)))
        sums[:] = 0
        for row in rows:
            line = weights[row]
            for c in range(n_columns):
                sums[c] += line[c]
        highest = np.float32(-1e30)
        for form in range(n_forms):
            p[form] = (sums[parts[form, 0]] + sums[parts[form, 1]] + sums[parts[form, 2]]) * scale
            highest = max(highest, p[form])
        total = np.float32(0)
        for form in range(n_forms):
            p[form] = np.exp(p[form] - highest)
            total += p[form]
        slopes[:] = 0
        for form in range(n_forms):
            slope = p[form] / total
            if form == labels[example]:
                loss -= np.log(slope + 1e-12)
                slope -= np.float32(1)
            for k in range(3):
                slopes[parts[form, k]] += slope * scale
        for c in range(n_columns):
            if abs(slopes[c]) >= 1e-4:  # the rest would change nothing that int8 shows
                for row in rows:
                    if sparse and weights[row, c] == 0:
                        continue
                    slope = slopes[c] + decay * weights[row, c]
                    squares[row, c] += slope * slope
                    weights[row, c] -= rate * slope / np.sqrt(squares[row, c])
    return loss
