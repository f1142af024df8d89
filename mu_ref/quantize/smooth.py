r"""Move difficulty from activations to weights before rounding (SmoothQuant).

Feature j of a norm's output is divided by $s_j$ and column j of every matrix that reads it is
multiplied by $s_j$: the same function, but a feature with outliers no longer sets the scale of all.

$$s_j = \max|X_j|^{\alpha} / \max|W_j|^{1 - \alpha}$$                                      (5.8)

Source:
    SmoothQuant, arXiv:2211.10438, Eq. 4.

Differs from the source:
    A norm whose output is read by anything but matrices is left alone.
"""

from collections.abc import Mapping

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.errors import QuantizationError
from mu_ref.quantize.observe import Observed
from mu_ref.weights import Weights

__all__ = ["smooth"]


def smooth(model: ModelConfig, weights: Weights, observed: Observed, strength: float) -> Weights:
    """Return weights of the same function with smoother norm outputs; observe them anew.

    Args:
        model: the configuration.
        weights: float weights.
        observed: what `observe` saw with them.
        strength: alpha, 0..1; 0.5 shares the difficulty equally.

    Returns:
        New weights, float32; the originals are unchanged.

    Raises:
        QuantizationError: ranges read from a file, which do not say each feature's.
    """
    out = {name: np.array(w, np.float32) for name, w in weights.items()}
    for site, seen in observed.ranges.items():
        readers = observed.readers.get(site, set())
        names = [f"{reader}.weight" for _, reader in sorted(readers)]
        if seen.op != "norm" or not names or {op for op, _ in readers} != {"linear"}:
            continue
        if any(name not in out for name in names):  # a tied head: the embedding has other readers
            continue
        if seen.channel_max is None:
            raise QuantizationError("smoothing must see values; a file of ranges has none")
        factor = _factor(seen.channel_max, [out[name] for name in names], strength)
        _divide_gain(model, out, site, factor)
        for name in names:
            out[name] *= factor
    return out


def _factor(channel_max: np.ndarray, matrices: list[np.ndarray], strength: float) -> np.ndarray:
    # [d]: of each feature, the largest weight of all matrices that read it
    columns = np.max([np.abs(w).max(axis=0) for w in matrices], axis=0)
    tiny = np.float32(1e-5)
    factor = np.maximum(channel_max, tiny) ** strength / np.maximum(columns, tiny) ** (1 - strength)
    return (factor / np.exp(np.mean(np.log(factor)))).astype(np.float32)  # sizes stay as they are


def _divide_gain(
    model: ModelConfig, weights: Mapping[str, np.ndarray], site: str, factor: np.ndarray
) -> None:
    offset = model.stacks[site.split(".", maxsplit=1)[0]].norm_kind == "rms_plus_one"
    gain = weights[f"{site}.weight"]
    gain[:] = (gain + offset) / factor - offset
    if f"{site}.bias" in weights:
        weights[f"{site}.bias"][:] /= factor
