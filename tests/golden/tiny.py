"""The frozen tiny model: all switches of the configuration that the shipped model leaves alone.

Weights are drawn from a seed and scales from eight random texts; `python -m tests.golden --models`
writes the files in `models/`. They ship, since the last bit of a scale depends on the processor
whose exponentials were calibrated with; from the files on, integers do not.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.executors import float_executor
from mu_ref.integers.store import IntegerModel, save_integers
from mu_ref.model import mu
from mu_ref.model.decoder import decode
from mu_ref.presets import preset
from mu_ref.quantize.calibrate import Options
from mu_ref.quantize.model import quantize_model
from mu_ref.redrafter.config import DrafterConfig, initial_drafter
from mu_ref.redrafter.quantize import quantize_drafter
from mu_ref.redrafter.store import IntegerDrafter, save_drafter, save_integer_drafter
from mu_ref.weights import Weights, save_weights, weight_shapes

__all__ = [
    "DRAFTER",
    "MODELS",
    "integer_drafter",
    "model_file",
    "tiny_model",
    "tiny_weights",
    "write_models",
]

MODELS = Path(__file__).parent / "models"
SCHEMES = ("float32", "w8a16", "w8a8")
SEED, DRAFTER_SEED = 1, 34  # of weights whose run keeps some drafts and drops others

ENCODER = StackConfig(
    n_layers=2, d_model=24, d_ff=40, n_heads=4, n_kv_heads=2, d_head=8, kv_head_map="cyclic",
    attention_scale=0.25, attention_softcap=None, attention_bias=True, mlp_bias=True,
    window=2, windowed_layers=(True, False), norm_kind="layer", norm_placement="pre",
    norm_eps=1e-2, embed_norm=True, embed_scale=0.5, activation="gelu_tanh", gated=False,
    rope_theta=10_000.0, rope_origin="centre", rope_ntk_factor=2.0, rope_base_len=6,
    rope_length="row",
)  # fmt: skip
DECODER = StackConfig(
    n_layers=2, d_model=16, d_ff=24, n_heads=4, n_kv_heads=2, d_head=8, kv_head_map="blocked",
    attention_scale=0.5, attention_softcap=3.0, attention_bias=False, mlp_bias=False,
    window=3, windowed_layers=(False, True), norm_kind="rms_plus_one", norm_placement="dual",
    norm_eps=1e-2, embed_norm=False, embed_scale=4.0, activation="silu", gated=True,
    rope_theta=500.0, rope_origin="start", rope_ntk_factor=4.0, rope_base_len=5,
    rope_length="row",
)  # fmt: skip
DRAFTER = DrafterConfig(d_model=16, vocab_size=32, d_exit=20, n_blocks=1, rnn=True)


def tiny_model() -> ModelConfig:
    """Return the configuration."""
    return replace(
        preset("tiny"), name="tiny-golden", encoder=ENCODER, decoder=DECODER, vocab_size=32,
        encoder_vocab_size=40, shared_embedding=False, tied_head=False, head_bias=True,
        final_softcap=8.0, mask_decoder_pads=True, pad_id=28,
    )  # fmt: skip


def tiny_weights(seed: int = SEED) -> Weights:
    """Draw float weights; tokens 4 and 5, 6 and 7, ... have equal rows in the head, and so tie."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in weight_shapes(tiny_model()).items():
        matrix = len(shape) == 2
        size = shape[1] ** -0.5 if matrix and "embedding" not in name else 0.3
        drawn = rng.standard_normal(shape) * size
        if name.endswith("norm.weight") and not name.startswith("decoder"):
            drawn = drawn + 1
        weights[name] = drawn.astype(np.float32)
    for part in ("head.weight", "head.bias"):
        weights[part][5::2] = weights[part][4::2]
    return weights


def examples(n: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the texts to calibrate with."""
    rng = np.random.default_rng(99)
    return [(rng.integers(3, 40, 7), np.array([1, *rng.integers(3, 32, 9)])) for _ in range(n)]


def model_file(scheme: str, *, drafter: bool = False) -> Path:
    """Name the file of a model or of its drafter."""
    return MODELS / f"tiny{'-drafter' if drafter else ''}-{scheme}.safetensors"


def write_models() -> None:
    """Write the six files."""
    MODELS.mkdir(exist_ok=True)
    model, weights = tiny_model(), tiny_weights()
    own = initial_drafter(DRAFTER, np.random.default_rng(DRAFTER_SEED))
    save_weights(model_file("float32"), model, weights)
    save_drafter(model_file("float32", drafter=True), DRAFTER, own, {})
    for scheme in SCHEMES[1:]:
        integers = quantize_model(model, weights, examples(), Options(scheme=scheme))
        save_integers(model_file(scheme), integers)
        made = integer_drafter(DRAFTER, own, weights, integers)
        save_integer_drafter(model_file(scheme, drafter=True), made)


def integer_drafter(
    drafter: DrafterConfig, own: Weights, weights: Weights, integers: IntegerModel
) -> IntegerDrafter:
    """Quantize a drafter of the tiny model.

    Args:
        drafter: its configuration.
        own: its float weights.
        weights: float weights of the model.
        integers: the model that it will draft for.

    Returns:
        The drafter.
    """
    model, ops = integers.model, float_executor(weights)
    hidden, tokens = [], []
    for source, target in examples():
        memory = mu.remember(ops, model, source[None], np.ones((1, len(source)), bool))
        valid = np.ones((1, len(target)), bool)
        hidden.append(decode(ops, model, target[None], valid, memory)[0])
        tokens.append(target)
    return quantize_drafter(model, weights, drafter, own, integers, hidden, tokens, 4)
