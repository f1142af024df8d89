"""Hypothesis strategies: random small configurations over all their fields, weights, batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

import mu_ref.generate
from mu_ref.config import ModelConfig, StackConfig
from mu_ref.integers.store import IntegerModel
from mu_ref.quantize.calibrate import Options, calibrate
from mu_ref.quantize.observe import observe
from mu_ref.weights import Weights, weight_shapes

KINDS = ("encoder-decoder", "decoder-only", "encoder-only")


@dataclass(frozen=True)
class Rows:
    """Token ids padded on the right; what stands at padding is random, not pad_id."""

    tokens: np.ndarray  # [batch, n_tok] int
    valid: np.ndarray  # [batch, n_tok] bool

    @property
    def lengths(self) -> list[int]:
        return [int(n) for n in self.valid.sum(axis=1)]


@st.composite
def stack_configs(draw: Any, *, encoder: bool = False, **fixed: Any) -> StackConfig:
    """Draw one stack; `fixed` fields are taken as given."""
    n_layers = draw(st.integers(1, 2))
    n_kv_heads = draw(st.integers(1, 3))
    ntk_factor = draw(st.sampled_from([1.0, 1.0, 2.0, 4.0]))
    window = draw(st.one_of(st.none(), st.integers(1, 4)))
    windowed = draw(st.lists(st.booleans(), min_size=n_layers, max_size=n_layers))
    fields = {
        "n_layers": n_layers,
        "d_model": draw(st.sampled_from([4, 6, 8, 11])),
        "d_ff": draw(st.sampled_from([1, 5, 8])),
        "n_heads": n_kv_heads * draw(st.integers(1, 3)),
        "n_kv_heads": n_kv_heads,
        "d_head": draw(st.sampled_from([4, 6] if ntk_factor > 1 else [2, 4, 6])),
        "kv_head_map": draw(st.sampled_from(["blocked", "cyclic"])),
        "attention_scale": draw(st.sampled_from([0.25, 0.5, 1.0])),
        "attention_softcap": draw(st.sampled_from([None, 1.5, 20.0])),
        "attention_bias": draw(st.booleans()),
        "mlp_bias": draw(st.booleans()),
        "window": window,
        "windowed_layers": tuple(window is not None and w for w in windowed),
        "norm_kind": draw(st.sampled_from(["rms", "rms_plus_one", "layer"])),
        "norm_placement": draw(st.sampled_from(["pre", "dual"])),
        "norm_eps": draw(st.sampled_from([1e-6, 1e-3])),
        "embed_norm": draw(st.booleans()),
        "embed_scale": draw(st.sampled_from([1.0, 0.7, 8**0.5])),
        "activation": draw(st.sampled_from(["gelu_tanh", "gelu", "silu", "relu"])),
        "gated": draw(st.booleans()),
        "rope_theta": draw(st.sampled_from([30.0, 10000.0])),
        "rope_origin": draw(st.sampled_from(["start", "centre"])) if encoder else "start",
        "rope_ntk_factor": ntk_factor,
        "rope_base_len": draw(st.integers(1, 6)),
        "rope_length": draw(st.sampled_from(["row", "row", "padded"])),
        "rope_factor": draw(st.sampled_from([1.0, 1.0, 2.5])),
        "window_inclusive": draw(st.booleans()),
    }
    return StackConfig(**(fields | fixed))


@st.composite
def model_configs(draw: Any, kinds: tuple[str, ...] = KINDS, **fixed: Any) -> ModelConfig:
    """Draw a model; `fixed` are fields of every stack."""
    kind = draw(st.sampled_from(kinds))
    shared = draw(st.booleans())
    if shared:
        fixed = {"d_model": draw(st.sampled_from([4, 6, 8, 11]))} | fixed
    vocab_size = draw(st.integers(5, 12))
    ids = draw(st.permutations(range(5)))
    return ModelConfig(
        name="random",
        encoder=None if kind == "decoder-only" else draw(stack_configs(encoder=True, **fixed)),
        decoder=None if kind == "encoder-only" else draw(stack_configs(**fixed)),
        vocab_size=vocab_size,
        encoder_vocab_size=vocab_size if shared else draw(st.integers(5, 12)),
        shared_embedding=shared,
        tied_head=draw(st.booleans()),
        head_bias=draw(st.booleans()),
        final_softcap=draw(st.sampled_from([None, 2.0, 30.0])),
        max_len=64,
        pad_id=ids[0],
        bos_id=ids[1],
        eos_id=ids[2],
        more_eos_ids=draw(st.sampled_from([(), (ids[3],)])),
        mask_decoder_pads=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.3])),
    )


def random_weights(model: ModelConfig, seed: int, dtype: type = np.float64) -> Weights:
    """Draw weights of which none is without effect: no bias is 0 and no gain is 1."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in weight_shapes(model).items():
        array = 0.3 * rng.standard_normal(shape)
        stack = model.stacks.get(name.split(".")[0])
        if name.endswith("norm.weight") and stack is not None and stack.norm_kind != "rms_plus_one":
            array = array + 1
        weights[name] = array.astype(dtype)
    return weights


@st.composite
def rows_of(
    draw: Any, vocab_size: int, n_rows: int | None = None, max_len: int = 7, min_len: int = 1
) -> Rows:
    """Draw a batch of rows of unequal lengths."""
    n_rows = draw(st.integers(1, 4)) if n_rows is None else n_rows
    length = st.integers(min_len, max_len)
    lengths = np.array(draw(st.lists(length, min_size=n_rows, max_size=n_rows)))
    rng = np.random.default_rng(draw(seeds))
    tokens = rng.integers(0, vocab_size, (n_rows, lengths.max()))
    return Rows(tokens, np.arange(lengths.max()) < lengths[:, None])


def quantized(model: ModelConfig, weights: Weights, seed: int, **options: Any) -> IntegerModel:
    """Quantize a model, calibrated on random tokens."""
    rng = np.random.default_rng(seed)
    examples = [
        (
            rng.integers(0, model.encoder_vocab_size, 7) if model.encoder else None,
            rng.integers(0, model.vocab_size, 7),
        )
        for _ in range(8)
    ]
    return calibrate(model, weights, observe(model, weights, examples), Options(**options))


seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([np.float32, np.float64])


@contextmanager
def ahead(n: int) -> Iterator[None]:
    """Let executors go n tokens ahead; 0: none."""
    before, mu_ref.generate.AHEAD = mu_ref.generate.AHEAD, n
    try:
        yield
    finally:
        mu_ref.generate.AHEAD = before
