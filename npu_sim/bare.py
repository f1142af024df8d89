"""The same chip without fitted or guessed losses: what a bare roofline assumes."""

from npu_sim.hardware import Npu

__all__ = ["bare_npu"]


def bare_npu(chip: Npu) -> Npu:
    """Return a chip at its data-sheet peaks: full DRAM bandwidth, full rates, no overheads.

    Args:
        chip: any NPU.

    Returns:
        The idealised chip.
    """
    losses = {path: 1.0 for path in chip.values() if path.endswith("efficiency")}
    free = {
        "matrix.output_elements_per_s": 0, "dma.cache_elements_per_s": 0, "dma.runs_ahead": True,
        "dma.setup_cycles": 0, "per_op_overhead_cycles": 0, "per_inference_overhead_us": 0.0,
        "geniex_overhead_us": 0.0, "geniex_position_us": 0.0, "sram.fuses_operations": True,
        "dma.bytes_per_s": chip.dram.bytes_per_s,
    }  # fmt: skip
    return chip.with_changes({**losses, **free}, "assumed: no losses")
