"""Twins of what a training step does row by row: norms and cross-entropy, with their ways back.

Arrays are [rows, features]. The order of every sum is fixed: `sums.py` says that over features;
one over rows goes row by row.
"""

import numpy as np

from mu_ref.kernels.compiled import dividing
from mu_ref.kernels.floats import exp
from mu_ref.kernels.training.sums import dot, largest, total

__all__ = ["cross_entropy", "norm", "norm_back"]


@dividing
def norm(x, gain, bias, y, mean, r, layer, eps):
    """Write y = gain (x - mean) r + bias, and of each row mean and r.

    r = 1 / sqrt(mean((x - mean)²) + eps); without `layer` mean and bias are 0.

    Contract: bound. 0.3 ns an element.
    """
    d, one = x.shape[1], np.float32(1)
    work = np.empty(d, np.float32)
    for row in range(len(x)):
        given, to = x[row], y[row]
        if layer:
            mean[row] = total(given) / np.float32(d)
            for k in range(d):
                work[k] = given[k] - mean[row]
            given = work
        scale = one / np.sqrt(dot(given, given) / np.float32(d) + eps)
        r[row] = scale
        if layer:
            for k in range(d):
                to[k] = given[k] * scale * gain[k] + bias[k]
        else:
            for k in range(d):
                to[k] = given[k] * scale * gain[k]


@dividing
def norm_back(grad, x, gain, mean, r, dx, d_gain, d_bias, layer):
    """From dy to dx, and to the sums over rows for gain and bias, which start at 0.

    dx = r (g dy - u mean(g dy u) - mean(g dy)), u = (x - mean) r; the last term for `layer` only.

    Contract: bound. 0.5 ns an element.
    """
    d = x.shape[1]
    u, du = np.empty(d, np.float32), np.empty(d, np.float32)
    for row in range(len(x)):
        dy, given, to = grad[row], x[row], dx[row]
        for k in range(d):
            u[k] = (given[k] - mean[row]) * r[row] if layer else given[k] * r[row]
            du[k] = dy[k] * gain[k]
            d_gain[k] += dy[k] * u[k]
        along = dot(du, u) / np.float32(d)
        shift = np.float32(0)
        if layer:
            shift = total(du) / np.float32(d)
            for k in range(d):
                d_bias[k] += dy[k]
        for k in range(d):
            to[k] = r[row] * (du[k] - u[k] * along - shift)


@dividing
def cross_entropy(z, y, counted, epsilon, share, loss, dz):
    """Write the loss of each row and share (p - q), its gradient; 0 where not counted.

    q = (1 - epsilon) [v = y] + epsilon / V. A score that is no number makes the loss none.

    Contract: bound. 1 ns an element.
    """
    size = z.shape[1]
    powers = np.empty(size, np.int32)
    spread, one = epsilon / np.float32(size), np.float32(1)
    for row in range(len(z)):
        given, to = z[row], dz[row]
        if not counted[row]:
            to[:] = 0
            loss[row] = 0
            continue
        most = largest(given)
        for v in range(size):
            to[v] = given[v] - most
        mean = total(to) / np.float32(size)
        hit = to[y[row]]
        exp(to, powers)
        whole = total(to)
        loss[row] = np.log(whole) - (one - epsilon) * hit - epsilon * mean
        by = one / whole
        for v in range(size):
            to[v] = share * (to[v] * by - spread)
        to[y[row]] -= share * (one - epsilon)
