"""Parts of a family that depend on several fields of its `config.json`.

A part is a value, the field that says it (`Of`), or a function of all fields `f`. `f["side"]` is
the stack that is asked for. Functions named `*_weights` return shapes that are not as in ours.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mu_ref.border.ranges import TOKENS
from mu_ref.border.text import short
from mu_ref.config import StackConfig
from npu_sim.errors import WorkloadError

__all__ = [
    "Fields",
    "Of",
    "Shapes",
    "bart_scale",
    "bucket_weights",
    "expert_weights",
    "layers_with",
    "n_patches",
    "narrow_weights",
    "pooler_weights",
    "root_scale",
    "rotary",
    "stem_weights",
    "typed",
    "wide_norm_weights",
    "windowed",
]  # fmt: skip

Fields = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]


class Of(str):
    """The field of a `config.json` that says a part; "{side}" in it is the name of the stack."""

    __slots__ = ()

    def __call__(self, f: Fields) -> Any:
        """Return what the field says."""
        return f[self.format(side=f["side"])]


def windowed(rule: Callable[[Fields, int], Any]) -> Callable[[Fields], tuple[bool, ...]]:
    """Say which layers have a window: as `layer_types` says, or else as the rule of the family.

    Args:
        rule: of the fields and the number of a layer.

    Returns:
        A part.
    """

    def layers(f: Fields) -> tuple[bool, ...]:
        n, types = f["num_hidden_layers"], f.get("layer_types")
        if f.get("sliding_window") is None:
            return (False,) * n
        if types is None:
            return tuple(bool(rule(f, i)) for i in range(n))
        if len(types) != n:
            raise WorkloadError(
                f"layer_types must name each of the {n} layers, got {len(types)} entries"
            )
        return tuple(kind == "sliding_attention" for kind in types)

    return layers


def layers_with(f: Fields) -> list[int]:
    """Return the layers whose MLP is a mixture of experts."""
    dense, step = f.get("mlp_only_layers") or [], f.get("decoder_sparse_step", 1)
    return [i for i in range(f["num_hidden_layers"]) if i not in dense and (i + 1) % step == 0]


def expert_weights(f: Fields, stack: StackConfig) -> Shapes:
    """Weights of all experts, and of the routers that choose among them."""
    n, d, d_ff = f["num_local_experts"], stack.d_model, f["moe_intermediate_size"] or stack.d_ff
    if f["num_experts_per_tok"] > n:
        raise WorkloadError(
            f"num_experts_per_tok must be at most the {n} experts, got {f['num_experts_per_tok']}"
        )
    shapes: Shapes = {}
    for i in layers_with(f):
        at = f"decoder.{i}.mlp"
        shapes |= {f"{at}.up.weight": (n, d_ff, d), f"{at}.gate.weight": (n, d_ff, d),
                   f"{at}.down.weight": (n, d, d_ff), f"{at}.router.weight": (n, d)}  # fmt: skip
    return shapes


def expert_biases(f: Fields, stack: StackConfig) -> Shapes:
    """Biases of all experts and of the routers."""
    shapes = expert_weights(f, stack)
    return {name.removesuffix("weight") + "bias": shape[:-1] for name, shape in shapes.items()}


def sink_weights(f: Fields, stack: StackConfig) -> Shapes:
    """One more score for each head, of a key that says nothing."""
    sites = [f"decoder.{i}.self_attention" for i in range(stack.n_layers)]
    return {f"{site}.sinks.weight": (stack.n_heads,) for site in sites}


def pooler_weights(f: Fields, stack: StackConfig) -> Shapes:
    """One more layer, on the first position alone."""
    width = f.get("pooler_output_size") or stack.d_model
    return {"pooler.weight": (width, stack.d_model), "pooler.bias": (width,)}


def narrow_weights(f: Fields, stack: StackConfig) -> Shapes:
    """Embeddings narrower than the stack, and the matrices between (ELECTRA, OPT)."""
    narrow = f.get("embedding_size") or f.get("word_embed_proj_dim") or stack.d_model
    if narrow == stack.d_model:
        return {}
    side, project = f["side"], f"{f['side']}.embedding_projection"
    shapes: Shapes = {"embedding.weight": (f["vocab_size"], narrow),
              f"{project}.weight": (stack.d_model, narrow)}  # fmt: skip
    if side == "decoder":  # positions and norms are those of the stack
        return shapes | {"head_projection.weight": (narrow, stack.d_model)}
    rows = f["max_position_embeddings"] + f["type_vocab_size"]
    return shapes | {
        f"{project}.bias": (stack.d_model,), f"{side}.positions.weight": (rows, narrow),
        f"{side}.embed_norm.weight": (narrow,), f"{side}.embed_norm.bias": (narrow,),
    }  # fmt: skip


def stem_weights(f: Fields, stack: StackConfig) -> Shapes:
    """Whisper: the first convolution, and as many positions as each stack has."""
    if f["side"] == "decoder":
        return {"decoder.positions.weight": (f["max_target_positions"], stack.d_model)}
    return {"encoder.stem.weight": (stack.d_model, 3 * f["num_mel_bins"]),
            "encoder.stem.bias": (stack.d_model,)}  # fmt: skip


def sound_weights(f: Fields, stack: StackConfig) -> Shapes:
    """Moonshine: two convolutions before the last, the first not priced, and a norm."""
    d = stack.d_model
    if f["side"] == "decoder":
        return {}
    return {"encoder.first_stem.weight": (d, 127), "encoder.stem.weight": (2 * d, 7 * d),
            "encoder.stem.bias": (2 * d,), "encoder.stem_norm.weight": (d,),
            "encoder.stem_norm.bias": (d,)}  # fmt: skip


def bucket_weights(f: Fields, stack: StackConfig) -> Shapes:
    """T5: a bias per distance and head, for all layers together or (UMT5) for each."""
    sites = [f["side"]]
    if f["model_type"] == "umt5":
        sites = [f"{f['side']}.{i}.self_attention" for i in range(stack.n_layers)]
    shape: tuple[int, ...] = (f["relative_attention_num_buckets"], stack.n_heads)
    return {f"{site}.positions.weight": shape for site in sites}


def wide_norm_weights(f: Fields, stack: StackConfig) -> Shapes:
    """Norms over all heads of queries together, and all of keys; so are those of each head."""
    widths = {"q": stack.d_attn, "k": stack.d_kv}
    return {
        f"{f['side']}.{i}.self_attention.{name}_rope.weight": (width,)
        for i in range(stack.n_layers)
        for name, width in widths.items()
    }


def rotary(share: float) -> Callable[[Fields], float]:
    """Say which share of a head RoPE turns, wherever a file says it.

    Args:
        share: of the family, where a file does not.

    Returns:
        A part.
    """

    def part(f: Fields) -> float:
        tables = (f.get("rope_parameters") or {}, f.get("rope_scaling") or {}, f)
        names = ("partial_rotary_factor", "rotary_pct")
        found = [t[name] for t in tables for name in names if t.get(name) is not None]
        value: float = (found or [share])[0]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise WorkloadError(
                f"partial_rotary_factor must be above 0 and at most 1, got {short(value)}"
            )
        return float(value)

    return part


def root_scale(f: Fields) -> float:
    """Embeddings times the root of their width."""
    return float(f["hidden_size"]) ** 0.5


def bart_scale(f: Fields) -> float:
    """Embeddings times the root of their width, where a file says so."""
    return float(f["d_model"]) ** 0.5 if f["scale_embedding"] else 1.0


def n_patches(f: Fields) -> int:
    """Return how many patches a picture is cut into."""
    count: int = (f["image_size"] // f["patch_size"]) ** 2
    TOKENS.check("(image_size / patch_size)^2", count, WorkloadError)
    return count


def typed(f: Fields) -> int:
    """Return how many rows of token types there are; the first is added to each token."""
    return int(f["type_vocab_size"])
