"""Named model configurations, each field's origin beside it.

`fact` and `assumed` follow `docs/mu_facts.md`, where each figure has its source. Chapter:
`docs/01_mu.md`.
"""

from dataclasses import replace
from typing import Any

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import ConfigError, check_choice

__all__ = ["PRESETS", "preset", "tiny"]


def _mu_stack(n_layers: int, *, encoder: bool, **changes: Any) -> StackConfig:
    """Return a stack of the public mu_v2 code's widths; 32 + 12 layers make 331.8 M parameters."""
    stack = StackConfig(
        n_layers=n_layers,  # fact, as the blog's example: 32 encoder, 12 decoder layers
        d_model=768,  # assumed; mu_v2 config.json
        d_ff=3072,  # assumed; mu_v2 config.json
        n_heads=16,  # assumed; mu_v2 config.json
        n_kv_heads=8,  # fact: grouped-query attention; the count is assumed, mu_v2 config.json
        d_head=48,  # assumed; mu_v2 config.json
        kv_head_map="blocked",  # assumed; mu_v2's interleaved order
        attention_scale=48**-0.5,  # assumed; public Mu code
        attention_softcap=None,  # assumed; public Mu code has none
        attention_bias=True,  # assumed; public Mu code
        mlp_bias=True,  # assumed; public Mu code
        window=None,  # assumed; public Mu code has none
        windowed_layers=(False,) * n_layers,
        norm_kind="rms",  # assumed; the blog says LayerNorm, the public code is RMSNorm
        norm_placement="dual",  # fact: pre and post; that post comes before the sum is assumed
        norm_eps=1e-6,  # assumed; public Mu code
        embed_norm=False,  # assumed; public Mu code
        embed_scale=1.0,  # assumed; public Mu code
        activation="gelu_tanh",  # assumed; public Mu code
        gated=False,  # assumed; public Mu code
        rope_theta=10000.0,  # fact: RoPE; theta is assumed, public Mu code
        rope_origin="centre" if encoder else "start",  # assumed; public Mu code
        rope_ntk_factor=1.0,  # assumed; public Mu code at inference
        rope_base_len=1024,  # assumed; public Mu code's pre-training length
        rope_length="row",  # ours: padding does not change a row
    )
    return replace(stack, **changes)


def _mu_330m() -> ModelConfig:
    return ModelConfig(
        name="mu-330m",
        encoder=_mu_stack(32, encoder=True),
        decoder=_mu_stack(12, encoder=False),
        vocab_size=32128,  # assumed; public Mu code, the Phi-3.5 tokenizer padded
        encoder_vocab_size=32128,
        shared_embedding=True,  # fact: input and output share; encoder = decoder is public code
        tied_head=True,  # fact
        head_bias=False,  # assumed; public text2text code
        final_softcap=None,  # assumed; public Mu code
        max_len=4096,  # assumed; comment in mu_v2
        pad_id=0,  # assumed; public Mu code
        bos_id=1,  # assumed; public Mu code
        eos_id=32000,  # assumed; public Mu code
        mask_decoder_pads=True,  # assumed; public Mu code
        dropout=0.1,  # assumed; public Mu code
    )


def _decoder_only_330m() -> ModelConfig:
    """The twin that Mu is compared with: same widths, 47 layers, pre-norm.

    The published count, 329,975,808, is two gains per layer and two more: we read the two as a
    norm on the embeddings and the final norm (assumed).
    """
    twin = _mu_stack(47, encoder=False, norm_placement="pre", embed_norm=True)
    return replace(_mu_330m(), name="decoder-only-330m", encoder=None, decoder=twin)


def _microsoft_mu_text2text() -> ModelConfig:
    """The public model of microsoft/encoder-decoder-slm; every field is in its source code."""
    changes: dict[str, Any] = {
        "d_model": 1024,
        "d_ff": 4096,
        "n_heads": 6,
        "n_kv_heads": 3,
        "d_head": 64,
        "kv_head_map": "cyclic",
        "attention_scale": 64**-0.5,
        "norm_placement": "pre",
        "rope_length": "padded",
    }
    return replace(
        _mu_330m(),
        name="microsoft-mu-text2text",
        encoder=_mu_stack(20, encoder=True, **changes),
        decoder=_mu_stack(10, encoder=False, **changes),
        max_len=1024,
    )


def _small(name: str, layers: tuple[int, int], vocab_size: int, **widths: Any) -> ModelConfig:
    """A small Mu: the same switches as mu-330m, other sizes."""
    return replace(
        _mu_330m(),
        name=name,
        encoder=_mu_stack(layers[0], encoder=True, **widths),
        decoder=_mu_stack(layers[1], encoder=False, **widths),
        vocab_size=vocab_size,
        encoder_vocab_size=vocab_size,
        max_len=256,
        eos_id=2,
    )


def _mu_nano() -> ModelConfig:
    """The model that ships trained: Mu's 8:3 layers and switches at a quarter of its width."""
    widths = {"d_model": 192, "d_ff": 768, "n_heads": 6, "n_kv_heads": 3, "d_head": 32}
    config = _small("mu-nano", (8, 3), 1536, **widths, attention_scale=32**-0.5)
    return replace(config, dropout=0.15)


def tiny(**changes: Any) -> ModelConfig:
    """Return a model of a few thousand parameters, for tests and docs.

    Args:
        **changes: StackConfig fields to change in both stacks.

    Returns:
        The configuration.
    """
    widths = {"d_model": 16, "d_ff": 32, "n_heads": 4, "n_kv_heads": 2, "d_head": 4}
    return _small("tiny", (2, 2), 61, **widths, attention_scale=0.5, **changes)


PRESETS = {
    "mu-330m": _mu_330m,
    "decoder-only-330m": _decoder_only_330m,
    "microsoft-mu-text2text": _microsoft_mu_text2text,
    "mu-nano": _mu_nano,
    "tiny": tiny,
}


def preset(name: str) -> ModelConfig:
    """Return a named configuration.

    Args:
        name: one of `PRESETS`.

    Returns:
        The configuration.

    Raises:
        ConfigError: no such preset; the message lists those that exist.
    """
    return PRESETS[check_choice("preset", name, PRESETS, ConfigError)]()
