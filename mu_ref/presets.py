"""Named model configurations, and for each field whether it is a fact or assumed.

The sources are in `docs/mu_facts.md`. Chapter: `docs/01_mu.md`.
"""

from dataclasses import replace
from typing import Any

from mu_ref.config import ModelConfig, StackConfig
from mu_ref.errors import ConfigError, check_choice

__all__ = ["PRESETS", "field_origins", "preset", "tiny"]


# Where each field of mu-330m comes from. "mu_v2" and "public code": microsoft/encoder-decoder-slm.
_MU_ORIGINS = {
    "name": "ours",
    "n_layers": "fact, as the blog's example: 32 + 12",
    "d_model": "assumed; mu_v2",
    "d_ff": "assumed; mu_v2",
    "n_heads": "assumed; mu_v2",
    "n_kv_heads": "fact: grouped heads; their count assumed; mu_v2",
    "d_head": "assumed; mu_v2",
    "kv_head_map": "assumed; mu_v2",
    "attention_scale": "assumed; public code",
    "attention_softcap": "assumed; public code has none",
    "attention_bias": "assumed; public code",
    "mlp_bias": "assumed; public code",
    "window": "assumed; public code has none",
    "windowed_layers": "assumed; public code has none",
    "norm_kind": "assumed; public code (the blog says LayerNorm)",
    "norm_placement": "fact: pre and post; post before the sum is assumed",
    "norm_eps": "assumed; public code",
    "embed_norm": "assumed; public code has none",
    "embed_scale": "assumed; public code has none",
    "activation": "assumed; public code",
    "gated": "assumed; public code",
    "rope_theta": "fact: RoPE; theta assumed; public code",
    "rope_origin": "assumed; public code",
    "rope_ntk_factor": "assumed; public code at inference",
    "rope_base_len": "assumed; public code's pre-training length",
    "rope_length": "ours: padding does not change a row",
    "vocab_size": "assumed; public code",
    "encoder_vocab_size": "assumed; public code",
    "shared_embedding": "fact: input = output; encoder = decoder assumed; public code",
    "tied_head": "fact",
    "head_bias": "assumed; text2text code has none",
    "final_softcap": "assumed; public code has none",
    "max_len": "assumed; comment in mu_v2",
    "pad_id": "assumed; public code",
    "bos_id": "assumed; public code",
    "eos_id": "assumed; public code",
    "mask_decoder_pads": "assumed; public code",
    "dropout": "assumed; public code",
}


def _mu_stack(n_layers: int, *, encoder: bool, **changes: Any) -> StackConfig:
    """Return a stack of the public mu_v2 code's widths; 32 + 12 layers make 331.8 M parameters."""
    stack = StackConfig(
        n_layers=n_layers,
        d_model=768,
        d_ff=3072,
        n_heads=16,
        n_kv_heads=8,
        d_head=48,
        kv_head_map="blocked",
        attention_scale=48**-0.5,
        attention_softcap=None,
        attention_bias=True,
        mlp_bias=True,
        window=None,
        windowed_layers=(False,) * n_layers,
        norm_kind="rms",
        norm_placement="dual",
        norm_eps=1e-6,
        embed_norm=False,
        embed_scale=1.0,
        activation="gelu_tanh",
        gated=False,
        rope_theta=10000.0,
        rope_origin="centre" if encoder else "start",  # a centre would move while text grows
        rope_ntk_factor=1.0,
        rope_base_len=1024,
        rope_length="row",
    )
    return replace(stack, **changes)


def _mu_330m() -> ModelConfig:
    return ModelConfig(
        name="mu-330m",
        encoder=_mu_stack(32, encoder=True),
        decoder=_mu_stack(12, encoder=False),
        vocab_size=32128,
        encoder_vocab_size=32128,
        shared_embedding=True,
        tied_head=True,
        head_bias=False,
        final_softcap=None,
        max_len=4096,
        pad_id=0,
        bos_id=1,
        eos_id=32000,
        mask_decoder_pads=True,
        dropout=0.1,
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
    scales = {"attention_scale": 32**-0.5, "embed_scale": 192**0.5}
    return replace(_small("mu-nano", (8, 3), 1536, **widths, **scales), dropout=0.2)


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

        >>> import mu_ref
        >>> model = mu_ref.preset("mu-330m")
        >>> model.encoder.n_layers, model.decoder.n_layers, model.decoder.d_model
        (32, 12, 768)

    Args:
        name: one of `PRESETS`.

    Returns:
        The configuration.

    Raises:
        ConfigError: no such preset; the message lists those that exist.
    """
    return PRESETS[check_choice("preset", name, PRESETS, ConfigError)]()


def field_origins(name: str) -> dict[str, str]:
    """Say of each field of a preset where its value comes from.

    Args:
        name: one of `PRESETS`.

    Returns:
        {field: origin}; an origin starts with "fact", "assumed" or "ours".

    Raises:
        ConfigError: no such preset.
    """
    check_choice("preset", name, PRESETS, ConfigError)
    if name == "microsoft-mu-text2text":
        changes = dict.fromkeys(_MU_ORIGINS, "fact: source code of the text2text model")
        return changes | {"name": "ours"}
    if name == "decoder-only-330m":
        changes = {
            "n_layers": "assumed; 47 layers of these widths make the published count",
            "norm_placement": "assumed; only two gains per layer make the published count",
            "embed_norm": "assumed; one gain more than layers and final norm have",
        }
        return _MU_ORIGINS | changes
    if name in ("mu-nano", "tiny"):
        sizes = ("n_layers", "d_model", "d_ff", "n_heads", "n_kv_heads", "d_head", "vocab_size")
        more = (
            "encoder_vocab_size",
            "attention_scale",
            "embed_scale",
            "max_len",
            "eos_id",
            "dropout",
        )
        return _MU_ORIGINS | dict.fromkeys(sizes + more, "ours: small")
    return dict(_MU_ORIGINS)
