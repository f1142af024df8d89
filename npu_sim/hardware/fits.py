"""Whether an NPU can run a program: an engine for each operation and width, room, a pace.

Checked before anything is priced, at either fidelity. Not here: whether a tensor fits SRAM
(`tile/plan.py`).
"""

from npu_sim.errors import CapacityError, HardwareError, UnsupportedError
from npu_sim.hardware.chip import Npu
from npu_sim.program.precision import PRECISIONS, precision_name
from npu_sim.program.program import Op, Program
from npu_sim.units import GIB, format_bytes

__all__ = ["check_capacity", "check_pace", "check_supported"]

MOST_CYCLES = 2**50  # for reading a model once: days, and all sums of cycles stay below 2**63


def check_supported(program: Program, npu: Npu) -> None:
    """Check that an NPU can run every operation of a program.

    Args:
        program: the request.
        npu: uses unsupported_ops and the rates of the matrix engine; a rate of 0 is none.

    Raises:
        UnsupportedError: an operation or a pair of widths; names the site.
    """
    missing = frozenset(npu.unsupported_ops.split())
    for op in program.ops:
        if op.kind in missing:
            raise UnsupportedError(
                f"{op.site} must be an operation that {npu.name} supports, got {op.kind}; "
                f"run it elsewhere or take another NPU"
            )
        if op.gemm is not None and npu.matrix.macs_per_cycle(*op.operand_bits) == 0:
            raise UnsupportedError(_widths(op, npu))


def _widths(op: Op, npu: Npu) -> str:
    known = [name for name in PRECISIONS if getattr(npu.matrix, f"{name}_macs_per_cycle")]
    hint = "use narrower activations and cached keys" if op.kind == "matmul" else "use other widths"
    return (
        f"{op.site} must multiply widths that {npu.name} supports ({', '.join(known)}), "
        f"got {precision_name(*op.operand_bits)}; {hint}"
    )


def check_capacity(program: Program, npu: Npu) -> None:
    """Check that weights and KV cache fit the DRAM.

    Args:
        program: the request.
        npu: uses dram.capacity_bytes.

    Raises:
        CapacityError: they do not fit; says by how much.
    """
    weights, cache = program.stored_weight_bytes, program.stored_kv_bytes
    over = weights + cache - npu.dram.capacity_bytes
    if over > 0:
        raise CapacityError(
            f"{program.model} must fit the {format_bytes(npu.dram.capacity_bytes)} DRAM of "
            f"{npu.name}, got {format_bytes(weights)} of weights and {format_bytes(cache)} of "
            f"KV cache, {format_bytes(over)} too much; use fewer bits, a shorter request or a "
            f"smaller batch"
        )


def check_pace(program: Program, npu: Npu) -> None:
    """Check that a program ends, and that its cycles can be counted in 64 bits.

    Args:
        program: the request.
        npu: uses the rates of its memory, and at which results and cached keys are laid out.

    Raises:
        HardwareError: reading the model would take more than `MOST_CYCLES`.
    """
    n_bytes = program.stored_weight_bytes + program.stored_kv_bytes + GIB  # and activations
    for path, per_s in npu.numbers().items():
        if path.endswith("_per_s") and 0 < per_s * MOST_CYCLES < n_bytes * npu.clock_hz:
            least = -(-n_bytes * npu.clock_hz // MOST_CYCLES)
            raise HardwareError(
                f"{path} must be at least {least:,} to run {program.model} at {npu.clock_hz:,} Hz, "
                f"got {per_s:,}; at that pace it would not end"
            )
