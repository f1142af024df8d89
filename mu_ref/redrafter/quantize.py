"""A drafter in integers: calibrated beside the integer model whose sites it reads."""

from collections.abc import Sequence

import numpy as np

from mu_ref.config import ModelConfig
from mu_ref.integers.store import IntegerModel
from mu_ref.model.encoder import embed
from mu_ref.ops.reference import ReferenceOps
from mu_ref.ops.traced import Traced, TracedOps
from mu_ref.quantize.calibrate import Options, calibrate
from mu_ref.quantize.observe import Observed
from mu_ref.redrafter.config import DrafterConfig, drafter_shapes
from mu_ref.redrafter.drafter import advance, scores
from mu_ref.redrafter.losses import windows
from mu_ref.redrafter.store import IntegerDrafter
from mu_ref.weights import Weights

__all__ = ["quantize_drafter"]

HIDDEN_SITE = "decoder.final_norm"


def quantize_drafter(
    model: ModelConfig,
    weights: Weights,
    drafter: DrafterConfig,
    own: Weights,
    integers: IntegerModel,
    hidden: Sequence[np.ndarray],
    tokens: Sequence[np.ndarray],
    draft_len: int,
) -> IntegerDrafter:
    """Choose the scales of the drafter's sites and round its weights.

    Args:
        model: the configuration of the model.
        weights: the model's, in floats; its embedding is read.
        drafter: the drafter.
        own: its float weights.
        integers: the integer model that it will work with.
        hidden: for each text the model's states, [n_tok, d_model].
        tokens: for each text what the model read, [n_tok] int.
        draft_len: drafted tokens to watch.

    Returns:
        The integer drafter, of the model's scheme.
    """
    observed = Observed()
    ops = TracedOps(ReferenceOps({**weights, **own}, np.float32), observed.take)
    for states, read in zip(hidden, tokens, strict=True):
        h = Traced(states[None].astype(np.float32), HIDDEN_SITE)
        # As in drafting: a state for each place of the text, fed with the tokens that follow it.
        ahead = windows(read[None], draft_len)  # [1, n_tok, draft_len + 1]
        state = None
        for i in range(draft_len):
            embedding = embed(ops, model, ahead[:, :, i], "decoder")
            state = advance(ops, drafter, embedding, state)
            scores(ops, drafter, h, state)
    options = Options(scheme=integers.scheme)
    # The sites of the model that the drafter reads keep the scales they have there.
    made = calibrate(model, own, observed, options, drafter_shapes(drafter), integers.activations)
    sites = {site: e for site, e in made.activations.items() if site.startswith("drafter.")}
    return IntegerDrafter(drafter, integers.scheme, made.tensors, sites)
