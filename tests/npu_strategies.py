"""Hypothesis strategies for the simulator: small models, widths, requests and chips."""

from dataclasses import replace

from hypothesis import strategies as st

from mu_ref.presets import tiny
from npu_sim.hardware.presets import npu
from npu_sim.models.families import FAMILIES
from npu_sim.models.hf_config import describe_fields
from npu_sim.program.precision import Precision

__all__ = ["WIDTHS", "chips", "configs", "lengths", "precisions", "small_family", "small_model"]

WIDTHS = {
    "weight_bits": (4, 8, 16),
    "activation_bits": (8, 16),
    "kv_bits": (4, 8, 16),
    "head_weight_bits": (4, 8, 16),
}


def small_model(gated, both, d_ff):
    model = tiny(gated=gated)
    encoder, decoder = (replace(stack, d_ff=d_ff) for stack in (model.encoder, model.decoder))
    return replace(model, encoder=encoder if both else None, decoder=decoder)


configs = st.builds(small_model, st.booleans(), st.booleans(), st.integers(1, 90))
precisions = st.builds(Precision, **{name: st.sampled_from(w) for name, w in WIDTHS.items()})
lengths = st.tuples(st.integers(1, 24), st.integers(1, 3), st.integers(1, 3))  # in, out, batch
chips = st.builds(
    lambda sram, transfer, flow, keeps, tile, setup, start, array: npu("teaching-npu").with_changes(
        {
            "sram.capacity_bytes": sram, "dma.transfer_bytes": transfer, "matrix.dataflow": flow,
            "sram.keeps_between_calls": keeps, "matrix.tile_m": tile, "matrix.tile_n": tile,
            "matrix.tile_k": tile, "dma.setup_cycles": setup, "matrix.rows": array,
            "per_op_overhead_cycles": start,
        }
    ),
    st.integers(1_500, 60_000), st.sampled_from([128, 512, 4096]),
    st.sampled_from(["blocks", "os", "ws", "is"]), st.booleans(), st.sampled_from([1, 4, 32]),
    st.sampled_from([0, 7]), st.sampled_from([0, 50]), st.sampled_from([4, 32]),
)  # fmt: skip


FIELDS = {  # what a model is small by, and the fields that say it, which differ by family
    64: "hidden_size d_model n_embd dim",
    136: """intermediate_size d_ff ffn_dim ffn_hidden_size encoder_ffn_dim decoder_ffn_dim
        hidden_dim moe_intermediate_size""",
    2: """num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers
        encoder_num_hidden_layers decoder_num_hidden_layers num_experts_per_tok
        sliding_window_pattern global_attn_every_n_layers""",
    16: "head_dim d_kv patch_size", 24: "sliding_window local_attention", 32: "embedding_size",
    500: "vocab_size decoder_vocab_size", 6: "num_local_experts", 96: "image_size",
    48: "max_source_positions", True: "use_sliding_window",
}  # fmt: skip
NUMBERS = {name: value for value, names in FIELDS.items() for name in names.split()}
NUMBERS["max_window_layers"] = 1  # of two
HEADS = """num_attention_heads n_head n_heads num_heads encoder_attention_heads
    decoder_attention_heads encoder_num_attention_heads decoder_num_attention_heads"""


def small_family(kind, heads=(4, 2), **numbers):
    """Describe a small model of a family; `numbers` stand instead of those of `NUMBERS`."""
    known = {*FAMILIES[kind].defaults, "sliding_window"}  # which some lack by default
    of_heads = dict.fromkeys(HEADS.split(), heads[0]) | {"num_key_value_heads": heads[1]}
    every = NUMBERS | of_heads | numbers
    said = {name: value for name, value in every.items() if name in known}
    fields = {"model_type": kind, **said}
    for first, *rest in FAMILIES[kind].tables.values():
        fields[first] = {rest[0]: said} if rest else said
    return describe_fields(fields, kind)
