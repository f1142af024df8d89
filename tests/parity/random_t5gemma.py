"""Random T5Gemma checkpoints as their files say them: fields, token ids and masks, no weights.

Needs no other project: `fuzz.py` gives them weights and asks transformers, the suite reads them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Drawn", "draw"]

DTYPES = ("float32", "float32", "bfloat16", "float16", "float64")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Drawn:
    """One checkpoint, and what it is asked."""

    fields: dict[str, Any]  # of config.json
    generation: dict[str, Any] | None  # of generation_config.json, if there is one
    dtype: str  # of the stored weights
    shard_bytes: int | None  # largest part, if it is stored in parts
    inputs: Arrays  # what `mu-ref forward` reads

    @property
    def summary(self) -> str:
        """What is special, in a line."""
        kinds = [self.dtype, f"transformers {self.fields.get('transformers_version')}"]
        kinds += ["in parts"] if self.shard_bytes else []
        kinds += ["generation_config"] if self.generation is not None else []
        kinds += sorted(name for name in self.inputs if name.endswith("mask"))
        for name in ("encoder", "decoder"):
            stack = self.fields[name]
            rope = stack.get("rope_scaling") or stack.get("rope_parameters") or {}
            kinds += [f"{name} linear RoPE"] if "factor" in rope else []
        return ", ".join(kinds)


def draw(rng: np.random.Generator) -> Drawn:
    """Draw a checkpoint: stacks of unequal shape, old and new fields, given and missing ones."""
    version = str(rng.choice(["5.24.0", "5.24.0", "4.57.1", "4.53.0.dev0"]))
    old = version.startswith("4")
    stacks = {name: _stack(rng, old=old) for name in ("encoder", "decoder")}
    encoder, decoder = stacks["encoder"], stacks["decoder"]
    # a cache of transformers 5.24 for a window of 1 keeps all tokens, and not none
    decoder["sliding_window"] += 1
    decoder["cross_attention_hidden_size"] = encoder["hidden_size"]
    n_tokens = min(encoder["vocab_size"], decoder["vocab_size"])
    ids = [int(i) for i in rng.permutation(n_tokens)[:6]]
    encoder["pad_token_id"] = ids[0] if rng.random() < 0.9 else None
    decoder |= {"pad_token_id": ids[int(rng.integers(2))], "bos_token_id": ids[2]}
    several = ids[3:5] if rng.random() < 0.5 else ids[3]
    decoder["eos_token_id"] = None if rng.random() < 0.1 else several
    fields: dict[str, Any] = {
        "model_type": "t5gemma", "is_encoder_decoder": True, "transformers_version": version,
        "tie_word_embeddings": bool(rng.random() < 0.5), "dropout_rate": 0.0, **stacks,
    }  # fmt: skip
    if rng.random() < 0.2:
        del fields["transformers_version"]
    given = {"bos_token_id": ids[5], "eos_token_id": [ids[4], ids[3]], "pad_token_id": ids[0]}
    fields |= {name: i for name, i in given.items() if rng.random() < 0.2}
    generation = None
    if rng.random() < 0.5:
        generation = {name: i for name, i in given.items() if rng.random() < 0.8}
        if rng.random() < 0.5 or "bos_token_id" not in generation:
            generation["decoder_start_token_id"] = ids[int(rng.integers(6))]
    elif rng.random() < 0.3:
        fields["decoder_start_token_id"] = ids[1]
    if generation is None and "bos_token_id" in fields and rng.random() < 0.3:
        decoder["bos_token_id"] = None
    return Drawn(
        fields, generation, str(rng.choice(DTYPES)),
        int(rng.integers(2000, 9000)) if rng.random() < 0.5 else None,
        _inputs(rng, encoder, decoder),
    )  # fmt: skip


def _stack(rng: np.random.Generator, *, old: bool) -> dict[str, Any]:
    n_layers, n_kv = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    n_heads = n_kv * int(rng.integers(1, 4))
    kinds = ["sliding_attention", "full_attention"]
    stack: dict[str, Any] = {
        "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv, "head_dim": int(rng.choice([2, 4, 6])),
        "hidden_size": n_heads * int(rng.integers(2, 5)),
        "intermediate_size": int(rng.integers(3, 20)),
        "vocab_size": int(rng.integers(12, 40)), "sliding_window": int(rng.integers(1, 6)),
        "layer_types": rng.choice(kinds, n_layers).tolist() if rng.random() < 0.5 else None,
        "hidden_activation": str(rng.choice(["gelu_pytorch_tanh", "gelu", "silu", "relu"])),
        "attn_logit_softcapping": None if rng.random() < 0.3 else float(rng.uniform(2, 50)),
        "final_logit_softcapping": None if rng.random() < 0.3 else float(rng.uniform(5, 30)),
        "query_pre_attn_scalar": int(rng.integers(1, 20)), "max_position_embeddings": 64,
        "attention_bias": bool(rng.random() < 0.5), "rms_norm_eps": float(rng.choice([1e-6, 1e-3])),
    }  # fmt: skip
    theta, factor = float(rng.choice([30.0, 10000.0])), float(rng.uniform(1, 9))
    linear = rng.random() < 0.4
    if old:
        stack["rope_theta"] = theta
        name = str(rng.choice(["type", "rope_type"]))
        stack["rope_scaling"] = {name: "linear", "factor": factor} if linear else None
    else:
        stack["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
        if linear:
            stack["rope_parameters"] |= {"rope_type": "linear", "factor": factor}
    return stack


def _inputs(rng: np.random.Generator, encoder: dict[str, Any], decoder: dict[str, Any]) -> Arrays:
    batch, n_src, n_tgt = (int(rng.integers(1, high)) for high in (4, 11, 7))
    source = rng.integers(0, encoder["vocab_size"], (batch, n_src))
    target = rng.integers(0, decoder["vocab_size"], (batch, n_tgt))
    pad = encoder["pad_token_id"]
    if pad is not None:  # on either side, and here and there
        source = np.where(_mask(rng, source), source, pad)
        source[(source == pad).all(axis=1), 0] = (pad + 1) % encoder["vocab_size"]
    arrays = {"encoder_input_ids": source, "decoder_input_ids": target}
    if pad is None or rng.random() < 0.5:
        name = str(rng.choice(["attention_mask", "encoder_attention_mask"]))
        mask = _mask(rng, source)
        mask[:, int(rng.integers(n_src))] = True
        arrays[name] = mask.astype(np.int64)
    if rng.random() < 0.4:
        mask = _mask(rng, target)
        mask[:, -1] = True  # a prompt ends with a token
        arrays["decoder_attention_mask"] = mask.astype(np.int64)
    return arrays


def _mask(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """Hide the beginning, the end, or single tokens."""
    batch, n = ids.shape
    lengths, place = rng.integers(1, n + 1, (batch, 1)), np.arange(n)
    kinds = (place < lengths, place >= n - lengths, rng.random((batch, n)) < 0.7)
    return kinds[int(rng.integers(3))]
