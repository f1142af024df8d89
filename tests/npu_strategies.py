"""Hypothesis strategies for the simulator: small models, widths, requests and chips."""

from dataclasses import replace

from hypothesis import strategies as st

from mu_ref.presets import tiny
from npu_sim.hardware.presets import npu
from npu_sim.program.precision import Precision

__all__ = ["WIDTHS", "chips", "configs", "lengths", "precisions", "small_model"]

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
