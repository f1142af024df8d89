"""From a float model to an integer model in one call: watch, smooth if asked for, choose scales."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.integers.store import IntegerModel
from mu_ref.quantize.calibrate import Options, calibrate
from mu_ref.quantize.observe import Observed, observe
from mu_ref.quantize.smooth import smooth
from mu_ref.weights import Weights

__all__ = ["Example", "quantize_model", "watch"]

Example = tuple[np.ndarray | None, np.ndarray]  # source [n_src] and target [n_tgt] tokens


def quantize_model(
    model: ModelConfig, weights: Weights, examples: Sequence[Example], options: Options
) -> IntegerModel:
    """Quantize a model.

        >>> import numpy as np
        >>> import mu_ref
        >>> from mu_ref.quantize.calibrate import Options
        >>> loaded = mu_ref.load_model()
        >>> tokens = (np.array([9, 20, 7, 2]), np.array([1, 30, 31]))
        >>> integers = mu_ref.quantize_model(
        ...     loaded.model, loaded.ops.weights, [tokens], Options(scheme="w8a16"))
        >>> integers.tensors["decoder.0.mlp.up.weight"].dtype
        dtype('int8')

    Args:
        model: the configuration.
        weights: float weights.
        examples: token pairs to watch the model on; ranges are those seen, so give typical ones.
        options: how.

    Returns:
        The integer model, for `IntegerOps` or a file.

    Raises:
        QuantizationError: see `observe` and `calibrate`.
    """
    weights, observed = watch(model, weights, lambda: examples, options)
    return calibrate(model, weights, observed, options)


def watch(
    model: ModelConfig,
    weights: Weights,
    examples: Callable[[], Iterable[Example]],
    options: Options,
) -> tuple[Weights, Observed]:
    """Observe a model; with `options.smooth`, move scales to the weights and observe again.

    Args:
        model: the configuration.
        weights: float weights.
        examples: gives the examples, once or twice.
        options: uses smooth.

    Returns:
        The weights that were observed last, and what was seen.

    Raises:
        QuantizationError: see `observe` and `smooth`.
    """
    observed = observe(model, weights, examples())
    if options.smooth is None:
        return weights, observed
    weights = smooth(model, weights, observed, options.smooth)
    return weights, observe(model, weights, examples())  # the ranges have moved with the scales
